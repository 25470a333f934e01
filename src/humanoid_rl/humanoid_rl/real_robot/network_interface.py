"""Which network interface leads to the robot, and what keeps DDS on it.

`choose_address` judges plain data; `network_interfaces` reads them from the kernel.
"""

from __future__ import annotations

import atexit
import ctypes
import ctypes.util
import os
import socket
import struct
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

from humanoid_rl_core.dds_transport import PROFILE_VARIABLES
from humanoid_rl_core.errors import UserError, nearest

if TYPE_CHECKING:
    from launch.actions import SetEnvironmentVariable, UnsetEnvironmentVariable

ROBOT_DOMAIN = 0
"""The DDS domain that the vendor's software on the robot uses: ChannelFactory::Init(0, ...) in unitree_sdk2."""

CONFINED_RMW = ("rmw_fastrtps_cpp", "rmw_fastrtps_dynamic_cpp", "rmw_cyclonedds_cpp")
"""The middlewares that `confined_to_interface` knows how to confine."""

IFF_UP, IFF_RUNNING = 0x1, 0x40  # linux/if.h


@dataclass(frozen=True)
class Interface:
    """One network interface of this machine."""

    name: str
    up: bool = True
    """Switched on by the administrator."""
    running: bool = True
    """Carries a signal: the cable is plugged in, or the radio is associated."""
    addresses: tuple[IPv4Interface, ...] = ()

    @property
    def loopback(self) -> bool:
        """Leads to this machine alone; multicast is not to be had there."""
        return any(address.is_loopback for address in self.addresses)


@dataclass(frozen=True)
class Route:
    """The address that DDS is to use, and what is odd about it."""

    interface: Interface
    address: IPv4Interface
    warning: str = ""


def choose_address(interfaces: Sequence[Interface], name: str, robot_network: IPv4Network) -> Route:
    """The address of the named interface through which the robot is reached.

    An address outside the robot's network is a warning and no refusal: a robot can be configured for another
    network, and where it is not there, the wait for LowState says so.

    Args:
        interfaces: those of this machine.
        name: as the operator gave it.
        robot_network: where the vendor's robots have their addresses.

    Raises:
        UserError: no such interface, or it is down, without a signal or without an IPv4 address.
    """
    table = {interface.name: interface for interface in interfaces}
    if name not in table:
        raise UserError(
            f"interface:={name}: this machine has no such network interface{nearest(name, table)} "
            f"(it has: {', '.join(table) or 'none'})"
        )
    interface = table[name]
    if not interface.up:
        raise UserError(f"interface:={name} is down: `ip link set {name} up`")
    if not interface.running:
        raise UserError(f"interface:={name} has no signal: plug in the robot's cable and switch the robot on")
    if not interface.addresses:
        free = robot_network.network_address + 222
        raise UserError(
            f"interface:={name} has no IPv4 address: give it one of the robot's network, for example "
            f"`ip address add {free}/{robot_network.prefixlen} dev {name}`"
        )
    inside = [address for address in interface.addresses if address.ip in robot_network]
    if inside:
        return Route(interface, inside[0])
    address = interface.addresses[0]
    return Route(interface, address, f"{name} has the address {address}, outside the robot's {robot_network}")


def interface_profile(route: Route) -> str:
    """A Fast DDS profile (XML, Fast DDS 2 and 3) that confines a process to the interface, over UDP alone.

    No shared memory, for the reason told in humanoid_rl_core.dds_transport. Discovery is by multicast, as the
    robot expects it; on the loopback network, which has none, by the ports of participants 0 to 31 of a domain.
    """
    address = route.address.ip
    peers = (
        f"""
        <builtin>
          <metatrafficUnicastLocatorList><locator/></metatrafficUnicastLocatorList>
          <initialPeersList><locator><udpv4><address>{address}</address></udpv4></locator></initialPeersList>
        </builtin>"""
        if route.interface.loopback
        else ""
    )
    return f"""<?xml version="1.0" encoding="UTF-8" ?>
<dds xmlns="http://www.eprosima.com">
  <profiles>
    <transport_descriptors>
      <transport_descriptor>
        <transport_id>robot</transport_id>
        <type>UDPv4</type>
        <maxInitialPeersRange>32</maxInitialPeersRange>
        <interfaceWhiteList><address>{address}</address></interfaceWhiteList>
      </transport_descriptor>
    </transport_descriptors>
    <participant profile_name="robot" is_default_profile="true">
      <rtps>
        <userTransports><transport_id>robot</transport_id></userTransports>
        <useBuiltinTransports>false</useBuiltinTransports>{peers}
      </rtps>
    </participant>
  </profiles>
</dds>
"""


