"""What keeps a node off shared memory, per discovery range."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from humanoid_rl_core.dds_transport import PROFILE_VARIABLES, keep_off_shared_memory, loopback_profile
from humanoid_rl_core.errors import UserError

FAST_DDS = "rmw_fastrtps_cpp"


@pytest.mark.parametrize(
    "before", [{"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}, {"ROS_LOCALHOST_ONLY": "1"}]
)
def test_localhost_becomes_the_loopback_profile(before: dict[str, str]) -> None:
    environment = dict(before)
    for _ in range(2):  # a process may hand its environment on to a child that does the same
        keep_off_shared_memory(environment, FAST_DDS)
        assert environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "SYSTEM_DEFAULT"
        assert "ROS_LOCALHOST_ONLY" not in environment
        assert {environment[name] for name in PROFILE_VARIABLES} == {str(loopback_profile())}
        assert "FASTDDS_BUILTIN_TRANSPORTS" not in environment


@pytest.mark.parametrize("reach", ["", "SUBNET", "SYSTEM_DEFAULT"])
def test_network_discovery_keeps_its_reach(reach: str) -> None:
    environment = {"ROS_AUTOMATIC_DISCOVERY_RANGE": reach}
    keep_off_shared_memory(environment, FAST_DDS)
    assert environment == {"ROS_AUTOMATIC_DISCOVERY_RANGE": reach, "FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}


def test_a_profile_of_the_users_decides_or_is_refused() -> None:
    own = {PROFILE_VARIABLES[0]: "/etc/fastdds.xml"}
    environment = dict(own)
    keep_off_shared_memory(environment, FAST_DDS)
    assert environment == own
    with pytest.raises(UserError, match=r"/etc/fastdds\.xml cannot be combined with LOCALHOST"):
        keep_off_shared_memory(own | {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}, FAST_DDS)


def test_other_middleware_is_left_alone() -> None:
    environment = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    keep_off_shared_memory(environment, "rmw_cyclonedds_cpp")
    assert environment == {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


def test_the_profile_reaches_the_loopback_network_alone() -> None:
    tree = ElementTree.parse(loopback_profile())
    addresses = {element.text for element in tree.iter() if element.tag.endswith("address")}
    kinds = {element.text for element in tree.iter() if element.tag.endswith("type")}
    assert addresses == {"127.0.0.1"} and kinds == {"UDPv4"}
