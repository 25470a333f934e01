"""The robot as USD, made from the same compiled model that MuJoCo steps: nothing about the robot is written twice.

The stage has one prim per body, side by side below the default prim, in the pose in which every joint is at zero, and
the joints below `joints`. Bodies, masses, inertias and shapes are those of `mujoco_model.build_mujoco_spec`: links
behind fixed joints are part of their parents. Joints carry the motors' armature and effort limits, and no gains: those
are a choice of whoever drives the robot.

    tools/isaac python -m humanoid_rl_sim.simulators.robot_usd urdf/g1.usda

writes the file for users of Isaac Sim; the simulator makes its own afresh at every start.

Lengths in m, angles in rad here and in degrees in the file, as UsdPhysics has it; Z up.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import mujoco
import numpy as np
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import CameraMount, RobotModel, load_robot
from numpy.typing import NDArray
from pxr import Gf, Sdf, Usd, UsdGeom, UsdPhysics, UsdShade

from humanoid_rl_sim.simulators.contract import Collision
from humanoid_rl_sim.simulators.height_field import HeightField
from humanoid_rl_sim.simulators.mujoco_model import SOLE_FRICTION, VISUAL_GROUP, build_mujoco_spec

HASH_KEY = "description_hash"
"""In the layer's custom data: the description that the file was made from (`RobotModel.description_hash`)."""
SIGNIFICANT = 9
"""Digits of a number in the file, so that another processor's last bit does not change it."""
LENS_CLEARANCE = 0.03
"""m around a camera that are kept free of visual shapes: a lens's housing has a window, a primitive has none."""

VELOCITY_ITERATIONS = 4
"""Of PhysX's solver, as Isaac Lab's own G1 has it. With the one that is PhysX's default a foot that strikes the ground
is now and then thrown off at 10 m/s: g1_walk fell in 7 of velocity-v1's 108 episodes on OVPhysX, with four in 1."""

Floats = NDArray[np.float64]


def robot_usd(
    robot: RobotModel,
    *,
    collision: Collision = "full",
    height_field: HeightField | None = None,
    visual: bool = True,
    camera: CameraMount | None = None,
) -> Usd.Stage:
    """The robot alone, in memory; `stage.GetRootLayer().Export(path)` writes it.

    Args:
        robot: the robot.
        collision: which shapes collide: with "feet" the soles alone, else all but those of neighbours.
        height_field: the ground it is for (`mujoco_model` rounds the soles on one); not part of the file.
        visual: what is to be seen too, not only what collides.
        camera: one that looks out of the robot; the shapes of its housing are left out (`LENS_CLEARANCE`).
    """
    model = build_mujoco_spec(robot, collision=collision, height_field=height_field, visual=visual).compile()
    stage = Usd.Stage.CreateInMemory(f"{robot.name}.usda")
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    UsdPhysics.SetStageKilogramsPerUnit(stage, 1.0)
    root = UsdGeom.Xform.Define(stage, f"/{robot.name}")
    stage.SetDefaultPrim(root.GetPrim())
    stage.GetRootLayer().customLayerData = {HASH_KEY: robot.description_hash, "variant": robot.variant}
    data = mujoco.MjData(model)
    data.qpos[:] = model.qpos0
    data.qpos[:3] = 0.0
    mujoco.mj_kinematics(model, data)
    writer = _Writer(stage, model, data, root.GetPath(), collision, camera)
    for body in range(1, model.nbody):
        writer.add_body(body)
    for name in robot.joint_names:
        writer.add_joint(name, robot)
    writer.add_articulation(robot.base_link)
    return stage


