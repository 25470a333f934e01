"""The report of a run: what it says, what it admits is missing, what it refuses."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from humanoid_rl.reports.report import write_report
from humanoid_rl.reports.report_plots import wilson_interval
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import load_robot

SPEEDS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2)


def write_table(path: Path, columns: dict[str, np.ndarray]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def evaluation() -> dict:
    return {
        "task": "stand",
        "kind": "push",
        "simulator": "mujoco",
        "episodes": 200,
        "seed": 3,
        "push_half_mps": 0.62,
        "policy": {"survival": 0.965, "push_mps": 0.62},
        "baseline": {"survival": 0.49, "push_mps": 0.62},
        "sweep": [
            {
                "push_mps": speed,
                "policy": float(np.clip(1.3 - 0.45 * speed, 0, 1)),
                "baseline": float(np.clip(1.3 - 1.3 * speed, 0, 1)),
                "episodes": 50,
            }
            for speed in SPEEDS
        ],
    }


def deployment() -> dict:
    generator = np.random.default_rng(0)
    time = np.arange(3.0, 22.0, 0.02)
    names = list(load_robot().joint_names)
    sway = np.sin(time[:, None] * 3 + np.arange(29)) * np.exp(-np.maximum(time[:, None] - 14, 0))
    kick = np.where(time > 14, np.exp(-(time - 14)), 0.0)
    target = 0.15 * sway + kick[:, None] * 0.3
    return {
        "joint_names": names,
        "events": [
            {"time": 3.2, "name": "host_state", "state": "READY", "cause": ""},
            {"time": 4.0, "name": "stand"},
            {"time": 6.5, "name": "hoist_released"},
            {"time": 8.0, "name": "start"},
            {"time": 14.0, "name": "push", "velocity": [0.62, 0.0]},
            {"time": 21.9, "name": "end"},
        ],
        "time_s": time.tolist(),
        "joint_pos": (target + 0.01 * generator.standard_normal(target.shape)).tolist(),
        "joint_target": target.tolist(),
        "base_height_m": (0.76 - 0.04 * kick).tolist(),
        "base_tilt_rad": (0.02 + 0.3 * kick).tolist(),
        "tick_latency_s": (0.001 + 0.0003 * generator.gamma(1.0, size=900)).tolist(),
        "tick_period_s": (0.02 + 0.0002 * generator.standard_normal(900)).tolist(),
        "host_period_error_s": {"p50": 0.00004, "p99": 0.00031, "max": 0.0021},
        "deadline_misses": 1,
        "push_velocity": [0.62, 0.0],
        "survived": True,
        "failure": "",
        "left_behind": [],
    }


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A complete run, small, except for policy.onnx."""
    run = tmp_path / "stand_1"
    run.mkdir()
    steps = np.arange(1, 201) * 15_000
    growth = 1 - np.exp(-steps / 6e5)
    noise = np.random.default_rng(1).standard_normal(200)
    reward = 22 * growth + noise
    reward[:3] = np.nan  # no episode has ended yet
    write_table(
        run / "progress.csv",
        {
            "steps": steps,
            "time_s": steps / 13_900,
            "reward": reward,
            "episode_length_s": 2 + 8 * growth + 0.2 * noise,
            "steps_per_second": np.full(200, 14_000.0),
        },
    )
    write_table(run / "evaluations.csv", {"steps": steps[19::20], "score": growth[19::20] * 0.95})
    (run / "config.yaml").write_text("task: stand\nseed: 3\nsteps: 3000000\n")
    (run / "evaluation.json").write_text(json.dumps(evaluation()))
    (run / "deployment.json").write_text(json.dumps(deployment()))
    return run


def text_of(path: Path) -> str:
    """The page without its images."""
    return re.sub(r"base64,[A-Za-z0-9+/=]+", "", path.read_text(encoding="utf-8"))


def test_a_complete_run_is_told_with_its_numbers(run_dir: Path) -> None:
    path = write_report(run_dir)
    text = text_of(path)
    assert path == run_dir / "report.html"
    assert "pushes of 0.62 m/s survived" in text and "96.5 %" in text
    assert "49.0 %" in text and "+48 points" in text
    assert "93 to 98 %" in text  # Wilson, 193 of 200
    assert "stayed up" in text and "3.00 M steps" in text and "3 min 36 s, 13 900 steps/s" in text
    assert "0.31 ms" in text  # host period error p99
    assert text.count("<img") == 6
    assert "task: stand" in text


def test_the_report_needs_no_network(run_dir: Path) -> None:
    text = text_of(write_report(run_dir))
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "http" not in text and "<script" not in text and "@import" not in text


def test_the_same_run_gives_the_same_report(run_dir: Path) -> None:
    first = write_report(run_dir).read_bytes()
    assert write_report(run_dir).read_bytes() == first


@pytest.mark.parametrize(
    ("file", "absent"),
    [
        ("evaluation.json", "pushes of"),
        ("deployment.json", "policy tick p99"),
        ("config.yaml", "task: stand"),
    ],
)
def test_what_is_missing_is_said_to_be_missing(run_dir: Path, file: str, absent: str) -> None:
    (run_dir / file).unlink()
    text = text_of(write_report(run_dir))
    assert f"{file} is missing" in text
    assert absent not in text


