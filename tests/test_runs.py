"""Runs and sweeps end to end on a tiny environment: labels, files, kills, layouts, divergence."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers import TINY, Interrupted, assert_trees_close, assert_trees_equal

import jaxrl
from jaxrl import checkpoint
from jaxrl.algorithm import train
from jaxrl.checkpoint import CheckpointError
from jaxrl.execution import Options
from jaxrl.plan import Program, make_plan
from jaxrl.presets import PPOConfig, PPOHparams, ppo
from jaxrl.progress import Progress
from jaxrl.results import Results
from jaxrl.run_files import refuse_other_run
from jaxrl.runner import executions, merge, missing
from jaxrl.runtime import (
    SMALL_LOOPS,
    Layout,
    choose_layout,
    over_runs,
    padded,
    place,
    place_empty,
    run_sharding,
    use_all_cores,
    use_compilation_cache,
)

ENV = "jaxrl/probe_termination"
SEEDS = [3, 5]
RATES = [1e-3, 1e-2]
# Ten updates in chunks of three: the last chunk is padded and masked.
OPTIONS = Options(num_chunks=4)
NUM_UPDATES = 10

pytestmark = pytest.mark.skipif(jax.device_count() < 2, reason="needs two devices, which conftest.py asks for")


def sweep(out: Path | None = None, rates: Any = RATES, **changes: Any) -> Results:
    asked: dict[str, Any] = {"seeds": SEEDS, "settings": TINY, "options": OPTIONS, "progress": False}
    return jaxrl.run_sweep("ppo", ENV, grid={"learning_rate": rates}, out=out, **{**asked, **changes})


def final_state(path: Path) -> Any:
    """The state of all runs, from the newest checkpoint."""
    part = jaxrl.load_run(path)._parts[0]
    return part._load(part._pieces()[0])


def assert_same_results(actual: Results, expected: Results) -> None:
    assert_trees_equal(actual.metrics, expected.metrics)
    np.testing.assert_array_equal(actual.steps, expected.steps)
    np.testing.assert_array_equal(actual.seeds, expected.seeds)
    assert_trees_equal(actual.hparams, expected.hparams)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    """An uninterrupted run; tests only read it."""
    path = tmp_path_factory.mktemp("runs") / "finished"
    return path, sweep(path)


@pytest.fixture(scope="module")
def direct() -> tuple[Any, Any]:
    """The last cell with the last seed, without the runner."""
    env, config = jaxrl.make_env(ENV), PPOConfig(**TINY)

    def run(key: jax.Array) -> Any:
        return train(key, ppo(env, config, PPOHparams(learning_rate=RATES[1])), NUM_UPDATES)

    return jax.jit(run)(jax.random.key(SEEDS[1]))


def interrupt(monkeypatch: pytest.MonkeyPatch, path: Path, chunks: int) -> None:
    """Begins the sweep and raises after so many chunks."""
    count = 0

    def report(self: Progress, *args: Any) -> None:
        nonlocal count
        count += 1
        if count == chunks:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "report", report)
        with pytest.raises(Interrupted):
            sweep(path)


def newest(path: Path) -> Path:
    found = checkpoint.latest(path / "program_00")
    assert found is not None
    return found


# ---------------------------------------------------------------------------------------------------- what comes out


def test_results_are_labelled(finished: tuple[Path, Results]) -> None:
    _, results = finished
    np.testing.assert_array_equal(results.hparams["learning_rate"], RATES)
    np.testing.assert_array_equal(results.seeds, SEEDS)
    np.testing.assert_array_equal(results.steps, 32 * np.arange(1, NUM_UPDATES + 1))
    assert {values.shape for values in results.metrics.values()} == {(2, 2, NUM_UPDATES)}
    assert {"episode/return", "episode/count", "loss/policy", "loss/value", "grad_norm"} <= set(results.metrics)
    frame = results.to_dataframe()
    assert len(frame) == 2 * 2 * NUM_UPDATES
    row = frame[(frame["learning_rate"] == RATES[1]) & (frame["seed"] == SEEDS[0]) & (frame["step"] == 96)]
    assert row["loss/value"].item() == results.metrics["loss/value"][1, 0, 2]
    np.testing.assert_allclose(results.metrics["episode/return"], 5.0)  # the probe's
    # Cells and seeds are different runs.
    assert len(np.unique(results.metrics["loss/value"][..., -1])) == 4


def test_a_run_in_a_sweep_is_that_run_alone(finished: tuple[Path, Results], direct: tuple[Any, Any]) -> None:
    """The last cell and seed of the sweep, against `train` in one piece: neither labels nor chunks are mixed up."""
    path, results = finished
    state, metrics = direct
    for name, values in metrics.items():
        np.testing.assert_allclose(results.metrics[name][1, 1], values, rtol=1e-3, atol=1e-5)
    assert np.abs(results.metrics["loss/value"][1, 0] - metrics["loss/value"]).max() > 1e-3
    _, policy, _ = jaxrl.load_run(path).policy(cell=1, seed=SEEDS[1])
    assert_trees_close(policy.params, state.agent.params, atol=1e-4, rtol=1e-3)


def test_the_directory_says_everything(finished: tuple[Path, Results]) -> None:
    path, results = finished
    names = {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()}
    assert {"run.json", "results.npz", "results.json", "summary.json", "figures/learning_curves.png"} <= names
    assert not [name for name in names if name.endswith(".tmp")]
    assert_same_results(Results.load(path), results)
    summary = json.loads((path / "summary.json").read_text())
    expected = {"algorithm", "env", "num_seeds", "best", "wall_seconds", "compile_seconds", "steps_per_second"}
    assert expected | {"versions", "device", "command"} <= set(summary)
    assert (summary["algorithm"], summary["env"], summary["num_seeds"]) == ("ppo", ENV, 2)
    assert set(summary["best"]) >= {"hyperparameters", "iqm", "iqm_low", "iqm_high"}
    assert summary["best"]["iqm"] == pytest.approx(5.0)
    assert summary["best"]["hyperparameters"]["learning_rate"] in RATES
    assert summary["num_diverged"] == 0
    assert summary["versions"]["jax"] == jax.__version__
    assert summary["device"]["count"] == jax.device_count()
    for name in ("wall_seconds", "compile_seconds", "steps_per_second"):
        assert summary[name] > 0
    run = json.loads((path / "run.json").read_text())
    assert run["plan"]["settings"]["hidden_sizes"] == [8, 8]
    assert run["options"]["num_chunks"] == 4


def test_nothing_is_pickled(finished: tuple[Path, Results]) -> None:
    path, _ = finished
    files = list(path.rglob("*.npz"))
    assert len(files) >= 1 + 4 + 1  # results, metrics of four chunks, checkpoints
    for file in files:
        with np.load(file, allow_pickle=False) as arrays:
            assert all(arrays[name].dtype != object for name in arrays.files)


def test_memory_gives_what_the_disk_gives(finished: tuple[Path, Results]) -> None:
    assert_same_results(sweep(None), finished[1])


def test_greedy_evaluations_are_spread_over_a_run() -> None:
    """One setting through `run`, in one piece, with three evaluations in ten updates, the last after the last."""
    settings = {**TINY, "learning_rate": RATES[1]}
    options = Options(num_chunks=1, evaluations=3)
    results = jaxrl.run("ppo", ENV, seeds=SEEDS, settings=settings, progress=False, options=options)
    assert results.hparams == {}
    for name in ("evaluation/return", "evaluation/length"):
        np.testing.assert_array_equal(np.flatnonzero(np.isfinite(results.metrics[name][0, 0])), [3, 6, 9])
        np.testing.assert_allclose(results.metrics[name][0][:, [3, 6, 9]], 5.0)
    assert not np.any(np.isnan(results.metrics["loss/value"]))


def test_parameters_of_the_environment_are_swept() -> None:
    """Rewards and episode lengths by cell, in one program."""
    results = jaxrl.run_sweep(
        "a2c",
        ENV,
        seeds=1,
        grid={"env.reward": [1.0, -3.0], "env.num_steps": [2, 5]},
        settings={"num_envs": 4, "total_steps": 80, "hidden_sizes": (8,)},
        progress=False,
    )
    assert results.info["num_programs"] == 1
    np.testing.assert_allclose(results.metrics["episode/return"][:, 0, -1], [2.0, 5.0, -6.0, -15.0])
    np.testing.assert_allclose(results.metrics["episode/length"][:, 0, -1], [2.0, 5.0, 2.0, 5.0])


def test_programs_of_different_lengths_share_one_axis() -> None:
    """Cells of 16 and 24 steps per update: every number of steps at which one of them ended an update."""
    settings = {name: value for name, value in TINY.items() if name != "num_envs"}
    plan = make_plan("ppo", ENV, 2, {**settings, "total_steps": 48}, {"num_envs": [2, 3]}, None)
    config = PPOConfig(**{**TINY, "total_steps": 48})
    small, large = (Program(dataclasses.replace(config, num_envs=n), (i,), {}) for i, n in enumerate((2, 3)))
    fast = {"x": np.arange(6.0).reshape(1, 2, 3)}
    slow = {"x": 10 + np.arange(4.0).reshape(1, 2, 2), "only": np.ones((1, 2, 2))}
    parts = [(small, fast), (large, slow)]
    steps, merged = merge(plan, parts)
    np.testing.assert_array_equal(steps, [16, 24, 32, 48])
    nan = np.nan
    np.testing.assert_array_equal(merged["x"][0], [[0, nan, 1, 2], [3, nan, 4, 5]])
    np.testing.assert_array_equal(merged["x"][1], [[nan, 10, nan, 11], [nan, 12, nan, 13]])
    np.testing.assert_array_equal(merged["only"][0], np.full((2, 4), nan))
    np.testing.assert_array_equal(merged["only"][1, 0], [nan, 1, nan, 1])
    assert missing(plan, parts) == {"only": [0]}


# ------------------------------------------------------------------------------------------------ kills and resuming


@pytest.mark.parametrize("chunks", [1, 3])
def test_an_interrupted_run_resumes_bit_for_bit(
    finished: tuple[Path, Results], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunks: int
) -> None:
    path = tmp_path / "run"
    interrupt(monkeypatch, path, chunks)
    assert checkpoint.load_meta(newest(path))["updates"] == 3 * chunks
    assert not (path / "summary.json").exists()
    with pytest.raises(ValueError, match=r"has not finished; `jaxrl resume"):
        _ = jaxrl.load_run(path).results
    assert_same_results(jaxrl.resume(path, progress=False), finished[1])
    assert_trees_equal(final_state(path), final_state(finished[0]))
    assert json.loads((path / "summary.json").read_text())["best"]["iqm"] == pytest.approx(5.0)


def test_a_kill_between_metrics_and_checkpoint_repeats_the_chunk(
    finished: tuple[Path, Results], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    save_step = checkpoint.save_step

    def failing(directory: Any, step: int, *args: Any) -> Path:
        if step == 6:
            raise Interrupted
        return save_step(directory, step, *args)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_step", failing)
        with pytest.raises(Interrupted):
            sweep(path)
    assert (path / "program_00" / "metrics_000000003.npz").exists()
    assert checkpoint.load_meta(newest(path))["updates"] == 3
    assert_same_results(jaxrl.resume(path, progress=False), finished[1])
    assert_trees_equal(final_state(path), final_state(finished[0]))


KILLED = """
import sys, time
from pathlib import Path
import jaxrl
from jaxrl.progress import Progress
from jaxrl.execution import Options

