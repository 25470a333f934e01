"""The RViz configuration: held against RViz's class names and this workspace's topics."""

import re
from pathlib import Path

import pytest
import yaml
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.nodes.camera_topics import IMAGE_TOPICS

#: Classes of rviz_common and rviz_default_plugins (Jazzy), as in their plugins_description.xml.
KNOWN_CLASSES = {
    "",
    "rviz_common/Displays",
    "rviz_common/Views",
    "rviz_common/Time",
    "rviz_default_plugins/Grid",
    "rviz_default_plugins/RobotModel",
    "rviz_default_plugins/TF",
    "rviz_default_plugins/MarkerArray",
    "rviz_default_plugins/Odometry",
    "rviz_default_plugins/Image",
    "rviz_default_plugins/MoveCamera",
    "rviz_default_plugins/Select",
    "rviz_default_plugins/FocusCamera",
    "rviz_default_plugins/Measure",
    "rviz_default_plugins/Orbit",
}
#: Published by robot_state_publisher, not by this workspace.
OTHERS_TOPICS = {"/robot_description"}


@pytest.fixture(scope="module")
def config() -> dict:
    return yaml.safe_load((share_dir() / "config/rviz/humanoid_rl.rviz").read_text())


def values_of(key: str, node: object) -> list[object]:
    if isinstance(node, dict):
        own = [node[key]] if key in node else []
        return own + [value for child in node.values() for value in values_of(key, child)]
    if isinstance(node, list):
        return [value for child in node for value in values_of(key, child)]
    return []


def topics(config: dict) -> dict[str, str]:
    """Topic -> class of the display that shows it."""
    found = {}
    for display in config["Visualization Manager"]["Displays"]:
        for key in ("Topic", "Description Topic"):
            if key in display:
                found[display[key]["Value"]] = display["Class"]
    return found


def test_every_class_is_one_that_rviz_has(config: dict) -> None:
    assert set(values_of("Class", config)) <= KNOWN_CLASSES


def test_displays_are_named_apart_and_agree_with_their_switch(config: dict) -> None:
    displays = config["Visualization Manager"]["Displays"]
    assert len({d["Name"] for d in displays}) == len(displays)
    for display in displays:
        assert display["Enabled"] is display["Value"], display["Name"]


def test_robot_markers_and_frames_are_shown(config: dict) -> None:
    shown = topics(config)
    assert shown["/robot_description"] == "rviz_default_plugins/RobotModel"
    assert shown["/ground_truth/contacts"] == "rviz_default_plugins/MarkerArray"
    assert shown["/policy/markers"] == "rviz_default_plugins/MarkerArray"
    assert shown["/train/markers"] == "rviz_default_plugins/MarkerArray"
    assert "rviz_default_plugins/TF" in values_of("Class", config)


def test_every_topic_is_published_by_a_node_of_this_workspace(config: dict) -> None:
    packages = Path(__file__).resolve().parents[2]
    sources = [
        path.read_text()
        for package in packages.iterdir()
        for path in (package / package.name).rglob("*.py")
        if package.name != "humanoid_rl"
    ]
    shown = topics(config).keys()
    assert set(IMAGE_TOPICS.values()) <= shown
    for topic in shown - OTHERS_TOPICS - set(IMAGE_TOPICS.values()):
        published = re.compile(rf'create_publisher\([^)]*"{re.escape(topic)}"')
        assert any(published.search(source) for source in sources), topic


def test_frames_are_the_deployments_and_the_robots(config: dict) -> None:
    manager = config["Visualization Manager"]
    assert manager["Global Options"]["Fixed Frame"] == "odom"
    assert manager["Views"]["Current"]["Target Frame"] == load_robot().base_link
