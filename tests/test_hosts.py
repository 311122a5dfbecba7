"""Several processes as one run: the same results, files of one writer, and what happens when a process is lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import TINY, assert_trees_close, assert_trees_equal

import jaxrl
from jaxrl import checkpoint
from jaxrl.execution import Options
from jaxrl.hosts import use_all_hosts

ENV = "jaxrl/probe_termination"


def command(out: Path, steps: int, chunks: int, *more: str) -> list[str]:
    fixed = [
        f"{n}={'x'.join(map(str, v)) if isinstance(v, tuple) else v}" for n, v in TINY.items() if n != "total_steps"
    ]
    asked = ["--seeds", "3", "--steps", str(steps), "--chunks", str(chunks), "--out", str(out)]
    asked += [part for text in fixed for part in ("--set", text)]
    return [sys.executable, "-m", "jaxrl", "train", "ppo", ENV, *asked, *more]


def processes(argv: list[str], num: int = 2) -> list[subprocess.Popen[str]]:
    """So many processes of one job, each with one CPU device."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    # The compilation cache is off: with it one process may read what another compiled for its own devices.
    flags = "--xla_force_host_platform_device_count=1 --xla_backend_optimization_level=1"
    shared = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": ""}
    job = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(num)}
    return [
        subprocess.Popen(argv, env={**shared, **job, "JAX_PROCESS_ID": str(i)}, text=True, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
        for i in range(num)
    ]  # fmt: skip


@pytest.mark.thorough
def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    """Three seeds over two processes, so that one has a run that only fills up: parameters of two updates to 1e-5.

    And bit for bit those of both where they go on after a kill.
    """
    job = processes(command(tmp_path / "two", 64, 2, "--distributed"))
    said = [process.communicate(timeout=240) for process in job]
    assert [process.returncode for process in job] == [0, 0], said
    two = jaxrl.load_run(tmp_path / "two")
    one = jaxrl.run("ppo", ENV, seeds=3, settings={**TINY, "total_steps": 64}, out=tmp_path / "one", progress=False,
                    options=Options(num_chunks=1))  # fmt: skip
    metrics = dict(two.results.metrics)
    assert_trees_close(metrics, dict(one.metrics), atol=1e-5, rtol=1e-4)
    two_policies = [two.policy(seed=seed)[1] for seed in range(3)]
    for seed, state in enumerate(two_policies):
        expected = jaxrl.load_run(tmp_path / "one").policy(seed=seed)[1]
        assert_trees_close(state.params, expected.params, atol=1e-5, rtol=1e-4)
    assert two.results.info["layout"] == [[2, 1, 1]]
    assert ["compiling" in errors for _, errors in said] == [True, False]  # one of them shows progress
    assert not list((tmp_path / "two").rglob(".*.tmp"))

    # As if both had been killed in the second chunk: together they go on from the checkpoint of the first.
    folder = tmp_path / "two" / "program_00"
    newest = checkpoint.latest(folder)
    assert newest is not None
    assert checkpoint.load_meta(newest)["updates"] == 2
    for gone in (newest, folder / "metrics_000000001.npz", tmp_path / "two" / "results.npz"):
        gone.unlink()
    job = processes([sys.executable, "-m", "jaxrl", "resume", str(tmp_path / "two"), "--distributed"])
    said = [process.communicate(timeout=240) for process in job]
    assert [process.returncode for process in job] == [0, 0], said
    again = jaxrl.load_run(tmp_path / "two")
    assert_trees_equal(dict(again.results.metrics), metrics)
    for seed in range(3):
        assert_trees_equal(again.policy(seed=seed)[1].params, two_policies[seed].params)


@pytest.mark.thorough
def test_a_lost_process_ends_the_run(tmp_path: Path) -> None:
    """The other says so and what to do; the newest checkpoint is whole."""
    job = processes(command(tmp_path / "run", 32 * 4000, 1000, "--distributed"))
    folder = tmp_path / "run" / "program_00"
    try:
        until = time.monotonic() + 200
        while not (folder.exists() and checkpoint.latest(folder)) and time.monotonic() < until:
            time.sleep(0.1)
        job[1].send_signal(signal.SIGKILL)
        message = job[0].communicate(timeout=120)[1]
    finally:
        for process in job:
            process.kill()
            process.wait()
        job[1].communicate()
    assert job[0].returncode == 3, message
    assert "a process of this job was lost" in message
    assert "jaxrl resume RUN --distributed" in message
    newest = checkpoint.latest(folder)
    assert newest is not None
    assert checkpoint.load_meta(newest)["updates"] > 0


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"JAX_NUM_PROCESSES": "2"}, "JAX_NUM_PROCESSES is set, and JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID is not"),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"},
            "JAX_NUM_PROCESSES = 2, JAX_PROCESS_ID = 2: expected integers",
        ),
    ],
)
def test_what_does_not_fit_is_said(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        use_all_hosts(environ)


def test_of_a_single_process_everything_is_here() -> None:
    from jaxrl import hosts

    tree: Any = {"a": np.arange(3)}
    assert hosts.fetch(tree) is tree
    assert hosts.writes()
    hosts.wait_for_all("nothing")