def report(self, *args, chunks=[]):
    chunks.append(1)
    if len(chunks) == 2:
        print("two chunks done", flush=True)
        time.sleep(600)

Progress.report = report
out, settings, seeds, rates = sys.argv[1], *map(eval, sys.argv[2:])
jaxrl.run_sweep("ppo", "jaxrl/probe_termination", seeds=seeds, grid={"learning_rate": rates}, settings=settings,
                out=out, options=Options(num_chunks=4))
"""


def test_kill_9_in_mid_run(finished: tuple[Path, Results], tmp_path: Path) -> None:
    """The process dies without a word, another one resumes: metrics and parameters of the uninterrupted run."""
    path = tmp_path / "run"
    arguments = [str(path), repr(TINY), repr(SEEDS), repr(RATES)]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == "two chunks done\n", process.communicate()[1]
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
    finally:
        process.kill()
        process.communicate()
    assert checkpoint.load_meta(newest(path))["updates"] == 6
    # What a kill in the middle of a write leaves behind.
    (path / "program_00" / ".checkpoint_000000000009.npz.1.tmp").write_bytes(b"half")
    assert_same_results(jaxrl.resume(path, progress=False), finished[1])
    assert_trees_equal(final_state(path), final_state(finished[0]))


def test_a_kill_within_the_first_write_leaves_the_directory_free(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / ".run.json.7.tmp").write_text("{")
    refuse_other_run(path)
    (path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and is no run"):
        refuse_other_run(path)


def test_resuming_a_finished_run_only_reads_it(
    finished: tuple[Path, Results], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "copy"
    shutil.copytree(finished[0], path)

    def refuse(*args: Any) -> Any:
        raise AssertionError("compiled again")

    monkeypatch.setattr("jaxrl.execution.Execution._compiled_step", refuse)
    assert_same_results(jaxrl.resume(path, progress=False), finished[1])


def test_a_damaged_checkpoint_is_refused_by_name(
    finished: tuple[Path, Results], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Altered, then cut short: the name of the file, and which older one would do; and that one does."""
    path = tmp_path / "run"
    interrupt(monkeypatch, path, 3)
    file = newest(path)
    assert file.name == "checkpoint_000000000009.npz"
    good = file.read_bytes()
    middle = len(good) // 2
    for bad in (good[:middle] + bytes([good[middle] ^ 255]) + good[middle + 1 :], good[: len(good) - 100]):
        file.write_bytes(bad)
        for use in (lambda: jaxrl.resume(path, progress=False), lambda: jaxrl.load_run(path).policy(0)):
            with pytest.raises(CheckpointError, match=r"checkpoint_000000000009\.npz.*delete it to go on from .*006"):
                use()
    file.unlink()
    assert_same_results(jaxrl.resume(path, progress=False), finished[1])


