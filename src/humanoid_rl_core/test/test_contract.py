"""The contract's schema: what it keeps, and every single thing it refuses."""

from __future__ import annotations

import base64
import dataclasses
import json
import math

import numpy as np
import onnx
import pytest
from humanoid_rl_core.contract import ImportRecord, PolicyContract, check_robot, golden_error
from humanoid_rl_core.errors import UserError


@pytest.fixture(scope="module")
def text(policy_file):
    """The contract as it stands in an exported file."""
    return {entry.key: entry.value for entry in onnx.load(policy_file).metadata_props}["humanoid_rl"]


def floats(*values):
    return base64.b64encode(np.array(values, dtype="<f4").tobytes()).decode()


def put(*keys_and_value):
    """A change of the document: put("training", "seed", 3) sets document["training"]["seed"] = 3."""
    *keys, last, value = keys_and_value

    def change(document):
        for key in keys:
            document = document[key]
        document[last] = value

    return change


def remove(*keys):
    def change(document):
        for key in keys[:-1]:
            document = document[key]
        del document[keys[-1]]

    return change


def swap(name, first, second):
    def change(document):
        values = document[name]
        values[first], values[second] = values[second], values[first]

    return change


def rename_terms(document):
    names = [term["name"] for term in document["observation"]]
    for term, name in zip(document["observation"], [*names[:4], names[5], names[4]], strict=True):
        term["name"] = name


def test_contract_survives_the_way_through_json(text, robot):
    contract = PolicyContract.from_json(text)
    assert PolicyContract.from_json(contract.to_json()).to_json() == text
    assert contract.joint_names == robot.joint_names
    assert contract.training.metrics == {"survival": 0.97}
    np.testing.assert_array_equal(contract.stiffness, robot.gains["compliant"].stiffness)
    assert contract.golden.steps >= 8
    check_robot(contract, robot)


def test_golden_error_is_relative_above_one_and_infinite_for_nan():
    actual, expected = np.array([0.1, 20.0, np.nan]), np.array([0.0, 10.0, 0.0])
    np.testing.assert_allclose(golden_error(actual, expected), [0.1, 1.0, np.inf])


def test_contract_stays_small(text):
    assert len(text) < 20_000


def test_contract_cannot_be_changed_by_accident(text):
    contract = PolicyContract.from_json(text)
    with pytest.raises(ValueError, match="read-only"):
        contract.stiffness[0] = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        contract.history = 2  # type: ignore[misc]


