"""A simulated G1 that speaks the robot's wire protocol: LowCmd bytes in, LowState bytes out, every 2 ms.

What is the robot's own and known: message layout and CRC, motor order, PD with effort limits, mode_machine
echo, the IMU's frame and quaternion order, millisecond tick.

What is assumed, because the vendor does not publish it:

* Loss of command: without a valid LowCmd for `COMMAND_TIMEOUT` the motors brake (kp 0, kd `DAMPING_KD`).
* A LowCmd with a wrong CRC, another mode_machine, parallel ankle mode or non-finite numbers is ignored.
* Temperatures: `heat` describes the model; only its shape, hot after minutes of hard work, is meant.

No ROS in here; `nodes.twin_node` puts it on DDS.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, cast, get_args

import numpy as np
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import RobotModel

from humanoid_rl_core import unitree_hg_wire as wire

from .body import CYCLE, BaseState, Body, Floats, FootContact
from .faults import FAULTS, Fault, parse_fault
from .mujoco_body import MujocoBody

if TYPE_CHECKING:
    import mujoco

Start = Literal["hoisted", "standing"]

COMMAND_TIMEOUT = 0.1
"""s; assumption, see the module's docstring. Twice the 50 ms after which a host gives up a silent robot."""
HOIST_CLEARANCE = 0.03
"""m between the floor and the soles of straight legs when hoisted."""
HELD_TIME = 0.5
"""s that a controller must hold the joints still before the hoist lowers by itself."""
HELD_MOTION = 0.01
"""rad that targets may move within `HELD_TIME` and still count as still."""
HELD_SPEED = 0.3
"""rad/s, fastest joint that still counts as still."""
PATIENCE = 8.0
"""s of joint stiffness after which the hoist lowers although the targets move: a policy is in charge.
Standing up by 2 rad at 0.5 rad/s takes no longer."""
STANDING_PATIENCE = 1.0
"""s of joint stiffness after which it lowers a robot that started on its feet; gains blend in for 0.5 s."""
STRONGEST_PUSH = 5.0
"""m/s; more is a slip of the keyboard."""
BATTERY_VOLTAGE = 48.0
"""V, 13 cells at 3.7 V."""

AMBIENT_TEMPERATURE = 25.0
"""degrees Celsius"""
WINDING_RISE = 288.0
"""K of a winding over its casing at full torque; with `CASING_RISE`: a third of full torque held for long
brings the winding to 105 degrees Celsius, short of the vendor's limit of 120."""
CASING_RISE = 432.0
"""K of the casing over ambient at full torque."""
WINDING_TIME = 40.0
"""s, time constant of the copper."""
CASING_TIME = 600.0
"""s, time constant of the housing."""
HEAT_CYCLES = 10
"""Cycles between two updates of the temperatures; 20 ms is nothing to a winding."""

NOISE = {"q": 0.0005, "dq": 0.02, "gyro": 0.01, "accel": 0.05, "attitude": 0.002}
"""Standard deviations at ``sensor_noise=1``: rad, rad/s, rad/s, m/s^2, rad. The order of encoders of 14 bit
behind a gear and of a consumer-grade IMU; not measured on a G1."""

REJECTIONS = ("size", "crc", "mode_machine", "mode_pr", "non_finite")
"""Why a LowCmd is ignored."""


def heat(winding: Floats, casing: Floats, squared_load: Floats, seconds: float) -> tuple[Floats, Floats]:
    """Temperatures ``seconds`` later: two bodies in a row, copper losses proportional to torque squared.

    :param winding, casing: [n] degrees Celsius.
    :param squared_load: [n], mean of (torque / effort limit)^2 over the time.
    """
    target_casing = AMBIENT_TEMPERATURE + CASING_RISE * squared_load
    target_winding = casing + WINDING_RISE * squared_load
    return (
        winding + (target_winding - winding) * (seconds / WINDING_TIME),
        casing + (target_casing - casing) * (seconds / CASING_TIME),
    )


