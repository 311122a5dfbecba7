"""What one GPU does: `python -m experiments.benchmarks.gpu [--quick] [--parts swarms meta qd sweep] --out FOLDER`.

All programs compile at once, on the host's cores; then each has the GPU for itself. Writes one file per part, unless
something failed in it, with the keys of the part's own benchmark: with `--out experiments/results` the README's table
has them beside those of CPUs.

- `swarms` (`benchmark_mean_field_gpu.json`): agents times steps per second of 1,000,000 and 10,000,000 agents, in
  calls of a hundred steps, where `experiments.benchmarks.mean_field` makes one of each; and the error of the grid.
- `meta` (`benchmark_meta_gpu.json`): environment steps per second of meta-training LPG at the published size (512
  lifetimes of 64 workers), end to end.
- `qd` (`benchmark_qd_gpu.json`): episodes of 250 steps per second of MAP-Elites on walker2d_uni, by batch.
- `sweep` (`benchmark_scale_gpu.json`): 4,100 PPO agents on CartPole-v1 by one command, as in `….scale`.

Takes any device that JAX finds; with `--quick` small sizes, so that a laptop can check that it runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import tyro

from experiments.benchmarks import mean_field, meta, qd, scale
from experiments.benchmarks.harness import measure_together, show_and_write

Works = dict[str, tuple[Sequence[str], dict[str, Any]]]
WALKER = "brax/walker2d_uni"


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
      quick: small sizes.
      parts: of `PARTS`.
      out: folder of the files; `None` only prints.
    """

    quick: bool = False
    parts: tuple[str, ...] = ("swarms", "meta", "qd", "sweep")
    out: Path | None = None

    def file(self, area: str) -> str | None:
        """Where the figures of an area are written."""
        return None if self.out is None else str(self.out / f"benchmark_{area}_gpu.json")


def swarms(quick: bool) -> Works:
    """Each model with each number of agents."""
    sizes, per_call = ({"1e3": 1_000}, 5) if quick else ({"1e6": 1_000_000, "1e7": 10_000_000}, 100)
    works: Works = {
        f"{task}_{name}": (mean_field.WORK, {"what": "speed", "task": task, "num_agents": num_agents, "steps": 10,
                                             "per_call": per_call})
        for task in mean_field.MODELS for name, num_agents in sizes.items()
    }  # fmt: skip
    works["grid"] = (mean_field.WORK, {"what": "grid_error", "num_agents": 400 if quick else 4096})
    return works


def swarm_figures(found: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Flat."""
    figures = found.pop("grid", {})
    for name, row in found.items():
        num_agents = float(name.split("_")[1])
        figures |= {
            f"agent_steps_per_second_{name}": num_agents / row["seconds"],
            f"step_ms_{name}": 1e3 * row["seconds"],
            f"temporary_mb_{name}": row["temporary_mb"],
        }
    return figures


def meta_training(quick: bool) -> Works:
    """LPG at the published size."""
    settings = {**meta.SMALL, "num_lifetimes": 4, "lifetime_batch": 4, "width": 8} if quick else {}
    asked = {"what": "steps", "env": meta.ENV, "presets": {"lpg": "lpg"}, "settings": settings}
    return {"lpg": (meta.WORK, {**asked, "num_steps": 1 if quick else 5, "repeats": 1 if quick else 3})}


def evaluations(quick: bool) -> Works:
    """MAP-Elites over batches."""
    batches, asked = (4,) if quick else [2**power for power in range(8, 17, 2)], {"what": "evaluations", "env": WALKER}
    steps = {"iterations": 1 if quick else 3, "episode_steps": 5 if quick else 250}
    return {str(batch): (qd.OURS, {**asked, **steps, "batch": batch}) for batch in batches}


def evaluation_figures(found: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Flat."""
    return {f"evaluations_per_second_walker2d_uni_{n}": row["evaluations_per_second"] for n, row in found.items()}


def merged(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Flat answers, without what a busy machine needed to compile."""
    return {key: value for row in found.values() for key, value in row.items() if "compile" not in key}


Flat = Callable[[dict[str, dict[str, Any]]], dict[str, Any]]
PARTS: dict[str, tuple[str, Callable[[bool], Works], Flat]] = {
    "swarms": ("mean_field", swarms, swarm_figures),
    "meta": ("meta", meta_training, merged),
    "qd": ("qd", evaluations, evaluation_figures),
}  # {part: (area of the table, what to measure, its figures)}


def together(config: Config, parts: Iterable[str]) -> bool:
    """The parts whose programs compile at once; whether all of them came to an end."""
    works = {(part, name): work for part in parts for name, work in PARTS[part][1](config.quick).items()}
    if not works:
        return True
    found = measure_together({f"{part} {name}": work for (part, name), work in works.items()})
    for part in parts:
        area, _, flat = PARTS[part]
        rows = {name: found[f"{part} {name}"] for of, name in works if of == part}
        whole = {name: row for name, row in rows.items() if row is not None}
        show_and_write(config.file(area) if len(whole) == len(rows) else None, flat(whole))
    return None not in found.values()


def main(config: Config) -> None:
    """Measures, prints and writes."""
    known = (*PARTS, "sweep")
    if unknown := sorted(set(config.parts) - set(known)):
        raise SystemExit(f"parts: {', '.join(known)}; got {', '.join(unknown)}")
    if "sweep" in config.parts:
        asked = scale.Config(quick=config.quick, agents=1000 if config.quick else 4100, max_memory=None, repeats=1)
        show_and_write(config.file("scale"), scale.many(asked))
    if not together(config, [part for part in PARTS if part in config.parts]):
        raise SystemExit("some measurements failed, see above; nothing was written of their parts")


if __name__ == "__main__":
    main(tyro.cli(Config))
