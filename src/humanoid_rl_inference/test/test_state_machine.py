"""Every event in every state."""

import itertools
import re

import pytest
from humanoid_rl_inference.state_machine import ENTERS, Event, State, transition

from humanoid_rl_inference import state_machine

# event -> (state after, accepted) in IDLE, STANDING, RUNNING, FAULT, when nothing stands against it.
TABLE = {
    Event.STAND: [
        (State.STANDING, True),
        (State.STANDING, True),
        (State.RUNNING, False),
        (State.FAULT, False),
    ],
    Event.START: [(State.IDLE, False), (State.RUNNING, True), (State.RUNNING, True), (State.FAULT, False)],
    Event.STOP: [(State.IDLE, True), (State.IDLE, True), (State.STANDING, True), (State.FAULT, False)],
    Event.ESTOP: [(State.FAULT, True)] * 4,
    Event.RESET: [(State.IDLE, True), (State.STANDING, False), (State.RUNNING, False), (State.IDLE, True)],
    Event.TRIP: [(State.IDLE, True), (State.FAULT, True), (State.FAULT, True), (State.FAULT, True)],
}
EVERYTHING = list(itertools.product(State, Event))


@pytest.mark.parametrize(("state", "event"), EVERYTHING)
def test_event_leads_where_the_table_says(state: State, event: Event) -> None:
    result = transition(state, event, blocked=None, not_standing=None)
    assert (result.state, result.accepted) == TABLE[event][state]
    assert result.message


@pytest.mark.parametrize(("state", "event"), EVERYTHING)
def test_failing_check_blocks_entering_standing_and_running_and_nothing_else(
    state: State, event: Event
) -> None:
    result = transition(state, event, blocked="tilt 1.20 rad exceeds 1.00", not_standing=None)
    if (state, event) in ENTERS:
        assert (result.state, result.accepted) == (state, False)
        assert result.message == f"{event.value} refused: tilt 1.20 rad exceeds 1.00"
    else:
        assert (result.state, result.accepted) == TABLE[event][state]


@pytest.mark.parametrize(("state", "event"), EVERYTHING)
def test_unfinished_standing_blocks_start_alone(state: State, event: Event) -> None:
    result = transition(state, event, blocked=None, not_standing="the standing motion takes 1.0 s more")
    if (state, event) == (State.STANDING, Event.START):
        assert (result.state, result.accepted) == (State.STANDING, False)
        assert result.message == "start refused: the standing motion takes 1.0 s more"
    else:
        assert (result.state, result.accepted) == TABLE[event][state]


@pytest.mark.parametrize("event", [event for event in Event if event is not Event.RESET])
def test_fault_is_left_by_reset_alone(event: Event) -> None:
    assert transition(State.FAULT, event, blocked=None, not_standing=None).state is State.FAULT


def test_table_in_the_documentation_is_the_one_in_force() -> None:
    documented = {}
    for line in (state_machine.__doc__ or "").splitlines():
        cells = re.split(r"\s{2,}", line.strip())
        if line.startswith("    ") and len(cells) == 5 and cells[0] != "event":
            documented[Event(cells[0])] = cells[1:]
    assert set(documented) == set(Event)
    for event, cells in documented.items():
        for state, cell in zip(State, cells, strict=True):
            after, accepted = TABLE[event][state]
            if cell.startswith("->"):
                assert cell.split()[1] == after.name and accepted
            elif cell.startswith("stays"):
                assert after is state and accepted
            else:
                assert cell.startswith("refused") and after is state and not accepted
