"""An exported policy on the robot's side: NumPy and onnxruntime, no torch.

Loading refuses whatever is not exactly the policy that was trained for this robot: the file, its contract,
the robot it names, its inputs and outputs, and the golden episode replayed through the very session that
will run. Each refusal is a UserError of one line.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import ArrayLike

from .contract import HEIGHT_SCAN, METADATA_KEY, TOLERANCE, PolicyContract, check_robot, golden_error
from .errors import UserError, nearest
from .policy_file import read_onnx

if TYPE_CHECKING:
    from .robot import RobotModel

_CPU = "CPUExecutionProvider"
#: The remedy for a file that does not hold in itself.
EXPORT_AGAIN = "export the policy again with 'humanoid-rl export'"

Provider = str | tuple[str, Mapping[str, Any]]

PROVIDERS: Mapping[str, tuple[Provider, ...]] = {
    "cpu": (_CPU,),
    # TensorFloat-32, onnxruntime's default, rounds to 10 bits: the golden replay would refuse the policy.
    "cuda": (("CUDAExecutionProvider", {"use_tf32": "0"}),),
    "tensorrt": ("TensorrtExecutionProvider", ("CUDAExecutionProvider", {"use_tf32": "0"})),
}
"""What the execution providers are called where a person chooses one."""


def providers_named(name: str) -> tuple[Provider, ...]:
    """The execution providers of a name in `PROVIDERS`.

    Raises:
        UserError: there is no such name.
    """
    if name not in PROVIDERS:
        raise UserError(f"provider '{name}' is unknown{nearest(name, PROVIDERS)}; use {', '.join(PROVIDERS)}")
    return PROVIDERS[name]


def read_contract(path: str | Path) -> PolicyContract:
    """The contract of a policy's file, whatever robot it is for.

    Raises:
        UserError: the file is no policy of this project.
    """
    try:
        return _read_contract(_open_session(read_onnx(Path(path)), (_CPU,)))
    except UserError as error:
        told = str(error)
        raise UserError(told if told.startswith(str(path)) else f"{path}: {told}") from None


class PolicyOutput(NamedTuple):
    """Result of one policy step; float64 copies, joints in the contract's order.

    joint_target: [n] rad, within the contract's position limits.
    action: [n], clipped, dimensionless.
    """

    joint_target: np.ndarray
    action: np.ndarray


class OnnxPolicy:
    """A policy loaded, checked against its robot and ready to step.

    path: the ONNX file. robot: the robot it is to drive. providers: onnxruntime execution providers in order
    of preference, names or (name, options); each must really be active afterwards, and without the CPU's among
    them no node of the graph may run on the CPU.

    One thread, no thread pool: a policy of this size is faster so, and leaves the cores to the control loop.
    The recurrent state is kept here; `reset` starts an episode. Not thread-safe.

    Raises:
        UserError: anything does not hold; the line names the field and the remedy.
    """

    contract: PolicyContract

    def __init__(self, path: str | Path, robot: RobotModel, providers: Sequence[Provider] = (_CPU,)) -> None:
        self.path = Path(path)
        model = read_onnx(self.path)
        try:
            session = _open_session(model, providers)
            self.contract = _read_contract(session)
            check_robot(self.contract, robot)
            _check_signature(session, self.contract)
            self._prepare(session)
            self._replay_golden()
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from None
        self.reset()

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers that are active."""
        return tuple(self._session.get_providers())

    @property
    def state(self) -> np.ndarray:
        """A copy of the recurrent state, [s] float32: the last action, then the older frames."""
        return self._state[0].copy()

    @state.setter
    def state(self, state: ArrayLike) -> None:
        """Continue another episode: one policy object can then serve several robots in turn."""
        self._state[0] = state

    def reset(self) -> None:
        """Start an episode: the state becomes zero."""
        self._state.fill(0.0)

    def step(
        self,
        joint_pos: ArrayLike,
        joint_vel: ArrayLike,
        imu_gyro: ArrayLike,
        imu_quat: ArrayLike,
        command: ArrayLike,
        height_scan: ArrayLike | None = None,
    ) -> PolicyOutput:
        """One policy step; call it once per control period.

        joint_pos [n] rad and joint_vel [n] rad/s in the contract's joint order, imu_gyro [3] rad/s in the IMU
        frame, imu_quat [4] w, x, y, z of the IMU frame in the world, command [k] in the contract's order (the
        graph clamps it), height_scan [P] m at the points of the contract's field of that name, and only where it
        has one (the graph clips it).

        Raises:
            UserError: an input or an output is not finite, or a height scan is needed and not given or the other
                way round; the recurrent state is then left as it was.
            ValueError: the inputs have other sizes than these.
        """
        # One call fills all inputs and, unlike slice assignment, does not stretch a value that is too short.
        sensors: tuple[ArrayLike, ...] = (joint_pos, joint_vel, imu_gyro, imu_quat, command)
        if height_scan is not None or self.contract.height_scan is not None:
            sensors += (self._needed_scan(height_scan),)
        np.concatenate(sensors, out=self._raw, casting="same_kind")
        if not np.isfinite(self._raw).all():
            self._refuse_non_finite(self._inputs, "input")
        self._run()
        if not np.isfinite(self._results).all():
            self._refuse_non_finite(self._outputs, "output")
        self._state[:] = self._outputs["state_next"]
        return PolicyOutput(
            self._outputs["joint_target"][0].astype(np.float64), self._outputs["action"][0].astype(np.float64)
        )

    def _needed_scan(self, height_scan: ArrayLike | None) -> ArrayLike:
        scan = self.contract.height_scan
        if scan is None:
            raise UserError(f"policy '{self.contract.name}' has no input '{HEIGHT_SCAN}'; leave it out")
        if height_scan is None:
            raise UserError(
                f"policy '{self.contract.name}' needs the input '{HEIGHT_SCAN}' ({scan.size} depths in m); give it "
                "or choose a policy that does not see the ground"
            )
        return height_scan

    def _prepare(self, session: ort.InferenceSession) -> None:
        self._session = session
        shapes = self.contract.input_shapes()
        self._state = np.zeros(shapes.pop("state"), dtype=np.float32)
        # The sensors share one buffer and so do the outputs, so that one call tells whether all are finite.
        self._raw, self._inputs = _views(shapes)
        self._results, self._outputs = _views(self.contract.output_shapes())
        self._run = self._bind() if self.providers == (_CPU,) else self._run_copying

    def _bind(self) -> Callable[[], None]:
        """Run on the buffers themselves; for the CPU alone, others copy an input when it is bound."""
        binding = self._session.io_binding()
        for name, array in {**self._inputs, "state": self._state}.items():
            binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        for name, array in self._outputs.items():
            binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        return lambda: self._session.run_with_iobinding(binding)

    def _run_copying(self) -> None:
        results = self._session.run(list(self._outputs), {**self._inputs, "state": self._state})
        for array, result in zip(self._outputs.values(), results, strict=True):
            array[:] = result

    def _refuse_non_finite(self, arrays: Mapping[str, np.ndarray], kind: str) -> None:
        for name, array in arrays.items():
            bad = np.flatnonzero(~np.isfinite(array[0]))
            if bad.size:
                where = (
                    f"of '{self.contract.joint_names[bad[0]]}'"
                    if name in ("joint_pos", "joint_vel", "joint_target", "action")
                    else f"number {bad[0]}"
                )
                cause = "check the sensor" if kind == "input" else "do not run this policy"
                raise UserError(f"policy {kind} '{name}' {where} is not finite; {cause}")

    def _replay_golden(self) -> None:
        golden = self.contract.golden
        self.reset()
        for step in range(golden.steps):
            try:
                output = self.step(*(golden.inputs[name][step] for name in self._inputs))
            except UserError as error:
                raise UserError(f"golden replay: {error}, {EXPORT_AGAIN}") from None
            for name, actual in output._asdict().items():
                error_at = golden_error(actual, golden.outputs[name][step])
                worst = int(np.argmax(error_at))
                if error_at[worst] > TOLERANCE:
                    raise UserError(
                        f"golden replay: step {step}, '{name}' of '{self.contract.joint_names[worst]}' "
                        f"is off by {error_at[worst]:.2g} (allowed {TOLERANCE:g}); {EXPORT_AGAIN}"
                    )
        error_at = golden_error(self.state, golden.final_state)
        if error_at.max() > TOLERANCE:
            raise UserError(
                f"golden replay: output 'state_next' number {int(np.argmax(error_at))} is off by "
                f"{error_at.max():.2g} (allowed {TOLERANCE:g}); {EXPORT_AGAIN}"
            )