CORRUPTIONS = {
    "other schema version": (put("schema_version", 2), "'schema_version' is 2, but this release reads 1"),
    "schema version as text": (
        put("schema_version", "1"),
        "'schema_version' is \"1\", but this release reads 1",
    ),
    "schema version missing": (remove("schema_version"), "'schema_version' is missing"),
    "unknown field": (put("stifness", []), "'stifness' is unknown, did you mean 'stiffness'?"),
    "missing field": (remove("damping"), "'damping' is missing"),
    "text for a number": (put("control_period", "0.02"), "'control_period' needs a number"),
    "true for a number": (put("control_period", True), "'control_period' needs a number, but has true"),
    "number for text": (put("name", 3), "'name' needs text, but has 3"),
    "number for a list": (put("stiffness", 40.0), "'stiffness' needs a list, but has 40.0"),
    "fraction for an integer": (put("history", 3.5), "'history' needs an integer, but has 3.5"),
    "text in a vector": (put("stiffness", 3, "x"), "'stiffness' needs a number"),
    "one gain too few": (remove("stiffness", 28), "'stiffness' needs 29 values, one per joint, but has 28"),
    "command limit too many": (
        put("command_upper", [1.0] * 4),
        "'command_upper' needs 3 values, one per command, but has 4",
    ),
    "empty name": (put("name", " "), "'name' is empty"),
    "hash cut short": (put("description_hash", "ab12"), "'description_hash' is not a sha256"),
    "NaN gain": (
        put("stiffness", 2, math.nan),
        "'stiffness' of 'left_hip_yaw_joint' is nan, which is not finite",
    ),
    "infinite limit": (put("effort_limit", 0, math.inf), "'effort_limit' of 'left_hip_pitch_joint' is inf"),
    "number beyond float": (
        put("effort_limit", 0, 10**400),
        "'effort_limit' has a number that is not finite",
    ),
    "zero gain": (put("damping", 3, 0.0), "'damping' of 'left_knee_joint' is 0, but must be positive"),
    "negative gain": (
        put("stiffness", 3, -1.0),
        "'stiffness' of 'left_knee_joint' is -1, but must be positive",
    ),
    "zero effort": (put("effort_limit", 3, 0.0), "'effort_limit' of 'left_knee_joint' is 0, but must be"),
    "negative action scale": (put("action_scale", 3, -0.1), "'action_scale' of 'left_knee_joint' is -0.1"),
    "zero period": (put("control_period", 0.0), "'control_period' is 0.0, but must be positive"),
    "NaN period": (put("control_period", math.nan), "'control_period' is nan, but must be positive"),
    "lower above upper": (
        put("position_lower", 3, 9.0),
        "'position_lower' of 'left_knee_joint' is 9, which is above position_upper",
    ),
    "command lower above upper": (
        put("command_lower", 2, 9.0),
        "'command_lower' of 'yaw_rate' is 9, which is above command_upper",
    ),
    "default pose outside the limits": (
        put("default_position", 3, 6.0),
        "'default_position' of 'left_knee_joint' is 6, which is outside the position limits",
    ),
    "duplicate joint": (
        put("joint_names", 1, "left_hip_pitch_joint"),
        "'joint_names' has 'left_hip_pitch_joint' twice",
    ),
    "nameless joint": (put("joint_names", 1, ""), "'joint_names' has an empty name"),
    "duplicate command": (put("command_names", 1, "vx"), "'command_names' has 'vx' twice"),
    "no mode_machine": (put("mode_machine", []), "'mode_machine' is empty"),
    "mode_machine beyond a byte": (put("mode_machine", [256]), "'mode_machine' has 256, which does not fit"),
    "unknown observation term": (
        put("observation", 0, "name", "base_lin_vel"),
        "'observation' has an unknown term 'base_lin_vel', did you mean 'base_ang_vel'?",
    ),
    "observation term twice": (
        put("observation", 5, "name", "joint_vel"),
        "'observation' has the term 'joint_vel' twice",
    ),
    "observation slice shifted": (
        put("observation", 1, "start", 4),
        "'observation' puts 'projected_gravity' at 4..6, but it must be at 3..6",
    ),
    "observation slice with an unknown key": (
        put("observation", 1, "offset", 4),
        "'observation[1]': unknown key 'offset'",
    ),
    "observation scale infinite": (
        put("observation", 1, "scale", math.inf),
        "'observation' has a scale for 'projected_gravity' that is not finite",
    ),
    "no observation": (put("observation", []), "'observation' has no terms"),
    "history zero": (put("history", 0), "'history' is 0, but must be at least 1"),
    "state size off": (
        put("state_size", 30),
        "'state_size' is 30, but joints, observation, history and memory make it 221",
    ),
    "training without a seed": (remove("training", "seed"), "'training': missing key 'seed'"),
    "training with an unknown key": (
        put("training", "sead", 3),
        "'training': unknown key 'sead', did you mean 'seed'?",
    ),
    "infinite metric": (put("training", "metrics", "reward", math.inf), "'training' has the metric 'reward'"),
    "too few golden steps": (None, "'golden' has 7 steps, but at least 8 are needed"),
    "golden without actions": (remove("golden", "outputs", "action"), "'golden' needs exactly the outputs"),
    "golden with an unknown key": (put("golden", "note", ""), "'golden' needs exactly the keys"),
    "golden not base64": (
        put("golden", "inputs", "imu_gyro", "%"),
        "'golden' has a imu_gyro that is not base64",
    ),
    "golden cut short": (
        put("golden", "inputs", "imu_gyro", floats(1, 2, 3)),
        "'golden' has 3 values of imu_gyro instead of 10 x 3",
    ),
    "golden not finite": (
        put("golden", "inputs", "imu_gyro", floats(*[math.nan] * 30)),
        "'golden' has a value of imu_gyro that is not finite",
    ),
    "golden state cut short": (
        put("golden", "final_state", floats(1, 2, 3)),
        "'golden' has a final_state of 3 values instead of 221",
    ),
    "golden state of another episode": (
        put("golden", "final_state", floats(*[0.5] * 221)),
        "'golden' has a final_state that does not start with the last action",
    ),
    "default pose that is not the graph's": (
        put("default_position", 3, 0.6),
        "'golden' contradicts default_position, action_scale or position limits of 'left_knee_joint'",
    ),
    "action scale that is not the graph's": (
        put("action_scale", 7, 1.0),
        "'golden' contradicts default_position, action_scale or position limits of 'right_hip_roll_joint'",
    ),
    "command range that is not the graph's": (
        put("command_upper", 0, 2.0),
        "'golden' contradicts the observation term 'command'",
    ),
    "observation scale that is not the graph's": (
        put("observation", 4, "scale", 1.0),
        "'golden' contradicts the observation term 'joint_vel'",
    ),
    "observation terms exchanged": (rename_terms, "'golden' contradicts the observation term"),
    "joints of the default pose exchanged": (
        swap("default_position", 0, 15),
        "'golden' contradicts default_position, action_scale or position limits of",
    ),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            put("memory_size", 3),
            "'state_size' is 221, but joints, observation, history and memory make it 224",
        ),
        (put("memory_size", -1), "'memory_size' is -1, but must not be negative"),
        (put("memory_size", "3"), "'memory_size' needs an integer"),
        (put("training", "seed", None), "'training' has no seed, which the record of a policy trained here"),
        (put("training", "steps", None), "'training' has no steps"),
        (put("training", "imported", {"format": "mjlab"}), "missing key 'imported.sha256'"),
    ],
)
def test_what_imported_policies_have_beside_is_checked(text, change, message):
    document = json.loads(text)
    change(document)
    with pytest.raises(UserError) as refused:
        PolicyContract.from_json(json.dumps(document))
    assert message in str(refused.value)


