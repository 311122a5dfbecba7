"""Learning curves of every agent on a fixed suite: classic control, MinAtar and Brax.

    python -m experiments.benchmark_agents --scale smoke|cpu|gpu [--agents ppo …] [--envs CartPole-v1 …]

Writes, after each agent and environment, `<scale>.json` (final returns with intervals, settings and where they come
from, versions, device, seconds) and `<scale>.npz` (learning curves), and at the end figures: curves per environment,
interquartile means and performance profiles of normalised scores per group of environments. What is already there
with the same settings and seeds is not run again, so an interrupted benchmark goes on where it stopped. "smoke" only
shows that everything runs; "cpu" takes half an hour for classic control on two cores, and more for the rest; "gpu" has
the published lengths. The suite and its reference scores are in `experiments/benchmark_suite.py`.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import jaxrl
from experiments.benchmark_figures import aggregate, draw, markdown
from experiments.benchmark_suite import AGENTS, FIRST_SEED, NUM_SEEDS, REFERENCES, Entry, Scale, suite
from jaxrl.files import read_json, read_npz, to_json, write_json, write_npz
from jaxrl.plotting import curve
from jaxrl.provenance import provenance

STATISTIC = (
    "returns of training episodes, exploration included; final: mean over the last 10 % of updates; IQM over seeds "
    "with 95 % bootstrap intervals"
)


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run.

    Attributes:
      scale: smoke, cpu or gpu.
      agents: names, see `AGENTS` of the suite; all by default.
      envs: names; all by default.
      seeds: how many; by default the scale's, 2, 5 or 10.
      out: directory to write to; by default experiments/results/benchmark_agents, for smoke runs/benchmark_agents.
    """

    scale: Scale = "smoke"
    agents: tuple[str, ...] = ()
    envs: tuple[str, ...] = ()
    seeds: int | None = None
    out: Path | None = None

    @property
    def num_seeds(self) -> int:
        """Seeds of every agent."""
        return NUM_SEEDS[self.scale] if self.seeds is None else self.seeds

    @property
    def directory(self) -> Path:
        """Where files go."""
        default = "runs/benchmark_agents" if self.scale == "smoke" else "experiments/results/benchmark_agents"
        return Path(default) if self.out is None else self.out


def chosen(config: Config) -> list[Entry]:
    """The entries that the configuration asks for.

    Raises:
      ValueError: for a name that is not in the suite.
    """
    entries = suite(config.scale)
    for kind, names, known in (
        ("agent", config.agents, AGENTS),
        ("environment", config.envs, {entry.env: None for entry in entries}),
    ):
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ValueError(f"unknown {kind} {unknown[0]!r}; scale {config.scale} has {', '.join(known)}")
    return [
        entry
        for entry in entries
        if (not config.agents or entry.agent in config.agents) and (not config.envs or entry.env in config.envs)
    ]


def seeds(num_seeds: int) -> list[int]:
    """Those that a row is measured with."""
    return list(range(FIRST_SEED, FIRST_SEED + num_seeds))


def asked(entry: Entry, num_seeds: int) -> dict[str, Any]:
    """What makes a row this row and no other, as plain data."""
    return to_json({"preset": entry.preset, "settings": entry.settings, "seeds": seeds(num_seeds)})


def is_done(row: Mapping[str, Any] | None, entry: Entry, num_seeds: int) -> bool:
    """Whether a row of the table is what would be run."""
    wanted = asked(entry, num_seeds)
    return row is not None and {name: row.get(name) for name in wanted} == wanted


def measure(entry: Entry, num_seeds: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Trains one agent in one environment: its row of the table, and its curves."""
    results = jaxrl.run(
        entry.preset, entry.env, seeds=seeds(num_seeds), settings=entry.settings, progress=sys.stderr.isatty()
    )
    summary, estimate = results.summary(), results.iqm()
    row = {
        "env": entry.env,
        "agent": entry.agent,
        **asked(entry, num_seeds),
        "source": entry.source,
        "final_return_iqm": float(estimate.point[0]),
        "interval_95": [float(estimate.low[0]), float(estimate.high[0])],
        "final_returns": results.final()[0],
        **{name: summary[name] for name in ("num_env_steps", "num_diverged")},
        **{name: summary[name] for name in ("compile_seconds", "train_seconds", "steps_per_second")},
        **provenance(),
    }
    steps, returns = curve(results, max_points=100)
    return to_json(judged(row)), {f"{entry.key}/steps": steps, f"{entry.key}/returns": returns[0].astype(np.float32)}


def judged(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with what its environment's reference says of it, which may have changed since it was measured."""
    reference, iqm = REFERENCES[row["env"]], row["final_return_iqm"]
    reached = reference.reached(float("nan") if iqm is None else float(iqm), row["num_env_steps"])
    return {**row, "reference": reference._asdict(), "reached": reached}


def ordered(rows: Mapping[str, Any], scale: Scale) -> dict[str, Any]:
    """The rows of a scale's entries, in their order and judged anew; no others remain."""
    return {entry.key: judged(rows[entry.key]) for entry in suite(scale) if entry.key in rows}


def main(config: Config) -> dict[str, np.ndarray]:
    """Runs what is missing, draws, and returns the curves: {"<env>/<agent>/steps": [P], "…/returns": [S, P]}."""
    table, curves = (config.directory / f"{config.scale}.{suffix}" for suffix in ("json", "npz"))
    rows: dict[str, Any] = read_json(table)["rows"] if table.exists() else {}
    rows = ordered(rows, config.scale)
    arrays = dict(read_npz(curves)) if curves.exists() else {}
    arrays = {name: array for name, array in arrays.items() if name.rpartition("/")[0] in rows}
    failed = []
    for entry in chosen(config):
        if is_done(rows.get(entry.key), entry, config.num_seeds) and f"{entry.key}/steps" in arrays:
            print(f"{entry.key:40} is there", flush=True)
            continue
        try:
            row, measured = measure(entry, config.num_seeds)
        except Exception as error:  # hours of other agents should not be lost to one
            print(f"{entry.key:40} failed: {error!r}", flush=True)
            failed.append(entry.key)
            continue
        rows[entry.key] = row
        arrays |= measured
        # The curves first: a row says that they are there.
        write_npz(curves, arrays)
        write_json(table, {"statistic": STATISTIC, "aggregates": aggregate(rows), "rows": rows})
        print(f"{entry.key:40} IQM {row['final_return_iqm']}  95 % {row['interval_95']}", flush=True)
    if rows:
        rows = ordered(rows, config.scale)
        write_json(table, {"statistic": STATISTIC, "aggregates": aggregate(rows), "rows": rows})
        page = markdown(rows, f"python -m experiments.benchmark_agents --scale {config.scale}")
        (config.directory / f"{config.scale}.md").write_text(page)
        draw(rows, arrays, config.directory, config.scale)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")
    return arrays


if __name__ == "__main__":
    main(tyro.cli(Config))
