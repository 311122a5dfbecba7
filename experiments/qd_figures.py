"""Figures of `experiments.dcg_map_elites`, as the papers draw them: curves with intervals, archives side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxrl.archive_plots import fitness_map
from jaxrl.qd.archive import Archive
from jaxrl.reporting import bootstrap

COLOURS = {"ME": "tab:gray", "PGA-ME": "tab:orange", "DCG-ME": "tab:green", "DCRL-ME": "tab:blue"}
PANELS = {"coverage": "coverage", "qd_score": "QD score", "max_fitness": "max fitness"}


def draw_curves(curves: dict[str, dict[str, np.ndarray]], path: str | Path, title: str) -> None:
    """Coverage, QD score and best fitness over episodes.

    Args:
      curves: {label: {"evaluations": [U], "coverage": [S, U], …}}.
      path: image to write.
      title: above all.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(PANELS), figsize=(12.5, 4.0), layout="constrained")
    for axis, (name, label) in zip(axes, PANELS.items(), strict=True):
        for algorithm, curve in curves.items():
            estimate = bootstrap(curve[name], np.mean)
            colour = COLOURS.get(algorithm)
            axis.plot(curve["evaluations"], estimate.point, color=colour, label=algorithm)
            axis.fill_between(curve["evaluations"], estimate.low, estimate.high, color=colour, alpha=0.2, linewidth=0)
        axis.set(xlabel="episodes", ylabel=label)
        # Where nothing but rounding differs, the picture should say so.
        middle, least = np.mean(axis.get_ylim()), 0.02 * np.abs(axis.get_ylim()).max()
        if np.ptp(axis.get_ylim()) < least:
            axis.set_ylim(middle - least / 2, middle + least / 2)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.suptitle(f"{title}; mean, 95 % bootstrap intervals over seeds", fontsize=10)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def draw_archives(archives: dict[str, Archive], low: Any, high: Any, path: str | Path, title: str) -> None:
    """Maps of fitness over the first two axes of descriptor space, all with the same colours.

    Args:
      archives: {label: archive}.
      low, high: [D], bounds of descriptors.
      path: image to write.
      title: above all.
    """
    import matplotlib.pyplot as plt

    maps = {name: fitness_map(archive, low, high) for name, archive in archives.items()}
    values = np.concatenate([shown[np.isfinite(shown)] for shown in maps.values()])
    figure, axes = plt.subplots(1, len(maps), figsize=(3.3 * len(maps) + 1, 3.8), layout="constrained")
    extent = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))
    for axis, (name, shown) in zip(np.atleast_1d(axes), maps.items(), strict=True):
        image = axis.imshow(np.ma.masked_invalid(shown), origin="lower", extent=extent, aspect="auto", cmap="viridis")
        image.set_clim(values.min(), values.max())
        axis.set_facecolor("#E8E8E8")
        kept = np.isfinite(np.asarray(archives[name].fitness))
        axis.set_title(f"{name}: {kept.sum()} of {len(kept)} cells", fontsize=10)
    figure.colorbar(image, ax=list(np.atleast_1d(axes)), label="fitness")
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=90)
    plt.close(figure)
