"""Export: the file computes what torch computes, and appears whole or not at all."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.export import export_policy
from humanoid_rl_core.onnx_policy import OnnxPolicy
from humanoid_rl_core.policy_graph import ObservationTerm
from torch import nn

INPUTS = ("joint_pos", "joint_vel", "imu_gyro", "imu_quat", "command")
TRAINING = {
    "task": "stand",
    "simulator": "mujoco",
    "seed": 0,
    "steps": 10,
    "git_revision": "unknown",
    "metrics": {},
}


@pytest.mark.parametrize("history", [1, 2, 5])
def test_file_follows_torch_through_whole_episodes(make_graph, export, robot, sensors, tmp_path, history):
    """A batch of episodes in torch, each again in the file; each on its own state from start to end."""
    graph = make_graph(history=history)
    policy = OnnxPolicy(export(tmp_path / "policy.onnx", graph), robot)
    episodes = [sensors(200, seed) for seed in range(3)]
    state = graph.initial_state(3)
    targets, actions = [], []
    with torch.no_grad():
        for step in range(200):
            batch = [torch.from_numpy(np.stack([e[name][step] for e in episodes])) for name in INPUTS]
            target, state, action = graph(*batch, state)
            targets.append(target.numpy())
            actions.append(action.numpy())
    for row, readings in enumerate(episodes):
        policy.reset()
        for step in range(200):
            output = policy.step(*(readings[name][step] for name in INPUTS))
            np.testing.assert_allclose(output.joint_target, targets[step][row], atol=1e-5, rtol=0)
            np.testing.assert_allclose(output.action, actions[step][row], atol=1e-5, rtol=0)
        np.testing.assert_allclose(policy.state, state[row].numpy(), atol=1e-5, rtol=0)


def test_file_holds_standard_operators_alone_at_a_fixed_opset_and_batch_one(policy_file):
    model = onnx.load(policy_file)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert {node.domain for node in model.graph.node} == {""}
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "joint_pos": [1, 29],
        "joint_vel": [1, 29],
        "imu_gyro": [1, 3],
        "imu_quat": [1, 4],
        "command": [1, 3],
        "state": [1, 221],
        "joint_target": [1, 29],
        "state_next": [1, 221],
        "action": [1, 29],
    }


def test_file_tells_nothing_of_the_machine_it_was_made_on(policy_file):
    content = policy_file.read_bytes()
    for path in (os.getcwd(), sys.prefix, str(policy_file.parent)):
        assert path.encode() not in content


def test_policy_may_leave_sensors_unused(make_graph, export, robot, sensors, tmp_path):
    graph = make_graph(observation=[ObservationTerm("projected_gravity")], history=1)
    policy = OnnxPolicy(export(tmp_path / "policy.onnx", graph), robot)
    policy.step(*(sensors(1)[name][0] for name in INPUTS))


def test_policy_may_have_no_commands(make_graph, export, robot, sensors, tmp_path):
    graph = make_graph(
        command_names=(), command_lower=(), command_upper=(), observation=[ObservationTerm("joint_pos_rel")]
    )
    policy = OnnxPolicy(export(tmp_path / "policy.onnx", graph), robot)
    readings = sensors(1)
    policy.step(*(readings[name][0] for name in INPUTS[:-1]), [])


def test_contract_records_what_was_trained(policy_file, robot):
    contract = OnnxPolicy(policy_file, robot).contract
    assert (contract.robot, contract.variant, contract.mode_machine) == ("g1", "rev_1_0", robot.mode_machine)
    assert contract.training.task == "walk"
    assert contract.control_period == 0.02
    assert [(term.name, term.start, term.stop) for term in contract.observation][:2] == [
        ("base_ang_vel", 0, 3),
        ("projected_gravity", 3, 6),
    ]
    np.testing.assert_allclose(contract.effort_limit, robot.effort_limit)
    np.testing.assert_allclose(contract.default_position, robot.default_position, atol=1e-7)


def test_export_leaves_the_graph_as_it_was(make_graph, export, tmp_path):
    graph = make_graph()
    graph.network.append(nn.Dropout(0.5))
    graph.train()
    export(tmp_path / "policy.onnx", graph)
    assert graph.training and graph.network[-1].training
    assert all(parameter.requires_grad for parameter in graph.parameters())


class _NotWhatItWas(nn.Module):
    """A layer the exporter records wrongly: it adds the number of its calls."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.calls = 0

    def forward(self, observation):
        self.calls += 1
        return self.inner(observation) + 1e-3 * self.calls


def diverged(graph, robot):
    with torch.no_grad():
        graph.network[0].weight[3, 4] = float("nan")


def overflowing_statistics(graph, robot):
    graph.obs_var[0] = float("inf")


def without_network(graph, robot):
    graph.network = None


def not_what_it_was(graph, robot):
    graph.network = _NotWhatItWas(graph.network)


def nothing(graph, robot):
    pass


def training(**changes):
    return {"training": {**TRAINING, **changes}}


REFUSALS = {
    "weights not finite": (
        diverged,
        {},
        "'network.0.weight' has values that are not finite: the training diverged",
    ),
    "statistics not finite": (overflowing_statistics, {}, "'obs_var' has values that are not finite"),
    "no network": (without_network, {}, "no network to export"),
    "layer that does not export": (not_what_it_was, {}, "golden replay: step 0, 'joint_target' of"),
    "period zero": (nothing, {"control_period": 0.0}, "'control_period' is 0.0, but must be positive"),
    "no name": (nothing, {"name": ""}, "'name' is empty"),
    "unknown training key": (
        nothing,
        training(sed=1),
        "training record: unknown key 'sed', did you mean 'seed'?",
    ),
    "metric not finite": (nothing, training(metrics={"reward": np.inf}), "has the metric 'reward'"),
}


