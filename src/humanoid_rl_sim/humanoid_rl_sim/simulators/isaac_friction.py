"""Sliding friction of every robot of its own: the one property that Isaac Lab leaves to each engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import warp as wp
from isaaclab.assets import Articulation

SetFriction = Callable[[torch.Tensor], None]
"""Takes coefficients [N]; they count for every shape of the robot."""


def friction_setter(engine: str, robot: Articulation) -> SetFriction:
    """How `engine` is told."""
    if engine == "newton":
        return _newton(robot)
    if engine == "ovphysx":
        return _ovphysx(robot)
    return _isaacsim(robot)


def _newton(robot: Any) -> SetFriction:
    from isaaclab_newton.physics import NewtonManager
    from newton import ModelFlags

    view = wp.to_torch(robot.root_view.get_attribute("shape_material_mu", NewtonManager.get_model()))
    shapes = view.reshape(robot.num_instances, -1)

    def set_friction(friction: torch.Tensor) -> None:
        shapes.copy_(friction[:, None].expand_as(shapes))
        NewtonManager.add_model_change(ModelFlags.SHAPE_PROPERTIES)

    return set_friction


def _ovphysx(robot: Any) -> SetFriction:
    from isaaclab_ov import tensor_types

    kind, view = tensor_types.SHAPE_FRICTION_AND_RESTITUTION, robot.root_view

    def set_friction(friction: torch.Tensor) -> None:
        materials = wp.to_torch(view.get_attribute(kind)).clone()
        materials[..., :2] = friction[:, None, None].to(materials.device)
        indices = torch.arange(robot.num_instances, dtype=torch.int32, device=materials.device)
        view.set_attribute(
            kind, wp.from_torch(materials.contiguous(), dtype=wp.float32), indices=wp.from_torch(indices)
        )

    return set_friction


def _isaacsim(robot: Any) -> SetFriction:
    view = robot.root_view

    def set_friction(friction: torch.Tensor) -> None:
        materials = wp.to_torch(view.get_material_properties())
        materials[..., :2] = friction[:, None, None].to(materials.device)
        everyone = torch.arange(robot.num_instances, dtype=torch.int32, device=materials.device)
        view.set_material_properties(wp.from_torch(materials, dtype=wp.float32), wp.from_torch(everyone))

    return set_friction