@pytest.mark.parametrize("missing", ["results.json", "results.npz", "summary.json", "learning_curves.png"])
def test_a_kill_while_results_are_written_loses_none(
    finished: tuple[Path, Results], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """Killed just before it writes one of its files, the run has not finished; then all of them are there."""
    path = tmp_path / "copy"
    shutil.copytree(finished[0], path)
    for name in ("results.npz", "results.json", "summary.json", "figures/learning_curves.png"):
        (path / name).unlink()

    def kill(before: Any) -> Any:
        def write(file: Any, *args: Any, **kwargs: Any) -> Any:
            if Path(file).name == missing:
                raise KeyboardInterrupt
            return before(file, *args, **kwargs)

        return write

    with monkeypatch.context() as patch:
        for module, name in (("files", "write_npz"), ("files", "write_json"), ("runs", "write_json")):
            where = sys.modules[f"jaxrl.{module}"]
            patch.setattr(where, name, kill(getattr(where, name)))
        plot = Results.plot
        patch.setattr(Results, "plot", lambda results, file: kill(lambda f: plot(results, f))(file))
        with pytest.raises(KeyboardInterrupt):
            jaxrl.resume(path, progress=False)
    with pytest.raises(ValueError, match=r"has not finished; `jaxrl resume"):
        _ = jaxrl.load_run(path).results
    assert_same_results(jaxrl.resume(path, progress=False), finished[1])
    for name in ("results.npz", "results.json", "summary.json", "figures/learning_curves.png"):
        assert (path / name).is_file()


def test_damaged_metrics_are_refused_by_name(finished: tuple[Path, Results], tmp_path: Path) -> None:
    path = tmp_path / "copy"
    shutil.copytree(finished[0], path)
    (path / "results.npz").unlink()
    file = path / "program_00" / "metrics_000000003.npz"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match=r"metrics_000000003\.npz"):
        jaxrl.resume(path, progress=False)