@pytest.mark.parametrize(("change", "arguments", "message"), REFUSALS.values(), ids=REFUSALS)
def test_refused_export_leaves_the_old_file_and_nothing_else(
    make_graph, export, robot, tmp_path, change, arguments, message
):
    path = tmp_path / "policy.onnx"
    path.write_bytes(b"the old file")
    graph = make_graph()
    change(graph, robot)
    with pytest.raises(UserError) as refused:
        export(path, graph, **arguments)
    assert message in str(refused.value)
    for noise in ("\n", ".tmp", "export the policy again"):
        assert noise not in str(refused.value)
    assert path.read_bytes() == b"the old file"
    assert os.listdir(tmp_path) == ["policy.onnx"]


def test_graph_in_another_joint_order_is_not_exported(make_graph, export, robot, tmp_path):
    names = (robot.joint_names[1], robot.joint_names[0], *robot.joint_names[2:])
    with pytest.raises(
        UserError, match="contract field 'joint_names' has 'left_hip_roll_joint' at position 0"
    ):
        export(tmp_path / "policy.onnx", make_graph(joint_names=names))
    assert not os.listdir(tmp_path)


def test_graph_with_wider_position_limits_than_the_robots_is_not_exported(
    make_graph, export, robot, tmp_path
):
    with pytest.raises(UserError, match=r"contract field 'position_upper' of .* wider than the robot's"):
        export(tmp_path / "policy.onnx", make_graph(position_upper=robot.position_upper + 0.1))


def test_graph_of_another_number_of_joints_is_not_exported(make_graph, export, robot, tmp_path):
    few = {
        name: getattr(robot, name)[:12]
        for name in ("joint_names", "default_position", "position_lower", "position_upper")
    }
    with pytest.raises(UserError, match="the policy has 12 joints, but g1 rev_1_0 has 29"):
        export(tmp_path / "policy.onnx", make_graph(action_scale=np.ones(12), **few))


def test_folder_is_made_and_an_older_policy_replaced(make_graph, export, robot, tmp_path):
    path = tmp_path / "runs" / "first" / "policy.onnx"
    export(path, make_graph(seed=1))
    before = path.read_bytes()
    held = tmp_path / "held.onnx"
    held.hardlink_to(path)
    assert export(str(path), make_graph(seed=2)) == path
    assert path.read_bytes() != before
    assert held.read_bytes() == before, "who has the old file open must keep all of it"
    OnnxPolicy(path, robot)
    assert os.listdir(path.parent) == ["policy.onnx"]


@pytest.mark.parametrize("path", ["file/policy.onnx", "/proc/policy.onnx", "folder"])
def test_path_that_cannot_be_written_is_refused(make_graph, export, tmp_path, path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"cannot be written|is a directory") as refused:
        export(tmp_path / path, make_graph())
    assert str(refused.value).startswith(str(tmp_path / path))


# Exports over the file argv[1], and stops after the new content was written, before it has the name.
_INTERRUPTED = """
import os, sys, time
import numpy as np
from torch import nn
from humanoid_rl_core.export import export_policy
from humanoid_rl_core.policy_graph import ObservationTerm, PolicyGraph
from humanoid_rl_core.robot import load_robot

robot = load_robot()
graph = PolicyGraph(
    joint_names=robot.joint_names, default_position=robot.default_position, action_scale=np.ones(29),
    position_lower=robot.position_lower, position_upper=robot.position_upper, command_names=["vx"],
    command_lower=[-1.0], command_upper=[1.0], observation=[ObservationTerm("joint_pos_rel")],
    network=nn.Linear(29, 29),
)
def pause(descriptor):
    print("written", flush=True)
    time.sleep(60)
os.fsync = pause
training = dict(task="stand", simulator="mujoco", seed=0, steps=1, git_revision="x", metrics={})
export_policy(sys.argv[1], graph, robot, robot.gains["stiff"], name="new", control_period=0.02,
              training=training)
"""


@pytest.mark.parametrize("interruption", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_export_leaves_the_old_policy(policy_file, robot, tmp_path, interruption):
    path = tmp_path / "policy.onnx"
    path.write_bytes(policy_file.read_bytes())
    process = subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout.readline() == "written\n"
        assert len(os.listdir(tmp_path)) == 2, "the new content must lie beside the old file"
        process.send_signal(interruption)
        assert process.wait(timeout=30) != 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert OnnxPolicy(path, robot).contract.name == "test"
    if interruption == signal.SIGINT:
        assert os.listdir(tmp_path) == ["policy.onnx"]


def test_gains_of_the_training_are_in_the_contract(make_graph, robot, tmp_path):
    gains = dataclasses.replace(robot.gains["stiff"], stiffness=robot.gains["stiff"].stiffness * 1.1)
    path = export_policy(
        tmp_path / "policy.onnx", make_graph(), robot, gains, name="a", control_period=0.01, training=TRAINING
    )
    np.testing.assert_array_equal(OnnxPolicy(path, robot).contract.stiffness, gains.stiffness)
