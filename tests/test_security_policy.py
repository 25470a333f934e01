"""DDS security: who may say what is what the nodes say, and what cannot be secured is refused."""

import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from humanoid_rl.launching import security
from humanoid_rl.launching.security import ENCLAVES, POLICY_FILE, check_middleware, enclave, make_keystore
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.resources import share_dir

SOURCES = {
    "robot_twin": "humanoid_rl_sim/humanoid_rl_sim/nodes/twin_node.py",
    "embedded_host": "humanoid_rl_hardware/humanoid_rl_hardware/embedded_host.py",
    "policy_node": "humanoid_rl_inference/humanoid_rl_inference/policy_node.py",
}
EVERY_NODES = {"/rosout", "/parameter_events"}


def allowed(name: str, kind: str, act: str) -> set[str]:
    """Topics or services of an enclave that it may publish, subscribe, reply to or request."""
    root = ElementTree.parse(share_dir() / POLICY_FILE).getroot()
    (found,) = root.findall(f".//enclave[@path='{enclave(name)}']")
    return {f"/{item.text}" for item in found.findall(f".//{kind}s[@{act}='ALLOW']/{kind}")}


def own_services(name: str) -> set[str]:
    return {service for service in allowed(name, "service", "reply") if not service.startswith("/~/")}


def created(name: str, what: str) -> set[str]:
    source = (Path(__file__).parents[1] / "src" / SOURCES[name]).read_text()
    return set(re.findall(rf'create_{what}\(\s*\w+,\s*"(/[^"]+)"', source))


@pytest.mark.parametrize("name", SOURCES)
def test_a_node_may_say_and_hear_what_it_does_and_nothing_else(name: str) -> None:
    assert allowed(name, "topic", "publish") - EVERY_NODES == created(name, "publisher")
    assert allowed(name, "topic", "subscribe") - EVERY_NODES == created(name, "subscription")
    assert created(name, "service") <= own_services(name)


@pytest.mark.parametrize(
    ("topic", "writer"),
    [("/lowcmd", "embedded_host"), ("/joint_command", "policy_node"), ("/lowstate", "robot_twin"),
     ("/joint_states", "embedded_host"), ("/imu/data", "embedded_host"), ("/cmd_vel", "operator")],
)  # fmt: skip
def test_what_moves_the_robot_has_one_writer(topic: str, writer: str) -> None:
    assert [name for name in ENCLAVES if topic in allowed(name, "topic", "publish")] == [writer]


def test_an_operator_may_call_every_service_of_every_node() -> None:
    assert allowed("operator", "service", "request") == {
        service for name in SOURCES for service in own_services(name)
    }


def test_a_middleware_without_security_is_refused_in_one_line(tmp_path: Path) -> None:
    # rcl asks for the folder alone; whether there is security at all is the middleware's to say.
    (tmp_path / f"enclaves{enclave('operator')}").mkdir(parents=True)
    with pytest.raises(UserError, match="starts no secured node") as refused:
        check_middleware(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("probe", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "its process ended with code -11"),
        ("import time; time.sleep(600)", "it had not ended after 1 s"),
    ],
)
def test_a_middleware_that_dies_or_hangs_without_a_word_is_refused(
    probe: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(security, "PROBE", probe)
    monkeypatch.setattr(security, "PROBE_TIME", 1.0)
    with pytest.raises(UserError, match="starts no secured node") as refused:
        check_middleware(tmp_path)
    assert f"({reason})" in str(refused.value)


def test_a_keystore_is_made_by_ros2_security_or_refused_without_it(tmp_path: Path) -> None:
    if shutil.which("ros2"):
        make_keystore(tmp_path / "keystore")
        assert (tmp_path / "keystore/private").stat().st_mode & 0o077 == 0
    else:
        with pytest.raises(UserError, match="needs the command `ros2 security`"):
            make_keystore(tmp_path / "keystore")
