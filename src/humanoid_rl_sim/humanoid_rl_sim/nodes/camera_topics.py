"""The images of one robot's camera as ROS topics."""

from __future__ import annotations

from array import array

import numpy as np
from geometry_msgs.msg import TransformStamped
from humanoid_rl_core.robot import RobotModel
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from humanoid_rl_sim.simulators.camera import CameraConfig, Channel, Images

ENCODINGS: dict[Channel, str] = {"color": "rgb8", "depth": "32FC1"}
IMAGE_TOPICS: dict[Channel, str] = {
    "color": "/train/camera/color/image_raw",
    "depth": "/train/camera/depth/image_raw",
}
INFO_TOPICS: dict[Channel, str] = {
    "color": "/train/camera/color/camera_info",
    "depth": "/train/camera/depth/camera_info",
}


class CameraTopics:
    """Publishers of `IMAGE_TOPICS` (sensor_msgs/Image) and `INFO_TOPICS` (sensor_msgs/CameraInfo).

    Depth is in m along the optical axis, NaN where there is none (REP 118). The frame `<name>_optical_frame` (x right,
    y down, z forward: REP 103) goes to /tf_static, below the robot's link that the camera looks out of.

    Args:
        node: that publishes.
        camera: what is published.
        robot: that carries it.
    """

    def __init__(self, node: Node, camera: CameraConfig, robot: RobotModel) -> None:
        latest = QoSProfile(depth=1)
        self._node = node
        self._frame = f"{camera.name}_optical_frame"
        self._focal_length = camera.focal_length(robot)
        self._images = {
            channel: node.create_publisher(Image, IMAGE_TOPICS[channel], latest)
            for channel in camera.channels
        }
        self._infos = {
            channel: node.create_publisher(CameraInfo, INFO_TOPICS[channel], latest)
            for channel in camera.channels
        }
        self._shown = 0
        kept = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._static = node.create_publisher(TFMessage, "/tf_static", kept)
        optical = TransformStamped()
        optical.header.stamp = node.get_clock().now().to_msg()
        optical.header.frame_id, optical.child_frame_id = camera.mount(robot).frame, self._frame
        rotation = optical.transform.rotation
        rotation.x, rotation.y, rotation.z, rotation.w = -0.5, 0.5, -0.5, 0.5
        self._static.publish(TFMessage(transforms=[optical]))

    def publish(self, images: Images | None) -> None:
        """The images of the first robot, unless those of that number were published last."""
        if images is None or images.number == self._shown:
            return
        self._shown = images.number
        header = Header(stamp=self._node.get_clock().now().to_msg(), frame_id=self._frame)
        if images.color is not None:
            self._send("color", images.color[0].cpu().numpy(), header)
        if images.depth is not None:
            depth = images.depth[0].cpu().numpy()
            self._send("depth", np.where(depth > 0.0, depth, np.float32(np.nan)), header)

    def _send(self, channel: Channel, pixels: np.ndarray, header: Header) -> None:
        height, width = pixels.shape[:2]
        data = pixels.tobytes()
        image = Image(header=header, height=height, width=width, encoding=ENCODINGS[channel])
        image.step = len(data) // height
        image.data = array("B", data)
        # A pixel's coordinates are those of its centre.
        f, cx, cy = self._focal_length, 0.5 * (width - 1), 0.5 * (height - 1)
        info = CameraInfo(header=header, height=height, width=width, distortion_model="plumb_bob")
        info.d = [0.0] * 5
        info.k = [f, 0.0, cx, 0.0, f, cy, 0.0, 0.0, 1.0]
        info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        info.p = [f, 0.0, cx, 0.0, 0.0, f, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
        self._images[channel].publish(image)
        self._infos[channel].publish(info)
