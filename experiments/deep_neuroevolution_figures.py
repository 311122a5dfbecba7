"""Figures of the experiment `deep_neuroevolution`: scores against steps played, and fitness over generations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrl.fitness_plots import FitnessBand, draw_fitness
from jaxrl.plotting import COLOURS, STYLES
from jaxrl.reporting import bootstrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_returns(
    arrays: Mapping[str, np.ndarray], budgets: Mapping[str, int], methods: Iterable[str], path: Path
) -> Figure:
    """Greedy returns against environment steps played, a panel for each task; dotted is its budget.

    Args:
      arrays: {"<task>/<method>/steps" and "…/returns": [S, E]}.
      budgets: {task: steps}.
      methods: in the order of their colours.
      path: the image to write.
    """
    methods = list(methods)
    figure, panels = _panels(len(budgets))
    for axes, (task, budget) in zip(panels, budgets.items(), strict=False):
        for rank, method in enumerate(methods):
            if f"{task}/{method}/steps" not in arrays:
                continue
            # Seeds of evolution play different numbers of steps: each point lies at their mean.
            steps, returns = arrays[f"{task}/{method}/steps"].mean(0), arrays[f"{task}/{method}/returns"]
            estimate = bootstrap(returns)
            colour, style = (*COLOURS, "#882255")[rank], STYLES[rank % len(STYLES)]
            axes.fill_between(steps, estimate.low, estimate.high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(
                steps,
                estimate.point,
                color=colour,
                linestyle=style,
                marker=".",
                linewidth=1.6,
                label=method,
            )
        axes.axvline(budget, color="#777777", linestyle=":", linewidth=0.9)
        axes.set_title(task, loc="left", fontsize=10)
        axes.set(xlabel="environment steps played", ylabel="greedy return")
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter("{x:,.0f}" if max(axes.get_xlim()) < 1e5 else _millions)
        axes.spines[["top", "right"]].set_visible(False)
    named = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    shown = [method for method in methods if method in named]
    lines = [named[method] for method in shown]
    figure.legend(lines, shown, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    return _save(figure, path, "IQM over seeds with 95 % bootstrap intervals; dotted: the budget of the comparison")


def _millions(value: float, _: object) -> str:
    return f"{value / 1e6:g} M"


def draw_all_fitness(bands: Mapping[str, Mapping[str, dict[str, FitnessBand]]], path: Path) -> Figure:
    """Best, elite and median over generations: a panel for each task and method that evolves."""
    cells = [(task, method) for task, found in bands.items() for method in found]
    figure, panels = _panels(len(cells), columns=4)
    for axes, (task, method) in zip(panels, cells, strict=False):
        draw_fitness(axes, bands[task][method])
        axes.set_title(f"{method}, {task}", loc="left", fontsize=9)
        axes.legend(frameon=False, fontsize=7)
    return _save(figure, path, "Populations: IQM over seeds with 95 % bootstrap intervals")


def _panels(num: int, columns: int = 2) -> tuple[Figure, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(columns, num)
    rows = -(-num // columns)
    figure = Figure(figsize=(max(7.4, 1.0 + 3.2 * columns), 0.8 + 2.6 * rows), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[num:]:
        axes.set_visible(False)
    return figure, panels


def _save(figure: Figure, path: Path, title: str) -> Figure:
    figure.suptitle(title, x=0.01, ha="left", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return figure
