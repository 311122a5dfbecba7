"""Launches: which runs they are made of, that a failure costs no other run, and that only what is missing is done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import submitit
from helpers import TINY

from jaxrl import launcher
from jaxrl.launcher import Piece, launch, plan_pieces

ENV = "jaxrl/probe_termination"
SMALL = {name: value for name, value in TINY.items() if name in ("num_envs", "num_steps", "hidden_sizes")}


def planned(tmp_path: Path, **changes: Any) -> tuple[Piece, ...]:
    asked: dict[str, Any] = {"seeds": 2, "grid": {}, "settings": {}, "options": {}, "out": tmp_path}
    return plan_pieces(changes.pop("algorithms", ["ppo", "a2c"]), changes.pop("envs", [ENV]), **{**asked, **changes})


def test_what_changes_shapes_becomes_a_run_of_its_own(tmp_path: Path) -> None:
    """Two algorithms, one of them with three shapes, two environments: eight runs; numbers stay inside."""
    grid = {"ppo.hidden_sizes": [(4,), (8, 8), (4, 4)], "learning_rate": [1e-3, 1e-2]}
    pieces = planned(tmp_path, envs=[ENV, "CartPole-v1"], grid=grid, settings={"ppo.clip_eps": 0.3, "gamma": 0.9})
    assert len(pieces) == 8
    assert len({piece.name for piece in pieces}) == 8
    assert pieces[1].name == "ppo-jaxrl_probe_termination-hidden_sizes=8x8"
    assert pieces[1].settings == {"clip_eps": 0.3, "gamma": 0.9, "hidden_sizes": (8, 8)}
    assert pieces[1].grid == {"learning_rate": (1e-3, 1e-2)}
    assert pieces[-1].settings == {"gamma": 0.9}
    assert pieces[-1].directory == tmp_path / "a2c-CartPole-v1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithms": []}, "expected a list of different names"),
        ({"algorithms": ["ppo", "ppo"]}, "expected a list of different names"),
        ({"grid": {"dqn.gamma": [0.9]}}, "dqn.gamma is for dqn, which is not among"),
        ({"settings": {"gamma": 2.0}}, "gamma = 2: expected a number in"),
        ({"grid": {"clip_epsilon": [0.1]}}, "clip_eps"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_starts(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        planned(tmp_path, **changes)


def test_runs_never_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxrl.launcher._plain", lambda value: "rules_a.npz")  # as of rules/a.npz and rules_a.npz
    with pytest.raises(ValueError, match=r"two of the runs would share the folder 'ppo-.*=rules_a\.npz'"):
        planned(tmp_path, algorithms=["ppo"], grid={"hidden_sizes": [(4,), (8,)]})


def test_a_failure_costs_no_other_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of two fails: the second is done, the failure is told, and again only the first is run."""
    done: list[str] = []
    breaks = True

    def work(piece: Piece) -> None:
        done.append(piece.name)
        if breaks and piece.algorithm == "ppo":
            raise RuntimeError("out of luck")
        real(piece)

    class Here:
        """Stands in for submitit's executor: each job is done at once, in this process."""

        def __init__(self, folder: Path, cluster: str) -> None:
            assert cluster == "slurm"

        def update_parameters(self, **given: Any) -> None:
            assert given["slurm_partition"] == "gpu"

        def submit(self, job: Any, piece: Piece) -> Any:
            error = None
            try:
                job(piece)
            except RuntimeError as raised:
                error = raised
            return SimpleNamespace(
                done=lambda: True, exception=lambda: error, paths=SimpleNamespace(stderr="its_log.err"), cancel=None
            )

    real = launcher.work
    monkeypatch.setattr(launcher, "work", work)
    monkeypatch.setattr(launcher, "_POLL_SECONDS", 0.0)
    monkeypatch.setattr(submitit, "AutoExecutor", Here)
    asked: dict[str, Any] = {"seeds": 2, "settings": {**SMALL, "total_steps": 64}, "out": tmp_path}
    asked |= {"cluster": "slurm", "cluster_options": {"slurm_partition": "gpu"}}
    said: list[str] = []
    first = launch(["ppo", "a2c"], [ENV], report=said.append, **asked)
    names = [piece.name for piece in first.pieces]
    assert done == names
    assert list(first.failures) == [names[0]]
    assert first.failures[names[0]] == "out of luck (its output: its_log.err)"
    assert any(line.startswith(f"{names[0]}: failed") for line in said)
    assert list(first.results()) == [names[1]]
    breaks = False
    second = launch(["ppo", "a2c"], [ENV], report=said.append, **asked)
    assert done == [*names, names[0]]
    assert second.skipped == (names[1],)
    assert not second.failures
    assert np.isfinite(second.results()[names[0]].metrics["loss/policy"]).all()
    assert second.table().row_count == 2
    with pytest.raises(ValueError, match="holds another launch"):
        launch(["ppo"], [ENV], **asked)


@pytest.mark.thorough
def test_a_killed_process_is_listed_and_done_again(tmp_path: Path) -> None:
    """By the command line, in processes: one of two is killed, the other finishes; again, the killed one goes on."""
    settings = [part for n, v in SMALL.items() for part in ("--set", f"{n}={'x'.join(map(str, np.atleast_1d(v)))}")]
    argv = [sys.executable, "-m", "jaxrl", "launch", "ppo,a2c", ENV, "--out", str(tmp_path), "--seeds", "1",
            "--steps", "64000", "--chunks", "1000", *settings]  # fmt: skip
    first = subprocess.Popen(argv, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    folder = tmp_path / "ppo-jaxrl_probe_termination" / "program_00"
    until = time.monotonic() + 200
    while not list(folder.glob("checkpoint_*")) and time.monotonic() < until:
        time.sleep(0.1)
    victims = [
        int(pid) for pid in os.listdir("/proc")
        if pid.isdigit() and b"submitit" in _argv(pid) and str(tmp_path).encode() in _argv(pid)
    ]  # fmt: skip
    assert victims
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    _, errors = first.communicate(timeout=300)
    assert first.returncode == 1
    assert "ppo-jaxrl_probe_termination failed" in errors
    assert "a2c" not in errors
    again = subprocess.run(argv, text=True, capture_output=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr
    assert "a2c-jaxrl_probe_termination: started" not in again.stdout
    assert "ppo-jaxrl_probe_termination: finished" in again.stdout


def _argv(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
