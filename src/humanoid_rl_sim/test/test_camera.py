"""Cameras on the robots: what is asked for, when an environment looks, and what learners and ROS get of it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import rclpy
import torch
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import load_robot
from humanoid_rl_core.rotation import rotate
from humanoid_rl_core.typed_yaml import load_dataclass
from humanoid_rl_sim.learning.configuration import from_yaml, load_training_config, to_yaml
from humanoid_rl_sim.learning.gymnasium_vector_env import GymnasiumVectorEnv
from humanoid_rl_sim.learning.training import train
from humanoid_rl_sim.nodes.camera_topics import CameraTopics
from humanoid_rl_sim.simulators.camera import CameraConfig, Images
from humanoid_rl_sim.simulators.mujoco import MujocoSimulator
from humanoid_rl_sim.simulators.registry import make_simulator
from humanoid_rl_sim.tasks.configuration import load_task
from humanoid_rl_sim.tasks.environment import Environment
from humanoid_rl_sim.tasks.making import make_environment
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

N = 3
STAND = load_task("stand")


class NumberedImages(MujocoSimulator):
    """Its n-th picture is of colour n, with a depth of n m."""

    taken = 0

    def images(self) -> Images:
        assert self.camera is not None
        self.taken += 1
        size = (self.num_envs, self.camera.height, self.camera.width)
        color = torch.full((*size, 3), self.taken, dtype=torch.uint8)
        depth = torch.full(size, float(self.taken))
        channels = self.camera.channels
        return Images(color if "color" in channels else None, depth if "depth" in channels else None)


@pytest.fixture
def environment() -> Iterator[Environment]:
    simulator = NumberedImages(load_robot(), N, timestep=STAND.physics_timestep)
    simulator.camera = CameraConfig(width=6, height=4, period=0.1)
    environment = Environment(STAND, simulator, seed=1)
    yield environment
    environment.close()


def numbers(images: Images | None) -> list[int]:
    """The number of each robot's picture; 0 for none."""
    assert images is not None and images.color is not None and images.depth is not None
    assert (images.color[..., 0].float() == images.depth).all()
    return [int(number) for number in images.depth[:, 0, 0]]


def test_an_environment_looks_at_every_period_of_the_camera_and_a_new_episode_starts_black(environment):
    assert environment.images is None
    environment.reset()
    still = torch.zeros(N, environment.graph.action_size)
    seen = [numbers(environment.images)]
    for step in range(11):
        if step == 6:
            environment.episode_steps[1] = environment.max_episode_steps - 1
        environment.step(still)
        seen.append(numbers(environment.images))
    assert seen[:5] == [[1] * N] * 5
    assert seen[5:7] == [[2] * N] * 2
    assert seen[7:10] == [[2, 0, 2]] * 3
    assert seen[10:] == [[3] * N] * 2
    assert environment.images.number == 3


def test_a_gymnasium_environment_hands_out_the_images_and_those_of_ended_episodes(environment):
    env = GymnasiumVectorEnv(environment)
    observation, _ = env.reset(seed=1)
    assert env.observation_space.contains(observation)
    assert isinstance(observation, dict) and set(observation) == {"policy", "color", "depth"}
    assert observation["color"].shape == (N, 4, 6, 3) and observation["depth"].shape == (N, 4, 6)
    environment.episode_steps[2] = environment.max_episode_steps - 1
    observation, _, _, truncated, info = env.step(np.zeros((N, environment.graph.action_size), np.float32))
    assert truncated.tolist() == [False, False, True]
    assert observation["depth"][:, 0, 0].tolist() == [1.0, 1.0, 0.0]
    assert info["final_obs"]["depth"][2, 0, 0] == 1.0
    assert info["final_obs"]["policy"].shape == observation["policy"].shape


def test_without_a_camera_an_observation_is_an_array():
    env = GymnasiumVectorEnv(make_environment(STAND, "mujoco", 1))
    try:
        assert isinstance(env.reset()[0], np.ndarray)
    finally:
        env.close()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"width": 0}, "width must be between 1 and 4096 pixels, found 0"),
        ({"height": 5000}, "height must be between 1 and 4096 pixels, found 5000"),
        ({"period": 0.0}, "period must be a positive number of s, found 0.0"),
        ({"period": math.nan}, "period: expected a number, found nan"),
        ({"channels": []}, "channels must name color, depth or both, each once"),
        ({"channels": ["depth", "depth"]}, "channels must name color, depth or both, each once"),
        ({"channels": ["depht"]}, "did you mean 'depth'"),
        ({"widht": 3}, "unknown key 'widht', did you mean 'width'"),
    ],
)
def test_a_camera_that_cannot_be_is_refused(values, reason):
    with pytest.raises(UserError, match=reason):
        load_dataclass(CameraConfig, values, "camera")


