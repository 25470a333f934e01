from setuptools import find_packages, setup

setup(
    name="humanoid_rl_hardware",
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/humanoid_rl_hardware"]),
        ("share/humanoid_rl_hardware", ["package.xml"]),
    ],
    zip_safe=True,
    maintainer="humanoid_rl maintainers",
    maintainer_email="humanoid-rl@users.noreply.github.com",
    description="Hosts: joint commands to the robot's low-level protocol, its state to ROS topics.",
    license="Apache-2.0",
    entry_points={"console_scripts": ["embedded_host = humanoid_rl_hardware.embedded_host:main"]},
)
