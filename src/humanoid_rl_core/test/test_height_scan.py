"""A policy that sees the ground: geometry, graph, contract and file; and one that does not is as it ever was."""

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import onnx
import pytest
import torch
from humanoid_rl_core.contract import PolicyContract, check_robot, check_sensors
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.height_scan import HeightScan
from humanoid_rl_core.onnx_policy import OnnxPolicy
from humanoid_rl_core.policy_graph import ObservationTerm, PolicyGraph

SCAN = HeightScan(1.0, 0.5, 0.25, origin="pelvis", standing_height=0.78)


@pytest.fixture
def readings(sensors):
    """Raw sensors of an episode of 20 steps, ground beyond the clip included."""
    scan = np.random.default_rng(5).normal(0.0, 1.0, (20, SCAN.size)).astype(np.float32)
    return {**sensors(20), "height_scan": scan}


@pytest.fixture(scope="module")
def text(seeing_policy_file):
    return {entry.key: entry.value for entry in onnx.load(seeing_policy_file).metadata_props}["humanoid_rl"]


def test_points_go_from_behind_to_ahead_and_from_right_to_left():
    assert SCAN.size == 15
    assert SCAN.points[:3].tolist() == [[-0.5, -0.25], [-0.5, 0.0], [-0.5, 0.25]]
    assert SCAN.points[-1].tolist() == [0.5, 0.25]
    np.testing.assert_array_equal(SCAN.points[SCAN.mirrored], SCAN.points * [1.0, -1.0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spacing": 0.0}, "spacing must be positive"),
        ({"spacing": np.nan}, "spacing must be positive"),
        ({"length": -1.0}, "length must not be negative"),
        ({"width": 0.3}, "width 0.3 m is not a multiple of spacing 0.25 m"),
        ({"standing_height": np.inf}, "standing_height must be positive"),
        ({"clip": 0.0}, "clip must be positive"),
    ],
)
def test_a_geometry_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SCAN, **changes)


def test_graph_sees_the_clipped_and_scaled_scan(seeing_graph, readings):
    tensors = {name: torch.from_numpy(values) for name, values in readings.items()}
    observation, _ = seeing_graph.observe(**tensors, state=seeing_graph.initial_state(20))
    newest = observation[:, -seeing_graph.frame_size :]
    name, start, stop, _ = seeing_graph.observation_layout[-1]
    assert name == "height_scan" and stop - start == 15
    np.testing.assert_allclose(newest[:, start:stop], 2.0 * np.clip(readings["height_scan"], -1.0, 1.0))
    assert np.abs(readings["height_scan"]).max() > 1.5, "the clip must matter here"


def test_term_and_geometry_go_together(make_graph, seeing_graph, readings):
    for arguments in ({"observation": [ObservationTerm("height_scan")]}, {"height_scan": SCAN}):
        with pytest.raises(UserError, match="'height_scan' and its geometry go together"):
            make_graph(**arguments)
    del readings["height_scan"]
    tensors = {name: torch.from_numpy(values) for name, values in readings.items()}
    with pytest.raises(ValueError, match="sees the ground; give it the height_scan"):
        seeing_graph.observe(**tensors, state=seeing_graph.initial_state(20))


def test_a_graph_saved_before_there_were_scans_still_exports(make_graph, export, robot, tmp_path):
    graph = copy.deepcopy(make_graph())
    del graph.__dict__["height_scan"]
    assert isinstance(graph, PolicyGraph) and "height_scan" not in vars(graph)
    assert OnnxPolicy(export(tmp_path / "policy.onnx", graph), robot).contract.height_scan is None


def test_file_follows_torch_and_has_the_scan_as_its_last_input(
    seeing_graph, seeing_policy_file, robot, readings
):
    policy = OnnxPolicy(seeing_policy_file, robot)
    assert [value.name for value in onnx.load(seeing_policy_file).graph.input] == [
        "joint_pos", "joint_vel", "imu_gyro", "imu_quat", "command", "state", "height_scan"
    ]  # fmt: skip
    state = seeing_graph.initial_state(1)
    seen = []
    for step in range(20):
        output = policy.step(**{name: values[step] for name, values in readings.items()})
        with torch.no_grad():
            tensors = {name: torch.from_numpy(values[step : step + 1]) for name, values in readings.items()}
            target, state, action = seeing_graph(**tensors, state=state)
        np.testing.assert_allclose(output.joint_target, target[0], atol=1e-5, rtol=0)
        np.testing.assert_allclose(output.action, action[0], atol=1e-5, rtol=0)
        seen.append(output.action)
    policy.reset()
    blind = policy.step(
        **{n: v[0] for n, v in readings.items() if n != "height_scan"}, height_scan=np.zeros(15)
    )
    assert np.abs(blind.action - seen[0]).max() > 1e-3, "what it sees must matter here"


