"""The text and the arrow that RViz shows."""

from humanoid_rl_inference.state_machine import State
from humanoid_rl_inference.status_markers import status_markers
from visualization_msgs.msg import Marker

NAMES = ("vx", "vy", "yaw_rate")


def test_a_fault_is_shown_red_with_its_cause_and_no_arrow() -> None:
    notes = ["tilt 1.20 rad", "", "tilt 1.20 rad"]
    text, arrow = status_markers("pelvis", State.FAULT, notes, NAMES, (0.0, 0.0, 0.0)).markers
    assert text.text.splitlines() == ["FAULT", "tilt 1.20 rad", "vx +0.00  vy +0.00  yaw_rate +0.00"]
    assert text.color.r > 2 * max(text.color.g, text.color.b) and text.color.a == 1.0
    assert text.header.frame_id == arrow.header.frame_id == "pelvis"
    assert text.header.stamp.sec == 0, "the newest transform, whatever the clock of the twin says"
    assert arrow.action == Marker.DELETE


def test_the_arrow_is_the_commanded_velocity_in_the_base_frame() -> None:
    _, arrow = status_markers("pelvis", State.RUNNING, [], NAMES, (0.5, -0.2, 0.3)).markers
    start, tip = arrow.points
    assert arrow.action == Marker.ADD and start.z == tip.z
    assert (tip.x - start.x, tip.y - start.y) == (0.5, -0.2)
    assert arrow.lifetime.sec == 0 and arrow.lifetime.nanosec > 0
