from setuptools import find_packages, setup

setup(
    name="humanoid_rl_inference",
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/humanoid_rl_inference"]),
        ("share/humanoid_rl_inference", ["package.xml"]),
    ],
    zip_safe=True,
    maintainer="humanoid_rl maintainers",
    maintainer_email="humanoid-rl@users.noreply.github.com",
    description="The policy node, with its safety guard, and the gamepad of the robot.",
    license="Apache-2.0",
    # colcon runs pytest where it finds it here, and no test at all elsewhere.
    extras_require={"test": ["pytest"]},
    entry_points={
        "console_scripts": [
            "policy_node = humanoid_rl_inference.start_policy_node:main",
            "wireless_remote = humanoid_rl_inference.wireless_remote_node:main",
        ]
    },
)
