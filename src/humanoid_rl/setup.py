"""For `pip install` on machines without ROS (a GPU server); the workspace build uses CMakeLists.txt."""

from setuptools import find_packages, setup

setup(
    name="humanoid_rl",
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    zip_safe=True,
    maintainer="humanoid_rl maintainers",
    maintainer_email="humanoid-rl@users.noreply.github.com",
    description="Bringup: launch files, configuration, robot description, command line and views.",
    license="Apache-2.0",
    entry_points={"console_scripts": ["humanoid-rl = humanoid_rl.cli:main"]},
)
