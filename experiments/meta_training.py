"""What the experiments `lpg` and `groove` share: scales, resumable meta-training, tests on held-out levels, figures.

A run directory holds all meta-seeds of one preset at one scale, the returns on held-out levels piece by piece, and the
learned rules. Everything that is there is kept, so that a killed or timed-out experiment goes on where it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

import jaxrl
from jaxrl.files import read_npz, write_npz
from jaxrl.meta_scores import crossed_bootstrap, fraction_above, normalized, share_of_optimum
from jaxrl.meta_testing import LevelReturns, level_returns
from jaxrl.presets import MetaConfig, MetaHparams, find_preset
from jaxrl.reporting import Estimate, bootstrap
from jaxrl.results import Results

ScaleName = Literal["smoke", "cpu", "gpu", "paper"]
ORIGIN = ("versions", "device", "command", "date", "commit")
THRESHOLDS = np.linspace(-0.5, 2.0, 101)


class TrainingScale(Protocol):
    """What `trained` has to know of a scale: levels of training, settings with the length, checkpoints."""

    @property
    def env(self) -> str: ...
    @property
    def all_settings(self) -> dict[str, Any]: ...
    @property
    def chunks(self) -> int: ...


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large an experiment is.

    Attributes:
      env: the distribution of levels, of training and of test.
      settings: of the presets `lpg` and `groove`.
      meta_updates, meta_seeds: of each preset.
      num_levels: held-out ones.
      chunks: checkpoints of the training.
      batch: held-out levels at once.
    """

    env: str
    settings: dict[str, Any]
    meta_updates: int
    meta_seeds: int
    num_levels: int = 256
    chunks: int = 20
    batch: int = 32

    @property
    def all_settings(self) -> dict[str, Any]:
        """Settings of a run, with its length."""
        config = dataclasses.replace(find_preset("lpg").config, **{n: v for n, v in self.settings.items() if _fixed(n)})
        return {**self.settings, "play_ended": True, "total_steps": self.meta_updates * config.steps_per_update}


