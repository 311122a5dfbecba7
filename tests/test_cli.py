"""The command line: what it parses, what it refuses, and how fast it answers."""

from __future__ import annotations

import dataclasses
import json
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conformance import CASES
from helpers import TINY

import jaxrl
from jaxrl.cli import main, parse_assignments, parse_value
from jaxrl.objectives import OBJECTIVES
from jaxrl.presets import PRESETS

ENV = "jaxrl/probe_termination"
SET = [word for name in TINY for word in ("--set", f"{name}={'8x8' if name == 'hidden_sizes' else TINY[name]}")]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("64", 64),
        ("-3", -3),
        ("3e-4", 3e-4),
        ("1e5", 1e5),
        (".5", 0.5),
        ("true", True),
        ("False", False),
        ("none", None),
        ("64x64", (64, 64)),
        ("256x128x64", (256, 128, 64)),
        ("(64, 64)", (64, 64)),
        ("[8]", [8]),
        ("relu", "relu"),
        ("x", "x"),
        ("4x", "4x"),
        ("max", "max"),
        ("a2c", "a2c"),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),  # text, never code
    ],
)
def test_values(text: str, value: Any) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_not_numbers_reach_the_plan_which_refuses_them(text: str) -> None:
    assert isinstance(parse_value(text), float)


def test_assignments() -> None:
    assert parse_assignments(("a=1", "env.b=x=y", "c=1,2")) == {"a": "1", "env.b": "x=y", "c": "1,2"}
    assert parse_assignments(()) == {}
    for text in ("a", "=1", "a="):
        with pytest.raises(ValueError, match="expected NAME=VALUE, as in learning_rate=1e-3"):
            parse_assignments((text,))
    with pytest.raises(ValueError, match="a is given twice"):
        parse_assignments(("a=1", "b=2", "a=3"))


def jaxrl_command(*args: str) -> list[str]:
    return [sys.executable, "-m", "jaxrl", *args]


