"""Option --host, and a bench per module or per test, for every host that is installed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from domain_coordinator import domain_id
from humanoid_rl.launching.hosts import installed_hosts
from humanoid_rl_core.robot import RobotModel, load_robot
from rclpy.context import Context

from .bench import Bench
from .hosts import HOSTS, HostProcess


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--host", choices=sorted(HOSTS), help="host under conformance test (default: all installed)"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "host_kind" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--host", default=None)
        metafunc.parametrize("host_kind", [asked] if asked else installed_hosts(), scope="module")


@pytest.fixture(scope="module", autouse=True)
def real_time_priority() -> Iterator[None]:
    """Tests and hosts before everything else on the machine, where the system allows it.

    What is tested are deadlines of 50 ms, and a busy machine takes longer to get round to a process. Threads
    and processes started from here inherit the priority.
    """
    allowed = False
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(os.sched_get_priority_min(os.SCHED_RR)))
        allowed = True
    yield
    if allowed:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture(scope="module")
def domain(monkeypatch_module: pytest.MonkeyPatch) -> Iterator[int]:
    """A DDS domain: ROS_DOMAIN_ID where it is set, one that nobody on this machine uses otherwise."""
    monkeypatch_module.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    if given := os.environ.get("ROS_DOMAIN_ID"):
        yield int(given)
        return
    with domain_id() as free:
        monkeypatch_module.setenv("ROS_DOMAIN_ID", str(free))
        yield int(free)


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def robot() -> RobotModel:
    return load_robot()


@pytest.fixture(scope="module")
def context(domain: int) -> Iterator[Context]:
    context = Context()
    context.init(domain_id=domain)
    yield context
    context.try_shutdown()


@pytest.fixture(scope="module")
def shared_bench(
    host_kind: str,
    context: Context,
    robot: RobotModel,
    domain: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Bench]:
    bench = _bench(host_kind, context, robot, domain, tmp_path_factory.mktemp("host"))
    yield bench
    bench.close()


@pytest.fixture
def bench(shared_bench: Bench) -> Iterator[Bench]:
    """A host that runs since the module's first test, inactive. Rule H2 is checked on all it sent."""
    yield shared_bench
    _assert_wire_rules(shared_bench)


@pytest.fixture
def own_bench(
    host_kind: str, context: Context, robot: RobotModel, domain: int, tmp_path: Path
) -> Iterator[Bench]:
    """A host of the test's own, which it may end."""
    bench = _bench(host_kind, context, robot, domain, tmp_path)
    yield bench
    bench.close()
    _assert_wire_rules(bench)


def _bench(host_kind: str, context: Context, robot: RobotModel, domain: int, folder: Path) -> Bench:
    def start() -> HostProcess:
        return HOSTS[host_kind](folder / "host.log", domain)

    return Bench(context, robot, start)


def _assert_wire_rules(bench: Bench) -> None:
    wrong = {
        error for command in bench.wire.commands() for error in command.wire_errors(bench.wire.mode_machine)
    }
    assert not wrong, f"H2: {sorted(wrong)}"
