"""What RViz shows of the policy node: its state as a text over the robot, its command as an arrow."""

from collections.abc import Sequence

from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from humanoid_rl_inference.state_machine import State

TEXT_HEIGHT = 0.9  # m over the base: above the head
ARROW_HEIGHT = 0.65  # m over the base: between shoulders and text
LIFETIME = 0.5  # s, five messages: what a node that is gone said last does not stay
COLOURS = {
    State.IDLE: (0.5, 0.5, 0.5),
    State.STANDING: (0.1, 0.4, 0.9),
    State.RUNNING: (0.1, 0.6, 0.2),
    State.FAULT: (0.9, 0.1, 0.1),
}


def status_markers(
    frame: str, state: State, notes: Sequence[str], names: Sequence[str], command: Sequence[float]
) -> MarkerArray:
    """Text and arrow in the frame of the robot's base, at its newest transform.

    Args:
        frame: the robot's base link.
        state: of the policy node.
        notes: lines under the state, such as the cause of a fault.
        names: of the command, as in the contract; `vx` and `vy` (m/s, base frame) become the arrow, 1 m for 1 m/s.
        command: value of each.
    """
    values = dict(zip(names, command, strict=True))
    red, green, blue = COLOURS[state]
    colour = ColorRGBA(r=red, g=green, b=blue, a=1.0)
    moving = "  ".join(f"{name} {value:+.2f}" for name, value in values.items())
    text = Marker(ns="policy", id=0, type=Marker.TEXT_VIEW_FACING, action=Marker.ADD, color=colour)
    text.text = "\n".join(line for line in dict.fromkeys((state.name, *notes, moving)) if line)
    text.pose.position.z = TEXT_HEIGHT
    text.scale.z = 0.08
    arrow = Marker(ns="policy", id=1, type=Marker.ARROW, action=Marker.ADD, color=colour)
    tip = Point(x=float(values.get("vx", 0.0)), y=float(values.get("vy", 0.0)), z=ARROW_HEIGHT)
    arrow.points = [Point(z=ARROW_HEIGHT), tip]
    arrow.scale.x, arrow.scale.y, arrow.scale.z = 0.03, 0.06, 0.08
    if not (tip.x or tip.y):
        arrow.action = Marker.DELETE
    for marker in (text, arrow):
        marker.header.frame_id = frame
        marker.pose.orientation.w = 1.0
        marker.lifetime.nanosec = int(LIFETIME * 1e9)
    return MarkerArray(markers=[text, arrow])
