"""A foreign observation built from sensors and the state: order, history, clip and scale as its stack has them."""

from __future__ import annotations

import math

import numpy as np
import onnx

from ..contract import observation_term_sizes
from .description import GAIT_PHASE, PER_JOINT, VELOCITY_COMMANDS, ObservationNetwork, Term
from .graph_builder import GraphBuilder

_LARGEST = float(np.finfo(np.float32).max)


class StoredObservation:
    """What of an observation is kept from step to step, and where its values lie.

    frame_terms: the contract's terms of one frame, unscaled, in motor order. history: frames, the present one
    included. The memory is one number, the steps since the start, where an older frame or a clock is read. It is a
    float32 and stays at 2^24 after four days at 50 Hz.
    """

    def __init__(self, network: ObservationNetwork, motors: tuple[int, ...], period: float) -> None:
        """period: s per policy step."""
        self._network = network
        self._motors = motors
        self._period = period
        self._joints = len(motors)
        sensed = [term for term in network.terms if term.quantity != GAIT_PHASE]
        # The contract needs a frame; a policy that sees its clock alone would have none.
        self.frame_terms = tuple(dict.fromkeys(term.quantity for term in sensed)) or ("last_action",)
        self.history = max((term.history for term in sensed), default=1)
        self._sizes = observation_term_sizes(self._joints, len(VELOCITY_COMMANDS))
        self._starts = {}
        start = 0
        for name in self.frame_terms:
            self._starts[name] = start
            start += self._sizes[name]
        self._frame_size = start

    def build(
        self, builder: GraphBuilder, sensors: dict[str, str]
    ) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        """Tensors: the observation [1, m], the frames and the memory of the next state."""
        frame = builder.row(*(sensors[name] for name in self.frame_terms))
        older = (self.history - 1) * self._frame_size
        clocked = [term for term in self._network.terms if term.quantity == GAIT_PHASE]
        frames: tuple[str, ...] = ()
        memory: tuple[str, ...] = ()
        steps = ""
        if older or clocked:
            steps = builder.pick("state", [self._joints + older])
            memory = (builder.add("Add", steps, builder.constant([[1.0]])),)
        pool = frame
        if older:
            # Both stacks fill a history with an episode's first observation.
            first = builder.add("Equal", steps, builder.constant([[0.0]]))
            stored = builder.pick("state", range(self._joints, self._joints + older))
            pool = builder.row(
                builder.add("Where", first, builder.row(*[frame] * (self.history - 1)), stored), frame
            )
            frames = (builder.pick(pool, range(self._frame_size, self._frame_size + older)),)
        start = self.history * self._frame_size
        phases = {}
        for term in clocked:
            pool = builder.row(pool, self._phase(builder, steps, term))
            phases[term.name] = start
            start += 2 * term.history
        return self._clipped_and_scaled(builder, builder.pick(pool, self._columns(phases))), frames, memory

    def _phase(self, builder: GraphBuilder, steps: str, term: Term) -> str:
        """sin and cos of each frame, oldest first, [1, 2 history]."""
        back = np.arange(1 - term.history, 1)[None]
        counts = builder.add(
            "Max", builder.add("Add", steps, builder.constant(back)), builder.constant([[0.0]])
        )
        # Seconds since the start in double: float32 would let the phase drift within an hour.
        double = builder.add("Cast", counts, to=onnx.TensorProto.DOUBLE)
        seconds = builder.add("Mul", double, builder.constant([[self._period]], np.float64))
        cycle = builder.add("Mod", seconds, builder.constant([[term.period]], np.float64), fmod=1)
        angle = builder.add("Mul", cycle, builder.constant([[2.0 * math.pi / term.period]], np.float64))
        single = builder.add("Cast", angle, to=onnx.TensorProto.FLOAT)
        both = builder.row(builder.add("Sin", single), builder.add("Cos", single))
        return builder.pick(both, [part * term.history + i for i in range(term.history) for part in (0, 1)])

    def _columns(self, phases: dict[str, int]) -> list[int]:
        """Column of the pool for every value of the observation."""
        columns = []
        for term, frame in self._blocks():
            if term.quantity == GAIT_PHASE:
                start = phases[term.name] + 2 * frame
                columns += [start, start + 1]
                continue
            start = (self.history - term.history + frame) * self._frame_size + self._starts[term.quantity]
            order = self._motors if term.quantity in PER_JOINT else range(self._sizes[term.quantity])
            columns += [start + element for element in order]
        return columns

    def _blocks(self) -> list[tuple[Term, int]]:
        """(term, frame of its history, oldest first) in the order of the observation."""
        terms = self._network.terms
        if self._network.frame_major:
            return [(term, frame) for frame in range(terms[0].history) for term in terms]
        return [(term, frame) for term in terms for frame in range(term.history)]

    def _clipped_and_scaled(self, builder: GraphBuilder, observation: str) -> str:
        blocks = [term for term, _ in self._blocks()]
        scale = np.concatenate([term.scale for term in blocks])
        sizes = [len(term.scale) for term in blocks]
        bounds = np.array([term.clip or (-_LARGEST, _LARGEST) for term in blocks])
        lower, upper = np.repeat(np.clip(bounds, -_LARGEST, _LARGEST), sizes, axis=0).T
        scaled = (scale != 1.0).any()
        clipped = any(term.clip for term in blocks)
        if scaled and self._network.scale_first:
            observation = builder.add("Mul", observation, builder.constant([scale]))
        if clipped:
            observation = builder.clamp(observation, lower, upper)
        if scaled and not self._network.scale_first:
            observation = builder.add("Mul", observation, builder.constant([scale]))
        return observation
