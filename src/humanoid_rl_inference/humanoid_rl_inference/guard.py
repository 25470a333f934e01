"""The safety guard: small pure functions over NumPy, without ROS and without state.

A check returns None when all is well, else the cause of the trip: one line that names the joint, the value
and the limit. What is checked in which state (`CHECKS`, a test keeps this table equal to it):

    check               IDLE  STANDING  RUNNING  FAULT
    joint state age      -       x         x       -
    imu age              -       x         x       -
    finite values        -       x         x       -
    quaternion norm      -       x         x       -
    tilt                 -       x         x       -
    joint velocity       -       x         x       -
    joint position       -       x         x       -
    motor temperature    -       x         x       -
    host                 -       x         x       -
    deadlines            -       -         x       -

In IDLE and FAULT the joints are damped only, so nothing a sensor says can make the robot move; the same
checks run there when an operator asks to leave IDLE, and a failing one refuses the request. Standing follows
a trajectory that is as good late as in time, so deadlines matter to a running policy alone. A motor status
that stopped arriving refuses to stand or start but does not trip: falling over hurts more than a few seconds
without temperatures; it is a warning in /diagnostics. A command that stopped arriving is no fault either:
it becomes the zero command.

Filters shape what is sent and never fail. The policy does not learn of them: its state carries its own last
action, as in training, where the simulated motors saturate behind its back in the same way. Feeding filtered
actions back would show the network inputs it never saw. `Interventions` counts each filter's doings for
/diagnostics, so that a filter that works all the time is noticed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from humanoid_rl_core import rotation
from humanoid_rl_inference.safety_config import SafetyConfig
from humanoid_rl_inference.state_machine import State

Array = NDArray[np.float64]


@dataclass
class Sensors:
    """The newest sample of everything the guard looks at; times in s on the clock of `now` (monotonic).

    joint_pos rad, joint_vel rad/s, winding and casing degrees Celsius: [n] in the robot's joint order.
    imu_gyro [3] rad/s in the IMU frame, imu_quat [4] (w, x, y, z). A time of -inf: never received.
    """

    joint_pos: Array
    joint_vel: Array
    imu_gyro: Array
    imu_quat: Array
    winding_temperature: Array
    casing_temperature: Array
    joint_time: float = -np.inf
    imu_time: float = -np.inf
    motor_time: float = -np.inf
    host_fault: str = ""  # why the host does not follow commands; "" while it does, or no host says

    @classmethod
    def unknown(cls, joints: int) -> "Sensors":
        """Nothing received yet."""
        nan = np.full(joints, np.nan)
        return cls(nan, nan, np.full(3, np.nan), np.full(4, np.nan), nan, nan)


@dataclass(frozen=True)
class Limits:
    """What the checks compare with: the configured thresholds and the robot's own limits ([n])."""

    safety: SafetyConfig
    joint_names: Sequence[str]
    position_lower: Array
    position_upper: Array
    velocity: Array


# ---------------------------------------------------------------------------------------------- checks


def check_age(what: str, age: float, limit: float, future: float) -> str | None:
    """Trip when a sample is older than limit (s), never came (inf), or is stamped ahead by > future."""
    if age > limit:
        return f"no {what} yet" if age == np.inf else f"{what} {age:.3f} s old exceeds {limit:.3f}"
    if age < -future:
        return f"{what} stamped {-age:.3f} s in the future exceeds {future:.3f}: the clocks disagree"
    return None


def check_finite(what: str, names: Sequence[str], values: Array) -> str | None:
    """Trip on the first NaN or infinity; names has one entry per value."""
    finite = np.isfinite(values)
    if finite.all():
        return None
    bad = int(finite.argmin())
    return f"{names[bad]} {what} {values[bad]} is not finite"


def check_quaternion(quat: Array, limit: float) -> str | None:
    """Trip when | |quat| - 1 | exceeds limit: no attitude was ever written."""
    norm = float(np.sqrt(quat @ quat))
    return (
        f"imu quaternion norm {norm:.3f} is off 1 by more than {limit}" if abs(norm - 1.0) > limit else None
    )


