"""Training as a ROS 2 node: status, a live preview of environment 0, and services that steer the run."""

from __future__ import annotations

import math
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import rclpy
from geometry_msgs.msg import Point, TransformStamped
from humanoid_rl_core.errors import UserError
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import Marker, MarkerArray

from humanoid_rl_interfaces.msg import TrainStatus
from humanoid_rl_interfaces.srv import Checkpoint
from humanoid_rl_sim.learning.configuration import (
    TrainingConfig,
    from_yaml,
    load_training_config,
    resumed_config,
)
from humanoid_rl_sim.learning.run_files import latest_checkpoint
from humanoid_rl_sim.learning.training import train
from humanoid_rl_sim.learning.training_control import TrainingControl, TrainingProgress
from humanoid_rl_sim.nodes.camera_topics import CameraTopics

DEFAULT_TASK = "stand"
STATUS_PERIOD = 1.0
PREVIEW_PERIOD = 1.0 / 30.0
CHECKPOINT_TIMEOUT = 30.0


class TrainNode(Node):
    """Publishes a training run that another thread works on.

    Topics: /train/status (1 Hz); of environment 0 at 30 Hz: /joint_states, /tf (odom -> base link) and
    /train/markers (commanded and actual velocity); of its camera, in a run that has one, its images below
    /train/camera (`CameraTopics`). Services: /train/pause, /train/resume, /train/stop (std_srvs/Trigger) and
    /train/checkpoint.
    """

    def __init__(self) -> None:
        super().__init__("train")
        self.control = TrainingControl()
        self.run_dir = Path()
        self._config: TrainingConfig | None = None
        self._progress: TrainingProgress | None = None
        self._camera: CameraTopics | None = None
        latest = QoSProfile(depth=1)
        self._status = self.create_publisher(TrainStatus, "/train/status", latest)
        self._joint_states = self.create_publisher(JointState, "/joint_states", latest)
        self._tf = self.create_publisher(TFMessage, "/tf", 10)
        self._markers = self.create_publisher(MarkerArray, "/train/markers", latest)
        for name, handler in (("pause", self._pause), ("resume", self._resume), ("stop", self._stop)):
            self.create_service(Trigger, f"/train/{name}", handler)
        self.create_service(Checkpoint, "/train/checkpoint", self._checkpoint)
        self.create_timer(STATUS_PERIOD, self.publish_status)
        self.create_timer(PREVIEW_PERIOD, self._publish_preview)

    def read_configuration(self) -> tuple[TrainingConfig, Path, bool]:
        """Declare and read the parameters task, sim, num_envs, steps, seed, camera, visualizer, run and
        resume.

        0, -1 (seed) and "" keep what the configuration file says; the task is then `stand`. With resume they keep
        what the run's own config.yaml says, of which only the steps may change.

        Raises:
            UserError: a parameter has no valid value, or makes another run of the one to resume.
        """
        defaults = {
            "task": "", "sim": "", "num_envs": 0, "steps": 0, "seed": -1, "camera": "", "visualizer": "", "run": "",
            "resume": False,
        }  # fmt: skip
        given: dict[str, Any] = {
            name: self.declare_parameter(name, default).value for name, default in defaults.items()
        }
        overrides = {
            name: str(given[name])
            for name in ("task", "sim", "num_envs", "steps", "seed", "visualizer")
            if given[name] != defaults[name]
        }
        if given["camera"]:
            overrides["camera.name"] = str(given["camera"])
        task = given["task"] or DEFAULT_TASK
        self.run_dir = Path(given["run"] or f"runs/{Path(task).stem}").expanduser().resolve()
        resume = bool(given["resume"])
        if resume:
            config = resumed_config(from_yaml(self.run_dir / "config.yaml"), overrides)
        else:
            overrides.pop("task", None)
            config = load_training_config(task, overrides)
        self._config = config
        return config, self.run_dir, resume

    def on_progress(self, progress: TrainingProgress) -> None:
        """Take the run's report; called in the training thread."""
        self._progress = progress

    def publish_status(self) -> None:
        progress, config = self._progress, self._config
        if config is None:
            return
        status = TrainStatus(run=str(self.run_dir), task=config.task, simulator=config.sim, phase="starting")
        status.header.stamp = self.get_clock().now().to_msg()
        status.total_steps = config.steps
        status.best_evaluation = math.nan
        if progress is not None:
            status.phase = progress.phase
            status.steps = progress.steps
            status.steps_per_second = progress.steps_per_second
            status.mean_reward = progress.mean_reward
            status.mean_episode_length = progress.mean_episode_length
            status.best_evaluation = progress.best_evaluation
            status.eta = progress.eta
        self._status.publish(status)

    def _publish_preview(self) -> None:
        environment = self.control.environment
        if environment is None:
            return
        # Read while the training thread writes: a picture may mix two steps, which no viewer can see.
        state, robot = environment.simulator.state, environment.robot
        if self._camera is None and environment.simulator.camera is not None:
            self._camera = CameraTopics(self, environment.simulator.camera, robot)
        stamp = self.get_clock().now().to_msg()
        joints = JointState(name=list(robot.joint_names))
        joints.header.stamp = stamp
        joints.position = state.joint_pos[0].double().tolist()
        joints.velocity = state.joint_vel[0].double().tolist()
        joints.effort = state.joint_torque[0].double().tolist()
        self._joint_states.publish(joints)

        base = TransformStamped()
        base.header.stamp, base.header.frame_id, base.child_frame_id = stamp, "odom", robot.base_link
        position = state.base_pos[0].tolist()
        base.transform.translation.x, base.transform.translation.y, base.transform.translation.z = position
        rotation = base.transform.rotation
        rotation.w, rotation.x, rotation.y, rotation.z = state.base_quat[0].tolist()
        self._tf.publish(TFMessage(transforms=[base]))

        yaw = math.atan2(
            2.0 * (rotation.w * rotation.z + rotation.x * rotation.y),
            1.0 - 2.0 * (rotation.y**2 + rotation.z**2),
        )
        vx, vy, _ = environment.view.command[0].tolist()
        commanded = (math.cos(yaw) * vx - math.sin(yaw) * vy, math.sin(yaw) * vx + math.cos(yaw) * vy)
        actual = state.base_lin_vel[0].tolist()
        markers = MarkerArray()
        for index, (name, velocity, colour) in enumerate(
            (("command", commanded, (0.1, 0.7, 0.2)), ("velocity", actual, (0.1, 0.4, 0.9)))
        ):
            arrow = Marker(ns=name, id=index, type=Marker.ARROW, action=Marker.ADD)
            arrow.header.stamp, arrow.header.frame_id = stamp, "odom"
            height = position[2] + 0.7 + 0.05 * index
            start = Point(x=position[0], y=position[1], z=height)
            arrow.points = [start, Point(x=start.x + velocity[0], y=start.y + velocity[1], z=height)]
            arrow.pose.orientation.w = 1.0
            arrow.scale.x, arrow.scale.y, arrow.scale.z = 0.03, 0.06, 0.08
            arrow.color.r, arrow.color.g, arrow.color.b = colour
            arrow.color.a = 0.9
            markers.markers.append(arrow)
        self._markers.publish(markers)
        if self._camera is not None:
            self._camera.publish(environment.images)

    def _pause(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.control.pause()
        response.success, response.message = True, "paused"
        return response

    def _resume(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.control.resume()
        response.success, response.message = True, "training"
        return response

    def _stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.control.stop()
        response.success, response.message = True, "stopping: a checkpoint is written, then the node ends"
        return response

    def _checkpoint(self, request: Checkpoint.Request, response: Checkpoint.Response) -> Checkpoint.Response:
        path = self.control.checkpoint(CHECKPOINT_TIMEOUT)
        response.success = path is not None
        response.path = str(path or "")
        response.message = (
            "written" if path else f"no checkpoint within {CHECKPOINT_TIMEOUT:.0f} s; is the run busy?"
        )
        return response


def main() -> int:
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = TrainNode()
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            return

    spinner = threading.Thread(target=spin, name="ros")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: node.control.stop())
    try:
        config, run_dir, resume = node.read_configuration()
        spinner.start()
        train(config, run_dir, resume=resume, control=node.control, on_progress=node.on_progress)
        node.publish_status()
        if node.control.stopping:
            node.get_logger().info(f"stopped; continue with resume:=true run:={run_dir}")
        else:
            node.get_logger().info(f"done: {latest_checkpoint(run_dir)}")
        return 0
    except UserError as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    finally:
        executor.shutdown()
        if spinner.ident is not None:
            spinner.join()
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