def test_step_refuses_a_scan_that_is_missing_not_needed_or_of_another_size(
    seeing_policy_file, policy_file, robot, readings
):
    step = {name: values[0] for name, values in readings.items()}
    scan = step.pop("height_scan")
    seeing, blind = OnnxPolicy(seeing_policy_file, robot), OnnxPolicy(policy_file, robot)
    with pytest.raises(UserError, match=r"needs the input 'height_scan' \(15 depths in m\)"):
        seeing.step(**step)
    with pytest.raises(UserError, match="has no input 'height_scan'; leave it out"):
        blind.step(**step, height_scan=scan)
    with pytest.raises(ValueError, match="wrong shape"):
        seeing.step(**step, height_scan=scan[:-1])
    assert not seeing.state.any() and not blind.state.any()
    scan = scan.copy()
    scan[3] = np.nan
    with pytest.raises(UserError, match="policy input 'height_scan' number 3 is not finite"):
        seeing.step(**step, height_scan=scan)


def test_contract_says_where_the_policy_looks(text, robot):
    contract = PolicyContract.from_json(text)
    assert contract.to_json() == text
    assert contract.height_scan == dataclasses.replace(
        SCAN, origin=robot.base_link, standing_height=robot.default_base_height
    )
    assert json.loads(text)["height_scan"] == {
        "length": 1.0, "width": 0.5, "spacing": 0.25, "origin": "pelvis",
        "standing_height": robot.default_base_height, "frame": "base_yaw", "clip": 1.0,
    }  # fmt: skip
    check_robot(contract, robot)


def test_contract_of_a_policy_that_sees_nothing_is_as_before(policy_file):
    text = {entry.key: entry.value for entry in onnx.load(policy_file).metadata_props}["humanoid_rl"]
    assert "height_scan" not in text
    assert json.loads(text)["schema_version"] == 1


def without_geometry(document):
    del document["height_scan"]


def without_term(document):
    document["observation"].pop()


def changed(**changes):
    return lambda document: document["height_scan"].update(changes)


CORRUPTIONS = {
    "geometry missing": (without_geometry, "'height_scan' is missing, but the observation has the term"),
    "geometry null": (lambda d: d.update(height_scan=None), "'height_scan': expected keys of HeightScan"),
    "geometry without a term": (without_term, "'height_scan' is given, but the observation does not have"),
    "unknown key": (changed(with_=1.0), "'height_scan': unknown key 'with_', did you mean 'width'?"),
    "text for a number": (changed(length="1"), "'height_scan': length: expected a number"),
    "another frame": (changed(frame="world"), "'height_scan': frame: 'world' is not one of base_yaw"),
    "spacing zero": (changed(spacing=0.0), "'height_scan': spacing must be positive"),
    "points that do not fit": (changed(width=0.4), "'height_scan': width 0.4 m is not a multiple"),
    "more points than the graph has": (changed(length=1.25), "'golden' has 150 values of height_scan"),
    "another clip": (changed(clip=0.5), "'golden' contradicts the observation term 'height_scan'"),
}


@pytest.mark.parametrize(("change", "message"), CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_a_wrong_geometry_is_refused_by_the_fields_name(text, change, message):
    document = json.loads(text)
    change(document)
    with pytest.raises(UserError) as refused:
        PolicyContract.from_json(json.dumps(document))
    assert message in str(refused.value)
    assert str(refused.value).startswith("contract field '") and "\n" not in str(refused.value)


def test_a_scan_around_another_link_than_the_robots_base_is_refused(text, robot):
    document = json.loads(text)
    document["height_scan"]["origin"] = "torso_link"
    with pytest.raises(
        UserError, match="'height_scan' has its origin at 'torso_link', but the robot's base link"
    ):
        check_robot(PolicyContract.from_json(json.dumps(document)), robot)


def test_a_contract_that_differs_from_the_graphs_input_is_refused(
    seeing_policy_file, policy_file, robot, tmp_path
):
    model = onnx.load(seeing_policy_file)
    model.metadata_props[0].value = onnx.load(policy_file).metadata_props[0].value
    onnx.save(model, tmp_path / "changed.onnx")
    with pytest.raises(UserError, match="the graph has an unknown input 'height_scan'"):
        OnnxPolicy(tmp_path / "changed.onnx", robot)


def test_no_robot_has_a_sensor_for_it(seeing_policy_file, policy_file, robot):
    check_sensors(OnnxPolicy(policy_file, robot).contract, robot)
    with pytest.raises(UserError, match=r"asks for the ground at 15 points, but .* has no sensor") as refused:
        check_sensors(OnnxPolicy(seeing_policy_file, robot).contract, robot)
    assert "\n" not in str(refused.value)
