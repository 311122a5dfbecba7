"""A sweep that is killed without a word, again and again: what it ends with, and what was computed twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY, assert_trees_equal

import jaxrl
from jaxrl.results import Results

CHUNKS, PROGRAMS, KILLS = 8, 2, 3
# The command line, and a line in a file whenever a chunk begins to be computed.
COUNTED = """
import sys
from jaxrl.cli import main
from jaxrl.execution import Execution

class Counted:
    def __init__(self, execution, step):
        self.execution, self.step = execution, step

    def __call__(self, state, fixed, bounds):
        with open(sys.argv[1], "a") as file:
            file.write(f"{self.execution._directory.name} {int(bounds['start'])}\\n")
        return self.step(state, fixed, bounds)

    def __getattr__(self, name):
        return getattr(self.step, name)

compiled = Execution._compiled_step
Execution._compiled_step = lambda self, size: Counted(self, compiled(self, size))
main(sys.argv[2:])
"""


class Sweep:
    """Two programs (widths of the network) of four runs each, in a directory, by as many processes as it takes."""

    def __init__(self, folder: Path) -> None:
        self.out, self.log = folder / "run", folder / "begun.txt"
        folder.mkdir()
        fixed = [f"{n}={v}" for n, v in TINY.items() if n not in ("total_steps", "hidden_sizes")]
        self.asked = ["sweep", "ppo", "jaxrl/probe_termination", "--out", str(self.out), "--seeds", "2",
                      "--steps", "204800", "--chunks", str(CHUNKS), "--grid", "learning_rate=1e-3,1e-2",
                      "hidden_sizes=8,8x8", *(part for text in fixed for part in ("--set", text))]  # fmt: skip

    def start(self) -> subprocess.Popen[str]:
        """The sweep, or what is left of it."""
        begun = (self.out / "run.json").exists()
        argv = [sys.executable, "-c", COUNTED, str(self.log), *(["resume", str(self.out)] if begun else self.asked)]
        return subprocess.Popen(argv, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def begun(self) -> list[str]:
        """The chunks that were begun, by all processes so far."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def finish(self) -> None:
        process = self.start()
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors


def kill(sweep: Sweep, rng: np.random.Generator, start_seconds: float, chunk_seconds: float) -> str:
    """Starts it and kills it at a random moment of what is left, in units of progress: so on a busy machine, too.

    A start counts as two chunks. The last chunk is spared, or else a quick process might end before it is killed.
    """
    before = len(sweep.begun())
    left = PROGRAMS * CHUNKS - len(set(sweep.begun()))
    moment = rng.uniform(-2.0, max(left - 1, 0))
    process = sweep.start()
    try:
        if moment < 0.0:
            time.sleep(start_seconds * (moment + 2.0) / 2.0)
        else:
            until = time.monotonic() + 200
            while len(sweep.begun()) <= before + int(moment) and time.monotonic() < until:
                time.sleep(0.002)
            time.sleep(chunk_seconds * (moment % 1.0))
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
    finally:
        process.kill()
        errors = process.communicate()[1]
    return f"at {moment:.2f} of {left} chunks left; {len(sweep.begun()) - before} were begun; {errors[-300:]}"


@pytest.mark.thorough
@pytest.mark.parametrize("seed", [0, 1])
def test_three_kills_change_nothing_and_cost_a_chunk_each(tmp_path: Path, seed: int) -> None:
    whole, killed = Sweep(tmp_path / "whole"), Sweep(tmp_path / "killed")
    began = time.monotonic()
    process = whole.start()
    while not whole.begun() and process.poll() is None:
        time.sleep(0.01)
    start_seconds = time.monotonic() - began
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    chunk_seconds = (time.monotonic() - began - start_seconds) / (PROGRAMS * CHUNKS)
    needed = whole.begun()
    assert len(needed) == len(set(needed)) == PROGRAMS * CHUNKS

    rng = np.random.default_rng(seed)
    moments = [kill(killed, rng, start_seconds, chunk_seconds) for _ in range(KILLS)]
    assert not (killed.out / "summary.json").exists(), moments
    killed.finish()

    assert set(killed.begun()) == set(needed)
    assert len(killed.begun()) <= len(needed) + KILLS, moments
    found, expected = Results.load(killed.out), Results.load(whole.out)
    assert_trees_equal(dict(found.metrics), dict(expected.metrics))
    assert_trees_equal(found.hparams, expected.hparams)
    np.testing.assert_array_equal(found.steps, expected.steps)
    assert found.summary()["best"] == expected.summary()["best"]
    for cell in range(4):
        states = [jaxrl.load_run(sweep.out).policy(cell, seed=1)[1] for sweep in (killed, whole)]
        assert_trees_equal(states[0], states[1])
