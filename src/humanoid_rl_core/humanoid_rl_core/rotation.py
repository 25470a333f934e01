"""Unit quaternions in NumPy, scalar first: q = (w, x, y, z).

q rotates body coordinates to world coordinates: v_world = rotate(q, v_body), the convention of MuJoCo's
framequat and of LowState.imu_state.quaternion. All functions take [..., 4] or [..., 3] arrays and broadcast
the leading dimensions. ROS messages are (x, y, z, w): convert with `to_xyzw` / `from_xyzw` at the edge.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating[Any]]

IDENTITY = np.array([1.0, 0.0, 0.0, 0.0])
IDENTITY.setflags(write=False)


def normalise(q: ArrayLike) -> Array:
    """q / |q|, shape [..., 4]. A zero quaternion becomes NaN, which every finite-value check catches."""
    q = np.asarray(q, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return q / np.linalg.norm(q, axis=-1, keepdims=True)


def conjugate(q: ArrayLike) -> Array:
    """Inverse rotation of a unit quaternion, shape [..., 4]."""
    return np.asarray(q, dtype=float) * np.array([1.0, -1.0, -1.0, -1.0])


def multiply(a: ArrayLike, b: ArrayLike) -> Array:
    """Hamilton product, shape [..., 4]: rotation b first, then a."""
    aw, ax, ay, az = np.moveaxis(np.asarray(a, dtype=float), -1, 0)
    bw, bx, by, bz = np.moveaxis(np.asarray(b, dtype=float), -1, 0)
    return np.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        axis=-1,
    )


def rotate(q: ArrayLike, v: ArrayLike) -> Array:
    """Body to world: R(q) v, shape [..., 3]."""
    q, v = np.asarray(q, dtype=float), np.asarray(v, dtype=float)
    w, u = q[..., :1], q[..., 1:]
    t = 2.0 * np.cross(u, v)
    return v + w * t + np.cross(u, t)


def rotate_inverse(q: ArrayLike, v: ArrayLike) -> Array:
    """World to body: R(q)^T v, shape [..., 3]."""
    return rotate(conjugate(q), v)


def projected_gravity(q: ArrayLike) -> Array:
    """Unit gravity direction in the body frame, R(q)^T (0, 0, -1), shape [..., 3]; upright is (0, 0, -1)."""
    w, x, y, z = np.moveaxis(np.asarray(q, dtype=float), -1, 0)
    return np.stack(
        [-2.0 * (x * z - w * y), -2.0 * (y * z + w * x), -(1.0 - 2.0 * (x * x + y * y))],
        axis=-1,
    )


def tilt(q: ArrayLike) -> Array:
    """Angle in rad, 0..pi, between the body's z axis and the vertical, shape [...]."""
    g = projected_gravity(q)
    # atan2 keeps its precision near upright, where arccos loses it.
    return np.arctan2(np.hypot(g[..., 0], g[..., 1]), -g[..., 2])


def from_axis_angle(axis: ArrayLike, angle: ArrayLike) -> Array:
    """Rotation by angle (rad, [...]) about a unit axis ([..., 3]), shape [..., 4]."""
    axis, half = np.broadcast_arrays(
        np.asarray(axis, dtype=float), 0.5 * np.asarray(angle, dtype=float)[..., None]
    )
    return np.concatenate([np.cos(half[..., :1]), np.sin(half) * axis], axis=-1)


def from_rotation_vector(v: ArrayLike) -> Array:
    """Exponential map: rotation by |v| rad about v / |v|, shape [..., 3] -> [..., 4]."""
    v = np.asarray(v, dtype=float)
    half = 0.5 * np.linalg.norm(v, axis=-1, keepdims=True)
    # np.sinc(x) = sin(pi x) / (pi x): exact at zero as well.
    return np.concatenate([np.cos(half), 0.5 * np.sinc(half / np.pi) * v], axis=-1)


def to_rotation_vector(q: ArrayLike) -> Array:
    """Logarithm: rotation vector in rad with |v| <= pi, shape [..., 4] -> [..., 3]."""
    q = np.asarray(q, dtype=float)
    q = np.where(q[..., :1] < 0.0, -q, q)
    sine = np.linalg.norm(q[..., 1:], axis=-1, keepdims=True)
    angle = 2.0 * np.arctan2(sine, q[..., :1])
    # angle / sine -> 2 / w as sine -> 0.
    factor = np.where(sine > 1e-12, angle / np.maximum(sine, 1e-12), 2.0)
    return factor * q[..., 1:]


def from_rpy(roll: ArrayLike, pitch: ArrayLike, yaw: ArrayLike) -> Array:
    """URDF and ROS fixed-axis angles in rad, R = Rz(yaw) Ry(pitch) Rx(roll), shape [...] -> [..., 4]."""
    cr, sr = np.cos(0.5 * np.asarray(roll)), np.sin(0.5 * np.asarray(roll))
    cp, sp = np.cos(0.5 * np.asarray(pitch)), np.sin(0.5 * np.asarray(pitch))
    cy, sy = np.cos(0.5 * np.asarray(yaw)), np.sin(0.5 * np.asarray(yaw))
    return np.stack(
        [
            cr * cp * cy + sr * sp * sy,
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
        ],
        axis=-1,
    )


def to_rpy(q: ArrayLike) -> Array:
    """Roll, pitch, yaw in rad (inverse of `from_rpy`, pitch within +-pi/2), shape [..., 4] -> [..., 3]."""
    w, x, y, z = np.moveaxis(np.asarray(q, dtype=float), -1, 0)
    return np.stack(
        [
            np.arctan2(2.0 * (w * x + y * z), 1.0 - 2.0 * (x * x + y * y)),
            np.arcsin(np.clip(2.0 * (w * y - z * x), -1.0, 1.0)),
            np.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z)),
        ],
        axis=-1,
    )


def yaw(q: ArrayLike) -> Array:
    """Heading in rad, -pi..pi, shape [..., 4] -> [...]."""
    w, x, y, z = np.moveaxis(np.asarray(q, dtype=float), -1, 0)
    return np.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))


def to_matrix(q: ArrayLike) -> Array:
    """Rotation matrix R with v_world = R v_body, shape [..., 4] -> [..., 3, 3]."""
    basis = np.eye(3)
    columns = [rotate(q, basis[i]) for i in range(3)]
    return np.stack(columns, axis=-1)


def to_xyzw(q: ArrayLike) -> Array:
    """(w, x, y, z) to the order of ROS messages, shape [..., 4]."""
    return np.roll(np.asarray(q, dtype=float), -1, axis=-1)


def from_xyzw(q: ArrayLike) -> Array:
    """The order of ROS messages to (w, x, y, z), shape [..., 4]."""
    return np.roll(np.asarray(q, dtype=float), 1, axis=-1)
