"""What a learned rule does, as arrays and as figures. Matplotlib is imported when the first figure is made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.plotting import COLOURS, STYLES
from jaxrl.rules import Drift

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ADVANTAGES = (1.0, -1.0)
_LIMIT = 2.0  # of the colours: steeper slopes are drawn as this


class RatioSlopes(NamedTuple):
    """How steeply an objective `ratio * A - drift` rises with the ratio.

    Attributes:
      ratio: [R], of the new policy's probability to the old one's.
      fraction: [F], n/N: how much of the lifetime is over.
      advantage: [A].
      slope: [A, F, R], d(objective)/d(ratio). At ratio 1 it is the advantage; where it is 0 the objective neither
        pulls nor pushes, as PPO beyond its clip.
    """

    ratio: np.ndarray
    fraction: np.ndarray
    advantage: np.ndarray
    slope: np.ndarray


def ratio_slopes(drift: Drift, ratio: Any = None, fraction: Any = None, advantage: Any = ADVANTAGES) -> RatioSlopes:
    """d(objective)/d(ratio) of a drift on a grid.

    Args:
      drift: `(log_ratio, advantage, n/N) -> what is taken off`, as `Rule.drift()`; of PPO:
        `lambda log_ratio, advantage, fraction: ppo_drift(log_ratio, advantage, 0.2)`.
      ratio: [R], above 0; by default 0.25 to 2.
      fraction: [F] in [0, 1]; by default 0 to 1.
      advantage: [A]; by default +1 and -1.
    Raises:
      ValueError: if a grid is empty or leaves its range.
    """
    ratios = _grid("ratio", np.linspace(0.25, 2.0, 141) if ratio is None else ratio, 0.0, np.inf)
    fractions = _grid("fraction", np.linspace(0.0, 1.0, 41) if fraction is None else fraction, 0.0, 1.0)
    advantages = _grid("advantage", advantage, -np.inf, np.inf)
    if not ratios.min() > 0.0:
        raise ValueError(f"ratio holds {ratios.min():g}: expected numbers above 0")

    def gain(ratio: jax.Array, advantage: jax.Array, fraction: jax.Array) -> jax.Array:
        return ratio * advantage - drift(jnp.log(ratio), advantage, fraction)

    slope = jax.grad(gain)
    for axes in ((0, None, None), (None, None, 0), (None, 0, None)):  # outermost last: [A, F, R]
        slope = jax.vmap(slope, axes)
    found = jax.jit(slope)(jnp.asarray(ratios), jnp.asarray(advantages), jnp.asarray(fractions))
    return RatioSlopes(ratios, fractions, advantages, np.asarray(found))


def plot_ratio_slopes(
    slopes: RatioSlopes, path: str | os.PathLike[str] | None = None, title: str = "learned drift"
) -> Figure:
    """Above, the slope over ratio and n/N, a column for each advantage; below, the same at five times.

    Args:
      slopes: as from `ratio_slopes`, of few advantages.
      path: image to write, in the format of its suffix.
      title: of the figure.
    Returns:
      The matplotlib Figure.
    """
    # Without pyplot no window system is touched and no figure is kept alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 6.4), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, len(slopes.advantage), sharex=True, sharey="row", height_ratios=(1.15, 1.0))
    images = []
    for column, advantage in enumerate(slopes.advantage):
        quality = "good" if advantage > 0 else "bad"
        grid[0, column].set_title(f"A = {advantage:+.0f}: {quality} actions", loc="left", fontsize=10)
        images.append(_map(grid[0, column], slopes, column))
        _slices(grid[1, column], slopes, column)
        grid[1, column].set_xlabel("ratio (dotted: 1)")
    grid[0, 0].set_ylabel("n/N: lifetime over")
    grid[1, 0].set_ylabel("d objective / d ratio")
    bar = figure.colorbar(images[0], ax=grid[0, :], extend="both", pad=0.01)
    bar.set_label("d objective / d ratio")
    handles, labels = grid[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=8)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    return figure


def _map(axes: Axes, slopes: RatioSlopes, row: int) -> Any:
    shown = slopes.slope[row]
    image = axes.pcolormesh(
        slopes.ratio, slopes.fraction, shown, cmap="RdBu", vmin=-_LIMIT, vmax=_LIMIT, shading="nearest", rasterized=True
    )
    axes.axvline(1.0, color="black", linewidth=0.8, linestyle=":")
    return image


def _slices(axes: Axes, slopes: RatioSlopes, row: int) -> None:
    chosen = np.unique(np.linspace(0, len(slopes.fraction) - 1, 5).round().astype(int))
    for rank, index in enumerate(chosen):
        label = f"n/N = {slopes.fraction[index]:.2g}"
        axes.plot(slopes.ratio, slopes.slope[row, index], color=COLOURS[rank], linestyle=STYLES[rank], label=label)
    axes.axhline(0.0, color="#888888", linewidth=0.8)
    axes.axvline(1.0, color="black", linewidth=0.8, linestyle=":")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.7)


def _grid(name: str, values: Any, low: float, high: float) -> np.ndarray:
    grid = np.asarray(values, np.float64)
    if grid.ndim != 1 or not grid.size or not ((grid >= low) & (grid <= high)).all():
        raise ValueError(f"{name} = {values!r}: expected numbers in [{low:g}, {high:g}], as in [0.5, 1.0]")
    return grid