def test_directories_that_hold_no_run(tmp_path: Path) -> None:
    for use in (jaxrl.resume, jaxrl.load_run):
        with pytest.raises(ValueError, match=r"holds no run: run\.json is missing"):
            use(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"run\.json is damaged"):
        jaxrl.resume(tmp_path)
    (tmp_path / "run.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="has format 99, and this jaxrl reads 1; update jaxrl"):
        jaxrl.resume(tmp_path)


def test_resuming_needs_the_devices_that_the_run_had(
    finished: tuple[Path, Results], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training goes on only over as many devices; looking at what there is needs none of them."""
    path = tmp_path / "run"
    interrupt(monkeypatch, path, 1)
    run = json.loads((path / "run.json").read_text())
    assert run["programs"][0]["layout"] == [2, 1, 1]
    run["programs"][0]["layout"] = [4, 1]
    (path / "run.json").write_text(json.dumps(run))
    with pytest.raises(ValueError, match=r"laid out over 4 devices, and here there are 2.*device_count=4"):
        jaxrl.resume(path, progress=False)
    jaxrl.load_run(path).policy(cell=0)


@pytest.mark.parametrize(("kind", "name", "now"), [("config", "num_epochs", "2"), ("numbers", "gamma", "0.99")])
def test_runs_made_with_other_defaults_are_refused(
    finished: tuple[Path, Results], tmp_path: Path, kind: str, name: str, now: str
) -> None:
    path = tmp_path / "copy"
    shutil.copytree(finished[0], path)
    run = json.loads((path / "run.json").read_text())
    run["programs"][0][kind][name] = 7
    (path / "run.json").write_text(json.dumps(run))
    for use in (jaxrl.resume, jaxrl.load_run):
        with pytest.raises(ValueError, match=rf"other defaults \({name}: 7 then, .*{now}.* now\)"):
            use(path)


# --------------------------------------------------------------------------------------------------------- layouts


@pytest.fixture(scope="module")
def layouts() -> dict[Layout, Any]:
    """The states of five runs after two updates: an odd number, so that two devices need a sixth that fills up."""
    env = jaxrl.make_env(ENV)
    plan = make_plan("ppo", ENV, 5, {**TINY, "total_steps": 64}, {}, env.default_params)
    found = {}
    for num_devices, batch in ((1, 1), (1, 0), (2, 1), (2, 0)):
        (part,) = executions(plan, env, Options(num_chunks=1, num_devices=num_devices, batch=batch), None)
        outcome = part.run(lambda *args: None)
        assert outcome.metrics["loss/value"].shape == (1, 5, 2)
        found[part.layout] = (jax.tree.map(lambda leaf: np.asarray(leaf)[:5], outcome.state), outcome.metrics)
        if num_devices == 2:
            assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(outcome.state)} == {2}
    return found


@pytest.mark.parametrize("layout", [Layout(1, 0), Layout(2, 1), Layout(2, 0)])
def test_layouts_agree(layouts: dict[Layout, Any], layout: Layout) -> None:
    """One after the other, side by side, over two devices: the parameters of two updates to 1e-5."""
    expected, actual = layouts[Layout(1, 1)], layouts[layout]
    assert_trees_close(actual[0].agent, expected[0].agent, atol=1e-5, rtol=1e-4)
    assert_trees_close(actual[1], expected[1], atol=1e-5, rtol=1e-4)
    kernels = expected[0].agent.params["params"]["head_value"]["kernel"]
    assert len(np.unique(kernels[:, 0, 0])) == 5


@pytest.fixture(scope="module")
def memory_of() -> Any:
    """(number of runs) -> GiB that they need of one device, as compiled."""
    env = jaxrl.make_env(ENV)
    plan = make_plan("ppo", ENV, 5, {**TINY, "total_steps": 64}, {}, env.default_params)
    (part,) = executions(plan, env, Options(num_chunks=1, num_devices=1, batch=0), None)
    return {size: part._compile(size) / 2**30 for size in (1, 2, 5)}


def test_runs_that_do_not_fit_follow_one_after_the_other(layouts: dict[Layout, Any], memory_of: Any) -> None:
    """Three pieces, of 2, 2 and 1 runs: each seed has the parameters that it has beside all others, to 1e-5."""
    assert memory_of[1] < memory_of[2] < memory_of[5]
    env = jaxrl.make_env(ENV)
    plan = make_plan("ppo", ENV, 5, {**TINY, "total_steps": 64}, {}, env.default_params)
    options = Options(num_chunks=1, num_devices=1, batch=0, max_memory=1.01 * memory_of[2])
    (part,) = executions(plan, env, options, None)
    names: list[str] = []
    outcome = part.run(lambda steps, seconds, rows, run_names: names.extend(run_names))
    assert [piece.num for piece in part._pieces()] == [2, 2, 1]
    assert names == [f"cell 0 seed {seed}" for seed in range(5)]
    # What fills up the last piece is computed, too: where 4 would fit, 3 and 2 are fewer than 4 and 4.
    assert [part._even(size) for size in (5, 4, 3, 2, 1)] == [5, 3, 3, 2, 1]
    expected = layouts[Layout(1, 1)]
    assert_trees_close(outcome.state.agent, expected[0].agent, atol=1e-5, rtol=1e-4)
    assert_trees_close(outcome.metrics, expected[1], atol=1e-5, rtol=1e-4)


@pytest.mark.thorough
def test_pieces_are_resumed(tmp_path: Path, memory_of: Any) -> None:
    """Killed in its second piece; then the results, and each run's policy, of a run that was not."""
    settings = {**TINY, "total_steps": 64}
    options = Options(num_chunks=2, num_devices=1, batch=0, max_memory=1.01 * memory_of[2])
    whole = jaxrl.run("ppo", ENV, seeds=5, settings=settings, out=tmp_path / "a", progress=False, options=options)
    jaxrl.run("ppo", ENV, seeds=5, settings=settings, out=tmp_path / "b", progress=False, options=options)
    pieces = sorted((tmp_path / "b" / "program_00").glob("runs_*"))
    assert len(pieces) == 3
    shutil.rmtree(pieces[2])
    newest = max(pieces[1].glob("checkpoint_*"))
    newest.unlink()
    for name in ("results.npz", "results.json"):
        (tmp_path / "b" / name).unlink()
    again = jaxrl.resume(tmp_path / "b", progress=False)
    assert_trees_equal(dict(again.metrics), dict(whole.metrics))
    for seed in (1, 4):
        states = [jaxrl.load_run(tmp_path / name).policy(seed=seed)[1] for name in ("a", "b")]
        assert_trees_equal(states[0], states[1])


def test_memory_that_one_run_exceeds_is_an_error() -> None:
    options = Options(num_chunks=1, num_devices=1, batch=0, max_memory=1e-6)
    with pytest.raises(ValueError, match="one run alone needs .* GiB of a device; allow more"):
        jaxrl.run("ppo", ENV, seeds=2, settings={**TINY, "total_steps": 64}, progress=False, options=options)
    with pytest.raises(ValueError, match="max_memory = 0: expected GiB above 0"):
        Options(max_memory=0)


def test_layouts_are_chosen_for_the_hardware() -> None:
    assert choose_layout(8) == Layout(2, 1)
    assert choose_layout(1) == Layout(1, 1)
    assert choose_layout(1, splits=True) == Layout(1, 1, 2)
    assert choose_layout(8, splits=True) == Layout(2, 1, 1)
    assert Options(num_devices=2).layout(1) == Layout(1, 1, 1)  # no device without a run
    assert Options(num_devices=2, batch=0).layout(1, splits=True) == Layout(1, 0, 2)
    assert Options(num_devices=1).layout(1, splits=True) == Layout(1, 1, 1)
    assert Options(num_devices=1, batch=0).layout(8) == Layout(1, 0)
    assert [padded(n, Layout(2, 1)) for n in (1, 2, 5)] == [2, 2, 6]


def test_empty_leaves_stay_with_their_runs() -> None:
    """XLA gives them back wherever it likes, and a program that was compiled for two devices refuses them there."""
    layout = Layout(2, 1)

    def step(state: Any) -> Any:
        return over_runs(lambda state, _: jax.tree.map(lambda leaf: leaf + 1, state), layout)(state, None)

    shapes = {"nothing": (2, 3, 0), "something": (2, 3)}
    where = run_sharding(layout)
    asked = {name: jax.ShapeDtypeStruct(shape, np.float32, sharding=where) for name, shape in shapes.items()}
    compiled = jax.jit(step).lower(asked).compile()
    state = place({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, layout)
    for _ in range(3):
        state = compiled(place_empty(state, layout))
    np.testing.assert_array_equal(state["something"], np.full((2, 3), 3.0))
    assert state["nothing"].shape == (2, 3, 0)
    assert place_empty(state, layout)["nothing"].sharding == where


EVOLVING: dict[str, Any] = {
    "population": 5, "num_parents": 2, "elite_pool": 2, "elite_episodes": 2, "max_episode_steps": 4,
    "hidden_sizes": (3,), "total_steps": (5 + 4) * 4 * 4, "sigma": 0.3,
}  # fmt: skip


@pytest.mark.thorough
def test_devices_share_the_population_of_a_run(tmp_path: Path) -> None:
    """Two devices, five individuals and two that are evaluated again: all numbers are those of one; and resumed."""
    found = {}
    for num_devices in (1, 2):
        out, options = tmp_path / str(num_devices), Options(num_chunks=2, num_devices=num_devices)
        results = jaxrl.run(
            "deep_ga", "jaxrl/probe_continuous", settings=EVOLVING, out=out, options=options, progress=False
        )
        assert results.info["layout"] == [[1, 1, num_devices]]
        found[num_devices] = results
    for name, values in found[1].metrics.items():
        np.testing.assert_array_equal(found[2].metrics[name], values, err_msg=name)
    champions = [jaxrl.load_run(tmp_path / str(n)).champion() for n in (1, 2)]
    assert_trees_equal(champions[0].genome, champions[1].genome)
    half = tmp_path / "half"
    shutil.copytree(tmp_path / "2", half)
    for name in ("results.npz", "results.json", "summary.json", "program_00/checkpoint_000000000004.npz"):
        (half / name).unlink()
    again = jaxrl.resume(half, progress=False)
    np.testing.assert_array_equal(again.metrics["fitness/mean"], found[2].metrics["fitness/mean"])


def test_devices_that_were_asked_for_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "xla_force_host_platform_device_count" in os.environ["XLA_FLAGS"]
    assert SMALL_LOOPS in os.environ["XLA_FLAGS"]  # what is tested is what runs
    assert use_all_cores() is None
    code = "import jax, jaxrl; {}; print(jaxrl.use_all_cores()); print(jax.device_count())"
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=1")
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"})
    num_cores = len(os.sched_getaffinity(0))

    def ask(before: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", code.format(before)], capture_output=True, text=True, check=True, env=os.environ
        )
        return done.stdout.splitlines()

    assert ask("pass") == ["None", str(num_cores)]
    hint, devices = ask("jax.devices()")
    assert devices == "1"
    if num_cores > 1:
        assert "already running with one CPU device" in hint
        assert f"jax.config.update('jax_num_cpu_devices', {num_cores})" in hint


@pytest.mark.parametrize(
    ("before", "flags", "becomes_one"),
    [
        ("", "", True),
        ("", "--xla_force_host_platform_device_count=2", True),
        ("jax.config.update('jax_num_cpu_devices', 3)", "", True),
        ("", "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=1024", False),
        ("jax.devices()", "", False),
    ],
)
def test_small_loops_become_one_function(
    before: str, flags: str, becomes_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In what XLA has made of a loop over 8 KB; unless somebody said otherwise, or it is too late."""
    code = f"""
import jax, jax.numpy as jnp, jaxrl
{before}
wanted = jax.config.jax_num_cpu_devices
jaxrl.use_all_cores()
turn = lambda c: (c[0] + 1, jnp.sin(c[1]) + c[2], jnp.cos(c[2]) * c[1])
loop = jax.jit(lambda x: jax.lax.while_loop(lambda c: c[1][0] < 9.0, turn, (0, x, x)))
print("xla_cpu_small_call" in loop.lower(jnp.ones(1000)).compile().as_text())
print(jax.device_count(), wanted)
"""
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found, devices = done.stdout.splitlines()
    assert found == str(becomes_one)
    if "device_count=2" in flags:
        assert devices == "2 -1"
    if "3" in before:
        assert devices == "3 3"


def test_compilation_cache_goes_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: dict[str, Any] = {}
    monkeypatch.setattr(jax.config, "update", lambda name, value: set_to.update({name: value}))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    use_compilation_cache()
    assert set_to == {}
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "told"))
    use_compilation_cache()
    assert set_to["jax_compilation_cache_dir"] == str(tmp_path / "told")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    use_compilation_cache()
    assert set_to["jax_compilation_cache_dir"] == str(tmp_path / "home" / "jaxrl" / "xla")
    assert (tmp_path / "home" / "jaxrl" / "xla").is_dir()
    (tmp_path / "file").write_text("")
    set_to.clear()
    use_compilation_cache(tmp_path / "file" / "below")  # cannot be made: compilation is slower, no more
    assert set_to == {}


# ------------------------------------------------------------------------------------------- divergence and progress


def test_a_diverging_run_leaves_the_others_alone(
    finished: tuple[Path, Results], capfd: pytest.CaptureFixture[str]
) -> None:
    """One absurd learning rate: reported per seed, in the line and in the result; the other cell does not change."""
    results = sweep(rates=[RATES[0], 1e30], progress=True)
    for name, values in results.metrics.items():
        np.testing.assert_array_equal(values[0], finished[1].metrics[name][0])
    np.testing.assert_array_equal(results.diverged, [[False, False], [True, True]])
    np.testing.assert_array_equal(results.diverged_at > 0, results.diverged)
    assert results.summary()["num_diverged"] == 2
    assert not np.isfinite(results.metrics["loss/value"][1, :, -1]).any()
    lines = capfd.readouterr().err.split()  # which a narrow terminal wraps
    assert "non-finite losses in 2 of 4 runs (cell 1 seed 3, cell 1 seed 5)" in " ".join(lines)


def test_progress_says_how_far_how_fast_and_how_well(capfd: pytest.CaptureFixture[str]) -> None:
    sweep(progress=True)
    lines = capfd.readouterr().err.strip().splitlines()
    total = 4 * NUM_UPDATES * 32
    assert lines[0] == f"ppo {ENV}: compiling, then {total:,} steps"
    assert [line.split(": ")[1].split()[0] for line in lines[1:]] == ["30%", "60%", "90%", "100%"]
    assert all("/s" in line and "return 5.0" in line for line in lines[1:])
    sweep(progress=False)
    assert capfd.readouterr().err == ""


def test_progress_of_a_resumed_run_counts_what_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    interrupt(monkeypatch, tmp_path / "run", 2)
    capfd.readouterr()
    jaxrl.resume(tmp_path / "run")
    lines = capfd.readouterr().err.strip().splitlines()
    assert [line.split(": ")[1].split()[0] for line in lines[1:]] == ["90%", "100%"]


# ------------------------------------------------------------------------------------------------------ opened again


def test_a_policy_is_opened_and_plays(finished: tuple[Path, Results], direct: tuple[Any, Any]) -> None:
    path, _ = finished
    run = jaxrl.load_run(path)
    agent, state, env_params = run.policy(cell=1, seed=SEEDS[1])
    obs = np.array([[0.0], [0.8]], np.float32)
    values = agent.act(jax.random.key(0), state, (), obs, np.zeros(2, bool), False)[2]["value"]
    expected = agent.act(jax.random.key(0), direct[0].agent, (), obs, np.zeros(2, bool), False)[2]["value"]
    np.testing.assert_allclose(values, expected, atol=1e-3)
    other = run.policy(cell=0, seed=SEEDS[1])[1]
    assert np.abs(other.params["params"]["head_value"]["kernel"] - state.params["params"]["head_value"]["kernel"]).max()
    episodes = run.evaluate(num_episodes=3)
    np.testing.assert_array_equal(episodes.returns, [5.0, 5.0, 5.0])
    np.testing.assert_array_equal(episodes.lengths, [5, 5, 5])
    assert episodes.ended.all()
    assert env_params.num_steps == 5


def test_the_best_cell_is_the_default(finished: tuple[Path, Results], monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = finished
    for index in (0, 1):
        monkeypatch.setattr(Results, "best", lambda self, i=index: {"index": i})
        run = jaxrl.load_run(path)
        assert_trees_equal(run.policy()[1], run.policy(cell=index, seed=SEEDS[0])[1])


def test_policies_that_do_not_exist(finished: tuple[Path, Results]) -> None:
    run = jaxrl.load_run(finished[0])
    with pytest.raises(ValueError, match=r"cell = 2: expected an index in \[0, 1\]"):
        run.policy(cell=2)
    with pytest.raises(ValueError, match=r"seed = 0: this run has seeds \[3, 5\]"):
        run.policy(cell=0, seed=0)


def test_an_interrupted_run_shows_its_newest_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: tuple[Path, Results]
) -> None:
    interrupt(monkeypatch, tmp_path / "run", 1)
    _, state, _ = jaxrl.load_run(tmp_path / "run").policy(cell=0)
    final = jaxrl.load_run(finished[0]).policy(cell=0)[1]
    kernel, last = (s.params["params"]["head_value"]["kernel"] for s in (state, final))
    assert np.abs(kernel - last).max() > 1e-6


def test_a_run_without_a_checkpoint_says_so(finished: tuple[Path, Results], tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    shutil.copy(finished[0] / "run.json", path)
    with pytest.raises(CheckpointError, match="holds no checkpoint yet; `jaxrl resume` the run first"):
        jaxrl.load_run(path).policy(cell=0)


def test_progress_says_when_no_episode_fits(capfd: pytest.CaptureFixture[str]) -> None:
    """Objectives of whole episodes have nothing to learn from where rollouts are shorter."""
    rows = {"episode/return": np.ones((1, 2)), "episode/count": np.ones((1, 2))}
    with Progress().start("probe", 10) as progress:
        for used in (0.0, 0.1):
            progress.report(5, 1.0, rows | {"policy/used_fraction": np.full((1, 2), used)}, ["seed 0"])
    lines = capfd.readouterr().err.split()
    assert " ".join(lines).count("no episode fits into num_steps: the policy learns nothing") == 1