@pytest.mark.parametrize("sim", ["mujoco", "mujoco_warp"])
def test_simulators_without_cameras_say_which_have_one(sim):
    line = f"simulator {sim} has no camera; simulators that have one: isaac:newton, isaac:ovphysx, isaac:isaacsim"
    with pytest.raises(UserError, match=line):
        make_simulator(sim, load_robot(), 1, timestep=0.005, camera=CameraConfig())
    with pytest.raises(UserError, match=line):
        load_training_config("stand", {"sim": sim, "camera.name": "head"})


def test_a_run_keeps_its_camera_and_an_unknown_one_makes_no_run(tmp_path):
    given = {
        "sim": "isaac:ovphysx",
        "camera.name": "head",
        "camera.width": "32",
        "camera.channels": "[depth]",
    }
    config = load_training_config("stand", given)
    assert config.camera == CameraConfig(width=32, channels=("depth",))
    stored = tmp_path / "config.yaml"
    stored.write_text(to_yaml(config))
    assert from_yaml(stored) == config
    stored.write_text(to_yaml(load_training_config("stand")))
    assert from_yaml(stored).camera is None
    run = tmp_path / "run"
    with pytest.raises(UserError, match=r"robot g1 has no camera 'haed', did you mean 'head'\?"):
        train(load_training_config("stand", {**given, "camera.name": "haed"}), run)
    line = "camera period 0.05 s is not a multiple of the control period 0.02 s; take 0.04 or 0.06"
    with pytest.raises(UserError, match=line):
        train(load_training_config("stand", {**given, "camera.period": "0.05"}), run)
    assert not run.exists()


def test_topics_carry_the_first_robots_images_once_with_calibration_and_frame():
    camera, robot = CameraConfig(width=6, height=4), load_robot()
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=47)
    node = rclpy.create_node("camera_test", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    heard: dict[str, list] = {}
    kept = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    for name, kind, qos in (
        ("color/image_raw", Image, QoSProfile(depth=5)),
        ("depth/image_raw", Image, QoSProfile(depth=5)),
        ("color/camera_info", CameraInfo, QoSProfile(depth=5)),
        ("depth/camera_info", CameraInfo, QoSProfile(depth=5)),
        ("/tf_static", TFMessage, kept),
    ):
        heard[name] = []
        topic = name if name.startswith("/") else f"/train/camera/{name}"
        node.create_subscription(kind, topic, heard[name].append, qos)
    try:
        topics = CameraTopics(node, camera, robot)
        color = torch.arange(2 * 4 * 6 * 3, dtype=torch.uint8).view(2, 4, 6, 3)
        depth = torch.linspace(0.0, 2.3, 2 * 4 * 6).view(2, 4, 6)
        waited = 0
        while not all(heard.values()):
            waited += 1
            topics.publish(Images(color, depth, waited))
            executor.spin_once(timeout_sec=0.05)
            assert waited < 400
        color = color + 100
        for once in (Images(color, depth, waited + 1), Images(color, depth, waited + 1), None):
            topics.publish(once)
        for _ in range(40):
            executor.spin_once(timeout_sec=0.02)
        expected = color[0].numpy().tobytes()
        assert [bytes(image.data) for image in heard["color/image_raw"]].count(expected) == 1

        image = heard["color/image_raw"][-1]
        assert (image.height, image.width, image.step, image.encoding) == (4, 6, 18, "rgb8")
        assert bytes(image.data) == expected
        image = heard["depth/image_raw"][-1]
        assert (image.step, image.encoding, image.is_bigendian) == (24, "32FC1", 0)
        values = np.frombuffer(bytes(image.data), np.float32).reshape(4, 6)
        assert np.isnan(values[0, 0])
        np.testing.assert_array_equal(values.ravel()[1:], depth[0].numpy().ravel()[1:])
        info = heard["depth/camera_info"][-1]
        assert info.header == image.header and info.header.frame_id == "head_optical_frame"
        # The edge of the image, half a pixel from the first centre, is half the field of view from the middle.
        half = math.atan2(info.k[2] + 0.5, info.k[0])
        assert 2.0 * half == pytest.approx(robot.cameras["head"].horizontal_fov)
        assert info.k[4] == info.k[0] and info.k[5] == 1.5 and info.p[0] == info.k[0]
        (optical,) = heard["/tf_static"][-1].transforms
        assert (optical.header.frame_id, optical.child_frame_id) == ("d435_link", "head_optical_frame")
        turn = optical.transform.rotation
        quaternion = [turn.w, turn.x, turn.y, turn.z]
        np.testing.assert_allclose(rotate(quaternion, [0.0, 0.0, 1.0]), [1.0, 0.0, 0.0], atol=1e-12)
        np.testing.assert_allclose(rotate(quaternion, [0.0, 1.0, 0.0]), [0.0, 0.0, -1.0], atol=1e-12)
    finally:
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()
