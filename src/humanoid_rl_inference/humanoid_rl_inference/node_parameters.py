"""Parameters of a node that are read once, when it starts."""

from collections.abc import Mapping

from humanoid_rl_core.errors import UserError, nearest
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.node import Node

Parameter = str | bool | int
KINDS = {bool: "true or false", int: "a whole number", str: "text"}


def read_parameters(node: Node, defaults: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """Declare parameters, read-only, and return their values; each has the type of its default.

    Raises:
        UserError: a value has another type, or a parameter was given that is none of these.
    """
    read_only = ParameterDescriptor(read_only=True)
    values: dict[str, Parameter] = {}
    for name, default in defaults.items():
        try:
            values[name] = node.declare_parameter(name, default, read_only).value
        except InvalidParameterTypeException:
            raise UserError(f"parameter '{name}' must be {KINDS[type(default)]}") from None
    # rclpy drops what nobody declares; a misspelt name must not pass for a default.
    for name in node._parameter_overrides:
        if not node.has_parameter(name) and not name.startswith("qos_overrides."):
            raise UserError(f"unknown parameter '{name}'{nearest(name, defaults)}")
    return values
