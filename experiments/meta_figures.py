"""Figures of the experiments `lpg` and `groove`: learning curves of meta-training, and levels above a threshold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxrl.plotting import COLOURS, STYLES
from jaxrl.reporting import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_curves(curves: Mapping[str, tuple[np.ndarray, Estimate]], path: Path, title: str, caption: str) -> Figure:
    """What agents reach at the end of their lives, against meta-updates; intervals over meta-seeds."""
    figure, axes = _figure(title, caption)
    for rank, (name, (updates, estimate)) in enumerate(curves.items()):
        _band(axes, rank, updates, estimate, name)
    axes.set(xlabel="meta-updates", ylabel="return at the end of lifetimes,\nas a share of the optimal one")
    return _save(figure, axes, path)


def draw_survival(
    shares: Mapping[str, Estimate], thresholds: np.ndarray, path: Path, title: str, caption: str
) -> Figure:
    """Share of held-out levels whose normalised return is above τ; dotted: a random policy, and A2C."""
    figure, axes = _figure(title, caption)
    for rank, (name, estimate) in enumerate(shares.items()):
        _band(axes, rank, thresholds, estimate, name)
    for place, name in ((0.0, "random policy"), (1.0, "A2C")):
        axes.axvline(place, color="#555555", linewidth=0.9, linestyle=":")
        axes.annotate(
            name, (place, 1.0), (3, 2), xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=8
        )
    axes.set(xlabel="τ: normalised return", ylabel="share of held-out levels above τ", ylim=(-0.02, 1.02))
    return _save(figure, axes, path)


def _figure(title: str, caption: str) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.4), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    # Under the title: the legend has the bottom to itself, and the lines that cross the axes are named above it.
    axes.set_title(caption, loc="left", fontsize=6, color="#666666", pad=14)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _band(axes: Axes, rank: int, x: np.ndarray, estimate: Estimate, label: str) -> None:
    axes.fill_between(x, estimate.low, estimate.high, color=COLOURS[rank], alpha=0.15, linewidth=0)
    axes.plot(x, estimate.point, color=COLOURS[rank], linestyle=STYLES[rank], linewidth=1.7, label=label)


def _save(figure: Figure, axes: Axes, path: Path) -> Figure:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return figure