class _Writer:
    """Prims of one model below one path."""

    def __init__(
        self,
        stage: Usd.Stage,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        root: Sdf.Path,
        collision: Collision,
        camera: CameraMount | None,
    ) -> None:
        self._stage, self._model, self._data, self._root = stage, model, data, root
        self._collision, self._camera = collision, camera
        UsdGeom.Scope.Define(stage, root.AppendChild("materials"))
        UsdGeom.Scope.Define(stage, root.AppendChild("joints"))
        self._sole = UsdShade.Material.Define(stage, root.AppendPath("materials/sole"))
        material = UsdPhysics.MaterialAPI.Apply(self._sole.GetPrim())
        material.CreateStaticFrictionAttr(SOLE_FRICTION)
        material.CreateDynamicFrictionAttr(SOLE_FRICTION)
        material.CreateRestitutionAttr(0.0)

    def body_path(self, body: int) -> Sdf.Path:
        return self._root.AppendChild(self._model.body(body).name)

    def body_prim(self, body: int) -> Usd.Prim:
        return self._stage.GetPrimAtPath(self.body_path(body))

    def add_body(self, body: int) -> None:
        model, path = self._model, self.body_path(body)
        xform = UsdGeom.Xform.Define(self._stage, path)
        _place(xform, self._data.xpos[body], self._data.xquat[body])
        UsdPhysics.RigidBodyAPI.Apply(xform.GetPrim())
        mass = UsdPhysics.MassAPI.Apply(xform.GetPrim())
        mass.CreateMassAttr(_short(model.body_mass[body]))
        mass.CreateCenterOfMassAttr(_vector(model.body_ipos[body]))
        mass.CreateDiagonalInertiaAttr(_vector(model.body_inertia[body]))
        mass.CreatePrincipalAxesAttr(_quaternion(model.body_iquat[body]))
        first, count = model.body_geomadr[body], model.body_geomnum[body]
        for number, geom in enumerate(range(first, first + count)):
            self._add_shape(path, number, geom)

    def _add_shape(self, body: Sdf.Path, number: int, geom: int) -> None:
        model = self._model
        visual = model.geom_group[geom] == VISUAL_GROUP
        if not visual and self._collision == "feet" and model.geom_priority[geom] == 0:
            return
        if visual and self._blocks_camera(geom):
            return
        name = model.geom(geom).name or f"{'visual' if visual else 'collision'}_{number}"
        path = body.AppendChild(name)
        size = model.geom_size[geom]
        match mujoco.mjtGeom(model.geom_type[geom]):
            case mujoco.mjtGeom.mjGEOM_SPHERE:
                shape = UsdGeom.Sphere.Define(self._stage, path)
                shape.CreateRadiusAttr(_short(size[0]))
            case mujoco.mjtGeom.mjGEOM_CAPSULE:
                shape = UsdGeom.Capsule.Define(self._stage, path)
                shape.CreateRadiusAttr(_short(size[0]))
                shape.CreateHeightAttr(_short(2.0 * size[1]))
                shape.CreateAxisAttr(UsdGeom.Tokens.z)
            case mujoco.mjtGeom.mjGEOM_CYLINDER:
                shape = UsdGeom.Cylinder.Define(self._stage, path)
                shape.CreateRadiusAttr(_short(size[0]))
                shape.CreateHeightAttr(_short(2.0 * size[1]))
                shape.CreateAxisAttr(UsdGeom.Tokens.z)
            case mujoco.mjtGeom.mjGEOM_BOX:
                shape = UsdGeom.Cube.Define(self._stage, path)
                shape.CreateSizeAttr(2.0)
            case other:  # the description has primitives only
                raise ValueError(f"shape {name}: {other!r} is not translated to USD")
        _place(shape, model.geom_pos[geom], model.geom_quat[geom])
        if isinstance(shape, UsdGeom.Cube):
            shape.AddScaleOp().Set(_vector(size))
        if visual:
            shape.CreateDisplayColorAttr([_vector(model.geom_rgba[geom][:3])])
            return
        shape.CreatePurposeAttr(UsdGeom.Tokens.guide)
        UsdPhysics.CollisionAPI.Apply(shape.GetPrim())
        if model.geom_priority[geom] > 0:
            binding = UsdShade.MaterialBindingAPI.Apply(shape.GetPrim())
            binding.Bind(self._sole, UsdShade.Tokens.weakerThanDescendants, "physics")

    def _blocks_camera(self, geom: int) -> bool:
        camera, model = self._camera, self._model
        if camera is None or model.body(int(model.geom_bodyid[geom])).name != camera.body:
            return False
        return _distance(model, geom, camera.position) < LENS_CLEARANCE

    def add_joint(self, name: str, robot: RobotModel) -> None:
        model, motor = self._model, robot.joint_names.index(name)
        joint = model.joint(name)
        body = int(joint.bodyid[0])
        prim = UsdPhysics.RevoluteJoint.Define(self._stage, self._root.AppendPath(f"joints/{name}"))
        prim.CreateBody0Rel().SetTargets([self.body_path(int(model.body_parentid[body]))])
        prim.CreateBody1Rel().SetTargets([self.body_path(body)])
        # The joint turns about its frame's X axis.
        axis = np.zeros(4)
        mujoco.mju_quatZ2Vec(axis, joint.axis)
        to_x = np.array([math.sqrt(0.5), 0.0, -math.sqrt(0.5), 0.0])  # turns X to Z
        frame, outer = np.zeros(4), np.zeros(4)
        mujoco.mju_mulQuat(frame, axis, to_x)
        mujoco.mju_mulQuat(outer, model.body_quat[body], frame)
        offset = np.zeros(3)
        mujoco.mju_rotVecQuat(offset, joint.pos, model.body_quat[body])
        prim.CreateAxisAttr(UsdPhysics.Tokens.x)
        prim.CreateLocalPos0Attr(_vector(model.body_pos[body] + offset))
        prim.CreateLocalRot0Attr(_quaternion(outer))
        prim.CreateLocalPos1Attr(_vector(joint.pos))
        prim.CreateLocalRot1Attr(_quaternion(frame))
        prim.CreateLowerLimitAttr(_short(math.degrees(robot.position_lower[motor])))
        prim.CreateUpperLimitAttr(_short(math.degrees(robot.position_upper[motor])))
        drive = UsdPhysics.DriveAPI.Apply(prim.GetPrim(), UsdPhysics.Tokens.angular)
        drive.CreateTypeAttr(UsdPhysics.Tokens.force)
        drive.CreateMaxForceAttr(_short(robot.effort_limit[motor]))
        drive.CreateStiffnessAttr(0.0)
        drive.CreateDampingAttr(0.0)
        for schema, attribute in (
            ("PhysxJointAPI", "physxJoint:armature"),
            ("NewtonJointAPI", "newton:armature"),
        ):
            prim.GetPrim().AddAppliedSchema(schema)
            value = _short(robot.armature[motor])
            prim.GetPrim().CreateAttribute(attribute, Sdf.ValueTypeNames.Float, custom=False).Set(value)

    def add_articulation(self, base_link: str) -> None:
        """The tree that hangs from the base. Pairs that overlap by design do not collide."""
        base = self.body_prim(self._model.body(base_link).id)
        UsdPhysics.ArticulationRootAPI.Apply(base)
        touches_itself = self._collision != "feet"
        for schema, name in (
            ("PhysxArticulationAPI", "physxArticulation:enabledSelfCollisions"),
            ("NewtonArticulationRootAPI", "newton:selfCollisionEnabled"),
        ):
            base.AddAppliedSchema(schema)
            base.CreateAttribute(name, Sdf.ValueTypeNames.Bool, custom=False).Set(touches_itself)
        iterations = "physxArticulation:solverVelocityIterationCount"
        base.CreateAttribute(iterations, Sdf.ValueTypeNames.Int, custom=False).Set(VELOCITY_ITERATIONS)
        if not touches_itself:
            return
        for signature in self._model.exclude_signature:
            first, second = int(signature) >> 16, int(signature) & 0xFFFF
            pairs = UsdPhysics.FilteredPairsAPI.Apply(self.body_prim(first))
            pairs.CreateFilteredPairsRel().AddTarget(self.body_path(second))


