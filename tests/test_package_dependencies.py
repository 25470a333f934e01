"""package.xml of every Python package declares the ROS packages it imports: what rosdep and colcon go by."""

import ast
import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

SOURCES = Path(__file__).parents[1] / "src"
PACKAGES = sorted(path.parent.name for path in SOURCES.glob("*/package.xml"))


def ros_packages() -> set[str]:
    """Every package of the workspace and of the ROS installation, and those that are in no index of the wheels."""
    indices = [
        Path(prefix) / "share/ament_index/resource_index/packages"
        for prefix in os.environ["AMENT_PREFIX_PATH"].split(os.pathsep)
    ]
    found = {path.name for index in indices if index.is_dir() for path in index.iterdir()}
    return found | set(PACKAGES) | {"ament_index_python", "launch", "launch_ros"}


def imported(package: str) -> set[str]:
    """Top-level modules that the package's code imports, lazily too."""
    names = set()
    for path in (SOURCES / package / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names.add(node.module)
    return {name.partition(".")[0] for name in names}


def declared(package: str) -> set[str]:
    root = ElementTree.parse(SOURCES / package / "package.xml").getroot()
    return {element.text or "" for element in root if element.tag in ("depend", "exec_depend")}


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_imported_is_declared(package: str) -> None:
    assert imported(package) & ros_packages() - {package} <= declared(package)