def check_tilt(quat: Array, limit: float) -> str | None:
    """Trip when the IMU's z axis leans more than limit (rad) from the vertical; quat (w, x, y, z)."""
    tilt = float(rotation.tilt(rotation.normalise(quat)))
    return f"tilt {tilt:.2f} rad exceeds {limit:.2f}" if tilt > limit else None


def check_joint_velocity(names: Sequence[str], velocity: Array, limit: Array) -> str | None:
    """Trip when a joint is faster than its limit (rad/s, [n]); names the joint that is furthest beyond."""
    excess = np.abs(velocity) - limit
    worst = int(excess.argmax())
    if excess[worst] <= 0.0:
        return None
    return f"{names[worst]} velocity {velocity[worst]:.1f} rad/s exceeds {limit[worst]:.1f}"


def check_joint_position(
    names: Sequence[str], position: Array, lower: Array, upper: Array, overshoot: float
) -> str | None:
    """Trip when a joint is more than overshoot (rad) outside [lower, upper]; names the worst one."""
    outside = np.maximum(lower - position, position - upper)
    worst = int(outside.argmax())
    if outside[worst] <= overshoot:
        return None
    limit = lower[worst] if position[worst] < lower[worst] else upper[worst]
    return (
        f"{names[worst]} position {position[worst]:.2f} rad is {outside[worst]:.2f} outside its limit "
        f"{limit:.2f}, more than {overshoot:.2f}"
    )


def check_motor_temperature(
    names: Sequence[str], winding: Array, casing: Array, winding_limit: float, casing_limit: float
) -> str | None:
    """Trip when a winding or a casing is hotter than its limit (degrees Celsius); NaN, unknown, is not."""
    for part, values, limit in (("winding", winding, winding_limit), ("casing", casing, casing_limit)):
        hot = np.flatnonzero(values > limit)
        if hot.size:
            worst = hot[values[hot].argmax()]
            return f"{names[worst]} {part} temperature {values[worst]:.0f} C exceeds {limit:.0f}"
    return None


def check_deadlines(misses: int, limit: int, window: int) -> str | None:
    """Trip when `limit` or more of the last `window` ticks were late."""
    return f"{misses} of the last {window} ticks were late, limit {limit}" if misses >= limit else None


def check_host(fault: str) -> str | None:
    """Trip when the host has taken the robot over: the targets of a policy that goes on would pile up."""
    return fault or None


IMU_GYRO_NAMES = ("imu gyro x", "imu gyro y", "imu gyro z")
IMU_QUAT_NAMES = ("imu quaternion w", "imu quaternion x", "imu quaternion y", "imu quaternion z")


def _check_all_finite(names: Sequence[str], sensors: Sensors) -> str | None:
    return (
        check_finite("position", names, sensors.joint_pos)
        or check_finite("velocity", names, sensors.joint_vel)
        or check_finite("value", IMU_GYRO_NAMES, sensors.imu_gyro)
        or check_finite("value", IMU_QUAT_NAMES, sensors.imu_quat)
    )


@dataclass(frozen=True)
class Check:
    """One row of the table above; evaluate(sensors, now, late_ticks, limits)."""

    name: str
    states: frozenset[State]
    evaluate: Callable[[Sensors, float, int, Limits], str | None]


_ACTIVE = frozenset({State.STANDING, State.RUNNING})