def test_fields_of_imported_policies_survive_the_way_through_json(text):
    contract = PolicyContract.from_json(text)
    golden = dataclasses.replace(
        contract.golden, final_state=np.append(contract.golden.final_state, np.float32([7.0, -1.0]))
    )
    imported = ImportRecord("mjlab", "0" * 64, "", {"stiffness": "metadata"})
    training = dataclasses.replace(contract.training, seed=None, steps=None, imported=imported)
    changed = dataclasses.replace(
        contract, golden=golden, memory_size=2, state_size=contract.state_size + 2, training=training
    )
    again = PolicyContract.from_json(changed.to_json())
    assert (again.memory_size, again.training) == (2, training)
    np.testing.assert_array_equal(again.golden.final_state, golden.final_state)
    assert '"memory_size"' not in text and '"imported"' not in text


def shorten_golden(document):
    golden = document["golden"]
    golden["steps"] = 7
    for group in ("inputs", "outputs"):
        for name, encoded in golden[group].items():
            data = base64.b64decode(encoded)
            golden[group][name] = base64.b64encode(data[: len(data) // 10 * 7]).decode()


@pytest.mark.parametrize(("change", "message"), CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_corrupt_contract_is_refused_by_the_fields_name(text, change, message):
    document = json.loads(text)
    (change or shorten_golden)(document)
    with pytest.raises(UserError) as refused:
        PolicyContract.from_json(json.dumps(document))
    assert message in str(refused.value)
    assert str(refused.value).startswith("contract field '")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("", "not valid JSON (Expecting value at character 0)"),
        ('{"name": ', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[1, 2]", "not a JSON object"),
        ('{"name": "a", "name": "b"}', "contract field 'name' is given twice"),
    ],
)
def test_text_that_is_no_contract_is_refused(broken, message):
    with pytest.raises(UserError) as refused:
        PolicyContract.from_json(broken)
    assert message in str(refused.value)


ROBOTS = {
    "another robot": ({"name": "h1"}, "'robot' is 'g1', but this robot is 'h1'; choose another policy"),
    "another variant": (
        {"variant": "rev_2_0"},
        "'variant' is 'rev_1_0', but this robot is 'rev_2_0'; choose",
    ),
    "a description for other hardware": (
        {"mode_machine": (6, 7)},
        "'mode_machine' allows 5, but the description of g1 rev_1_0 is right for 6, 7 alone",
    ),
    "a description that changed": (
        {"description_hash": "0" * 64},
        "but this description of g1 rev_1_0 is 0000",
    ),
}


@pytest.mark.parametrize(("changes", "message"), ROBOTS.values(), ids=ROBOTS)
def test_policy_of_another_robot_is_refused(text, robot, changes, message):
    with pytest.raises(UserError) as refused:
        check_robot(PolicyContract.from_json(text), dataclasses.replace(robot, **changes))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        (
            "effort_limit",
            0.9,
            "'effort_limit' of 'left_hip_pitch_joint' is 88 Nm, wider than the robot's 79.2",
        ),
        ("velocity_limit", 0.5, "'velocity_limit' of"),
        ("position_upper", 0.9, "'position_upper' of"),
        ("position_lower", 0.9, "'position_lower' of"),
    ],
)
def test_policy_trained_with_wider_limits_than_the_robots_is_refused(text, robot, field, change, message):
    limits = getattr(robot, field).copy()
    limits[0] *= change
    with pytest.raises(UserError) as refused:
        check_robot(PolicyContract.from_json(text), dataclasses.replace(robot, **{field: limits}))
    assert message in str(refused.value)
    assert "left_hip_pitch_joint" in str(refused.value)


def test_policy_trained_with_tighter_limits_than_the_robots_is_taken(text, robot):
    roomy = dataclasses.replace(
        robot, effort_limit=robot.effort_limit * 1.5, position_upper=robot.position_upper + 0.1
    )
    check_robot(PolicyContract.from_json(text), roomy)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            lambda names: (*names[:-1], "tail_joint"),
            "'joint_names' has 'right_wrist_yaw_joint', which the robot",
        ),
        (lambda names: (*names, "tail_joint"), "'joint_names' lacks the robot's 'tail_joint'"),
        (
            lambda names: (names[1], names[0], *names[2:]),
            "'joint_names' has 'left_hip_pitch_joint' at position 0 where the robot's motor order has "
            "'left_hip_roll_joint'",
        ),
    ],
)
def test_other_joints_or_another_order_of_them_are_refused(text, robot, names, message):
    with pytest.raises(UserError) as refused:
        check_robot(
            PolicyContract.from_json(text), dataclasses.replace(robot, joint_names=names(robot.joint_names))
        )
    assert message in str(refused.value)
