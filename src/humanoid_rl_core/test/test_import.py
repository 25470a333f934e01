"""Import: a policy in a foreign format does here what it does in its own stack, or is refused by name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os

import foreign_files
import numpy as np
import onnx
import pytest
import torch
import yaml
from foreign_files import LEAPP_SETTINGS, MJLAB_SETTINGS, NAMES, SETTINGS, lab_terms
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.foreign.importing import import_policy
from humanoid_rl_core.onnx_policy import OnnxPolicy

STEPS = 40


def follow(policy, stack, sensors, episodes=2):
    """Both step by step over the same readings, from the start of an episode; the foreign stack is left at its end."""
    for seed in range(episodes):
        policy.reset()
        fresh = dataclasses.replace(stack)
        fresh.last = stack.last.copy()
        readings = sensors(STEPS, seed)
        lower, upper = policy.contract.position_lower, policy.contract.position_upper
        for step in range(STEPS):
            now = {name: values[step] for name, values in readings.items()}
            output = policy.step(**now | {"command": now["command"][: len(policy.contract.command_names)]})
            target, action = fresh.step(now)
            np.testing.assert_allclose(output.joint_target, np.clip(target, lower, upper), atol=2e-5, rtol=0)
            yield output, target, action


# --- mjlab ---


def test_mjlab_policy_follows_mjlabs_observation_code(robot, sensors, tmp_path):
    terms = foreign_files.mjlab_terms()
    stack = foreign_files.mjlab_file(robot, tmp_path / "foreign.onnx", terms)
    contract = import_policy(tmp_path / "foreign.onnx", tmp_path / "own.onnx", settings=MJLAB_SETTINGS)
    policy = OnnxPolicy(tmp_path / "own.onnx", robot)
    for output, _, action in follow(policy, stack, sensors):
        np.testing.assert_allclose(output.action, action, atol=2e-5, rtol=0)
    assert (contract.history, contract.memory_size, contract.control_period) == (1, 0, 0.02)
    motor = {name: index for index, name in enumerate(robot.joint_names)}
    first = robot.joint_names[stack.order[0]]
    assert contract.stiffness[motor[first]] == 10.0
    assert contract.default_position[motor[first]] == pytest.approx(stack.default[0], abs=1e-9)


@pytest.mark.parametrize("order", [NAMES["mjlab"][::-1], NAMES["mjlab"]])
def test_mjlab_history_scale_clip_and_action_clip_are_what_the_user_says(robot, sensors, tmp_path, order):
    terms = {name: {"history_length": 3} for name in order}
    terms["joint_vel"] |= {"scale": 0.1, "clip": [-2.0, 1.5]}
    stack = foreign_files.mjlab_file(robot, tmp_path / "foreign.onnx", terms)
    stack.action_clip = 0.2
    settings = [s for s in MJLAB_SETTINGS if not s.startswith(("observation_", "action_clip"))]
    settings += [
        "observation_scale={joint_vel: 0.1}",
        "observation_clip={joint_vel: [-2.0, 1.5]}",
        "observation_history=3",
        "action_clip=0.2",
    ]
    contract = import_policy(tmp_path / "foreign.onnx", tmp_path / "own.onnx", settings=settings)
    assert contract.history == 3
    policy = OnnxPolicy(tmp_path / "own.onnx", robot)
    clipped = [np.abs(action).max() for *_, action in follow(policy, stack, sensors)]
    assert max(clipped) == pytest.approx(0.2)


def test_every_gap_of_mjlabs_metadata_is_named_at_once(robot, tmp_path):
    foreign_files.mjlab_file(
        robot, tmp_path / "foreign.onnx", foreign_files.mjlab_terms(), joint_damping=None
    )
    with pytest.raises(UserError) as refused:
        import_policy(tmp_path / "foreign.onnx", tmp_path / "own.onnx")
    message = str(refused.value)
    assert "\n" not in message and message.startswith(
        f"{tmp_path / 'foreign.onnx'}: mjlab's metadata leave open"
    )
    asked = [setting.partition("=")[0] for setting in MJLAB_SETTINGS]
    for key in (*asked, "damping"):
        assert f" {key} (" in message
    for told in ("stiffness", "joint_names", "observation_names", "observation_history", "action_scale"):
        assert f" {told} (" not in message
    assert os.listdir(tmp_path) == ["foreign.onnx"]


@pytest.mark.parametrize("key", [setting.partition("=")[0] for setting in MJLAB_SETTINGS])
def test_each_answer_is_needed(robot, tmp_path, key):
    foreign_files.mjlab_file(robot, tmp_path / "foreign.onnx", foreign_files.mjlab_terms())
    settings = [setting for setting in MJLAB_SETTINGS if not setting.startswith(f"{key}=")]
    with pytest.raises(UserError, match=rf"--set KEY=VALUE: {key} \([^;]*$"):
        import_policy(tmp_path / "foreign.onnx", tmp_path / "own.onnx", settings=settings)


@pytest.mark.parametrize("key", ["joint_names", "observation_names", "joint_stiffness", "default_joint_pos"])
def test_what_mjlabs_metadata_lack_can_be_given(robot, sensors, tmp_path, key):
    terms = foreign_files.mjlab_terms()
    stack = foreign_files.mjlab_file(robot, tmp_path / "foreign.onnx", terms, **{key: None})
    names = [robot.joint_names[motor] for motor in stack.order]
    answer = {
        "joint_names": f"joint_names={json.dumps(names)}",
        "observation_names": f"observation_names={json.dumps(list(terms))}",
        "joint_stiffness": "stiffness=33.0",
        "default_joint_pos": f"default_position={json.dumps(dict(zip(names, stack.default.tolist(), strict=True)))}",
    }[key]
    contract = import_policy(
        tmp_path / "foreign.onnx", tmp_path / "own.onnx", settings=[*MJLAB_SETTINGS, answer]
    )
    for _ in follow(OnnxPolicy(tmp_path / "own.onnx", robot), stack, sensors, episodes=1):
        pass
    assert contract.training.imported.sources[answer.partition("=")[0]] == "--set"


# --- unitree_rl_lab ---

LAYOUTS = {
    "published": (lab_terms(history_length=5), {}),
    "no history": (lab_terms(), {}),
    "whole frames": (lab_terms(history_length=4), {"frame_major": True}),
    "a history of its own for each term": (
        {name: {"history_length": 1 + i, "scale": 0.5} for i, name in enumerate(NAMES["lab"])},
        {},
    ),
    "clip, then scale": (lab_terms(history_length=2, clip=[-0.5, 0.3]), {}),
    "scale, then clip": (lab_terms(history_length=2, clip=[-0.5, 0.3]), {"scale_first": True}),
    "clip on one side": (lab_terms(history_length=2, clip=[-np.inf, 0.3]), {}),
    "clock": ({**lab_terms(history_length=3), "gait_phase": {"period": 0.67, "history_length": 3}}, {}),
    "clock without history": ({"gait_phase": {"period": 0.8}, **lab_terms()}, {}),
    "clock alone": ({"gait_phase": {"period": 0.8, "history_length": 2}}, {}),
    "nothing of the joints": ({"velocity_commands": {}, "projected_gravity": {"history_length": 2}}, {}),
}


@pytest.mark.parametrize(("terms", "changes"), LAYOUTS.values(), ids=LAYOUTS)
def test_unitree_policy_follows_unitrees_deployment(robot, sensors, tmp_path, terms, changes):
    stack, content = foreign_files.deploy_yaml(robot, tmp_path / "policy.onnx", terms, **changes)
    config = foreign_files.write_yaml(tmp_path / "deploy.yaml", content)
    contract = import_policy(
        tmp_path / "policy.onnx", tmp_path / "own.onnx", config=config, settings=SETTINGS
    )
    for output, _, action in follow(OnnxPolicy(tmp_path / "own.onnx", robot), stack, sensors):
        np.testing.assert_allclose(output.action, action, atol=2e-5, rtol=0)
    # Gains are in the order of the motors, unlike everything else in the file.
    np.testing.assert_array_equal(contract.stiffness, np.arange(29) + 10.0)


def test_bounds_of_the_targets_are_kept(robot, sensors, tmp_path):
    _, default, _ = foreign_files.shuffled(robot)
    bounds = np.stack((default - 0.03, default + 0.02), axis=1)
    stack, content = foreign_files.deploy_yaml(
        robot, tmp_path / "policy.onnx", lab_terms(), target_clip=np.round(bounds, 4)
    )
    config = foreign_files.write_yaml(tmp_path / "deploy.yaml", content)
    contract = import_policy(
        tmp_path / "policy.onnx", tmp_path / "own.onnx", config=config, settings=SETTINGS
    )
    policy = OnnxPolicy(tmp_path / "own.onnx", robot)
    for output, target, _ in follow(policy, stack, sensors):
        np.testing.assert_allclose(
            output.joint_target,
            np.clip(target, robot.position_lower, robot.position_upper),
            atol=2e-5,
            rtol=0,
        )
    assert (contract.position_upper < robot.position_upper).any()


def test_older_files_with_a_python_object_for_all_joints_are_read(robot, tmp_path):
    _, content = foreign_files.deploy_yaml(robot, tmp_path / "policy.onnx", lab_terms())
    text = yaml.safe_dump(content, sort_keys=False)
    old = text.replace(
        "joint_ids: null", "joint_ids: !!python/object/apply:builtins.slice [null, null, null]"
    )
    assert old != text
    (tmp_path / "deploy.yaml").write_text(old)
    import_policy(
        tmp_path / "policy.onnx", tmp_path / "own.onnx", config=tmp_path / "deploy.yaml", settings=SETTINGS
    )


def drop(*path):
    def change(content):
        *parents, key = path
        for parent in parents:
            content = content[parent]
        del content[key]

    return change


def put(value, *path):
    def change(content):
        *parents, key = path
        for parent in parents:
            content = content[parent]
        content[key] = value

    return change


def rename(old, new):
    def change(content):
        content["observations"] = {new if k == old else k: v for k, v in content["observations"].items()}

    return change


ACTION = ("actions", "JointPositionAction")
LAB_REFUSALS = {
    "no joint order": (drop("joint_ids_map"), "missing key 'joint_ids_map'"),
    "no observations": (drop("observations"), "missing key 'observations'"),
    "no gains": (
        drop("stiffness"),
        "leave open what the contract needs; give it with --set KEY=VALUE: stiffness (",
    ),
    "no period": (drop("step_dt"), "KEY=VALUE: control_period ("),
    "no ranges": (drop("commands", "base_velocity"), "KEY=VALUE: command_range ("),
    "no scale of the action": (drop(*ACTION, "scale"), "missing key 'actions.JointPositionAction.scale'"),
    "unknown term": (
        rename("last_action", "foot_clock"),
        "unknown observation term 'foot_clock' (known: base_ang_vel",
    ),
    "mistyped term": (rename("last_action", "last_actions"), "'last_actions', did you mean 'last_action'?"),
    "base velocity": (
        rename("base_ang_vel", "base_lin_vel"),
        "the observation term 'base_lin_vel' is the linear velocity of the base, which no sensor of the robot gives",
    ),
    "contact forces": (
        rename("base_ang_vel", "foot_contact_forces"),
        "'foot_contact_forces' is contact of the feet",
    ),
    "height scan": (rename("base_ang_vel", "height_scanner"), "'height_scanner' is heights of the base"),
    "unknown key of a term": (put(2, "observations", "base_ang_vel", "delay"), "unknown key 'delay'"),
    "unknown key of the file": (put(2, "motors"), "unknown key 'motors'"),
    "NaN in the default pose": (
        put(float("nan"), "default_joint_pos", 3),
        "default_joint_pos[3]: expected a number",
    ),
    "infinite scale": (
        put(float("inf"), "observations", "base_ang_vel", "scale", 1),
        "base_ang_vel.scale: has a number",
    ),
    "too few scales": (
        put([1.0], "observations", "base_ang_vel", "scale"),
        "scale: has 1 entries instead of 3",
    ),
    "offset is no default pose": (put(0.4, *ACTION, "offset", 0), "offset: differs from default_joint_pos"),
    "another action": (put({}, "actions"), "the actions are none; only one JointPositionAction"),
    "a motor the robot has not": (
        put(40, "joint_ids_map", 3),
        "stiffness has 29 entries, but joint_ids_map names motor 40",
    ),
    "a motor twice": (put([0, 0], "joint_ids_map"), "joint_ids_map has a motor twice"),
    "some joints alone": (
        put({"asset_cfg": {"joint_ids": [0, 1]}}, "observations", "joint_pos_rel", "params"),
        "params: selects some joints",
    ),
    "clip upside down": (
        put([0.3, -0.5], "observations", "base_ang_vel", "clip"),
        "observations.base_ang_vel.clip: the lower bound 0.3 is above the upper one -0.5",
    ),
    "a word for the joints of a term": (
        put({"asset_cfg": "robot"}, "observations", "joint_pos_rel", "params"),
        "observations.joint_pos_rel.params.asset_cfg: expected 'key: value' lines, found 'robot'",
    ),
    "another history": (
        put(2, "observations", "base_ang_vel", "history_length"),
        "the network takes 96 values, but the observation terms make 99",
    ),
}


@pytest.mark.parametrize(("change", "message"), LAB_REFUSALS.values(), ids=LAB_REFUSALS)
def test_deploy_yaml_that_does_not_hold_is_refused(robot, tmp_path, change, message):
    _, content = foreign_files.deploy_yaml(robot, tmp_path / "policy.onnx", lab_terms())
    change(content)
    config = foreign_files.write_yaml(tmp_path / "deploy.yaml", content)
    with pytest.raises(UserError) as refused:
        import_policy(
            tmp_path / "policy.onnx",
            tmp_path / "own.onnx",
            config=config,
            format="unitree_rl_lab",
            settings=SETTINGS,
        )
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "own.onnx").exists()


# --- LEAPP ---


def leapp(robot, folder, change=None, **arguments):
    stack, content = foreign_files.leapp_files(robot, folder, **arguments)
    if change:
        change(content)
    return stack, foreign_files.write_yaml(folder / "policy.yaml", content)


@pytest.mark.parametrize("history", [1, 4])
def test_leapp_graph_follows_its_own_feedback(robot, sensors, tmp_path, history):
    stack, config = leapp(robot, tmp_path, history=history)
    contract = import_policy(
        tmp_path / "Task.onnx", tmp_path / "own.onnx", config=config, settings=LEAPP_SETTINGS
    )
    policy = OnnxPolicy(tmp_path / "own.onnx", robot)
    for output, target, _ in follow(policy, stack, sensors):
        np.testing.assert_allclose(output.action, target - robot.default_position, atol=2e-5, rtol=0)
    assert contract.memory_size == 29 + 3 * history + 1
    assert contract.control_period == 0.02
    expected = np.empty(29)
    expected[stack.order] = np.arange(29) + 10.0
    np.testing.assert_array_equal(contract.stiffness, expected)
    np.testing.assert_allclose(contract.damping, 0.1 * expected, rtol=1e-6)


def test_every_gap_of_leapps_yaml_is_named_at_once(robot, tmp_path):
    _, config = leapp(robot, tmp_path, frequency=None)
    with pytest.raises(UserError) as refused:
        import_policy(tmp_path / "Task.onnx", tmp_path / "own.onnx", config=config)
    for key in (*(setting.partition("=")[0] for setting in LEAPP_SETTINGS), "control_period"):
        assert f" {key} (" in str(refused.value)
    for told in ("stiffness", "damping", "joint_names"):
        assert f" {told} (" not in str(refused.value)


TASK = ("models", "Task")
LEAPP_REFUSALS = {
    "no pipeline": (drop("pipeline"), "lacks 'models' or 'pipeline'"),
    "no outputs": (drop(*TASK, "outputs"), "models.Task: missing key 'outputs'"),
    "no connection": (
        drop(*TASK, "inputs", 0, "isaaclab_connection"),
        "'robot_joint_pos' has no isaaclab_connection",
    ),
    "no element names": (drop(*TASK, "inputs", 0, "element_names"), "'robot_joint_pos' has no element_names"),
    "no kind": (drop(*TASK, "outputs", 0, "kind"), "'joint_pos_target' is of no kind"),
    "torques": (put("target/joint/effort", *TASK, "outputs", 0, "kind"), "is target/joint/effort; only one"),
    "base velocity": (
        put("state:robot:root_lin_vel_b", *TASK, "inputs", 2, "isaaclab_connection"),
        "reads state:robot:root_lin_vel_b, which no sensor of the robot gives",
    ),
    "contact forces": (
        put("state:contact_forces:net_forces_w", *TASK, "inputs", 2, "isaaclab_connection"),
        "reads state:contact_forces:net_forces_w, which no sensor",
    ),
    "another file": (put("0" * 64, *TASK, "parameters", "sha256sum"), "(sha256sum differs)"),
    "another backend": (put("jit", *TASK, "parameters", "backend"), "the backend is 'jit'"),
    "shapes of the graph": (
        put([1, 28], *TASK, "inputs", 0, "shape"),
        "has the shape [1, 28], but [1, 29] in the graph",
    ),
    "feedback left out": (
        drop("pipeline", "feedback_flow", "Task/last_action_out"),
        "nothing feeds the input 'last_action_in'",
    ),
    "feedback to nowhere": (
        put(["Task/nothing"], "pipeline", "feedback_flow", "Task/last_action_out"),
        "Task/last_action_out -> Task/nothing: no such tensors",
    ),
    "several graphs": (put({"inputs": []}, "models", "Other"), "has the models Task, Other"),
    "initial values lost": (
        put("lost.safetensors", "pipeline", "initial_values"),
        "lost.safetensors: cannot be read",
    ),
    "frequency of no number": (
        put(float("nan"), "pipeline", "configs", "frequency"),
        "expected a finite number",
    ),
    "a word for a tensor": (
        put(["x"], *TASK, "inputs"),
        "models.Task.inputs: expected 'key: value' lines, found 'x'",
    ),
    "models numbered": (put({"inputs": []}, "models", 1), "has the models Task, 1;"),
    "no list of outputs": (
        put(None, "pipeline", "outputs", "Task"),
        "pipeline.outputs.Task: expected a list of names, found None",
    ),
    "no name of an input": (
        put([["robot_joint_pos"]], "pipeline", "inputs", "Task"),
        "pipeline.inputs.Task: expected text, found ['robot_joint_pos']",
    ),
    "feedback to nothing": (
        put(None, "pipeline", "feedback_flow", "Task/last_action_out"),
        "pipeline.feedback_flow.Task/last_action_out: expected a list of names, found None",
    ),
    "feedback in a list": (
        put(["Task/last_action_out"], "pipeline", "feedback_flow"),
        "pipeline.feedback_flow: expected 'key: value' lines, found ['Task/last_action_out']",
    ),
    "configs in a list": (
        put([50.0], "pipeline", "configs"),
        "pipeline.configs: expected 'key: value' lines, found [50.0]",
    ),
}


@pytest.mark.parametrize(("change", "message"), LEAPP_REFUSALS.values(), ids=LEAPP_REFUSALS)
def test_leapp_yaml_that_does_not_hold_is_refused(robot, tmp_path, change, message):
    _, config = leapp(robot, tmp_path, change)
    with pytest.raises(UserError) as refused:
        import_policy(
            tmp_path / "Task.onnx",
            tmp_path / "own.onnx",
            config=config,
            format="leapp",
            settings=LEAPP_SETTINGS,
        )
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "own.onnx").exists()


def future_opset(model):
    model.opset_import[0].version = 99


def unknown_operator(model):
    model.graph.node[0].op_type = "Levitate"


@pytest.mark.parametrize("change", [future_opset, unknown_operator])
def test_leapp_graph_that_onnxruntime_does_not_run_is_refused(robot, tmp_path, change):
    _, content = foreign_files.leapp_files(robot, tmp_path)
    model = onnx.load(tmp_path / "Task.onnx")
    change(model)
    (tmp_path / "Task.onnx").write_bytes(model.SerializeToString())
    digest = hashlib.sha256((tmp_path / "Task.onnx").read_bytes()).hexdigest()
    content["models"]["Task"]["parameters"]["sha256sum"] = digest
    config = foreign_files.write_yaml(tmp_path / "policy.yaml", content)
    with pytest.raises(UserError, match="onnxruntime does not run the network") as refused:
        import_policy(tmp_path / "Task.onnx", tmp_path / "own.onnx", config=config, settings=LEAPP_SETTINGS)
    assert "\n" not in str(refused.value)


# --- the same for all ---


@pytest.fixture
def imported(robot, tmp_path):
    """An mjlab policy, imported. Its file and the foreign one."""
    foreign_files.mjlab_file(robot, tmp_path / "foreign.onnx", foreign_files.mjlab_terms())
    import_policy(tmp_path / "foreign.onnx", tmp_path / "own.onnx", settings=MJLAB_SETTINGS)
    return tmp_path / "own.onnx", tmp_path / "foreign.onnx"


def test_record_says_where_the_policy_comes_from_and_claims_nothing_else(imported, robot):
    own, foreign = imported
    training = OnnxPolicy(own, robot).contract.training
    assert training.imported.format == "mjlab"
    assert training.imported.sha256 == hashlib.sha256(foreign.read_bytes()).hexdigest()
    assert training.imported.sources["stiffness"] == "metadata"
    assert training.imported.sources["effort_limit"] == "--set"
    assert (training.task, training.simulator, training.seed, training.steps) == (
        "unknown",
        "unknown",
        None,
        None,
    )


def test_what_the_user_knows_of_the_training_is_recorded(imported, robot, tmp_path):
    known = ["task=walk", "simulator=mujoco_warp", "seed=3", "steps=1e8", "git_revision=abc", "name=theirs"]
    contract = import_policy(imported[1], tmp_path / "b.onnx", settings=[*MJLAB_SETTINGS, *known])
    training = contract.training
    assert (training.task, training.seed, training.steps, contract.name) == ("walk", 3, 100_000_000, "theirs")


def test_imported_policy_is_refused_for_another_robot_or_joint_set(imported, robot):
    for change, field in (
        ({"name": "h1"}, "robot"),
        ({"variant": "other"}, "variant"),
        ({"joint_names": (*robot.joint_names[:-1], "tail_joint")}, "joint_names"),
        ({"description_hash": "0" * 64}, "description_hash"),
    ):
        with pytest.raises(UserError, match=f"contract field '{field}'"):
            OnnxPolicy(imported[0], dataclasses.replace(robot, **change))


def test_changed_weights_do_not_pass_the_golden_replay(imported, robot, tmp_path):
    model = onnx.load(imported[0])
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    array = onnx.numpy_helper.to_array(weight).copy()
    array[0, 0] += 1.0
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    onnx.save(model, tmp_path / "changed.onnx")
    with pytest.raises(UserError, match="golden replay"):
        OnnxPolicy(tmp_path / "changed.onnx", robot)


def without_the_last_joint(robot):
    return dataclasses.replace(
        robot,
        joint_names=robot.joint_names[:-1],
        default_position=robot.default_position[:-1],
        position_lower=robot.position_lower[:-1],
        position_upper=robot.position_upper[:-1],
    )


def with_a_tail(robot):
    return dataclasses.replace(robot, joint_names=(*robot.joint_names[:-1], "tail_joint"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            without_the_last_joint,
            "not imported: the policy lacks the joint 'right_wrist_yaw_joint' of g1 rev_1_0",
        ),
        (with_a_tail, "not imported: the policy has the joint 'tail_joint', which g1 rev_1_0 has not"),
    ],
)
def test_wrong_joint_set_is_refused(robot, tmp_path, make, message):
    foreign_files.mjlab_file(make(robot), tmp_path / "foreign.onnx", foreign_files.mjlab_terms())
    with pytest.raises(UserError, match=message):
        import_policy(tmp_path / "foreign.onnx", tmp_path / "own.onnx", settings=MJLAB_SETTINGS)


METADATA_REFUSALS = {
    "unknown term": ({"observation_names": "base_ang_vel,clock"}, "unknown observation term 'clock'"),
    "base velocity": (
        {"observation_names": "base_lin_vel,base_ang_vel"},
        "'base_lin_vel' is the linear velocity",
    ),
    "other terms than the network's": (
        {"observation_names": "base_ang_vel,joint_vel"},
        "KEY=VALUE: observation_history (",
    ),
    "NaN in the default pose": (
        {"default_joint_pos": ",".join(["0.0"] * 28 + ["nan"])},
        "metadata 'default_joint_pos' of",
    ),
    "words for numbers": ({"action_scale": "a,b"}, "metadata 'action_scale' is no list of numbers"),
    "too few numbers": ({"joint_stiffness": "1.0,2.0"}, "'joint_stiffness' has 2 numbers for 29 joints"),
    "another command": ({"command_names": "motion"}, "the command is motion, but only a velocity command"),
    "default pose outside the limits": (
        {"default_joint_pos": ",".join(["9.0"] * 29)},
        "not imported: contract field 'default_position'",
    ),
    "no terms": ({"observation_names": ""}, "metadata 'observation_names' names nothing"),
    "no joints": ({"joint_names": " , "}, "metadata 'joint_names' names nothing"),
    "negative gain": ({"joint_stiffness": ",".join(["-1.0"] * 29)}, "contract field 'stiffness'"),
}


@pytest.mark.parametrize(("metadata", "message"), METADATA_REFUSALS.values(), ids=METADATA_REFUSALS)
def test_metadata_that_do_not_hold_are_refused(robot, tmp_path, metadata, message):
    foreign_files.mjlab_file(robot, tmp_path / "foreign.onnx", foreign_files.mjlab_terms(), **metadata)
    with pytest.raises(UserError) as refused:
        import_policy(tmp_path / "foreign.onnx", tmp_path / "own.onnx", settings=MJLAB_SETTINGS)
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert os.listdir(tmp_path) == ["foreign.onnx"]


SETTING_REFUSALS = {
    "unknown key": (["efort_limit=robot"], "--set efort_limit: unknown key, did you mean 'effort_limit'?"),
    "no value": (["task="], "--set task=: expected KEY=VALUE"),
    "twice": (["task=a", "task=b"], "--set task: given twice"),
    "told by the metadata": (["stiffness=3"], "--set stiffness: metadata tells it; leave it out"),
    "of no use": (["joint_names=[a]"], "--set joint_names: metadata tells it"),
    "no number": (["control_period=fast"], "--set control_period: expected a finite number, found 'fast'"),
    "unknown robot": (["robot=g2"], "unknown robot 'g2'"),
    "unknown variant": (["variant=rev_9"], "robot g1 has no variant 'rev_9'"),
    "wider than the robot": (["effort_limit=1e4"], "contract field 'effort_limit'"),
    "half of the joints": (
        ["velocity_limit={left_knee_joint: 3.0}"],
        "--set velocity_limit: lacks 'left_hip_pitch_joint'",
    ),
    "foreign machine": (["mode_machine=[200]"], "contract field 'mode_machine' allows 200"),
    "range upside down": (
        ["command_range={vx: [1, 0], vy: [0, 0], yaw_rate: [0, 0]}"],
        "the lower bound 1 is above the upper one 0",
    ),
    "no bound of the action": (["action_clip=0"], "--set action_clip: must be above 0, not 0"),
    "bound upside down": (["action_clip=-2"], "--set action_clip: must be above 0, not -2"),
    "endless bound": (["action_clip=.inf"], "--set action_clip: expected a finite number, found inf"),
    "no period": (["control_period=0"], "--set control_period: must be above 0, not 0"),
    "scale of a term there is not": (
        ["observation_scale={joint_speed: 2}"],
        "has no observation term 'joint_speed'",
    ),
}


@pytest.mark.parametrize(("settings", "message"), SETTING_REFUSALS.values(), ids=SETTING_REFUSALS)
def test_answer_that_does_not_hold_is_refused(robot, tmp_path, settings, message):
    foreign_files.mjlab_file(robot, tmp_path / "foreign.onnx", foreign_files.mjlab_terms())
    keys = {setting.partition("=")[0] for setting in settings}
    rest = [setting for setting in MJLAB_SETTINGS if setting.partition("=")[0] not in keys]
    with pytest.raises(UserError) as refused:
        import_policy(tmp_path / "foreign.onnx", tmp_path / "own.onnx", settings=[*rest, *settings])
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert os.listdir(tmp_path) == ["foreign.onnx"]


@pytest.mark.parametrize(
    ("metadata", "setting", "message"),
    [
        ("joint_names", "joint_names=[]", "--set joint_names: names nothing"),
        ("observation_names", "observation_names=[]", "--set observation_names: names nothing"),
        ("observation_names", "observation_history=0", "--set observation_history: must be above 0, not 0"),
        ("observation_names", "observation_history=-1", "--set observation_history: must be above 0, not -1"),
    ],
)
def test_answer_of_nothing_is_refused(robot, tmp_path, metadata, setting, message):
    foreign_files.mjlab_file(
        robot, tmp_path / "foreign.onnx", foreign_files.mjlab_terms(), **{metadata: None}
    )
    names = f"observation_names={json.dumps(list(foreign_files.mjlab_terms())[:2])}"
    settings = [*MJLAB_SETTINGS, setting, *([names] if setting.startswith("observation_history") else [])]
    with pytest.raises(UserError) as refused:
        import_policy(tmp_path / "foreign.onnx", tmp_path / "own.onnx", settings=settings)
    assert message in str(refused.value)


def test_foreign_file_is_never_written_over(imported):
    own, foreign = imported
    before = foreign.read_bytes()
    with pytest.raises(UserError, match=r"foreign\.onnx: is the policy to import; name another --output"):
        import_policy(foreign, own.parent / "." / foreign.name, settings=MJLAB_SETTINGS)
    assert foreign.read_bytes() == before


def test_output_that_is_no_onnx_file_is_refused(imported):
    own, foreign = imported
    with pytest.raises(UserError, match=r"plain: the policy is an ONNX file; name it plain\.onnx"):
        import_policy(foreign, own.parent / "plain", settings=MJLAB_SETTINGS)
    assert not (own.parent / "plain").exists()


def test_truncated_or_foreign_file_is_refused(imported, tmp_path):
    content = imported[1].read_bytes()
    for data, message in (
        (content[:-200], "the ONNX file is truncated"),
        (b"", "is empty"),
        (b"PK\3\4 something else", "is not an ONNX file"),
    ):
        (tmp_path / "broken.onnx").write_bytes(data)
        with pytest.raises(UserError, match=message):
            import_policy(tmp_path / "broken.onnx", tmp_path / "b.onnx", settings=MJLAB_SETTINGS)
    with pytest.raises(UserError, match="is a policy of this project already"):
        import_policy(imported[0], tmp_path / "b.onnx", settings=MJLAB_SETTINGS)
    with pytest.raises(UserError, match=r"missing\.onnx: no such policy file"):
        import_policy(tmp_path / "missing.onnx", tmp_path / "b.onnx", settings=MJLAB_SETTINGS)


def test_weights_in_a_second_file_are_taken_in_or_their_loss_is_named(robot, sensors, tmp_path):
    stack = foreign_files.mjlab_file(robot, tmp_path / "foreign.onnx", foreign_files.mjlab_terms())
    model = onnx.load(tmp_path / "foreign.onnx")
    onnx.save(
        model, tmp_path / "split.onnx", save_as_external_data=True, location="split.data", size_threshold=0
    )
    contract = import_policy(tmp_path / "split.onnx", tmp_path / "own.onnx", settings=MJLAB_SETTINGS)
    content = (tmp_path / "split.onnx").read_bytes() + (tmp_path / "split.data").read_bytes()
    assert contract.training.imported.sha256 == hashlib.sha256(content).hexdigest()
    for _ in follow(OnnxPolicy(tmp_path / "own.onnx", robot), stack, sensors, episodes=1):
        pass
    (tmp_path / "split.data").unlink()
    with pytest.raises(UserError, match="its weights lie in another file that cannot be read"):
        import_policy(tmp_path / "split.onnx", tmp_path / "b.onnx", settings=MJLAB_SETTINGS)


def test_network_of_several_inputs_or_outputs_is_refused(robot, tmp_path):
    class Recurrent(torch.nn.Module):
        def forward(self, obs, h_in):
            return obs[:, :29] + h_in, h_in

    zeros = {"obs": torch.zeros(1, 96), "h_in": torch.zeros(1, 29)}
    foreign_files.mjlab_file(robot, tmp_path / "foreign.onnx", foreign_files.mjlab_terms())
    props = {entry.key: entry.value for entry in onnx.load(tmp_path / "foreign.onnx").metadata_props}
    foreign_files.export(Recurrent(), tmp_path / "foreign.onnx", zeros, ["actions", "h_out"])
    model = onnx.load(tmp_path / "foreign.onnx")
    onnx.helper.set_model_props(model, props)
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(UserError, match=r"the network has 2 inputs \(obs, h_in\)"):
        import_policy(
            tmp_path / "foreign.onnx",
            tmp_path / "own.onnx",
            settings=[*MJLAB_SETTINGS, "observation_history=1"],
        )


def test_operators_of_another_runtime_are_refused(imported, tmp_path):
    model = onnx.load(imported[1])
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    onnx.save(model, tmp_path / "special.onnx")
    with pytest.raises(UserError, match=r"uses operators of 'com\.example'"):
        import_policy(tmp_path / "special.onnx", tmp_path / "b.onnx", settings=MJLAB_SETTINGS)


def test_weights_that_are_not_finite_are_refused(imported, tmp_path):
    model = onnx.load(imported[1])
    for tensor in model.graph.initializer:
        array = np.full_like(onnx.numpy_helper.to_array(tensor), np.nan)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(model, tmp_path / "diverged.onnx")
    with pytest.raises(UserError, match="contract field 'golden' has a value of"):
        import_policy(tmp_path / "diverged.onnx", tmp_path / "b.onnx", settings=MJLAB_SETTINGS)
    assert not (tmp_path / "b.onnx").exists()


def test_refused_import_leaves_the_old_file(imported):
    own, foreign = imported
    before = own.read_bytes()
    with pytest.raises(UserError):
        import_policy(foreign, own, settings=MJLAB_SETTINGS[:-1])
    assert own.read_bytes() == before


def test_format_that_cannot_be_told_is_asked_for(robot, tmp_path):
    foreign_files.deploy_yaml(robot, tmp_path / "policy.onnx", lab_terms())
    with pytest.raises(UserError, match=r"has no mjlab metadata .* with --config"):
        import_policy(tmp_path / "policy.onnx", tmp_path / "own.onnx", settings=SETTINGS)
    config = foreign_files.write_yaml(tmp_path / "other.yaml", {"a": 1})
    with pytest.raises(UserError, match=r"other\.yaml: is neither LEAPP's YAML"):
        import_policy(tmp_path / "policy.onnx", tmp_path / "own.onnx", config=config, settings=SETTINGS)
    with pytest.raises(UserError, match="unknown format 'mjlabs', did you mean 'mjlab'"):
        import_policy(tmp_path / "policy.onnx", tmp_path / "own.onnx", format="mjlabs", settings=SETTINGS)
