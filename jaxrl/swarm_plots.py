"""Figures of swarms: a film strip, what is measured over time, and returns against sizes. On the host."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jax
import numpy as np

from jaxrl.plotting import COLOURS, STYLES
from jaxrl.reporting import bootstrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def film_strip(
    env: Any,
    params: Any,
    states: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    num_frames: int = 6,
    values: np.ndarray | None = None,
    title: str = "",
) -> Figure:
    """An episode as a row of pictures, evenly spaced in time, the first and the last among them.

    Args:
      env: what draws itself, `image(state, params) -> [H, W, 3] uint8`: a swarm's model, or an environment.
      params: its numbers.
      states: consecutive states, leaves [T, ...].
      path: image to write, in the format of its suffix.
      num_frames: pictures, at least 2; fewer where the episode is shorter.
      values: [T], such as the order parameter; stands below each picture beside the time.
      title: above the strip.
    Returns:
      The matplotlib Figure.
    Raises:
      ValueError: for less than 2 frames, or values of another length.
    """
    length = len(jax.tree.leaves(states)[0])
    if num_frames < 2 or length < 1:
        raise ValueError(f"expected num_frames >= 2 and at least one state, got {num_frames} and {length} states")
    if values is not None and np.shape(values) != (length,):
        raise ValueError(f"expected values [{length}], one for each state, got {np.shape(values)}")
    times = np.unique(np.linspace(0, length - 1, num_frames).round().astype(int))
    figure, panels = _figure((2.2 * len(times), 2.55 + 0.25 * bool(title)), len(times))
    for panel, t in zip(panels, times, strict=True):
        panel.imshow(np.asarray(env.image(jax.tree.map(lambda leaf, t=t: np.asarray(leaf[t]), states), params)))
        panel.set_axis_off()
        said = f"step {t}" if values is None else f"step {t}: {values[t]:.2f}"
        panel.set_title(said, y=-0.13, fontsize=9, color="#444444")
    if title:
        figure.suptitle(title, fontsize=10)
    return _write(figure, path)


def plot_over_time(
    values: Mapping[str, Sequence[Any] | np.ndarray],
    path: str | os.PathLike[str] | None = None,
    *,
    name: str = "order parameter",
    title: str = "",
    bounds: tuple[float, float] | None = (0.0, 1.0),
) -> Figure:
    """What is measured of swarms, step by step: the mean over episodes, and its 95 % bootstrap interval.

    Args:
      values: {label: [episodes, T]}, at most 8; [T] for one episode, which has no interval.
      path: image to write, in the format of its suffix.
      name: of what is measured.
      title: above the figure.
      bounds: of the vertical axis; None fits them.
    Returns:
      The matplotlib Figure.
    Raises:
      ValueError: if there is nothing to draw, too much, or of another shape.
    """
    if not 1 <= len(values) <= len(COLOURS):
        raise ValueError(f"expected 1 to {len(COLOURS)} curves, got {len(values)}")
    figure, (axes,) = _figure((6.4, 3.6), 1)
    for rank, (label, curve) in enumerate(values.items()):
        runs = np.atleast_2d(np.asarray(curve, float))
        if runs.ndim != 2 or not runs.size:
            raise ValueError(f"{label!r}: expected [episodes, T] or [T], got {np.shape(curve)}")
        steps = np.arange(runs.shape[1])
        axes.plot(steps, runs.mean(0), color=COLOURS[rank], linestyle=STYLES[rank], linewidth=1.6, label=label)
        if len(runs) > 1:
            estimate = bootstrap(runs, np.mean, num_resamples=500)
            axes.fill_between(steps, estimate.low, estimate.high, color=COLOURS[rank], alpha=0.15, linewidth=0)
    axes.set(xlabel="step", ylabel=name)
    if bounds is not None:
        axes.set_ylim(bounds[0], bounds[1] + 0.02 * (bounds[1] - bounds[0]))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.7)
    axes.legend(frameon=False, fontsize=8)
    if title:
        axes.set_title(title, loc="left", fontsize=10)
    return _write(figure, path)


def plot_sizes(
    rows: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str = "",
    axes: Axes | None = None,
) -> Figure:
    """Returns against the number of agents: a line for each policy and mode, the limit as a band across.

    Args:
      rows: of `swarm_table` or `SwarmReturns.rows`: "mode", "num_agents" (`None` in the limit), "mean", "low" and
        "high"; "policy" where there are several. At most 8 lines.
      path: image to write, in the format of its suffix.
      title: above the figure.
      axes: where to draw; by default a figure of its own.
    Returns:
      The matplotlib Figure.
    Raises:
      ValueError: if there is nothing to draw, or too much.
    """
    names = list(dict.fromkeys((row.get("policy", ""), row["mode"]) for row in rows))
    if not 1 <= len(names) <= len(COLOURS):
        raise ValueError(f"expected 1 to {len(COLOURS)} policies times modes, got {len(names)}")
    figure, (own,) = _figure((6.4, 3.8), 1) if axes is None else (cast("Figure", axes.get_figure()), (axes,))
    for rank, name in enumerate(names):
        chosen = [row for row in rows if (row.get("policy", ""), row["mode"]) == name]
        line = [row for row in chosen if row["num_agents"] is not None]
        sizes, mean, low, high = ([row[part] for row in line] for part in ("num_agents", "mean", "low", "high"))
        label = " ".join(part for part in name if part).replace("_", " ")
        own.plot(sizes, mean, color=COLOURS[rank], linestyle=STYLES[rank], linewidth=1.6, label=label)
        own.fill_between(sizes, low, high, color=COLOURS[rank], alpha=0.15, linewidth=0)
        for row in chosen:
            if row["num_agents"] is None:
                own.axhspan(row["low"], row["high"], color=COLOURS[rank], alpha=0.12, linewidth=0)
    own.set(xscale="log", xlabel="agents", ylabel="return")
    own.spines[["top", "right"]].set_visible(False)
    own.legend(frameon=False, fontsize=7)
    if title:
        own.set_title(title, loc="left", fontsize=10)
    return _write(figure, path)


def _figure(size: tuple[float, float], columns: int) -> tuple[Figure, Any]:
    # Without pyplot no window system is touched and no figure is kept alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _write(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    return figure
