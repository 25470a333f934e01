"""A whole control step as one CUDA graph.

An `Environment` is written as plain tensor code that replaces its tensors freely. To be replayed as a graph every
tensor that lives on from one step to the next needs a fixed address. `StaticStep` gives it one: after the step it
copies each replaced tensor back to where the old one was. What is left is a function without allocation or host
in it, which CUDA captures. On the CPU the same function simply runs, so that tests can compare it with the plain
step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from humanoid_rl_core.errors import UserError
from torch.utils._python_dispatch import TorchDispatchMode

from humanoid_rl_sim.tasks.environment import Environment, StepResult

WARM_UP_STEPS = 3
_SYNCHRONISING = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "is_nonzero",
    "_unique2",
    "unique_consecutive",
)
"""Operations whose result, or its size, the host has to wait for."""


class HostSyncError(RuntimeError):
    """Somebody read a tensor's value on the host."""


class NoHostSync(TorchDispatchMode):
    """Raises `HostSyncError` for operations that would make the host wait for the device; works on the CPU too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in _SYNCHRONISING or (name in ("index", "index_put_") and _has_mask(args[1])):
            raise HostSyncError(f"{name} reads a tensor's values on the host")
        return func(*args, **(kwargs or {}))


def _has_mask(indices: Any) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


def check_terms(environment: Environment) -> None:
    """Every reward and termination term of a task must run without the host.

    Raises:
        UserError: one does not; names it.
    """
    terms: list[tuple[str, str, Callable[..., torch.Tensor]]] = [
        *(("reward", name, term) for name, _, term in environment.reward_terms),
        *(("termination", name, term) for name, term in environment.termination_terms),
    ]
    for kind, name, term in terms:
        try:
            with NoHostSync():
                term(environment.view)
        except HostSyncError as error:
            raise UserError(
                f"task {environment.task.name}: {kind} '{name}' cannot run on the device alone: {error}; "
                "use torch.where instead of if, and no .item(), .any() in conditions, or boolean indexing"
            ) from None


class StaticState:
    """The tensors of some objects, by attribute, whose addresses must stay."""

    def __init__(self, *owners: Any) -> None:
        self._slots: list[tuple[Any, str, Any]] = []
        for owner in owners:
            for name, value in vars(owner).items():
                if isinstance(value, torch.Tensor) or _is_tensor_tuple(value):
                    self._slots.append((owner, name, value))

    def tensors(self) -> list[torch.Tensor]:
        """Every tensor, in a fixed order."""
        return [tensor for _, _, value in self._slots for tensor in _flat(value)]

    def settle(self) -> None:
        """Copy what the attributes now hold into the original tensors, and put those back in place."""
        pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
        for owner, name, value in self._slots:
            current = getattr(owner, name)
            for original, new in zip(_flat(value), _flat(current), strict=True):
                if new is not original:
                    pairs.append((original, new))
        storages = {original.untyped_storage().data_ptr() for original in self.tensors()}
        # A new value may be (a view of) another original that is itself about to be overwritten.
        pairs = [
            (original, new.clone() if new.untyped_storage().data_ptr() in storages else new)
            for original, new in pairs
        ]
        for original, new in pairs:
            original.copy_(new)
        for owner, name, value in self._slots:
            setattr(owner, name, value)


class StaticStep:
    """`Environment.step` at fixed addresses, as a CUDA graph where the device is a GPU.

    A result holds until the next call, which may overwrite its tensors.

    Args:
        environment: its `reset` is called.
        graph: False runs the same function without capturing it, as on a simulator that cannot be captured.

    Raises:
        UserError: a term of the task would make the host wait.
    """

    def __init__(self, environment: Environment, *, graph: bool = True) -> None:
        self.environment = environment
        self.action = torch.zeros(
            environment.num_envs, environment.graph.action_size, device=environment.device
        )
        environment.reset()
        environment.step(self.action)  # whatever is made at first use exists now
        check_terms(environment)
        # What the loop below puts into the graph's buffers may alias: give every attribute a tensor of its own.
        for owner in (environment, environment.view):
            for name, value in list(vars(owner).items()):
                if isinstance(value, torch.Tensor):
                    setattr(owner, name, value.clone())
                elif _is_tensor_tuple(value):
                    setattr(owner, name, _rebuild(value, [item.clone() for item in value]))
        self._state = StaticState(environment, environment.view)
        self._graph: torch.cuda.CUDAGraph | None = None
        if environment.device.type == "cuda" and environment.simulator.capturable and graph:
            self._graph = captured(self._run_once, environment.device, environment.generator)

    def _run_once(self) -> None:
        self._result = self._run()

    def _run(self) -> StepResult:
        result = self.environment.step(self.action)
        self._state.settle()
        return result

    def reset(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`Environment.reset`."""
        result = self.environment.reset()
        self._state.settle()
        return result

    def __call__(self, action: torch.Tensor) -> StepResult:
        """Apply `action` [N, n] for one control period."""
        self.action.copy_(action)
        if self._graph is None:
            return self._run()
        self._graph.replay()
        return self._result


def captured(
    work: Callable[[], None], device: torch.device, generator: torch.Generator | None = None
) -> torch.cuda.CUDAGraph:
    """`work`, which reads and writes tensors at fixed addresses, as a CUDA graph.

    It is run a few times first: kernels are compiled and libraries set up outside the capture. What those runs
    change is the caller's to restore; the capture itself computes nothing.

    Args:
        generator: one that `work` draws from beside torch's own.
    """
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP_STEPS):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    if generator is not None:
        graph.register_generator_state(generator)
    # A preview in another thread may read the device meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return graph


def _is_tensor_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and all(isinstance(item, torch.Tensor) for item in value)


def _flat(value: Any) -> list[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else list(value)


def _rebuild(like: Any, items: list[torch.Tensor]) -> Any:
    return type(like)(*items) if hasattr(like, "_fields") else tuple(items)
