"""What Isaac Lab cannot do here is refused in one line."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.simulators.isaac import IsaacSimulator
from humanoid_rl_sim.simulators.registry import make_simulator


def test_a_second_simulation_in_the_process_is_refused_and_the_first_goes_on():
    first = make_simulator("isaac:ovphysx", load_robot(), 1, timestep=0.005)
    try:
        with pytest.raises(UserError, match="another simulation is open in this process"):
            make_simulator("isaac:newton", load_robot(), 1, timestep=0.005)
        first.advance(1)
        first.refresh()
        assert first.state.base_pos[0, 2] > 0.7
    finally:
        first.close()


def test_an_unknown_engine_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="unknown engine 'ovphysics', did you mean 'ovphysx'"):
        IsaacSimulator(load_robot(), 1, engine="ovphysics")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="torch finds no CUDA GPU; use device cpu"):
        IsaacSimulator(load_robot(), 1, engine="ovphysx", device="cuda:0")


@pytest.mark.skipif(find_spec("isaacsim") is not None, reason="needs an environment without Isaac Sim")
def test_isaac_sim_is_asked_for_only_where_it_is_installed():
    with pytest.raises(UserError, match="engine isaacsim needs Isaac Sim: tools/isaac python -m pip install"):
        make_simulator("isaac:isaacsim", load_robot(), 1, timestep=0.005)
