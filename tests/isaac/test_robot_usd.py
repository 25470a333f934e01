"""The robot's USD says what the URDF says, and the committed file is the one that is made today."""

from __future__ import annotations

import math
import subprocess
import sys

import mujoco
import numpy as np
import pytest
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.simulators.mujoco_model import build_mujoco_model
from humanoid_rl_sim.simulators.robot_usd import HASH_KEY, robot_usd
from pxr import Usd, UsdGeom, UsdPhysics

VARIANTS = ("rev_1_0", "mode_11", "mode_13", "mode_15")


@pytest.fixture(params=VARIANTS)
def robot(request):
    return load_robot("g1", request.param)


def test_the_committed_file_is_the_one_made_today(tmp_path):
    made = tmp_path / "g1.usda"
    # As it is made: in a process without an engine, whose USD schemas change how attributes are written.
    command = [sys.executable, "-m", "humanoid_rl_sim.simulators.robot_usd", str(made)]
    subprocess.run(command, check=True, timeout=120)
    assert (share_dir() / "urdf" / "g1.usda").read_text() == made.read_text(), (
        "make it anew: tools/isaac python -m humanoid_rl_sim.simulators.robot_usd urdf/g1.usda"
    )
    stage = Usd.Stage.Open(str(made))
    assert stage.GetRootLayer().customLayerData[HASH_KEY] == load_robot().description_hash


def test_bodies_have_the_masses_and_inertias_of_the_model(robot):
    stage, model = robot_usd(robot), build_mujoco_model(robot)
    bodies = [prim for prim in stage.Traverse() if prim.HasAPI(UsdPhysics.RigidBodyAPI)]
    assert {prim.GetName() for prim in bodies} == {model.body(i).name for i in range(1, model.nbody)}
    for prim in bodies:
        body, mass = model.body(prim.GetName()), UsdPhysics.MassAPI(prim)
        assert mass.GetMassAttr().Get() == pytest.approx(float(body.mass[0]), rel=1e-6)
        np.testing.assert_allclose(mass.GetCenterOfMassAttr().Get(), body.ipos, atol=1e-7)
        np.testing.assert_allclose(mass.GetDiagonalInertiaAttr().Get(), body.inertia, rtol=1e-5)
        axes = mass.GetPrincipalAxesAttr().Get()
        aligned = abs(np.dot([axes.GetReal(), *axes.GetImaginary()], body.iquat))
        assert aligned == pytest.approx(1.0, abs=1e-6)


def test_joints_have_the_limits_and_motors_of_the_robot(robot):
    stage = robot_usd(robot)
    joints = {prim.GetName(): prim for prim in stage.Traverse() if prim.IsA(UsdPhysics.RevoluteJoint)}
    assert set(joints) == set(robot.joint_names)
    for i, name in enumerate(robot.joint_names):
        prim, joint = joints[name], UsdPhysics.RevoluteJoint(joints[name])
        assert joint.GetLowerLimitAttr().Get() == pytest.approx(
            math.degrees(robot.position_lower[i]), rel=1e-6
        )
        assert joint.GetUpperLimitAttr().Get() == pytest.approx(
            math.degrees(robot.position_upper[i]), rel=1e-6
        )
        drive = UsdPhysics.DriveAPI(prim, "angular")
        assert drive.GetMaxForceAttr().Get() == pytest.approx(robot.effort_limit[i])
        for attribute in ("physxJoint:armature", "newton:armature"):
            assert prim.GetAttribute(attribute).Get() == pytest.approx(robot.armature[i], rel=1e-6)


def test_turning_a_joint_of_the_file_moves_the_child_as_in_the_model(robot):
    """The child's pose from the joint's two frames is MuJoCo's, for every joint at an angle of its own."""
    stage, model = robot_usd(robot), build_mujoco_model(robot)
    data = mujoco.MjData(model)
    angles = np.random.default_rng(0).uniform(-0.5, 0.5, len(robot.joint_names))
    for name, angle in zip(robot.joint_names, angles, strict=True):
        data.joint(name).qpos[0] = angle
    mujoco.mj_kinematics(model, data)
    for name, angle in zip(robot.joint_names, angles, strict=True):
        joint = UsdPhysics.RevoluteJoint(stage.GetPrimAtPath(f"/{robot.name}/joints/{name}"))
        (parent,) = joint.GetBody0Rel().GetTargets()
        (child,) = joint.GetBody1Rel().GetTargets()
        outer = _pose(data.body(parent.name)) @ _frame(
            joint.GetLocalPos0Attr().Get(), joint.GetLocalRot0Attr().Get()
        )
        inner = _frame(joint.GetLocalPos1Attr().Get(), joint.GetLocalRot1Attr().Get())
        turned = outer @ _about_x(angle) @ np.linalg.inv(inner)
        np.testing.assert_allclose(turned, _pose(data.body(child.name)), atol=1e-6, err_msg=name)


def test_soles_alone_collide_when_asked():
    robot = load_robot()
    stage = robot_usd(robot, collision="feet")
    shapes = [prim for prim in stage.Traverse() if prim.HasAPI(UsdPhysics.CollisionAPI)]
    assert len(shapes) == 8
    assert {prim.GetParent().GetName() for prim in shapes} == set(robot.foot_links)
    everything = robot_usd(robot, collision="full")
    assert sum(prim.HasAPI(UsdPhysics.CollisionAPI) for prim in everything.Traverse()) > 20


def test_the_file_is_in_metres_with_z_up():
    stage = robot_usd(load_robot())
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1.0 and UsdGeom.GetStageUpAxis(stage) == "Z"


def _frame(position, quaternion) -> np.ndarray:
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, np.array([quaternion.GetReal(), *quaternion.GetImaginary()], float))
    frame = np.eye(4)
    frame[:3, :3], frame[:3, 3] = rotation.reshape(3, 3), position
    return frame


def _pose(body) -> np.ndarray:
    frame = np.eye(4)
    frame[:3, :3], frame[:3, 3] = body.xmat.reshape(3, 3), body.xpos
    return frame


def _about_x(angle: float) -> np.ndarray:
    frame = np.eye(4)
    c, s = math.cos(angle), math.sin(angle)
    frame[1:3, 1:3] = [[c, -s], [s, c]]
    return frame
