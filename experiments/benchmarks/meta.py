"""What meta-training costs: `python -m experiments.benchmarks.meta [--quick] [--published] [--json PATH]`.

- `groove_over_lpg_step_ratio`: seconds of a meta-step of GROOVE over those of LPG, in one process, in turns, over one
  whole lifetime of the longest (250 agent updates, 50 meta-steps); lifetimes are mixed (log-uniform 10 to 250), on the
  levels of the distribution "all", whose episodes last up to 750 steps. GROOVE's side includes the antagonists, and at
  the end of every lifetime 64 (or `num_envs`) episodes of each of the two; LPG's includes no evaluation.
- `lpg_env_steps_per_second`: of the same LPG run; the rollouts of its K + 1 updates, no evaluations.
- `lpg_compile_seconds`: tracing and compiling one meta-step of the preset `groove` at its widths, with 8 lifetimes;
  `lpg_compile_cpu_seconds` is what it takes of the processor, on a machine that has other work.
- `meta_gradient_temp_bytes`: temporary memory of the compiled meta-step of that preset at the published size (512
  lifetimes of 64 workers, T = 20, K = 5), as the compiler says; `…_argument_bytes` is its state, which is donated.
- `es_env_steps_per_second`: of a generation of `ta_lpg`.

Each measurement is a process of its own, without a compilation cache. The ratio is measured at the scale `cpu` of the
experiments, where a wide recurrent network does not hide the rest, or with `--published` at the published size.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from experiments.benchmarks.harness import measure, write

WORK = ["-m", "experiments.benchmarks.meta_work"]
ENV = "jaxrl/grid_all_vrandlife"
PAIR = {"lpg": "lpg", "groove": "groove"}
LONGEST = 250 // 5  # meta-steps of the longest lifetime
# As many of the lifetimes are played out at once as at the published size: 1 in 32.
SMALL: dict[str, Any] = {
    "num_lifetimes": 16, "lifetime_batch": 16, "ended_batch": 1, "num_envs": 16, "num_levels": 128, "width": 32,
}  # fmt: skip
FEW: dict[str, Any] = {"num_lifetimes": 8, "lifetime_batch": 8, "num_levels": 64}
# Four pairs, a level each, whose agents all live for 250 updates: then the steps that are counted are those taken.
SAME_LIFE = "jaxrl/grid_all_shortlife"
GENERATION: dict[str, Any] = {"num_pairs": 4, "population_batch": 8, "noise_batch": 4, "num_envs": 16, "width": 32}
LIMITS = {"groove_over_lpg_step_ratio": 3.0, "lpg_compile_seconds": 60.0, "meta_gradient_temp_bytes": 16.0 * 2**30}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
      quick: one piece of each side.
      published: the ratio at the published size; needs a GPU.
      repeats: pieces of each side, of which the median counts.
      json: where to write flat figures.
    """

    quick: bool = False
    published: bool = False
    repeats: int = 3
    json: str | None = None


def main(config: Config) -> dict[str, Any]:
    """Prints a table, and returns the flat figures."""
    repeats = 1 if config.quick else config.repeats
    settings = {} if config.published else SMALL
    work = {"env": ENV, "settings": settings, "num_steps": LONGEST, "repeats": repeats}
    figures = measure(sys.executable, WORK, what="steps", presets=PAIR, **work)
    figures["groove_over_lpg_step_ratio"] = (
        figures["groove_seconds_per_meta_step"] / figures["lpg_seconds_per_meta_step"]
    )
    few = measure(sys.executable, WORK, what="compilation", preset="groove", env=ENV, settings=FEW)
    figures |= {f"lpg_{name}": few[name] for name in ("compile_seconds", "compile_cpu_seconds")}
    whole = measure(sys.executable, WORK, what="compilation", preset="groove", env=ENV, settings={})
    figures |= {f"meta_gradient_{name}": value for name, value in whole.items()}
    generation = {"env": SAME_LIFE, "settings": {} if config.published else GENERATION, "num_steps": 1}
    figures |= measure(sys.executable, WORK, what="evolution", preset="ta_lpg", repeats=repeats, **generation)
    table = Table("figure", "value", "at most")
    for name, value in figures.items():
        limit = f"{LIMITS[name]:,.6g}" if name in LIMITS else ""
        table.add_row(name, f"{value:,.4g}" if abs(value) < 1e5 else f"{value:,.0f}", limit)
    Console(width=100).print(table)
    write(config.json, figures)
    return figures


if __name__ == "__main__":
    main(tyro.cli(Config))
