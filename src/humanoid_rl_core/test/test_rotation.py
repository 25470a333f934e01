"""Quaternions (w, x, y, z) against SciPy's rotations, which are (x, y, z, w)."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from humanoid_rl_core import rotation


@pytest.fixture
def random() -> tuple[np.ndarray, Rotation]:
    reference = Rotation.random(50, rng=np.random.default_rng(0))
    return np.roll(reference.as_quat(), 1, axis=-1), reference


def same(a: np.ndarray, b: np.ndarray) -> None:
    """Equal rotations: q and -q are the same."""
    np.testing.assert_allclose(np.abs(np.sum(a * b, axis=-1)), 1.0, atol=1e-12)


def test_rotate_takes_body_to_world(random):
    q, reference = random
    v = np.random.default_rng(1).normal(size=(50, 3))
    np.testing.assert_allclose(rotation.rotate(q, v), reference.apply(v), atol=1e-12)
    np.testing.assert_allclose(rotation.rotate_inverse(q, v), reference.inv().apply(v), atol=1e-12)
    np.testing.assert_allclose(rotation.to_matrix(q), reference.as_matrix(), atol=1e-12)


def test_projected_gravity_is_the_world_down_seen_from_the_body(random):
    q, reference = random
    expected = reference.inv().apply([0.0, 0.0, -1.0])
    np.testing.assert_allclose(rotation.projected_gravity(q), expected, atol=1e-12)
    np.testing.assert_array_equal(rotation.projected_gravity(rotation.IDENTITY), [0.0, 0.0, -1.0])


def test_nose_down_pitch_moves_gravity_forward():
    nose_down = rotation.from_rpy(0.0, 0.3, 0.0)
    np.testing.assert_allclose(
        rotation.projected_gravity(nose_down), [np.sin(0.3), 0.0, -np.cos(0.3)], atol=1e-12
    )


def test_product_applies_the_right_factor_first(random):
    q, reference = random
    other = np.roll(q, 7, axis=0)
    product = reference * Rotation.from_quat(np.roll(other, -1, axis=-1))
    same(rotation.multiply(q, other), np.roll(product.as_quat(), 1, axis=-1))
    same(rotation.multiply(q, rotation.conjugate(q)), np.broadcast_to(rotation.IDENTITY, q.shape))


def test_fixed_axis_angles_are_those_of_urdf(random):
    q, reference = random
    rpy = reference.as_euler("xyz")
    same(rotation.from_rpy(*rpy.T), q)
    np.testing.assert_allclose(rotation.to_rpy(q), rpy, atol=1e-9)
    np.testing.assert_allclose(rotation.yaw(q), rpy[:, 2], atol=1e-9)


def test_rotation_vectors_round_trip_and_are_exact_at_zero(random):
    q, reference = random
    vector = reference.as_rotvec()
    np.testing.assert_allclose(rotation.to_rotation_vector(q), vector, atol=1e-9)
    same(rotation.from_rotation_vector(vector), q)
    np.testing.assert_array_equal(rotation.from_rotation_vector(np.zeros(3)), rotation.IDENTITY)
    np.testing.assert_array_equal(rotation.to_rotation_vector(rotation.IDENTITY), np.zeros(3))


def test_axis_angle_broadcasts():
    axes, angles = np.eye(3), np.array([0.1, 0.2, 0.3])
    same(rotation.from_axis_angle(axes, angles), rotation.from_rotation_vector(axes * angles[:, None]))
    assert rotation.from_axis_angle([0.0, 0.0, 1.0], angles).shape == (3, 4)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 0.4, 1.0, 2.5, np.pi])
def test_tilt_is_the_angle_from_upright_whatever_the_heading(angle):
    for heading in (-2.0, 0.0, 3.0):
        q = rotation.multiply(rotation.from_rpy(0.0, 0.0, heading), rotation.from_rpy(angle, 0.0, 0.0))
        assert rotation.tilt(q) == pytest.approx(angle, abs=1e-12)


def test_order_of_ros_messages_round_trips():
    np.testing.assert_array_equal(rotation.to_xyzw([1.0, 2.0, 3.0, 4.0]), [2.0, 3.0, 4.0, 1.0])
    np.testing.assert_array_equal(rotation.from_xyzw([2.0, 3.0, 4.0, 1.0]), [1.0, 2.0, 3.0, 4.0])


def test_a_zero_quaternion_is_not_taken_for_a_rotation():
    assert np.isnan(rotation.normalise(np.zeros(4))).all()
    np.testing.assert_allclose(rotation.normalise([2.0, 0.0, 0.0, 0.0]), rotation.IDENTITY)