def write_robot_usd(
    robot: RobotModel,
    path: Path,
    *,
    collision: Collision = "full",
    height_field: HeightField | None = None,
    camera: CameraMount | None = None,
) -> None:
    """`robot_usd` as a text file (.usda), whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp.usda")
    stage = robot_usd(robot, collision=collision, height_field=height_field, camera=camera)
    stage.GetRootLayer().Export(str(temporary))
    temporary.replace(path)


def _place(xform: UsdGeom.Xformable, position: Floats, quaternion: Floats) -> None:
    xform.AddTranslateOp(UsdGeom.XformOp.PrecisionDouble).Set(Gf.Vec3d(*map(_short, position)))
    xform.AddOrientOp(UsdGeom.XformOp.PrecisionDouble).Set(Gf.Quatd(*map(_short, quaternion)))


def _distance(model: mujoco.MjModel, geom: int, point: Floats) -> float:
    """m from a point in the body's frame to a capsule, sphere, cylinder or box of that body; not positive inside."""
    inverse, local = np.zeros(4), np.zeros(3)
    mujoco.mju_negQuat(inverse, model.geom_quat[geom])
    mujoco.mju_rotVecQuat(local, point - model.geom_pos[geom], inverse)
    size, radial = model.geom_size[geom], math.hypot(local[0], local[1])
    match mujoco.mjtGeom(model.geom_type[geom]):
        case mujoco.mjtGeom.mjGEOM_BOX:
            return float(np.linalg.norm(np.maximum(np.abs(local) - size, 0.0)))
        case mujoco.mjtGeom.mjGEOM_CYLINDER:
            return math.hypot(max(radial - size[0], 0.0), max(abs(local[2]) - size[1], 0.0))
        case mujoco.mjtGeom.mjGEOM_CAPSULE:
            return math.hypot(radial, max(abs(local[2]) - size[1], 0.0)) - float(size[0])
        case _:
            return float(np.linalg.norm(local)) - float(size[0])


def _short(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT}g}") if abs(value) > 1e-12 else 0.0


def _vector(values: Floats) -> Gf.Vec3f:
    return Gf.Vec3f(*map(_short, values))


def _quaternion(values: Floats) -> Gf.Quatf:
    """From w, x, y, z."""
    return Gf.Quatf(*map(_short, values))


def main() -> int:
    """Write a robot's file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="file to write (.usda)")
    parser.add_argument("--robot", default="g1", help="robot (default g1)")
    parser.add_argument("--variant", default="rev_1_0", help="variant (default rev_1_0)")
    options = parser.parse_args()
    try:
        write_robot_usd(load_robot(options.robot, options.variant), options.output)
    except (UserError, OSError) as error:
        print(f"robot_usd: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