class VirtualG1:
    """Firmware and crane of one robot around its body, which is MuJoCo's unless another is given.

    ``start="hoisted"`` hangs it from the crane with straight legs and free feet, motors braking, as a real
    one is brought up. ``start="standing"`` hangs it in the default pose with its soles just on the floor.
    With ``auto_lower`` the crane lets it down by itself, and comes off once the robot bears its own weight:
    when hoisted, after a controller has held the joints still for `HELD_TIME` or been in charge for
    `PATIENCE`; when standing, after it has been in charge for `STANDING_PATIENCE`. In charge means stiffness
    in every joint. So a robot never falls before a controller is there, and no person is needed.
    """

    def __init__(
        self,
        robot: RobotModel,
        *,
        timestep: float = CYCLE,
        body: Body | None = None,
        start: Start = "hoisted",
        auto_lower: bool = True,
        seed: int = 0,
        sensor_noise: float = 0.0,
        mode_machine: int | None = None,
        command_timeout: float = COMMAND_TIMEOUT,
    ) -> None:
        """
        :param timestep: s, of MuJoCo's physics; `CYCLE` must be a multiple.
        :param body: steps in MuJoCo's place. One whose step takes several cycles is stepped in the last of them;
            until then LowState says again what is known.
        :param sensor_noise: factor on `NOISE`; 0 for exact sensors.
        :param mode_machine: reported and demanded in commands; default: the robot description's first.
        :param command_timeout: s without a valid LowCmd after which the motors brake.
        :raises UserError: a value that makes no sense, in one line.
        """
        if start not in get_args(Start):
            raise UserError(f"start: '{start}' is neither {' nor '.join(get_args(Start))}")
        if not (math.isfinite(sensor_noise) and sensor_noise >= 0.0):
            raise UserError(f"sensor_noise: must be 0 or a positive factor, not {sensor_noise:g}")
        if not (math.isfinite(command_timeout) and command_timeout >= CYCLE):
            raise UserError(f"command_timeout: must be at least {CYCLE:g} s, not {command_timeout:g}")
        machine = robot.mode_machine[0] if mode_machine is None else mode_machine
        if not 0 <= machine <= 255:
            raise UserError(f"mode_machine: must fit a byte, {machine} does not")

        self.robot = robot
        self.body: Body = MujocoBody(robot, timestep) if body is None else body
        self.mode_machine = machine
        self.start = start
        self.auto_lower = auto_lower
        self.command_timeout = command_timeout
        self.time = 0.0
        """s since power-on; a reset does not turn it back."""
        self.accepted = 0
        """LowCmd obeyed since power-on."""
        self.rejected = dict.fromkeys(REJECTIONS, 0)
        """LowCmd ignored since power-on, by reason."""
        self.diverged = 0
        """Times the physics blew up and the robot was put back to its start."""
        self._substeps = max(round(CYCLE / self.body.timestep), 1)
        self._stride = max(round(self.body.timestep / CYCLE), 1)
        self._until_step = self._stride
        self._cycles = 0
        self._noise = sensor_noise
        self._rng = np.random.default_rng(seed)

        n = robot.joint_count
        self._n = n
        self._nothing = np.zeros(n)
        self._brake_gain = np.full(n, float(wire.DAMPING_KD))
        self._squared_load = np.zeros(n)
        self.winding_temperature: Floats = np.full(n, AMBIENT_TEMPERATURE)
        """[n] degrees Celsius"""
        self.casing_temperature: Floats = np.full(n, AMBIENT_TEMPERATURE)
        """[n] degrees Celsius"""

        self._faults: dict[str, Fault] = {}
        self._late: deque[tuple[float, bytes]] = deque()
        self._frozen: bytes | None = None

        self._target = np.zeros(n)
        self._stiff = False
        self._last_command = -math.inf
        self._braking = False
        self._lower_by_itself = auto_lower
        self._still_since = math.inf
        self._still_target = np.zeros(n)
        self._stiff_since = math.inf

        self._buffer = bytearray(wire.LOW_STATE_SIZE)
        self._buffer[0:4] = wire.ENCAPSULATION
        self._record = wire.low_state_record(self._buffer)
        motors = self._record["motor_state"][:n]
        self._out = {name: motors[name] for name in ("q", "dq", "ddq", "tau_est", "temperature", "vol")}
        self._out_mode = self._record["later_motor_mode"]["mode"][: n - 1]
        self._out_imu = {name: self._record["imu_state"][name] for name in wire.IMU_STATE_CDR.names or ()}
        self._record["version"] = (1, 0)
        self._record["mode_machine"] = machine
        self._out["vol"][:] = BATTERY_VOLTAGE
        self._record["imu_state"]["temperature"] = 40

        self._hanging_height = self.body.sole_depth(self._hanging_pose()) + HOIST_CLEARANCE
        self._crane = self.body.rope(self._hanging_height)
        self.reset()

    # --- what a user can do to it ---

    def reset(self) -> None:
        """Puts the robot back to its start: pose, crane, cold motors, no fault. Time and counters run on."""
        self.clear_faults()
        hoisted = self.start == "hoisted"
        height = self._hanging_height if hoisted else self.robot.default_base_height
        self.body.reset(height, self._hanging_pose() if hoisted else self.robot.default_position)
        self._until_step = self._stride
        self._last_command = -math.inf
        self._brake()
        self._lower_by_itself = self.auto_lower
        self._still_since = self._stiff_since = math.inf
        self.winding_temperature[:] = self.casing_temperature[:] = AMBIENT_TEMPERATURE
        self._squared_load[:] = 0.0
        self._patience = PATIENCE if hoisted else STANDING_PATIENCE
        self._crane.hang(self.body.hung, height)

    def push(self, velocity: tuple[float, float, float]) -> None:
        """Adds a velocity (m/s, world frame) to the whole robot at once.

        :raises UserError: the crane still holds the robot, not finite, or more than `STRONGEST_PUSH`.
        """
        if self._crane.attached:
            raise UserError("push: the robot is on the hoist; let it down first (/twin/hoist, data: false)")
        if not all(map(math.isfinite, velocity)):
            raise UserError("push: velocity must be finite")
        speed = math.hypot(*velocity)
        if speed > STRONGEST_PUSH:
            raise UserError(f"push: {speed:.3g} m/s is more than {STRONGEST_PUSH:g} m/s")
        self.body.push(velocity)

    def hoist(self, raised: bool) -> str:
        """Pulls the robot up, or lets it down and takes the rope off. Returns what it is doing now."""
        if raised:
            self._crane.lift(self.body.hung)
            # Up by hand stays up: the controller that holds the robot now would lower it again at once.
            self._lower_by_itself = False
        else:
            self._crane.lower()
        return self.hoist_state

    def inject_fault(self, name: str, joint: str = "", value: float = 0.0, duration: float = 0.0) -> str:
        """Breaks something, see `faults.FAULTS`; ``none`` clears all. Returns what was done.

        :param value: s (``delay_state``) or degrees Celsius (``overheat``).
        :param duration: s; 0 until cleared.
        :raises UserError: unknown fault or joint, or a senseless number.
        """
        if name == "none":
            self.clear_faults()
            return "all faults cleared"
        fault = parse_fault(self.robot, name, joint, value, duration, self.time)
        self._end_fault(name)
        self._faults[name] = fault
        if name == "stuck_joint":
            self.body.lock(fault.joint)
        until = f"for {duration:g} s" if duration else "until cleared"
        where = f" at {joint}" if joint else ""
        return f"{name}{where} {until}: {FAULTS[name]}"

    def clear_faults(self) -> None:
        """Repairs everything."""
        for name in list(self._faults):
            self._end_fault(name)

    @property
    def faults(self) -> Mapping[str, Fault]:
        """Active faults by name."""
        return self._faults

    def _end_fault(self, name: str) -> None:
        fault = self._faults.pop(name, None)
        if fault is None:
            return
        if name == "stuck_joint":
            self.body.unlock(fault.joint)
        elif name == "freeze_state":
            self._frozen = None
        elif name == "delay_state":
            self._late.clear()

    # --- what it tells ---

    @property
    def hoist_state(self) -> str:
        """``carried`` (or on the way up), ``lowering`` or ``off``."""
        if not self._crane.attached:
            return "off"
        return "carried" if self._crane.raised else "lowering"

    @property
    def braking(self) -> bool:
        """Whether the firmware brakes because no valid LowCmd came in time."""
        return self._braking

    def base_state(self) -> BaseState:
        """A copy of the ground truth of the base."""
        return self.body.base_state()

    def joint_pos(self) -> Floats:
        """[n] rad, motor order, exact."""
        return self.body.joint_pos()

    def joint_vel(self) -> Floats:
        """[n] rad/s, motor order, exact."""
        return self.body.joint_vel()

    def joint_effort(self) -> Floats:
        """[n] Nm, what the motors apply."""
        return self.body.joint_effort().copy()

    def foot_contacts(self) -> tuple[FootContact, FootContact]:
        """Left and right sole."""
        return self.body.foot_contacts()

    @property
    def model(self) -> mujoco.MjModel:
        """Of a robot in MuJoCo."""
        return cast(MujocoBody, self.body).model

    @property
    def data(self) -> mujoco.MjData:
        """Of a robot in MuJoCo."""
        return cast(MujocoBody, self.body).data

    # --- the wire ---

    def set_wireless_remote(self, data: bytes) -> None:
        """What LowState carries from the gamepad from now on: 40 bytes, `humanoid_rl_core.wireless_remote`."""
        self._record["wireless_remote"][:] = np.frombuffer(data, np.uint8)

    def receive(self, cdr: bytes) -> bool:
        """Takes one LowCmd as it came over DDS. Returns whether it was obeyed; `rejected` says why not."""
        reason = self._refusal(cdr)
        if reason is not None:
            self.rejected[reason] += 1
            return False
        motors = self._command
        enabled = self._enabled
        kp = np.where(enabled, motors["kp"], 0.0)
        kd = np.where(enabled, motors["kd"], 0.0)
        q = motors["q"].astype(np.float64)
        self.body.drive(q, motors["dq"], np.where(enabled, motors["tau"], 0.0), kp, kd)
        self._target = q
        self._stiff = bool((kp > 0.0).all())
        self._last_command = self.time
        self._braking = False
        self.accepted += 1
        return True

    def _refusal(self, cdr: bytes) -> str | None:
        try:
            if wire.low_cmd_crc(cdr) != int.from_bytes(cdr[-4:], "little"):
                return "crc"
        except wire.WireError:
            return "size"
        record = wire.low_cmd_record(cdr)
        if record["mode_machine"] != self.mode_machine:
            return "mode_machine"
        if record["mode_pr"] != wire.MODE_PR_SERIES:
            return "mode_pr"
        motors = record["motor_cmd"][: self._n]
        for field in ("q", "dq", "tau", "kp", "kd"):
            if not np.isfinite(motors[field]).all():
                return "non_finite"
        self._command = motors
        self._enabled = wire.motor_modes(record)[: self._n] == wire.MOTOR_ENABLED
        return None

    def cycle(self) -> bytes | None:
        """One robot cycle of `CYCLE` seconds; returns the LowState to publish, None when a fault drops it."""
        self.time += CYCLE
        self._cycles += 1
        for name in [name for name, fault in self._faults.items() if self.time >= fault.until]:
            self._end_fault(name)
        if not self._braking and self.time - self._last_command > self.command_timeout:
            self._brake()
        self._step()
        return self._low_state()

    def _brake(self) -> None:
        nothing = self._nothing
        self.body.drive(nothing, nothing, nothing, nothing, self._brake_gain)
        self._stiff = False
        self._braking = True

    def _step(self) -> None:
        body = self.body
        self._until_step -= 1
        if self._until_step == 0:
            self._until_step = self._stride
            for _ in range(self._substeps):
                self._crane.apply(body.hung, body.timestep, self._stiff)
                body.step()
            if body.diverged:
                # The robot starts anew as its own start has it.
                self.diverged += 1
                self.reset()
                return
        load = body.joint_effort() / self.robot.effort_limit
        self._squared_load += load * load
        if self._cycles % HEAT_CYCLES == 0:
            self.winding_temperature, self.casing_temperature = heat(
                self.winding_temperature,
                self.casing_temperature,
                self._squared_load / HEAT_CYCLES,
                HEAT_CYCLES * CYCLE,
            )
            self._squared_load[:] = 0.0
            if self._lower_by_itself and self._crane.raised:
                self._lower_when_held()

    def _lower_when_held(self) -> None:
        now = self.time
        if not self._stiff:
            self._still_since = self._stiff_since = math.inf
            return
        if self._stiff_since == math.inf:
            self._stiff_since = now
        moved = np.abs(self._target - self._still_target).max() > HELD_MOTION
        fast = np.abs(self.body.joint_vel()).max() > HELD_SPEED
        if self._still_since == math.inf or moved or fast:
            self._still_since = now
            self._still_target[:] = self._target
        if now - self._still_since >= HELD_TIME or now - self._stiff_since >= self._patience:
            self._crane.lower()

    def _low_state(self) -> bytes | None:
        faults = self._faults
        if "drop_state" in faults:
            return None
        if self._frozen is not None:
            return self._frozen
        message = self._measure()
        if "freeze_state" in faults:
            self._frozen = message
        if "delay_state" in faults:
            self._late.append((self.time, message))
            due = self.time - faults["delay_state"].value
            late = None
            while self._late and self._late[0][0] <= due:
                late = self._late.popleft()[1]
            return late
        return message

    def _measure(self) -> bytes:
        record, body, out, imu = self._record, self.body, self._out, self._out_imu
        q = body.joint_pos()
        dq = body.joint_vel()
        gyro, accel, quat = body.imu()
        if self._noise:
            n, scale = self._n, self._noise
            noise = self._rng.standard_normal(2 * n + 9)
            q = q + (scale * NOISE["q"]) * noise[:n]
            dq = dq + (scale * NOISE["dq"]) * noise[n : 2 * n]
            gyro = gyro + (scale * NOISE["gyro"]) * noise[-9:-6]
            accel = accel + (scale * NOISE["accel"]) * noise[-6:-3]
            quat = _tilted(quat, (0.5 * scale * NOISE["attitude"]) * noise[-3:])
        out["ddq"][:] = body.joint_acc()
        out["q"][:] = q
        out["dq"][:] = dq
        out["tau_est"][:] = body.joint_effort()
        temperature = out["temperature"]
        temperature[:, 0] = np.rint(self.casing_temperature)
        temperature[:, 1] = np.rint(self.winding_temperature)
        overheat = self._faults.get("overheat")
        if overheat is not None:
            temperature[overheat.joint, 1] = round(overheat.value)
        mode = wire.MOTOR_DISABLED if self._last_command == -math.inf else wire.MOTOR_ENABLED
        record["first_motor_mode"] = mode
        self._out_mode[:] = mode
        if "nan_imu" in self._faults:
            imu["quaternion"][:] = imu["gyroscope"][:] = imu["accelerometer"][:] = imu["rpy"][:] = math.nan
        else:
            imu["quaternion"][:] = quat
            imu["gyroscope"][:] = gyro
            imu["accelerometer"][:] = accel
            imu["rpy"][:] = _rpy(*quat.tolist())
        record["tick"] = round(self.time * 1000.0) & 0xFFFFFFFF
        wire.seal_low_state(self._buffer)
        message = bytes(self._buffer)
        if "bad_crc" in self._faults:
            message = message[:-4] + bytes(byte ^ 0xFF for byte in message[-4:])
        return message

    # --- construction ---

    def _hanging_pose(self) -> Floats:
        """[n] rad: every joint at zero, or at the limit next to it."""
        return np.clip(np.zeros(self._n), self.robot.position_lower, self.robot.position_upper)


def _tilted(quat: Floats, half_angle: Floats) -> Floats:
    """The quaternion (w, x, y, z) after a small body-frame rotation by twice ``half_angle`` [3] rad."""
    w, x, y, z = quat.tolist()
    a, b, c = half_angle.tolist()
    out = np.array([w - x * a - y * b - z * c, x + w * a + y * c - z * b, y + w * b + z * a - x * c,
                    z + w * c + x * b - y * a])  # fmt: skip
    return out / math.sqrt(float(out @ out))


def _rpy(w: float, x: float, y: float, z: float) -> tuple[float, float, float]:
    """Roll, pitch, yaw in rad; `humanoid_rl_core.rotation.to_rpy` for one quaternion without arrays."""
    return (
        math.atan2(2.0 * (w * x + y * z), 1.0 - 2.0 * (x * x + y * y)),
        math.asin(min(max(2.0 * (w * y - z * x), -1.0), 1.0)),
        math.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z)),
    )
