"""States of the policy node and the transitions between them, as one pure function.

    event    IDLE              STANDING            RUNNING             FAULT
    stand    -> STANDING (1)   stays               refused             refused
    start    refused           -> RUNNING (1)(2)   stays               refused
    stop     stays             -> IDLE             -> STANDING         refused
    estop    -> FAULT          -> FAULT            -> FAULT            stays, first cause kept
    reset    stays (3)         refused             refused             -> IDLE
    trip     stays             -> FAULT            -> FAULT            stays, first cause kept

(1) unless a guard check of the state to enter fails: the reason is in the reply;
(2) unless the standing pose is not reached;
(3) accepted, because the host may be latched while the policy node idles, and the reset is passed on to it.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum


class State(IntEnum):
    """Values as in humanoid_rl_interfaces/PolicyStatus."""

    IDLE = 0
    STANDING = 1
    RUNNING = 2
    FAULT = 3


class Event(Enum):
    """What can happen: the services, the buttons of a gamepad, and a trip of the guard."""

    STAND = "stand"
    START = "start"
    STOP = "stop"
    ESTOP = "estop"
    RESET = "reset"
    TRIP = "trip"


@dataclass(frozen=True)
class Transition:
    """The state after an event, whether the request was granted, and what to tell who asked."""

    state: State
    accepted: bool
    message: str


# The state a request would enter; its guard checks must hold before.
ENTERS = {(State.IDLE, Event.STAND): State.STANDING, (State.STANDING, Event.START): State.RUNNING}


def transition(state: State, event: Event, *, blocked: str | None, not_standing: str | None) -> Transition:
    """What `event` does in `state`.

    Args:
        blocked: the guard's cause against entering ENTERS[state, event], None when there is none.
        not_standing: why the standing pose does not count as reached, None when it does.
    """
    if event in (Event.ESTOP, Event.TRIP):
        if event is Event.TRIP and state is State.IDLE:
            return Transition(State.IDLE, True, "damping already")
        return Transition(State.FAULT, True, "damping, latched until reset")
    if event is Event.RESET:
        if state in (State.IDLE, State.FAULT):
            return Transition(State.IDLE, True, "idle")
        return Transition(state, False, f"reset refused: {state.name} is no fault, use stop")
    if state is State.FAULT:
        return Transition(state, False, f"{event.value} refused: in FAULT, reset first")
    if event is Event.STAND:
        if state is State.RUNNING:
            return Transition(state, False, "stand refused: RUNNING, stop first")
        if state is State.STANDING:
            return Transition(state, True, "standing already")
        return _enter(state, event, blocked)
    if event is Event.START:
        if state is State.RUNNING:
            return Transition(state, True, "running already")
        if state is State.IDLE:
            return Transition(state, False, "start refused: IDLE, stand first")
        return _enter(state, event, not_standing or blocked)
    # stop
    if state is State.RUNNING:
        return Transition(State.STANDING, True, "standing")
    return Transition(State.IDLE, True, "idle")


def _enter(state: State, event: Event, reason: str | None) -> Transition:
    if reason:
        return Transition(state, False, f"{event.value} refused: {reason}")
    entered = ENTERS[state, event]
    return Transition(entered, True, entered.name.lower())
