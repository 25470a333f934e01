"""Loading an exported policy: every way a file can be wrong, and the recurrence of a right one."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.onnx_policy import OnnxPolicy, providers_named
from onnx import TensorProto, helper, numpy_helper

INPUTS = ("joint_pos", "joint_vel", "imu_gyro", "imu_quat", "command")


def refusal(path, robot, **arguments):
    """The one line with which the policy is refused."""
    with pytest.raises(UserError) as refused:
        OnnxPolicy(path, robot, **arguments)
    line = str(refused.value)
    assert "\n" not in line
    assert line.startswith(f"{path}: "), "the line must name the file"
    return line


# Files that are no ONNX file, made from the bytes of a sound one.
FILES = {
    "empty": (lambda sound: b"", "is empty"),
    "text": (lambda sound: b"hello, robot", "is not an ONNX file"),
    "checkpoint of the trainer": (lambda sound: b"PK\x03\x04" + sound, "is not an ONNX file"),
    "one byte": (lambda sound: sound[:1], "is truncated"),
    "first half": (lambda sound: sound[: len(sound) // 2], "is truncated"),
    "all but the last byte": (lambda sound: sound[:-1], "is truncated"),
    "garbage inside": (lambda sound: sound[:60] + b"\xff" * 500 + sound[560:], "cannot load the model"),
}


@pytest.mark.parametrize(("change", "message"), FILES.values(), ids=FILES)
def test_broken_file_is_refused(policy_file, robot, tmp_path, change, message):
    path = tmp_path / "broken.onnx"
    path.write_bytes(change(policy_file.read_bytes()))
    assert message in refusal(path, robot)


def test_missing_file_and_folder_are_refused(robot, tmp_path):
    assert "no such policy file" in refusal(tmp_path / "absent.onnx", robot)
    assert "is a directory" in refusal(tmp_path, robot)


def test_unreadable_path_is_refused(robot, policy_file):
    assert "cannot be read" in refusal(policy_file / "policy.onnx", robot)


# Changes of the graph itself; its contract stays.
def without_metadata(model):
    del model.metadata_props[:]


def metadata_not_json(model):
    model.metadata_props[0].value = "schema_version: 1"


def with_contract(**changes):
    def change(model):
        document = json.loads(model.metadata_props[0].value)
        document.update(changes)
        model.metadata_props[0].value = json.dumps(document)

    return change


def without_field(name):
    def change(model):
        document = json.loads(model.metadata_props[0].value)
        del document[name]
        model.metadata_props[0].value = json.dumps(document)

    return change


def renamed(old, new):
    def change(model):
        for value in (*model.graph.input, *model.graph.output):
            if value.name == old:
                value.name = new
        for node in model.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]

    return change


def double_joint_vel(model):
    renamed("joint_vel", "joint_vel_single")(model)
    position = [value.name for value in model.graph.input].index("joint_vel_single")
    model.graph.input[position].CopyFrom(
        helper.make_tensor_value_info("joint_vel", TensorProto.DOUBLE, [1, 29])
    )
    cast = helper.make_node("Cast", ["joint_vel"], ["joint_vel_single"], to=TensorProto.FLOAT)
    model.graph.node.insert(0, cast)


def batch_of_two(model):
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


def extra_input(model):
    model.graph.input.append(helper.make_tensor_value_info("base_lin_vel", TensorProto.FLOAT, [1, 3]))
    model.graph.node.append(helper.make_node("Identity", ["base_lin_vel"], ["unused"]))


def extra_output(model):
    model.graph.node.append(helper.make_node("Identity", ["action"], ["value"]))
    model.graph.output.append(helper.make_tensor_value_info("value", TensorProto.FLOAT, [1, 29]))


def without_action_output(model):
    del model.graph.output[2]


def weights(factor):
    def change(model):
        for tensor in model.graph.initializer:
            if tensor.name == "network.0.weight":
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * factor, tensor.name))
                return
        raise AssertionError("the weights have another name")

    return change


def golden_of_other_sensors(model):
    document = json.loads(model.metadata_props[0].value)
    inputs = document["golden"]["inputs"]
    # The oldest step: no longer in the final state, so that only the replay can notice.
    data = np.frombuffer(base64.b64decode(inputs["imu_gyro"]), "<f4").copy()
    data[:3] += 0.5
    inputs["imu_gyro"] = base64.b64encode(data.tobytes()).decode()
    model.metadata_props[0].value = json.dumps(document)


MODELS = {
    "no metadata": (without_metadata, "has no metadata 'humanoid_rl'"),
    "metadata not JSON": (metadata_not_json, "the contract is not valid JSON"),
    "other schema version": (
        with_contract(schema_version=9),
        "'schema_version' is 9, but this release reads 1",
    ),
    "unknown field": (with_contract(gains=[1.0]), "contract field 'gains' is unknown"),
    "missing field": (without_field("control_period"), "contract field 'control_period' is missing"),
    "robot renamed": (with_contract(robot="h1"), "contract field 'robot' is 'h1', but this robot is 'g1'"),
    "variant renamed": (with_contract(variant="rev_9"), "contract field 'variant' is 'rev_9'"),
    "mode_machine of other gears": (with_contract(mode_machine=[5, 11]), "'mode_machine' allows 11, but"),
    "description changed": (
        with_contract(description_hash="a" * 64),
        "'description_hash' is aaaaaaaaaaaa...",
    ),
    "stronger motors": (with_contract(effort_limit=[500.0] * 29), "wider than the robot's"),
    "input renamed": (
        renamed("imu_quat", "imu_quaternion"),
        "unknown input 'imu_quaternion', did you mean 'imu_quat'?",
    ),
    "input added": (extra_input, "unknown input 'base_lin_vel'"),
    "input of another type": (double_joint_vel, "input 'joint_vel' is tensor(double) [1, 29]"),
    "batch not fixed": (batch_of_two, "input 'joint_pos' is tensor(float) ['batch', 29]"),
    "output renamed": (renamed("joint_target", "targets"), "unknown output 'targets'"),
    "output added": (extra_output, "unknown output 'value'"),
    "output missing": (without_action_output, "the graph lacks the output 'action'"),
    "weights changed": (weights(np.float32(1.001)), "golden replay: step 0, 'joint_target' of '"),
    "weights not finite": (weights(np.float32(np.nan)), "golden replay: policy output 'joint_target' of '"),
    "golden sensors changed": (golden_of_other_sensors, "golden replay: step 0, "),
}


@pytest.mark.parametrize(("change", "message"), MODELS.values(), ids=MODELS)
def test_changed_policy_is_refused(policy_file, robot, tmp_path, change, message):
    model = onnx.load(policy_file)
    change(model)
    path = tmp_path / "changed.onnx"
    onnx.save(model, path)
    line = refusal(path, robot)
    assert message in line
    assert "; " in line, "the line must end with a remedy"


def test_contract_of_another_history_is_refused_by_the_state(
    make_graph, export, policy_file, robot, tmp_path
):
    model = onnx.load(export(tmp_path / "other.onnx", make_graph(history=2)))
    model.metadata_props[0].value = onnx.load(policy_file).metadata_props[0].value
    onnx.save(model, tmp_path / "mixed.onnx")
    assert (
        "input 'state' is tensor(float) [1, 125], but the contract makes it tensor(float) [1, 221]"
        in refusal(tmp_path / "mixed.onnx", robot)
    )


def test_policy_is_refused_by_a_weaker_robot(policy_file, robot):
    weaker = dataclasses.replace(robot, effort_limit=robot.effort_limit * 0.5)
    assert "contract field 'effort_limit' of" in refusal(policy_file, weaker)


def test_unknown_provider_is_refused_with_the_nearest(policy_file, robot):
    line = refusal(policy_file, robot, providers=("CPUExecutionProvidr",))
    assert "'CPUExecutionProvidr' is not in this onnxruntime, did you mean 'CPUExecutionProvider'?" in line


def test_provider_that_falls_back_silently_is_refused(policy_file, robot, monkeypatch):
    # As on a machine whose onnxruntime has the provider but not the libraries it needs: the session comes up,
    # on the CPU.
    monkeypatch.setattr(
        ort, "get_available_providers", lambda: ["FancyExecutionProvider", "CPUExecutionProvider"]
    )
    line = refusal(policy_file, robot, providers=("FancyExecutionProvider", "CPUExecutionProvider"))
    assert (
        "'FancyExecutionProvider' could not start and onnxruntime fell back to CPUExecutionProvider" in line
    )


def test_provider_that_takes_no_node_of_the_graph_is_refused(policy_file, robot):
    # This one is in the CPU's onnxruntime, calls itself active, and leaves every node of a policy to the CPU.
    name = "AzureExecutionProvider"
    if name not in ort.get_available_providers():
        pytest.skip(f"this onnxruntime has no {name}")
    assert f"'{name}' could not start or does not run this graph" in refusal(
        policy_file, robot, providers=(name,)
    )
    assert OnnxPolicy(policy_file, robot, providers=(name, "CPUExecutionProvider")).providers[0] == name


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_gpu_provider_is_refused_where_there_is_no_gpu(policy_file, robot, name):
    try:
        policy = OnnxPolicy(policy_file, robot, providers=providers_named(name))
    except UserError as error:
        assert re.search("is not in this onnxruntime|could not start", str(error)) and "\n" not in str(error)
    else:  # on a machine that has one it runs, and not on the CPU
        assert policy.providers[0] != "CPUExecutionProvider"


def test_provider_of_an_unknown_name_is_refused_with_the_nearest():
    assert providers_named("cpu") == ("CPUExecutionProvider",)
    with pytest.raises(UserError, match="provider 'cude' is unknown, did you mean 'cuda'"):
        providers_named("cude")


def test_policy_runs_in_one_thread(policy_file, robot):
    before = len(os.listdir("/proc/self/task"))
    OnnxPolicy(policy_file, robot)
    assert len(os.listdir("/proc/self/task")) == before, "onnxruntime started a thread pool"


def episode(policy, readings):
    return [
        policy.step(*(readings[name][step] for name in INPUTS)) for step in range(len(readings["imu_gyro"]))
    ]


def test_reset_starts_the_same_episode_again(policy_file, robot, sensors):
    policy = OnnxPolicy(policy_file, robot)
    assert not policy.state.any(), "loading must not leave the golden episode behind"
    first = episode(policy, sensors(6))
    assert policy.state.any()
    policy.reset()
    for before, after in zip(first, episode(policy, sensors(6)), strict=True):
        np.testing.assert_array_equal(before.joint_target, after.joint_target)


def test_results_are_not_overwritten_by_the_next_step(policy_file, robot, sensors):
    policy = OnnxPolicy(policy_file, robot)
    readings = sensors(2)
    first = policy.step(*(readings[name][0] for name in INPUTS))
    kept = first.joint_target.copy()
    policy.step(*(readings[name][1] for name in INPUTS))
    np.testing.assert_array_equal(first.joint_target, kept)


def test_state_begins_with_the_last_action(policy_file, robot, sensors):
    policy = OnnxPolicy(policy_file, robot)
    for output in episode(policy, sensors(3))[-1:]:
        np.testing.assert_array_equal(policy.state[:29], output.action.astype(np.float32))


def test_stepping_on_bound_buffers_equals_a_plain_run(policy_file, robot, sensors):
    bound, plain = OnnxPolicy(policy_file, robot), OnnxPolicy(policy_file, robot)
    plain._run = plain._run_copying
    for one, other in zip(episode(bound, sensors(20)), episode(plain, sensors(20)), strict=True):
        np.testing.assert_array_equal(one.action, other.action)
    np.testing.assert_array_equal(bound.state, plain.state)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
@pytest.mark.filterwarnings("ignore:overflow")
def test_sensor_that_is_not_finite_is_refused_and_leaves_the_state(policy_file, robot, sensors, bad):
    policy = OnnxPolicy(policy_file, robot)
    episode(policy, sensors(3))
    before = policy.state
    values = [sensors(1)[name][0].astype(np.float64) for name in INPUTS]
    values[1][3] = bad
    with pytest.raises(UserError, match="policy input 'joint_vel' of 'left_knee_joint' is not finite"):
        policy.step(*values)
    np.testing.assert_array_equal(policy.state, before)


def test_sensors_of_another_size_are_an_error(policy_file, robot, sensors):
    policy = OnnxPolicy(policy_file, robot)
    values = [sensors(1)[name][0] for name in INPUTS]
    with pytest.raises(ValueError, match="wrong shape"):
        policy.step(*values[:-1], np.zeros(1))


def test_robot_side_needs_neither_torch_nor_onnx_nor_ros(policy_file):
    program = (
        "import sys\n"
        "from humanoid_rl_core.onnx_policy import OnnxPolicy\n"
        "from humanoid_rl_core.robot import load_robot\n"
        f"OnnxPolicy({str(policy_file)!r}, load_robot())\n"
        "print(sorted({'torch', 'onnx', 'rclpy', 'mujoco'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.strip() == "[]"
