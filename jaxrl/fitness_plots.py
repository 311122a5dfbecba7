"""How the fitness of a population goes with the generations: the best, the median and the elite of each."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxrl.plotting import COLOURS, STYLES
from jaxrl.reporting import Estimate, bootstrap
from jaxrl.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# metric -> how it is called; the elite's is a mean over the further episodes of those that are evaluated again.
BANDS = {"fitness/best": "best", "elite/fitness": "elite, mean", "fitness/median": "median"}


class FitnessBand(NamedTuple):
    """One line of a figure.

    Attributes:
      generation: [P], the last one of each stretch that is averaged, counted from 1.
      estimate: [P], IQM over seeds with its interval.
    """

    generation: np.ndarray
    estimate: Estimate


def has_fitness(results: Results) -> bool:
    """Whether a run evolved a population."""
    return all(name in results.metrics for name in ("fitness/best", "fitness/median"))


def fitness_bands(results: Results, cell: int | None = None, max_points: int = 100) -> dict[str, FitnessBand]:
    """{"best", "median" and, where there is one, "elite, mean": band}, over generations.

    Args:
      results: of a run that evolved a population.
      cell: of its grid; `None` is the best.
      max_points: neighbours are averaged to at most as many.
    Raises:
      ValueError: if nothing evolved.
    """
    if not has_fitness(results):
        raise ValueError("the run has no metrics fitness/best and fitness/median; fitness is drawn of what evolves")
    if cell is None:
        best = results.iqm().point
        cell = 0 if np.isnan(best).all() else int(np.nanargmax(best))
    bands = {}
    for name, label in BANDS.items():
        if name not in results.metrics:
            continue
        values = results.metric(name)[cell]
        # Other cells of a grid may have had more generations.
        values = values[:, ~np.isnan(values).all(0)]
        num = values.shape[1]
        if num == 0:
            continue
        parts = np.array_split(np.arange(num), min(max_points, num))
        means = np.stack([np.nanmean(values[:, part], axis=1) for part in parts], axis=1)
        bands[label] = FitnessBand(np.array([part[-1] + 1 for part in parts]), bootstrap(means))
    return bands


def draw_fitness(axes: Axes, bands: dict[str, FitnessBand], first: int = 0, prefix: str = "") -> None:
    """Draws the bands of one run; `first` is the rank of its first colour, `prefix` stands before its labels."""
    for rank, (label, band) in enumerate(bands.items(), first):
        colour = COLOURS[rank % len(COLOURS)]
        axes.fill_between(band.generation, band.estimate.low, band.estimate.high, color=colour, alpha=0.15, linewidth=0)
        marker = "o" if len(band.generation) == 1 else None
        style = STYLES[rank % len(STYLES)]
        axes.plot(band.generation, band.estimate.point, color=colour, linestyle=style, marker=marker, linewidth=1.6)
        axes.lines[-1].set_label(prefix + label)
    axes.set(xlabel="generation", ylabel="fitness")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.7)
    axes.set_axisbelow(True)


def plot_fitness(results: Results, path: str | os.PathLike[str] | None = None, cell: int | None = None) -> Figure:
    """Fitness over generations: IQM over seeds of the best, the elite and the median, with 95 % bootstrap intervals.

    Args:
      results: of a run that evolved a population.
      path: image to write, in the format of its suffix.
      cell: of its grid; `None` is the best.
    Returns:
      The matplotlib Figure.
    Raises:
      ValueError: if nothing evolved.
    """
    from pathlib import Path

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    bands = fitness_bands(results, cell)
    figure = Figure(figsize=(7.2, 4.2), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw_fitness(axes, bands)
    num = len(results.seeds)
    over = f"IQM and 95 % bootstrap interval over {num} seeds" if num > 1 else "one seed, no interval"
    title = f"{results.config.get('algorithm', 'evolution')} on {results.config.get('env', 'an environment')}"
    axes.set_title(f"{title}; {over}", loc="left", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    return figure
