"""Which interface leads to the robot, and the settings that keep DDS on it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

import pytest
from humanoid_rl.real_robot.network_interface import (
    Interface,
    Route,
    check_middleware,
    choose_address,
    confined_environment,
    cyclone_configuration,
    interface_profile,
    network_interfaces,
)
from humanoid_rl_core.errors import UserError

ROBOT = IPv4Network("192.168.123.0/24")
CABLE = Interface("eth0", addresses=(IPv4Interface("10.0.0.5/24"), IPv4Interface("192.168.123.222/24")))
LOOPBACK = Interface("lo", addresses=(IPv4Interface("127.0.0.1/8"),))


def test_address_in_the_robot_s_network_is_taken_though_it_is_the_second() -> None:
    route = choose_address([LOOPBACK, CABLE], "eth0", ROBOT)
    assert str(route.address.ip) == "192.168.123.222" and route.warning == ""


def test_address_outside_the_robot_s_network_is_a_warning() -> None:
    route = choose_address([Interface("wlan0", addresses=(IPv4Interface("10.0.0.5/24"),))], "wlan0", ROBOT)
    assert str(route.address.ip) == "10.0.0.5"
    assert "10.0.0.5/24, outside the robot's 192.168.123.0/24" in route.warning


@pytest.mark.parametrize(
    ("interface", "name", "line"),
    [
        (CABLE, "eth1", "no such network interface, did you mean 'eth0'? (it has: eth0)"),
        (Interface("eth0", up=False, running=False), "eth0", "eth0 is down: `ip link set eth0 up`"),
        (Interface("eth0", running=False), "eth0", "eth0 has no signal: plug in the robot's cable"),
        (Interface("eth0"), "eth0", "`ip address add 192.168.123.222/24 dev eth0`"),
    ],
)
def test_interface_that_cannot_lead_to_the_robot_is_refused(
    interface: Interface, name: str, line: str
) -> None:
    with pytest.raises(UserError) as refused:
        choose_address([interface], name, ROBOT)
    assert line in str(refused.value)


def test_interfaces_of_this_machine_are_read() -> None:
    table = {interface.name: interface for interface in network_interfaces()}
    assert table["lo"].up and table["lo"].running and table["lo"].loopback
    assert IPv4Interface("127.0.0.1/8") in table["lo"].addresses
    assert set(table) == {path.name for path in Path("/sys/class/net").iterdir() if path.is_dir()}


@pytest.mark.parametrize(("interface", "unicast"), [(CABLE, False), (LOOPBACK, True)])
def test_profile_names_the_address_alone_and_no_shared_memory(interface: Interface, unicast: bool) -> None:
    route = Route(interface, interface.addresses[-1])
    root = ET.fromstring(interface_profile(route))
    names = {element.tag.partition("}")[2]: element for element in root.iter()}
    assert [address.text for address in names["interfaceWhiteList"]] == [str(route.address.ip)]
    assert names["useBuiltinTransports"].text == "false" and names["type"].text == "UDPv4"
    # The robot is found by multicast; the loopback network has none.
    assert ("initialPeersList" in names) == unicast


@pytest.mark.parametrize(("interface", "unicast"), [(CABLE, False), (LOOPBACK, True)])
def test_cyclone_is_told_the_same(interface: Interface, unicast: bool) -> None:
    root = ET.fromstring(cyclone_configuration(Route(interface, interface.addresses[-1])))
    names = {element.tag: element for element in root.iter()}
    assert names["NetworkInterface"].get("name") == interface.name
    assert ("Peers" in names) == unicast == ("AllowMulticast" in names)


@pytest.mark.parametrize(("given", "domain"), [("", "0"), ("7", "7")])
def test_domain_is_the_robot_s_unless_another_is_named(given: str, domain: str) -> None:
    environment = confined_environment(Route(CABLE, CABLE.addresses[-1]), given, Path("/tmp/profile.xml"))
    assert environment["ROS_DOMAIN_ID"] == domain
    assert environment["FASTRTPS_DEFAULT_PROFILES_FILE"] == "/tmp/profile.xml"


def test_middleware_that_cannot_be_confined_is_refused() -> None:
    for fine in (
        {},
        {"RMW_IMPLEMENTATION": "rmw_fastrtps_cpp"},
        {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"},
    ):
        check_middleware(fine)
    with pytest.raises(UserError, match="RMW_IMPLEMENTATION=rmw_zenoh_cpp cannot be confined"):
        check_middleware({"RMW_IMPLEMENTATION": "rmw_zenoh_cpp"})