SCALES: dict[str, Scale] = {
    "smoke": Scale(
        "jaxrl/grid_debug",
        {"num_lifetimes": 4, "lifetime_batch": 4, "ended_batch": 4, "num_inner": 2, "num_envs": 4, "num_steps": 5,
         "width": 8, "num_levels": 16, "lifetime": 4},
        meta_updates=20, meta_seeds=2, num_levels=32, chunks=4,
    ),
    # Lifetimes of 250 updates on levels of 4 x 4 to 6 x 6 cells. Of the rates 3e-4, 1e-3 and 3e-3 (one meta-seed, 700
    # meta-updates) the last two did alike on 64 held-out levels; the published 1e-4 is for seven times as many.
    "cpu": Scale(
        "jaxrl/grid_small",
        {"num_lifetimes": 16, "lifetime_batch": 16, "ended_batch": 16, "num_envs": 16, "num_levels": 256, "width": 32,
         "meta_learning_rate": 1e-3},
        meta_updates=2000, meta_seeds=5, chunks=40,
    ),
    # A quarter of the published lifetimes, all seeds side by side.
    "gpu": Scale(
        "jaxrl/grid_all_shortlife",
        {"num_lifetimes": 128, "lifetime_batch": 128, "ended_batch": 128, "num_levels": 1024},
        meta_updates=1000, meta_seeds=5, chunks=100, batch=128,
    ),
    # The release's: 5,000 meta-updates of 512 lifetimes, which last 250 updates.
    "paper": Scale("jaxrl/grid_all_shortlife", {}, meta_updates=5000, meta_seeds=10, num_levels=1024, chunks=500),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run; each experiment has an `out` of its own.

    Attributes:
      scale: how large; see the experiment's `SCALES`.
      seeds: meta-seeds; by default the scale's.
      minutes: stop after so many; the same command goes on. A command without runs to the end.
      out: folder of the results.
      runs: folder of the run directories.
    """

    scale: ScaleName = "smoke"
    seeds: int | None = None
    minutes: float | None = None
    out: Path = Path("experiments/results")
    runs: Path = Path("runs")


def in_pieces(minutes: float | None, work: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What `work` returns; nothing, and a line that says so, where the minutes were over first."""
    try:
        with time_limit(minutes):
            return work()
    except OutOfTime:
        print(f"{minutes:g} minutes are over; the same command goes on", flush=True)
        return {}


class OutOfTime(Exception):
    """The minutes that were given are over."""


@contextlib.contextmanager
def time_limit(minutes: float | None) -> Iterator[None]:
    """Raises `OutOfTime` inside the block when so many minutes are over; the newest checkpoint is kept."""

    def ring(number: int, frame: Any) -> None:
        raise OutOfTime

    if minutes is None:
        yield
        return
    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(max(1, round(60 * minutes)))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def trained(preset: str, scale: TrainingScale, seeds: int, folder: Path, evaluations: int = 0) -> jaxrl.Run:
    """All meta-seeds of a preset: begun, gone on with, or only opened.

    Args:
      preset, scale, seeds, folder: what is trained, how long, how often, and where its files are.
      evaluations: greedy ones on the way, of 16 episodes.
    Raises:
      ValueError: if the folder holds a run of other settings.
    """
    if (folder / "run.json").exists():
        asked = jaxrl.load_run(folder).plan
        if (asked.env, asked.settings, len(asked.seeds)) != (scale.env, scale.all_settings, seeds):
            raise ValueError(f"{folder} holds a run of other settings or seeds; move it away, or choose another --runs")
        if not (folder / "results.npz").exists():  # the last file that a run writes
            jaxrl.resume(folder)
    else:
        options = jaxrl.Options(num_chunks=scale.chunks, evaluations=evaluations)
        jaxrl.run(preset, scale.env, seeds=seeds, settings=scale.all_settings, out=folder, options=options)
    return jaxrl.load_run(folder)


def origin_of(run: jaxrl.Run) -> dict[str, Any]:
    """Where and when a run was made, which may be another machine than the one that writes of it."""
    return {name: run.results.info[name] for name in ORIGIN if name in run.results.info}


def saved_rules(run: jaxrl.Run) -> list[Path]:
    """The files of all rules of a run, in the order of its seeds, written to `rules/` in its directory."""
    paths = [run.path / "rules" / f"seed_{seed}.npz" for seed in run.plan.seeds]
    for seed, path in zip(run.plan.seeds, paths, strict=True):
        jaxrl.save_rule(path, run.rule(seed=seed))
    return paths


def tested(run: jaxrl.Run, scale: Scale) -> LevelReturns:
    """Returns on held-out levels of all rules of a run, which are written to `rules/` in its directory."""
    rules = [jaxrl.load_rule(path) for path in saved_rules(run)]
    config, hp = agents_of(scale)
    pieces = []
    for start in range(0, scale.num_levels, scale.batch):
        file = run.path / f"levels_{start:05d}.npz"
        if not file.exists():
            levels = range(start, min(start + scale.batch, scale.num_levels))
            found = level_returns(rules, run.env, config, hp, levels, batch=scale.batch)
            write_npz(file, found._asdict())
            print(f"levels {start} to {levels[-1]} of {scale.num_levels}", flush=True)
        pieces.append(LevelReturns(**read_npz(file)))
    return LevelReturns(*(np.concatenate(parts, axis=-1) for parts in zip(*pieces, strict=True)))


def agents_of(scale: Scale) -> tuple[MetaConfig, MetaHparams]:
    """Configuration and numbers of the agents, as in training."""
    preset, given = find_preset("lpg"), scale.all_settings
    config = dataclasses.replace(preset.config, **{name: value for name, value in given.items() if _fixed(name)})
    return config, preset.hparams.replace(**{name: value for name, value in given.items() if not _fixed(name)})


def report(returns: LevelReturns) -> dict[str, Any]:
    """The figures of a test, with 95 % intervals over meta-seeds and levels."""
    scores = normalized(returns)
    paired = returns.rule - returns.random_rule
    rows = {
        "normalized_return": scores.rule,
        "normalized_return_of_random_rules": scores.random_rule,
        "normalized_return_above_random_rules": scores.rule - scores.random_rule,
        "return": returns.rule,
        "return_above_random_rules": paired,
        "return_above_random_policy": returns.rule - returns.random_policy,
        "return_above_a2c": returns.rule - returns.a2c,
        "share_below_three_quarters_of_a2c": scores.rule < 0.75,
    }
    if np.isfinite(returns.optimal).any():
        rows["share_of_the_best_return"] = share_of_optimum(returns)[0]
    return {
        "intervals": "95 %, bootstrap over meta-seeds and levels, paired where it says above",
        "normalization": "(return - random policy) / (A2C - random policy), levels where A2C gains 0.1 or more",
        "levels": len(scores.kept),
        "levels_kept": int(scores.kept.sum()),
        **{name: _row(crossed_bootstrap(values)) for name, values in rows.items()},
        **{
            f"mean_return_{name}": float(getattr(returns, name).mean())
            for name in ("rule", "random_rule", "a2c", "random_policy", "optimal")
        },
    }


def survival(returns: LevelReturns) -> dict[str, Estimate]:
    """Share of levels above each of `THRESHOLDS`: of the rules, and of random ones."""
    scores = normalized(returns)
    return {name: fraction_above(getattr(scores, name), THRESHOLDS) for name in ("rule", "random_rule")}


def learning_curve(results: Results, num_points: int = 40) -> tuple[np.ndarray, Estimate]:
    """Meta-updates [P], and what agents reach at the end of their lives as a share of the best there is.

    Of each meta-seed the sum of returns over the sum of optimal returns, of all lifetimes that ended in a stretch of
    training: levels differ far more than rules do, and good levels are good for both. The interval is over seeds.
    """
    count = np.nan_to_num(results.metric("lifetime/count")[0])
    parts = {n: np.nan_to_num(results.metric(f"lifetime/{n}")[0]) * count for n in ("return", "optimal_return")}
    ends = np.flatnonzero(count.sum(0) > 0)
    edges = [stretch[-1] + 1 for stretch in np.array_split(ends, min(num_points, len(ends)))]
    starts = [0, *edges[:-1]]
    sums = {n: np.add.reduceat(values[:, : edges[-1]], starts, axis=1) for n, values in parts.items()}
    ratio = sums["return"] / np.where(sums["optimal_return"] > 0, sums["optimal_return"], np.nan)
    return np.asarray(edges), bootstrap(ratio, np.mean)


def estimates(prefix: str, estimate: Estimate) -> dict[str, np.ndarray]:
    """Arrays of an `Estimate`, for an npz file."""
    return {f"{prefix}/{name}": np.asarray(value, np.float32) for name, value in estimate._asdict().items()}


def _row(estimate: Estimate) -> dict[str, Any]:
    return {"mean": float(estimate.point), "interval_95": [float(estimate.low), float(estimate.high)]}


def _fixed(name: str) -> bool:
    return name in {field.name for field in dataclasses.fields(MetaConfig)}