def cyclone_configuration(route: Route) -> str:
    """The value of CYCLONEDDS_URI that confines Cyclone DDS to the interface."""
    peers = ""
    if route.interface.loopback:
        peers = (
            "<Discovery><ParticipantIndex>auto</ParticipantIndex><MaxAutoParticipantIndex>31"
            f'</MaxAutoParticipantIndex><Peers><Peer address="{route.address.ip}"/></Peers></Discovery>'
        )
    general = f"<Interfaces><NetworkInterface name={quoteattr(route.interface.name)}/></Interfaces>"
    if route.interface.loopback:
        general += "<AllowMulticast>false</AllowMulticast>"
    return f'<CycloneDDS><Domain Id="any"><General>{general}</General>{peers}</Domain></CycloneDDS>'


def confined_environment(route: Route, domain: str, profile: Path) -> dict[str, str]:
    """Environment under which nodes find, and are found, through the interface alone.

    Args:
        domain: DDS domain; "" is the robot's.
        profile: file with `interface_profile`.
    """
    return {
        "ROS_DOMAIN_ID": domain or str(ROBOT_DOMAIN),
        # Any other range makes rmw_fastrtps put peers and transports of its own beside the profile's.
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT",
        "ROS_STATIC_PEERS": "",
        **dict.fromkeys(PROFILE_VARIABLES, str(profile)),
        "CYCLONEDDS_URI": cyclone_configuration(route),
    }


# Each would lead discovery past the profile.
OVERRIDING_VARIABLES = ("ROS_LOCALHOST_ONLY", "ROS_DISCOVERY_SERVER", "FASTDDS_BUILTIN_TRANSPORTS")


def check_middleware(environment: Mapping[str, str]) -> None:
    """Raises UserError where RMW_IMPLEMENTATION is one that cannot be confined here."""
    rmw = environment.get("RMW_IMPLEMENTATION", "")
    if rmw and rmw not in CONFINED_RMW:
        raise UserError(
            f"RMW_IMPLEMENTATION={rmw} cannot be confined to one interface here: "
            f"use {CONFINED_RMW[0]} or {CONFINED_RMW[-1]}"
        )


def confined_to_interface(
    route: Route, domain: str
) -> list[SetEnvironmentVariable | UnsetEnvironmentVariable]:
    """Launch actions after which nodes talk through the interface alone; the profile lives as long as the launch.

    Args:
        domain: DDS domain; "" is the robot's, whatever ROS_DOMAIN_ID says.
    """
    from launch.actions import SetEnvironmentVariable, UnsetEnvironmentVariable

    handle, name = tempfile.mkstemp(prefix="humanoid_rl_dds_", suffix=".xml")
    with os.fdopen(handle, "w") as file:
        file.write(interface_profile(route))
    profile = Path(name)
    atexit.register(profile.unlink, missing_ok=True)
    environment = confined_environment(route, domain, profile)
    return [
        *(UnsetEnvironmentVariable(name) for name in OVERRIDING_VARIABLES),
        *(SetEnvironmentVariable(name, value) for name, value in environment.items()),
    ]


class _SocketAddress(ctypes.Structure):
    _fields_ = [("family", ctypes.c_ushort), ("data", ctypes.c_ubyte * 14)]


class _InterfaceAddress(ctypes.Structure):
    """struct ifaddrs of glibc and musl."""


_InterfaceAddress._fields_ = [
    ("next", ctypes.POINTER(_InterfaceAddress)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.POINTER(_SocketAddress)),
    ("netmask", ctypes.POINTER(_SocketAddress)),
    ("broadcast", ctypes.POINTER(_SocketAddress)),
    ("data", ctypes.c_void_p),
]


def network_interfaces() -> list[Interface]:
    """The interfaces of this machine with every IPv4 address of theirs, in the kernel's order.

    Through getifaddrs(3): the ioctls that Python reaches know one address an interface, and a robot's address is
    often the second.
    """
    libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    head = ctypes.POINTER(_InterfaceAddress)()
    if libc.getifaddrs(ctypes.byref(head)) != 0:
        raise OSError(ctypes.get_errno(), "getifaddrs failed")
    flags: dict[str, int] = {}
    addresses: dict[str, list[IPv4Interface]] = {}
    try:
        entry = head
        while entry:
            item = entry.contents
            # A second address may have a label such as eth0:1.
            name = item.name.decode(errors="replace").partition(":")[0]
            flags.setdefault(name, item.flags)
            if item.address and item.address.contents.family == socket.AF_INET:
                mask = _dotted(item.netmask) if item.netmask else "255.255.255.255"
                addresses.setdefault(name, []).append(IPv4Interface(f"{_dotted(item.address)}/{mask}"))
            entry = item.next
    finally:
        libc.freeifaddrs(head)
    return [
        Interface(name, bool(flag & IFF_UP), bool(flag & IFF_RUNNING), tuple(addresses.get(name, ())))
        for name, flag in flags.items()
    ]


def _dotted(address: ctypes._Pointer[_SocketAddress]) -> str:
    # struct sockaddr_in: two bytes of port, then the address in network order.
    return ".".join(str(byte) for byte in struct.unpack_from("4B", bytes(address.contents.data), 2))
