"""The ground as USD: a slab, or the triangles of a height field. Lengths in m, Z up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pxr import Gf, Sdf, Usd, UsdGeom, UsdPhysics, UsdShade, Vt

from humanoid_rl_sim.simulators.height_field import HeightField

SLAB = 2000.0
"""m, edge of the level ground."""


def write_ground_usd(
    path: Path, height_field: HeightField | None, *, friction: float, combination: str
) -> None:
    """The ground as a file: level, a slab of 1 m; or the triangles of the height field.

    Args:
        path: file to write (.usda).
        height_field: level without.
        friction: sliding friction coefficient.
        combination: how an engine of PhysX's combines it with another shape's: "multiply", "max", ...
    """
    stage = Usd.Stage.CreateNew(str(path))
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    root = UsdGeom.Xform.Define(stage, "/ground")
    stage.SetDefaultPrim(root.GetPrim())
    if height_field is None:
        shape = UsdGeom.Cube.Define(stage, "/ground/shape")
        shape.CreateSizeAttr(1.0)
        shape.AddTranslateOp().Set(Gf.Vec3d(0.0, 0.0, -0.5))
        shape.AddScaleOp().Set(Gf.Vec3f(SLAB, SLAB, 1.0))
    else:
        shape = UsdGeom.Mesh.Define(stage, "/ground/shape")
        points, triangles = triangulated(height_field)
        shape.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(points))
        shape.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(triangles.ravel()))
        shape.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(triangles), 3, np.int32)))
        shape.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
        UsdPhysics.MeshCollisionAPI.Apply(shape.GetPrim()).CreateApproximationAttr(UsdPhysics.Tokens.none)
    shape.CreateDisplayColorAttr([Gf.Vec3f(0.6, 0.62, 0.65)])
    UsdPhysics.CollisionAPI.Apply(shape.GetPrim())
    material = UsdShade.Material.Define(stage, "/ground/material")
    physics = UsdPhysics.MaterialAPI.Apply(material.GetPrim())
    physics.CreateStaticFrictionAttr(friction)
    physics.CreateDynamicFrictionAttr(friction)
    physics.CreateRestitutionAttr(0.0)
    prim = material.GetPrim()
    prim.AddAppliedSchema("PhysxMaterialAPI")
    prim.CreateAttribute("physxMaterial:frictionCombineMode", Sdf.ValueTypeNames.Token).Set(combination)
    UsdShade.MaterialBindingAPI.Apply(shape.GetPrim()).Bind(
        material, UsdShade.Tokens.weakerThanDescendants, "physics"
    )
    stage.GetRootLayer().Save()


def triangulated(field: HeightField) -> tuple[np.ndarray, np.ndarray]:
    """Points [rows * columns, 3] in m and triangles [., 3], cut as `height_field.HeightField` says, facing up."""
    rows, columns = field.heights.shape
    half_x, half_y = field.half_size
    x, y = np.meshgrid(np.linspace(-half_x, half_x, columns), np.linspace(-half_y, half_y, rows))
    points = np.stack((x.ravel(), y.ravel(), field.heights.ravel()), axis=1).astype(np.float32)
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    right, above = corner + 1, corner + columns
    opposite = above + 1
    triangles = np.concatenate(
        (np.stack((corner, right, opposite), axis=1), np.stack((corner, opposite, above), axis=1))
    )
    return points, triangles.astype(np.int32)
