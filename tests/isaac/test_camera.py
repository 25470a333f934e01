"""What a robot's camera sees in Isaac Lab, against rays that MuJoCo casts from the same place."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mujoco
import numpy as np
import pytest
import torch
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.simulators.camera import CameraConfig, Images
from humanoid_rl_sim.simulators.contract import InitialState
from humanoid_rl_sim.simulators.height_field import HeightField
from humanoid_rl_sim.simulators.isaac import IsaacSimulator
from humanoid_rl_sim.simulators.mujoco_model import build_mujoco_spec, joint_qpos_address

from humanoid_rl_core import rotation

ROBOT = load_robot()
CAMERA = CameraConfig(width=48, height=30)
SCENE_GROUP = np.array([1, 0, 0, 0, 0, 0], np.uint8)
Make = Callable[..., IsaacSimulator]


@pytest.fixture(params=["ovphysx", "newton"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    made: list[IsaacSimulator] = []

    def factory(num_envs: int, **options) -> IsaacSimulator:
        while made:
            made.pop().close()
        made.append(IsaacSimulator(ROBOT, num_envs, engine=request.param, **options))
        return made[-1]

    yield factory
    while made:
        made.pop().close()


def steps() -> HeightField:
    """Level where the robot stands; from 0.8 m on, every cell has another height, up to 0.2 m."""
    heights = np.random.default_rng(2).uniform(0.0, 0.2, (61, 61)).astype(np.float32)
    heights[:, :39] = 0.0
    return HeightField(heights, 0.1)


def poses(simulator: IsaacSimulator) -> InitialState:
    """Each robot elsewhere, turned, and with another turn of the waist."""
    n = simulator.num_envs
    joint_pos = torch.tensor(ROBOT.default_position, dtype=torch.float32).repeat(n, 1)
    joint_pos[:, ROBOT.joint_names.index("waist_yaw_joint")] = torch.linspace(0.0, 0.6, n)
    joint_pos[:, ROBOT.joint_names.index("waist_pitch_joint")] = torch.linspace(0.0, 0.2, n)
    base_pos = torch.zeros(n, 3)
    base_pos[:, 1] = torch.linspace(0.0, 0.8, n)
    base_pos[:, 2] = ROBOT.default_base_height + torch.linspace(0.0, 0.1, n)
    quaternions = rotation.from_rpy(
        np.linspace(0.0, 0.1, n), np.linspace(0.0, -0.15, n), np.linspace(0.0, 0.5, n)
    )
    still = torch.zeros(n, 3)
    return InitialState(
        joint_pos, torch.zeros_like(joint_pos), base_pos, torch.tensor(quaternions).float(), still, still
    )


def look(simulator: IsaacSimulator, initial: InitialState) -> Images:
    simulator.reset(torch.ones(simulator.num_envs, dtype=torch.bool), initial)
    simulator.advance(1)
    simulator.refresh()
    return simulator.images()


def depth_by_rays(simulator: IsaacSimulator, camera: CameraConfig, row: int) -> np.ndarray:
    """[height, width] m along the optical axis to the ground; 0 where it is out of the camera's range."""
    model = build_mujoco_spec(ROBOT, height_field=simulator.height_field).compile()
    data, state, mount = mujoco.MjData(model), simulator.state, camera.mount(ROBOT)
    data.qpos[:3], data.qpos[3:7] = state.base_pos[row].numpy(), state.base_quat[row].numpy()
    data.qpos[joint_qpos_address(model, ROBOT)] = state.joint_pos[row].numpy()
    mujoco.mj_forward(model, data)
    body = data.body(mount.body)
    origin = body.xpos + rotation.rotate(body.xquat, mount.position)
    turn = rotation.multiply(body.xquat, mount.quaternion)
    focal_length = 0.5 * camera.width / np.tan(0.5 * mount.horizontal_fov)
    depth = np.zeros((camera.height, camera.width))
    for v, u in np.ndindex(depth.shape):
        right, down = (
            (u + 0.5 - camera.width / 2) / focal_length,
            (v + 0.5 - camera.height / 2) / focal_length,
        )
        ray = rotation.rotate(turn, [1.0, -right, -down])
        length = float(np.linalg.norm(ray))
        distance = mujoco.mj_ray(model, data, origin, ray / length, SCENE_GROUP, 1, -1, np.zeros(1, np.int32))
        if mount.near <= distance / length <= mount.far:
            depth[v, u] = distance / length
    return depth


@pytest.mark.parametrize("ground", [None, steps()], ids=["level", "steps"])
def test_depth_is_what_rays_from_the_cameras_place_meet(make: Make, ground: HeightField | None):
    simulator = make(3, camera=CAMERA, height_field=ground)
    images = look(simulator, poses(simulator))
    assert images.color is not None and images.depth is not None
    assert images.color.shape == (3, 30, 48, 3) and images.color.dtype == torch.uint8
    assert images.depth.shape == (3, 30, 48) and images.depth.dtype == torch.float32
    check_depth(simulator, images)
    target = torch.tensor(ROBOT.default_position, dtype=torch.float32).repeat(3, 1)
    target[:, ROBOT.joint_names.index("waist_yaw_joint")] -= 0.4
    simulator.set_joint_target(target)
    simulator.advance(60)
    simulator.refresh()
    check_depth(simulator, simulator.images())


def check_depth(simulator: IsaacSimulator, images: Images) -> None:
    assert images.depth is not None
    for row in range(3):
        seen, expected = images.depth[row].numpy(), depth_by_rays(simulator, CAMERA, row)
        ground_share = float((expected > 0.0).mean())
        assert ground_share > 0.5 and np.ptp(expected[expected > 0.0]) > 0.5
        # Its own hands are before the ground; at an edge a pixel is on one side of it or the other.
        equal = np.abs(seen - expected) < 5e-3
        assert equal.mean() > 0.93, (row, equal.mean())
        nearer = (seen < expected) & (seen > 0.0)
        assert (equal | nearer).mean() > 0.97, (row, (equal | nearer).mean())


def test_robots_do_not_see_each_other_and_the_camera_changes_nothing_but_what_is_seen(make: Make):
    """On a height field all stand in the same world, in each other's way."""
    simulator = make(2, camera=CAMERA, height_field=steps())
    initial = poses(simulator)
    alone = look(simulator, initial)
    initial.base_pos[1] = initial.base_pos[0] + torch.tensor([0.9, 0.0, 0.0])
    together = look(simulator, initial)
    assert alone.depth is not None and together.depth is not None
    torch.testing.assert_close(together.depth[0], alone.depth[0], atol=1e-3, rtol=0)
    assert (alone.color[0].float() - together.color[0].float()).abs().mean() < 0.5
    simulator.advance(20)
    simulator.refresh()
    moved = simulator.state.base_pos.clone(), simulator.state.joint_pos.clone()
    blind = make(2, height_field=steps())
    blind.reset(torch.ones(2, dtype=torch.bool), initial)
    blind.advance(21)
    blind.refresh()
    torch.testing.assert_close(blind.state.base_pos, moved[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(blind.state.joint_pos, moved[1], atol=1e-5, rtol=0)


def test_one_channel_alone_and_none(make: Make):
    simulator = make(1, camera=CameraConfig(width=16, height=10, channels=("depth",)))
    images = simulator.images()
    assert images.color is None and images.depth is not None and images.depth.shape == (1, 10, 16)
    with pytest.raises(ValueError, match="without a camera"):
        make(1).images()
    with pytest.raises(
        UserError, match=r"robot g1 has no camera 'haed', did you mean 'head'\? \(known: head\)"
    ):
        make(1, camera=CameraConfig(name="haed"))