def test_a_run_that_only_began_still_gets_a_report(tmp_path: Path) -> None:
    text = text_of(write_report(tmp_path))
    for file in ("progress.csv", "evaluation.json", "deployment.json", "policy.onnx", "config.yaml"):
        assert f"{file} is missing" in text
    assert "<img" not in text


def test_a_fall_is_not_hidden(run_dir: Path) -> None:
    fallen = deployment() | {"survived": False, "failure": "the base is at 0.31 m"}
    (run_dir / "deployment.json").write_text(json.dumps(fallen))
    text = text_of(write_report(run_dir))
    assert "fell" in text and "the base is at 0.31 m" in text and "stayed up" not in text


def test_walking_is_reported_by_its_own_numbers(run_dir: Path) -> None:
    walk = {"task": "walk", "kind": "velocity", "episodes": 64, "success": 0.75, "velocity_error_mps": 0.1234}
    walk |= {"yaw_rate_error_radps": None}
    (run_dir / "evaluation.json").write_text(json.dumps(walk))
    text = text_of(write_report(run_dir))
    assert "commands followed" in text and "75.0 %" in text and "0.1234" in text
    assert re.search(r"yaw rate error radps(<[^>]*>|\s)+-<", text)


def without(document: dict, key: str) -> dict:
    return {k: v for k, v in document.items() if k != key}


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("evaluation.json", '{"task": "stand", ', "evaluation.json: not valid JSON"),
        ("evaluation.json", "[1, 2]", "evaluation.json: expected a JSON object, found list"),
        ("evaluation.json", without(evaluation(), "push_half_mps"), "'push_half_mps' is missing"),
        ("evaluation.json", without(evaluation(), "policy"), "'policy.survival' is missing"),
        ("evaluation.json", evaluation() | {"episodes": "many"}, "'episodes' is 'many', expected a number"),
        ("evaluation.json", evaluation() | {"policy": {"survival": 96.5}}, "'policy.survival' is 96.5"),
        ("evaluation.json", evaluation() | {"sweep": 3}, "'sweep' is not a list"),
        ("deployment.json", "", "deployment.json: not valid JSON"),
        ("deployment.json", without(deployment(), "joint_pos"), "'joint_pos' is missing"),
        ("deployment.json", deployment() | {"joint_pos": [[0.1]]}, "'joint_pos' has the shape 1x1"),
        ("deployment.json", deployment() | {"base_tilt_rad": "no"}, "'base_tilt_rad' is not an array"),
        ("deployment.json", deployment() | {"events": [{"name": "push"}]}, "'time' is missing"),
        ("progress.csv", "steps,reward\n1,2\n3\n", "line 3 has 1 fields, the header 2"),
        ("progress.csv", "a,b\n1,2\n", "no column 'steps'"),
        ("evaluations.csv", "steps,score\n1,high\n", "not a table of numbers"),
        ("policy.onnx", "this is not a graph", "policy.onnx: "),
    ],
)
def test_a_broken_file_is_refused_in_one_line_and_leaves_no_report(
    run_dir: Path, file: str, content: str | dict, said: str
) -> None:
    (run_dir / file).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError) as error:
        write_report(run_dir)
    message = str(error.value)
    assert said in message and str(run_dir / file) in message and "\n" not in message
    assert not list(run_dir.glob("*.html")) and not list(run_dir.glob(".report-*"))


def test_a_refused_rewrite_keeps_the_report_before(run_dir: Path) -> None:
    before = write_report(run_dir).read_bytes()
    (run_dir / "evaluation.json").write_text("{")
    with pytest.raises(UserError):
        write_report(run_dir)
    assert (run_dir / "report.html").read_bytes() == before


def test_a_reader_of_the_old_report_never_sees_half_of_the_new_one(run_dir: Path) -> None:
    write_report(run_dir)
    with (run_dir / "report.html").open(encoding="utf-8") as reader:
        (run_dir / "deployment.json").unlink()
        write_report(run_dir)
        assert "stayed up" in reader.read()
    assert not list(run_dir.glob(".report-*"))


def test_a_report_that_cannot_be_written_is_named_and_leaves_nothing(run_dir: Path) -> None:
    (run_dir / "deployment.json").unlink()
    (run_dir / "report.html").mkdir()
    with pytest.raises(UserError, match=r"report\.html: cannot be written"):
        write_report(run_dir)
    assert not list(run_dir.glob(".report-*"))


def test_a_run_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run directory"):
        write_report(tmp_path / "nothing")


def test_text_from_files_cannot_become_markup(run_dir: Path) -> None:
    (run_dir / "config.yaml").write_text("task: <script>alert(1)</script>\n")
    assert "<script" not in text_of(write_report(run_dir))


@pytest.mark.parametrize(
    ("successes", "trials", "expected"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_interval_gives_the_published_bounds(successes, trials, expected) -> None:
    assert wilson_interval(successes, trials) == pytest.approx(expected, abs=5e-5)


def test_wilson_interval_without_trials_says_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
