import os
from pathlib import Path

import pytest
from humanoid_rl_core.robot import RobotModel, load_robot

WORKSPACE = Path(__file__).parents[3]

CPP_BUILD = Path(os.environ.get("HUMANOID_RL_HARDWARE_BUILD", WORKSPACE / "build" / "humanoid_rl_hardware"))
"""Where CMake built the C++ tests; `colcon test` names its own build folder."""


@pytest.fixture(scope="session")
def robot() -> RobotModel:
    return load_robot("g1", "rev_1_0")


@pytest.fixture(scope="session")
def cpp_build() -> Path:
    return CPP_BUILD


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each Google Test executable of the build, one that fails when there is none."""
    if "cpp_test" in metafunc.fixturenames:
        listed = CPP_BUILD / "cpp_tests.txt"
        programs = listed.read_text().split("\n") if listed.exists() else []
        paths = [Path(program) for program in programs if program]
        metafunc.parametrize("cpp_test", paths or [None], ids=[path.name for path in paths] or ["none"])