def test_help_is_fast_and_teaches() -> None:
    """Under half a second, the best of several: of processor time, since other tests compete for the cores."""
    fastest = float("inf")
    for _ in range(8):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        text = subprocess.run(jaxrl_command("--help"), capture_output=True, text=True, check=True).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        fastest = min(fastest, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        if fastest < 0.4:
            break
    assert fastest < 0.5
    for verb in ("train", "sweep", "resume", "evaluate", "render", "plot", "report", "list", "config"):
        assert verb in text


@pytest.mark.parametrize("args", [["--help"], ["train", "--help"], ["sweep", "--help"], ["train"]])
def test_help_imports_no_jax(args: list[str]) -> None:
    code = (
        "import sys\nfrom jaxrl.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "found = {'jax', 'flax', 'optax', 'numpy', 'matplotlib', 'pandas'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_of_a_verb_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["sweep", "--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "jaxrl sweep ppo CartPole-v1 --grid learning_rate=1e-4,3e-4,1e-3" in text
    for option in ("--grid", "--seeds", "--set", "--steps", "--out", "--evaluations", "--chunks", "--objective"):
        assert option in text


def errors(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """What the command says on stderr when it refuses."""
    with pytest.raises(SystemExit) as end:
        main(list(args))
    assert end.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err
    return " ".join(output.err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "pppo", ENV], "jaxrl: unknown algorithm 'pppo'; did you mean ppo"),
        (["train", "ppo", "Cartpole"], "unknown environment 'Cartpole'; did you mean CartPole-v1"),
        (["train", "ppo", ENV, "--set", "gama=0.9"], "unknown setting 'gama'; did you mean gamma"),
        (["train", "ppo", ENV, "--set", "gamma"], "'gamma': expected NAME=VALUE"),
        (["train", "ppo", ENV, "--set", "gamma=high"], "gamma = 'high': expected a number, got str"),
        (["train", "ppo", ENV, "--set", "gamma=nan"], "gamma = nan: expected a finite number"),
        (["train", "ppo", ENV, "--set", "gamma=0.9", "--set", "gamma=0.8"], "gamma is given twice"),
        (["train", "ppo", ENV, "--steps", "100", "--set", "total_steps=100"], "total_steps is given twice"),
        (["train", "ppo", ENV, "--steps", "100"], "total_steps = 100 is less than one update"),
        (["train", "ppo", ENV, "--objective", "pp"], "unknown objective 'pp'; did you mean ppo"),
        (["train", "ppo", ENV, "--seeds", "0"], "seeds = 0: expected at least one seed, as in --seeds 8"),
        (["train", "ppo", ENV, "--chunks", "0"], "num_chunks = 0: expected an integer >= 1"),
        (["sweep", "ppo", ENV, "--grid", "lr=1,2"], "unknown setting 'lr'"),
        (["sweep", "ppo", ENV, "--grid", "gamma=0.9,0.9"], "a value stands twice"),
        (["sweep", "ppo", ENV, "--grid", "gamma=0.9", "--set", "gamma=0.8"], "both fixed and in the grid"),
        (["sweep", "ppo", ENV, "--grid", "num_minibatches=3,4"], "is not divisible by num_minibatches = 3; use 2 or 4"),
        (["sweep", "ppo", ENV], "sweep needs a grid, as in --grid learning_rate=1e-4,1e-3; `jaxrl train`"),
        (["resume", "nowhere"], "nowhere holds no run"),
        (["evaluate", "nowhere"], "nowhere holds no run"),
        (["plot", "nowhere"], "nowhere holds no results"),
        (["report", "nowhere"], "nowhere holds no run: there is no such directory"),
        (["report"], "report needs at least one run directory, as in `jaxrl report runs/demo`"),
        (["config", "ppo", "nowhere"], "unknown environment 'nowhere'"),
        (["list", "everything"], "everything"),
        (["trian", "ppo", ENV], "trian"),
        (["train", "ppo", ENV, "--seeds", "many"], "many"),
    ],
)
def test_mistakes_exit_2_with_a_message(
    args: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in errors(capsys, *args)
    assert not list(tmp_path.iterdir())


def test_a_mistake_in_a_process(tmp_path: Path) -> None:
    done = subprocess.run(
        jaxrl_command("train", "ppo", "CartPole-v2"), capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("jaxrl: unknown environment 'CartPole-v2'; did you mean CartPole-v1")


def test_interrupting_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jaxrl, "run_sweep", interrupt, raising=False)
    with pytest.raises(SystemExit) as end:
        main(["train", "ppo", ENV])
    assert end.value.code == 130
    assert "`jaxrl resume RUN` goes on from the last checkpoint" in capsys.readouterr().err


def test_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("ours")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jaxrl, "run_sweep", fail, raising=False)
    with pytest.raises(RuntimeError, match="ours"):
        main(["train", "ppo", ENV])


class FakeResults:
    info = {"steps_per_second": 1.0, "compile_seconds": 1.0, "wall_seconds": 1.0}

    def table(self) -> str:
        return "the table"


def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *args: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the command line asks `run_sweep` for."""
    calls: list[Any] = []

    def run_sweep(*args: Any, **kwargs: Any) -> FakeResults:
        calls.append((args, kwargs))
        return FakeResults()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jaxrl, "run_sweep", run_sweep, raising=False)
    main(list(args))
    return calls[0]


def test_sweep_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names, options = asked(
        monkeypatch, tmp_path,
        "sweep", "ppo", ENV, "--grid", "learning_rate=1e-4,1e-3", "hidden_sizes=64x64,256", "--seeds", "4",
        "--first-seed", "10", "--set", "gamma=0.9", "--set", "env.reward=2", "--steps", "5000", "--objective", "a2c",
        "--out", "here", "--evaluations", "3", "--chunks", "7",
    )  # fmt: skip
    assert names == ("ppo", ENV)
    assert list(options["seeds"]) == [10, 11, 12, 13]
    assert options["grid"] == {"learning_rate": [1e-4, 1e-3], "hidden_sizes": [(64, 64), 256]}
    assert options["settings"] == {"gamma": 0.9, "env.reward": 2, "total_steps": 5000, "objective": "a2c"}
    assert options["out"] == Path("here")
    assert (options["options"].evaluations, options["options"].num_chunks) == (3, 7)


def test_grids_may_be_given_one_by_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As the Makefile's demo does: none replaces another."""
    _, options = asked(monkeypatch, tmp_path, "sweep", "ppo", ENV, "--grid", "gamma=0.9,0.8", "--grid", "clip_eps=0.1")
    assert options["grid"] == {"gamma": [0.9, 0.8], "clip_eps": [0.1]}
    assert list(options["seeds"]) == list(range(8))


def test_train_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names, options = asked(monkeypatch, tmp_path, "train", "a2c", "brax/ant")
    assert names == ("a2c", "brax/ant")
    assert list(options["seeds"]) == [0]
    assert options["grid"] == options["settings"] == {}
    assert options["out"].parent == Path("runs")
    assert options["out"].name.startswith("a2c-brax_ant-")


def test_a_run_from_beginning_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Train, evaluate, plot and resume the same directory."""
    monkeypatch.chdir(tmp_path)
    main(["train", "ppo", ENV, "--seeds", "2", *SET, "--out", "run", "--chunks", "2"])
    shown = capsys.readouterr().out
    assert "steps/s, compiled in" in shown
    assert "run: summary.json, results.npz, figures/learning_curves.png" in shown
    main(["evaluate", "run", "--episodes", "4"])
    assert capsys.readouterr().out == (
        "4 greedy episodes: return mean 5.00, std 0.00, min 5.00, max 5.00; length mean 5.0\n"
    )
    main(["plot", "run", "--out", "curve.png"])
    assert capsys.readouterr().out == "curve.png\n"
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    main(["resume", "run"])
    assert "steps/s" in capsys.readouterr().out
    assert "run holds another run; `jaxrl resume run` continues it" in errors(
        capsys, "train", "ppo", ENV, *SET, "--out", "run"
    )


# Agents that learn from rewards as they come; populations have other settings, and tests of their own.
AGENTS = [
    name
    for name, preset in PRESETS.items()
    if preset.rule is None and hasattr(preset.hparams, "gamma") and "map_elites" not in name
]
ENVS = {
    **dict.fromkeys(("td3", "dsac_t", "mdpo_off", "pmoe"), "jaxrl/probe_continuous"),
    **dict.fromkeys(("ippo", "mappo"), "jaxrl/swarm_two_room"),
    "mfc_ppo": "jaxrl/mean_field_two_room_full",
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_is_trained_and_swept(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command line alone, as a reader of the table would: two cells of two seeds, then one."""
    env = ENVS.get(name, ENV)
    small = {**CASES[name].settings, "hidden_sizes": "8x8"}
    words = [word for key, value in small.items() for word in ("--set", f"{key}={value}")]
    main(["sweep", name, env, *words, "--grid", "gamma=0.9,0.99", "--seeds", "2", "--out", str(tmp_path / "swept")])
    main(["train", name, env, *words, "--out", str(tmp_path / "trained")])
    assert capsys.readouterr().out.count("steps/s, compiled in") == 2
    for run, cells, seeds in (("swept", 2, 2), ("trained", 1, 1)):
        summary = json.loads((tmp_path / run / "summary.json").read_text())
        assert (summary["algorithm"], summary["num_settings"], summary["num_seeds"]) == (name, cells, seeds)
        assert summary["num_diverged"] == 0
        assert jaxrl.load_run(tmp_path / run).results.final().shape == (cells, seeds)


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    main(["list", "algorithms"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(PRESETS)
    assert "arXiv:1707.06347" in lines[0]
    main(["list", "agents"])
    assert capsys.readouterr().out.splitlines() == lines
    of = {line.split()[0]: line for line in lines}
    for name, preset in PRESETS.items():
        assert f"{name:9} {preset.action_spaces} " in of[name]
    main(["list", "objectives"])
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == [*sorted(OBJECTIVES), "groove", "lpg", "lpo", "ta_lpg", "ta_lpo"]
    assert "lpg on jaxrl/grid_small" in shown[-4]  # what a shipped rule is stands behind its name
    main(["list", "envs"])
    names = capsys.readouterr().out.split()
    assert {"CartPole-v1", "Breakout-MinAtar", "brax/ant", "jaxrl/probe_truncation"} <= set(names)


def rows(text: str) -> dict[str, str]:
    """{setting: its row} of a printed table, in which long texts go on in the next lines."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        start = re.match(r" {1,3}(\S+)", line)
        name = start[1] if start else name
        found[name] = " ".join((found.get(name, "") + line).split())
    return found


def test_config_shows_every_setting_with_value_and_source(capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", "ppo", ENV])
    shown = rows(capsys.readouterr().out)
    for defaults in (PRESETS["ppo"].config, PRESETS["ppo"].hparams):
        for field in dataclasses.fields(defaults):
            assert field.metadata["help"].split()[0] in shown[field.name]
            assert field.metadata["source"].split()[0] in shown[field.name]
    assert shown["learning_rate"].split()[1] == "0.00025"
    assert "swept in one program" in shown["learning_rate"]
    assert shown["hidden_sizes"].split()[1] == "64x64"
    assert "swept" not in shown["hidden_sizes"]
    assert shown["env.num_steps"].split()[1] == "5"


def test_config_shows_what_suits_the_family(capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", "ppo", "Breakout-MinAtar"])
    shown = rows(capsys.readouterr().out)
    assert shown["num_envs"].split()[1] == "64"
    assert "for minatar" in shown["num_envs"]
    assert shown["num_steps"].split()[1] == "128"
    assert "for minatar" not in shown["num_steps"]


@pytest.mark.parametrize("env", ["brax/walker2d_uni", "brax/spring/walker2d_uni"])
def test_config_shows_what_suits_the_environment(env: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", "map_elites", env])
    shown = rows(capsys.readouterr().out)
    assert shown["episode_steps"].split()[1] == "1000"
    assert "for brax/walker2d_uni" in shown["episode_steps"]