# In this order: a later check may rely on what an earlier one has established (fresh, then finite).
CHECKS: tuple[Check, ...] = (
    Check(
        "joint state age",
        _ACTIVE,
        lambda s, now, _late, k: check_age(
            "joint state",
            now - s.joint_time,
            k.safety.sensors.joint_state_age,
            k.safety.sensors.future_stamp,
        ),
    ),
    Check(
        "imu age",
        _ACTIVE,
        lambda s, now, _late, k: check_age(
            "imu", now - s.imu_time, k.safety.sensors.imu_age, k.safety.sensors.future_stamp
        ),
    ),
    Check("finite values", _ACTIVE, lambda s, _now, _late, k: _check_all_finite(k.joint_names, s)),
    Check(
        "quaternion norm",
        _ACTIVE,
        lambda s, _now, _late, k: check_quaternion(s.imu_quat, k.safety.sensors.quaternion_norm),
    ),
    Check("tilt", _ACTIVE, lambda s, _now, _late, k: check_tilt(s.imu_quat, k.safety.body.tilt)),
    Check(
        "joint velocity",
        _ACTIVE,
        lambda s, _now, _late, k: check_joint_velocity(
            k.joint_names, s.joint_vel, k.velocity * k.safety.joints.velocity_fraction
        ),
    ),
    Check(
        "joint position",
        _ACTIVE,
        lambda s, _now, _late, k: check_joint_position(
            k.joint_names, s.joint_pos, k.position_lower, k.position_upper, k.safety.joints.overshoot
        ),
    ),
    Check(
        "motor temperature",
        _ACTIVE,
        lambda s, _now, _late, k: check_motor_temperature(
            k.joint_names,
            s.winding_temperature,
            s.casing_temperature,
            k.safety.motors.winding_temperature,
            k.safety.motors.casing_temperature,
        ),
    ),
    Check("host", _ACTIVE, lambda s, _now, _late, _k: check_host(s.host_fault)),
    Check(
        "deadlines",
        frozenset({State.RUNNING}),
        lambda _s, _now, late, k: check_deadlines(late, k.safety.deadlines.misses, k.safety.deadlines.window),
    ),
)


def evaluate(state: State, sensors: Sensors, now: float, late_ticks: int, limits: Limits) -> str | None:
    """The cause of the first failing check that applies in `state`, or None.

    Args:
        now: s, on the clock of the sensors' times.
        late_ticks: how many of the last deadlines.window ticks were late.
    """
    for check in CHECKS:
        if state in check.states and (cause := check.evaluate(sensors, now, late_ticks, limits)):
            return cause
    return None


def motor_status_missing(sensors: Sensors, now: float, limit: float) -> str | None:
    """Why motor temperatures are not being watched, or None: no status within limit (s)."""
    cause = check_age("motor status", now - sensors.motor_time, limit, np.inf)
    return f"{cause}: motor temperatures are not watched" if cause else None


# --------------------------------------------------------------------------------------------- filters


@dataclass
class Interventions:
    """Ticks since start in which a filter changed at least one target."""

    position: int = 0
    rate: int = 0
    effort: int = 0
    joints: dict[str, int] = field(default_factory=dict)


def limit_rate(target: Array, previous: Array, rate: float, period: float) -> Array:
    """Targets (rad) moved towards `target` from `previous` by at most rate (rad/s) x period (s)."""
    step = rate * period
    return np.clip(target, previous - step, previous + step)


def limit_effort(
    target: Array,
    position: Array,
    velocity: Array,
    stiffness: Array,
    damping: Array,
    effort_limit: Array,
) -> Array:
    """Targets nearest to `target` for which |kp (q* - q) - kd dq| <= effort_limit (Nm), all [n].

    Solved for q*: q + (kd dq -+ effort_limit) / kp. Where the stiffness is zero the target is without effect
    and passes unchanged. The result may lie outside the position limits: it is where the motor would be
    anyway, and a host clamps both.
    """
    driven = stiffness > 0.0
    divisor = np.where(driven, stiffness, 1.0)
    centre = position + damping * velocity / divisor
    reach = effort_limit / divisor
    return np.where(driven, np.clip(target, centre - reach, centre + reach), target)


def limit_command(command: Array, lower: Array, upper: Array) -> Array:
    """The command inside the range the policy was trained for, [k]."""
    return np.clip(command, lower, upper)


def limit_acceleration(command: Array, previous: Array, acceleration: Array, period: float) -> Array:
    """The command moved from `previous` by at most acceleration ([k], per s) x period (s)."""
    step = acceleration * period
    return np.clip(command, previous - step, previous + step)
