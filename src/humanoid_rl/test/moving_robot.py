"""A process that moves a robot on the deployment's topics and tells on stdout which services were called.

No physics: the legs swing, the base is placed so that the lower foot touches the floor. It stands for
everything below and beside the view (robot_twin, host, policy_node) with the same names and types.
"""

import argparse
import time

import numpy as np
import rclpy
from geometry_msgs.msg import Point, TransformStamped, TwistStamped
from humanoid_rl.views.urdf_scene import read_scene
from humanoid_rl_core.robot import load_robot
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Imu, JointState
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import Marker, MarkerArray

from humanoid_rl_core import rotation
from humanoid_rl_interfaces.msg import HostStatus, JointCommand, MotorStatus, PolicyStatus, TrainStatus
from humanoid_rl_interfaces.srv import Push


class MovingRobot(Node):
    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__("moving_robot")
        self.options = options
        self.robot = load_robot()
        self.scene = read_scene(self.robot.urdf)
        self.started = time.monotonic()
        self.ticks = 0
        latest = QoSProfile(depth=1)
        self.out = {
            topic: self.create_publisher(kind, topic, latest)
            for topic, kind in {
                "/joint_states": JointState,
                "/imu/data": Imu,
                "/ground_truth/odom": Odometry,
                "/tf": TFMessage,
                "/joint_command": JointCommand,
                "/policy/status": PolicyStatus,
                "/host/status": HostStatus,
                "/motor_status": MotorStatus,
                "/ground_truth/contacts": MarkerArray,
                "/train/status": TrainStatus,
            }.items()
        }
        self.state, self.cause = PolicyStatus.RUNNING, ""
        names = ["/host/estop"]
        if not options.no_policy:
            names += [f"/policy/{name}" for name in ("stand", "start", "stop", "reset", "estop")]
        for name in names:
            self.create_service(Trigger, name, lambda _, answer, name=name: self.called(name, answer))
        self.create_service(Push, "/twin/push", self.pushed)
        self.command = ""
        self.create_subscription(TwistStamped, "/cmd_vel", self.commanded, latest)
        self.create_timer(1.0 / options.rate, self.step)

    def called(self, name: str, answer: Trigger.Response) -> Trigger.Response:
        print(f"called {name}", flush=True)
        if name.endswith("estop"):
            self.state, self.cause = PolicyStatus.FAULT, "e-stop service called"
        if name == "/policy/reset":
            self.state, self.cause = PolicyStatus.RUNNING, ""
        answer.success, answer.message = True, "damping" if name.endswith("estop") else ""
        return answer

    def commanded(self, message: TwistStamped) -> None:
        twist = message.twist
        command = f"cmd_vel {twist.linear.x:.2f} {twist.linear.y:.2f} {twist.angular.z:.2f}"
        if command != self.command:
            self.command = command
            print(command, flush=True)

    def pushed(self, request: Push.Request, answer: Push.Response) -> Push.Response:
        print(f"called /twin/push {request.velocity.x:.2f} {request.velocity.y:.2f}", flush=True)
        answer.success = True
        return answer

    def pose(self) -> tuple[np.ndarray, float]:
        """Joint positions in motor order and the phase of the step, rad."""
        phase = 2 * np.pi * 0.7 * (time.monotonic() - self.started)
        q = self.robot.default_position.copy()
        index = self.robot.joint_names.index
        for side, lag in (("left", 0.0), ("right", np.pi)):
            swing, lift = np.sin(phase + lag), max(np.cos(phase + lag), 0.0)
            q[index(f"{side}_hip_pitch_joint")] += -0.3 * swing - 0.25 * lift
            q[index(f"{side}_knee_joint")] += 0.55 * lift
            q[index(f"{side}_ankle_pitch_joint")] += 0.3 * swing - 0.3 * lift
            q[index(f"{side}_shoulder_pitch_joint")] += 0.4 * swing
        return q, phase

    def step(self) -> None:
        self.ticks += 1
        now = self.get_clock().now().to_msg()
        q, phase = self.pose()
        joints = dict(zip(self.robot.joint_names, q.tolist(), strict=True))
        message = JointState(name=list(self.robot.joint_names), position=q.tolist())
        message.header.stamp = now
        self.out["/joint_states"].publish(message)

        turn = rotation.from_rpy(0.02 * np.sin(phase), 0.03, 0.25)
        imu = Imu()
        imu.header.stamp, imu.header.frame_id = now, self.robot.imu_link
        (
            imu.orientation.w,
            imu.orientation.x,
            imu.orientation.y,
            imu.orientation.z,
        ) = turn.tolist()
        self.out["/imu/data"].publish(imu)
        if self.ticks % max(int(self.options.rate / 50), 1):
            return
        self.slow(now, q, joints, turn, phase)

    def slow(self, now, q, joints, turn, phase) -> None:
        """What comes at 50 Hz and below."""
        height = -self.scene.lowest_point(joints, turn)
        travelled = 0.4 * (time.monotonic() - self.started)
        base = np.array([travelled * np.cos(0.25), travelled * np.sin(0.25), height])
        if not self.options.no_odom:
            odom = Odometry()
            odom.header.stamp, odom.header.frame_id, odom.child_frame_id = now, "odom", self.robot.base_link
            place = odom.pose.pose.position
            place.x, place.y, place.z = base.tolist()
            odom.pose.pose.orientation.w, odom.pose.pose.orientation.x = turn[0], turn[1]
            odom.pose.pose.orientation.y, odom.pose.pose.orientation.z = turn[2], turn[3]
            odom.twist.twist.linear.x = 0.4
            self.out["/ground_truth/odom"].publish(odom)
            transform = TransformStamped()
            transform.header, transform.child_frame_id = odom.header, self.robot.base_link
            transform.transform.rotation = odom.pose.pose.orientation
            move = transform.transform.translation
            move.x, move.y, move.z = base.tolist()
            self.out["/tf"].publish(TFMessage(transforms=[transform]))
            self.out["/ground_truth/contacts"].publish(self.contacts(now, joints, base, turn))
        if not self.options.no_policy:
            status = PolicyStatus(
                state=self.state,
                cause=self.cause,
                policy="g1_walk",
                command=[0.45, 0.0, 0.35],
                ticks=self.ticks,
                tick_latency=0.0011,
                tick_latency_p50=0.00105,
                tick_latency_p99=0.00171,
                tick_latency_max=0.0031,
                period_error_p99=0.0004,
                deadline_misses=2,
            )
            self.out["/policy/status"].publish(status)
            target = q.copy()
            target[:12] += 0.12 * np.sin(phase + np.arange(12))
            command = JointCommand(
                joint_names=list(self.robot.joint_names),
                position=target.tolist(),
                stiffness=self.robot.gains["stiff"].stiffness.tolist(),
                damping=self.robot.gains["stiff"].damping.tolist(),
            )
            self.out["/joint_command"].publish(command)
        self.out["/host/status"].publish(
            HostStatus(
                state=HostStatus.DAMPING if self.cause else HostStatus.ACTIVE,
                cause=self.cause,
                mode_machine=5,
                period=0.002,
                period_error_p99=0.00031,
            )
        )
        temperatures = np.full(29, 38.0)
        temperatures[3] = 61.0
        self.out["/motor_status"].publish(
            MotorStatus(
                joint_names=list(self.robot.joint_names),
                winding_temperature=temperatures.tolist(),
                casing_temperature=(temperatures - 6).tolist(),
                voltage=[48.0] * 29,
            )
        )
        if self.options.training:
            self.out["/train/status"].publish(
                TrainStatus(
                    run="runs/stand",
                    task="stand",
                    phase="training",
                    steps=1_350_000,
                    total_steps=3_000_000,
                    steps_per_second=14_200.0,
                    mean_reward=17.4,
                    mean_episode_length=8.2,
                    eta=116.0,
                )
            )

    def contacts(self, now, joints, base, turn) -> MarkerArray:
        """An arrow of force at each foot near the floor."""
        transforms = dict(zip(self.scene.links, self.scene.link_transforms(joints), strict=True))
        message = MarkerArray()
        for number, foot in enumerate(self.robot.foot_links):
            at = base + rotation.rotate(turn, transforms[foot][:3, 3])
            marker = Marker(ns="contact", id=number, type=Marker.ARROW, action=Marker.ADD)
            marker.header.stamp, marker.header.frame_id = now, "odom"
            force = max(0.0, 0.35 - 4.0 * max(at[2] - 0.06, 0.0))
            marker.action = Marker.ADD if force > 0.02 else Marker.DELETE
            marker.points = [
                Point(x=at[0], y=at[1], z=0.0),
                Point(x=at[0], y=at[1], z=force),
            ]
            marker.scale.x, marker.scale.y, marker.scale.z = 0.02, 0.05, 0.06
            marker.color.r, marker.color.g, marker.color.b, marker.color.a = 1.0, 0.58, 0.0, 1.0
            message.markers.append(marker)
        return message


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=100.0, help="Hz of /joint_states and /imu/data")
    parser.add_argument("--no-policy", action="store_true", help="as if the policy node were dead")
    parser.add_argument("--no-odom", action="store_true", help="as on a robot: no ground truth, no tf")
    parser.add_argument("--training", action="store_true")
    rclpy.init()
    node = MovingRobot(parser.parse_args())
    print("ready", flush=True)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        return


if __name__ == "__main__":
    main()