def _views(shapes: Mapping[str, tuple[int, int]]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One float32 buffer and, by name, the views of it that have these shapes."""
    buffer = np.zeros(sum(rows * columns for rows, columns in shapes.values()), dtype=np.float32)
    views = {}
    start = 0
    for name, (rows, columns) in shapes.items():
        stop = start + rows * columns
        views[name] = buffer[start:stop].reshape(rows, columns)
        start = stop
    return buffer, views


def _open_session(model: bytes, providers: Sequence[Provider]) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # fatal: what matters becomes an exception below
    names = [provider if isinstance(provider, str) else provider[0] for provider in providers]
    available = ort.get_available_providers()
    for name in names:
        if name not in available:
            raise UserError(
                f"provider '{name}' is not in this onnxruntime{nearest(name, available)} "
                f"(it has {', '.join(available)}); install the onnxruntime that has it, or choose another"
            )
    if names and _CPU not in names:
        # A provider that takes none of the nodes is "active" too, while the CPU does all the work.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        # What onnxruntime prints when it falls back is said below, in one line.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            if any("CUDA" in name for name in names):
                ort.preload_dlls()  # CUDA's libraries, where they came as Python packages
            session = ort.InferenceSession(model, options, providers=list(providers) or [_CPU])
    except Exception as error:  # onnxruntime's exception classes have no common base of their own
        reason = " ".join(str(error).split())[:160]
        if "CPU EP" in str(error):  # onnxruntime tries again with the CPU, which the option forbids
            raise UserError(
                f"provider '{names[0]}' could not start or does not run this graph, and onnxruntime would have used "
                "the CPU; install its driver and libraries, or choose another provider"
            ) from None
        raise UserError(f"onnxruntime cannot load the model ({reason}); {EXPORT_AGAIN}") from None
    active = session.get_providers()
    for name in names:
        if name not in active:
            # onnxruntime carries on with the CPU when a provider's libraries do not load.
            raise UserError(
                f"provider '{name}' could not start and onnxruntime fell back to {', '.join(active)}; "
                "install its driver and libraries, or choose another provider"
            )
    session.disable_fallback()
    return session


def _read_contract(session: ort.InferenceSession) -> PolicyContract:
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise UserError(
            f"has no metadata '{METADATA_KEY}', so it was not exported by this project (or was cut short); "
            f"{EXPORT_AGAIN}"
        )
    try:
        return PolicyContract.from_json(text)
    except UserError as error:
        raise UserError(f"{error}; {EXPORT_AGAIN}") from None


def _check_signature(session: ort.InferenceSession, contract: PolicyContract) -> None:
    for kind, actual, expected in (
        ("input", session.get_inputs(), contract.input_shapes()),
        ("output", session.get_outputs(), contract.output_shapes()),
    ):
        found = {node.name: node for node in actual}
        for name in found:
            if name not in expected:
                raise UserError(
                    f"the graph has an unknown {kind} '{name}'{nearest(name, expected)}; {EXPORT_AGAIN}"
                )
        for name, shape in expected.items():
            if name not in found:
                raise UserError(f"the graph lacks the {kind} '{name}'; {EXPORT_AGAIN}")
            node = found[name]
            if node.type != "tensor(float)" or tuple(node.shape) != shape:
                raise UserError(
                    f"the graph's {kind} '{name}' is {node.type} {list(node.shape)}, but the contract "
                    f"makes it tensor(float) {list(shape)}; {EXPORT_AGAIN}"
                )
