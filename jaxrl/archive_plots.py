"""Pictures of archives: a map of fitness over descriptor space."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxrl.qd.archive import Archive

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PIXELS = 240  # along each axis


def cell_map(
    archive: Archive, low: Any, high: Any, axes: tuple[int, int] = (0, 1), pixels: int = _PIXELS
) -> np.ndarray:
    """Whose place in descriptor space each pixel is, [pixels, pixels], rows along the second axis; -1 where nobody is.

    Of a two-dimensional archive with cells each pixel shows its cell's individual. Otherwise space is cut into squares,
    at most as many as there are individuals, and each shows the best whose descriptor falls into it.

    Args:
      archive: of C cells.
      low, high: [D], bounds.
      axes: two different ones.
      pixels: along each axis.
    Returns:
      int, indices of occupied cells.
    Raises:
      ValueError: for axes that do not exist or are the same.
    """
    low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
    x, y = axes
    if x == y or not {x, y} <= set(range(len(low))):
        raise ValueError(f"axes = {axes}: expected two different ones of 0 … {len(low) - 1}")
    fitness = np.asarray(archive.fitness)
    middle = (np.arange(pixels) + 0.5) / pixels
    if len(low) == 2 and not isinstance(archive.centroids, tuple):
        from jaxrl.qd.tessellation import nearest

        points = np.stack(np.meshgrid(middle, middle), -1).reshape(-1, 2)
        scaled = (np.asarray(archive.centroids)[:, [x, y]] - low[[x, y]]) / (high - low)[[x, y]]
        cell = np.asarray(nearest(jax.numpy.asarray(points, np.float32), jax.numpy.asarray(scaled, np.float32)))
        return np.where(np.isfinite(fitness[cell]), cell, -1).reshape(pixels, pixels)
    side = max(1, min(pixels, int(np.sqrt(len(fitness)))))
    kept = np.flatnonzero(np.isfinite(fitness))
    share = (np.asarray(archive.descriptors)[kept] - low) / (high - low)
    place = np.clip((share[:, [x, y]] * side).astype(int), 0, side - 1)
    squares = np.full((side, side), -1)
    worst_first = np.argsort(fitness[kept], kind="stable")
    squares[place[worst_first, 1], place[worst_first, 0]] = kept[worst_first]  # of several the last one stays
    index = np.minimum((middle * side).astype(int), side - 1)
    return squares[index][:, index]


def fitness_map(
    archive: Archive, low: Any, high: Any, axes: tuple[int, int] = (0, 1), pixels: int = _PIXELS
) -> np.ndarray:
    """Fitness over two axes of descriptor space, [pixels, pixels]; NaN where nobody is. Arguments as of `cell_map`."""
    cells = cell_map(archive, low, high, axes, pixels)
    return np.where(cells >= 0, np.asarray(archive.fitness)[cells], np.nan)


def plot_archive(  # noqa: PLR0913 - what is drawn, and how
    archive: Archive,
    low: Any,
    high: Any,
    path: str | os.PathLike[str] | None = None,
    names: tuple[str, ...] = (),
    title: str = "",
    bounds: tuple[float | None, float | None] = (None, None),
) -> Figure:
    """The map of an archive; of one with more than two dimensions a panel for each pair of neighbouring axes.

    Args:
      archive: of C cells.
      low, high: [D], bounds; one dimension at least.
      path: image to write, in the format of its suffix.
      names: of the axes.
      title: above the map; coverage and maximum stand below it.
      bounds: of the colours, for maps that are compared; `None` is the archive's.
    Raises:
      ValueError: for descriptors of one number, which have no map.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    num = len(np.asarray(low))
    if num < 2:
        raise ValueError(f"descriptors of {num} numbers have no map; draw fitness over the descriptor instead")
    labels = names or tuple(f"descriptor {i}" for i in range(num))
    pairs = [(i, i + 1) for i in range(0, num - 1, 2)]
    maps = [fitness_map(archive, low, high, pair) for pair in pairs]
    values = np.concatenate([shown[np.isfinite(shown)] for shown in maps] or [np.zeros(1)])
    least, most = (v if v is not None else f(values) for v, f in zip(bounds, (np.min, np.max), strict=True))
    figure = Figure(figsize=(0.8 + 4.2 * len(pairs), 4.6), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(pairs), squeeze=False)[0]
    for panel, (x, y), shown in zip(panels, pairs, maps, strict=True):
        extent = (float(low[x]), float(high[x]), float(low[y]), float(high[y]))
        image = panel.imshow(np.ma.masked_invalid(shown), origin="lower", extent=extent, aspect="auto")
        image.set(cmap="viridis", clim=(least, most))
        panel.set_facecolor("#E8E8E8")
        panel.set(xlabel=labels[x], ylabel=labels[y])
    figure.colorbar(image, ax=list(panels), label="fitness")
    fitness = np.asarray(archive.fitness)
    kept = np.isfinite(fitness)
    said = f"{kept.sum()} of {len(kept)} cells, best {fitness[kept].max():.4g}" if kept.any() else "nobody in it"
    figure.suptitle(f"{title}\n{said}" if title else said, fontsize=10)
    if path is not None:
        figure.savefig(path)
    return figure
