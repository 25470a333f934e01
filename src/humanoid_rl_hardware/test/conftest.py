import pytest
from humanoid_rl_core.robot import RobotModel, load_robot


@pytest.fixture(scope="session")
def robot() -> RobotModel:
    return load_robot("g1", "rev_1_0")
