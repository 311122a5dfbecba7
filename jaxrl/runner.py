"""All programs of a plan: what carries them out, and how what they measured comes together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxrl.execution import Execution, Options
from jaxrl.plan import Plan, Program, programs
from jaxrl.presets import find_preset
from jaxrl.runtime import Layout


def executions(
    plan: Plan, env: Any, options: Options, directory: Path | None, layouts: list[Layout] | None = None
) -> list[Execution]:
    """One `Execution` per program; each keeps its files in a folder of its own below `directory`.

    Args:
      plan, env, options, directory: what to run, how, and where its files are.
      layouts: those of the run being reopened; `None` chooses.
    """
    found = programs(plan, find_preset(plan.algorithm), env.default_params)
    folders = [directory / f"program_{i:02d}" if directory else None for i in range(len(found))]
    chosen: list[Layout | None] = [None] * len(found) if layouts is None else list(layouts)
    pairs = zip(found, folders, chosen, strict=True)
    return [Execution(plan, program, env, options, folder, layout) for program, folder, layout in pairs]


def merge(plan: Plan, parts: list[tuple[Program, dict[str, np.ndarray]]]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Metrics of all cells on one axis: every number of environment steps at which some cell ended an update.

    Returns:
      steps [K], and {name: [H, S, K]}; NaN where a cell has no row.
    """
    ends = [
        getattr(p.config, "initial_steps", 0) + (np.arange(p.config.num_updates) + 1) * p.config.steps_per_update
        for p, _ in parts
    ]
    steps = np.unique(np.concatenate(ends))
    names = sorted({name for _, metrics in parts for name in metrics})
    merged = {name: np.full((len(plan.cells), len(plan.seeds), len(steps)), np.nan, np.float32) for name in names}
    for (program, metrics), own in zip(parts, ends, strict=True):
        columns = np.searchsorted(steps, own)
        for name, values in metrics.items():
            for row, cell in enumerate(program.cells):
                merged[name][cell][:, columns] = values[row]
    return steps, merged


def missing(plan: Plan, parts: list[tuple[Program, dict[str, np.ndarray]]]) -> dict[str, list[int]]:
    """{metric: the cells whose algorithm has none of that name}."""
    names = {name for _, metrics in parts for name in metrics}
    absent = {name: [c for p, metrics in parts if name not in metrics for c in p.cells] for name in sorted(names)}
    return {name: sorted(cells) for name, cells in absent.items() if cells}
