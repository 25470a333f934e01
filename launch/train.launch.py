"""Training as a ROS 2 node, with status, services and a preview of its first environment.

    ros2 launch humanoid_rl train.launch.py task:=stand steps:=2000000 name:=mine

Ctrl-C writes a checkpoint; `name:=mine resume:=true` goes on from it.
"""

import time
from collections.abc import Mapping
from typing import Any

from humanoid_rl.launching.launch_files import confined_to_this_machine, refuse_unknown_arguments
from humanoid_rl.launching.preflight import check_domain_number
from humanoid_rl.launching.supervised_node import supervised_node
from humanoid_rl.launching.viewing import VIEWERS, check_port, viewer_actions
from humanoid_rl.learning_commands import DEFAULT_TASK, new_run_dir
from humanoid_rl_core.errors import UserError
from humanoid_rl_sim.learning.configuration import from_yaml, load_training_config, resumed_config
from humanoid_rl_sim.simulators.registry import ISAAC_ENGINES, SIMULATOR_KINDS, VISUALIZERS
from humanoid_rl_sim.tasks.configuration import load_task, task_names
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction

# An update in progress has to end before the last checkpoint can be written.
CHECKPOINT_PATIENCE = 60.0
ARGUMENTS = [
    DeclareLaunchArgument(
        "task", default_value="", choices=["", *task_names()], description="What to learn; empty: stand."
    ),
    DeclareLaunchArgument(
        "sim", default_value="", choices=["", *SIMULATOR_KINDS], description="Simulator to learn in; empty: the task's."
    ),
    DeclareLaunchArgument(
        "engine", default_value="", choices=["", *ISAAC_ENGINES], description="Engine of sim:=isaac; empty: ovphysx."
    ),
    DeclareLaunchArgument(
        "num_envs", default_value="", description="Environments stepped together; empty: the task's."
    ),
    DeclareLaunchArgument("steps", default_value="", description="Environment steps; empty: the task's."),
    DeclareLaunchArgument("seed", default_value="", description="Seed; empty: the task's."),
    DeclareLaunchArgument(
        "camera", default_value="", description="Camera of the robot to render, with sim:=isaac (head); empty: none."
    ),
    DeclareLaunchArgument(
        "visualizer", default_value="", choices=["", *VISUALIZERS], description="Of Isaac Lab, with sim:=isaac."
    ),
    DeclareLaunchArgument("name", default_value="", description="Run below runs/; empty: task and time."),
    DeclareLaunchArgument(
        "resume", default_value="false", choices=["true", "false"], description="Go on with that run."
    ),
    DeclareLaunchArgument(
        "viewer", default_value="none", choices=list(VIEWERS), description="Preview of the first environment."
    ),
    DeclareLaunchArgument("port", default_value="8080", description="TCP port of the browser view."),
    DeclareLaunchArgument("domain", default_value="", description="DDS domain; empty: ROS_DOMAIN_ID."),
]  # fmt: skip
DEFAULT_ENGINE = "ovphysx"
NUMBERS = ("num_envs", "steps", "seed")


def bring_up(context: LaunchContext) -> list[Any]:
    """The training node, and a viewer if one is wanted."""
    chosen = context.launch_configurations
    check_domain_number(chosen["domain"])
    check_port(chosen["port"])
    given = {key: chosen[key] for key in NUMBERS if chosen[key]}
    for key, value in given.items():
        if not value.isdecimal() or (key != "seed" and int(value) == 0):
            raise UserError(f"{key}:={value} is not a whole number above zero")
    if chosen["engine"] and chosen["sim"] != "isaac":
        raise UserError(f"engine:={chosen['engine']} goes with sim:=isaac")
    resume = chosen["resume"] == "true"
    if resume and not chosen["name"]:
        raise UserError("resume:=true needs name:=, the run to go on with")
    for key in ("camera", "visualizer"):
        if resume and chosen[key]:
            raise UserError(f"{key}:= goes with a new run; one that is resumed has its own {key}")
    name = chosen["name"] or f"{chosen['task'] or DEFAULT_TASK}-{time.strftime('%Y%m%d-%H%M%S')}"
    run_dir = new_run_dir(name, resume)
    if resume:
        # What was not asked for is the run's own, which training insists on.
        stored = from_yaml(run_dir / "config.yaml")
        given |= simulator(chosen, stored.sim.partition(":")[2] or DEFAULT_ENGINE)
        given |= {"task": chosen["task"]} if chosen["task"] else {}
        config = resumed_config(stored, given)
    else:
        given |= simulator(chosen, DEFAULT_ENGINE)
        given |= {"camera.name": chosen["camera"]} if chosen["camera"] else {}
        given |= {"visualizer": chosen["visualizer"]} if chosen["visualizer"] else {}
        config = load_training_config(chosen["task"] or DEFAULT_TASK, given)
    task = load_task(config.task)
    return [
        # Its preview is a /joint_states, which must not reach a robot's network.
        *confined_to_this_machine(chosen["domain"]),
        LogInfo(msg=f"training into {run_dir.resolve()}"),
        supervised_node(
            "humanoid_rl_sim",
            "train_node",
            parameters={
                "task": config.task,
                "sim": config.sim,
                "num_envs": config.num_envs,
                "steps": config.steps,
                "seed": config.seed,
                "camera": "" if resume or config.camera is None else config.camera.name,
                "visualizer": "" if resume else config.visualizer,
                "run": str(run_dir.resolve()),
                "resume": resume,
            },
            may_finish=True,
            in_isaac=config.sim.startswith("isaac:"),
            patience=CHECKPOINT_PATIENCE,
        ),
        *viewer_actions(chosen["viewer"], robot=task.robot, variant=task.variant, port=chosen["port"]),
    ]


def simulator(chosen: Mapping[str, str], default_engine: str) -> dict[str, str]:
    """What `sim` is overridden with."""
    if chosen["sim"] == "isaac":
        return {"sim": f"isaac:{chosen['engine'] or default_engine}"}
    return {"sim": chosen["sim"]} if chosen["sim"] else {}


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [refuse_unknown_arguments("train", ARGUMENTS), *ARGUMENTS, OpaqueFunction(function=bring_up)]
    )
