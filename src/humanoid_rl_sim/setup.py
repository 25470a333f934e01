from setuptools import find_packages, setup

setup(
    name="humanoid_rl_sim",
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/humanoid_rl_sim"]),
        ("share/humanoid_rl_sim", ["package.xml"]),
    ],
    zip_safe=True,
    maintainer="humanoid_rl maintainers",
    maintainer_email="humanoid-rl@users.noreply.github.com",
    description="Batched simulators, tasks and learning, and their ROS nodes.",
    license="Apache-2.0",
    # colcon runs pytest where it finds it here, and no test at all elsewhere.
    extras_require={"test": ["pytest"]},
    entry_points={
        "console_scripts": [
            "robot_twin = humanoid_rl_sim.nodes.robot_twin:main",
            "train_node = humanoid_rl_sim.nodes.train_node:main",
        ],
        # Where Isaac Lab's own commands look for environments.
        "isaaclab.tasks": ["humanoid_rl = humanoid_rl_sim.isaac_lab"],
    },
)
