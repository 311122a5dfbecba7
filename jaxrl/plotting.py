"""Figures and tables of `Results`. Matplotlib and rich are imported when the first one is made."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrl.reporting import Estimate, bootstrap, weighted_mean
from jaxrl.results import Results, distinct, format_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart with every common colour blindness; its yellow is too pale for lines on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F6000")
STYLES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), "-", "--")
GREY = "#B0B0B0"


def curve(results: Results, metric: str | None = None, max_points: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Steps [P] and values [H, S, P] to draw: neighbours averaged to at most `max_points`, gaps carried forward.

    A point at which no episode ended shows the seed's last value; before its first there is none, hence NaN.
    """
    metric = metric or results.judged_by
    values, weights = results.metric(metric), results.weights(metric)
    num = len(results.steps)
    edges = np.linspace(0, num, min(max_points, num) + 1).round().astype(int)
    parts = [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    binned = np.stack([weighted_mean(values[..., part], weights[..., part]) for part in parts], axis=-1)
    seen = np.stack([weights[..., part].sum(-1) > 0 for part in parts], axis=-1)
    last = np.maximum.accumulate(np.where(seen, np.arange(len(parts)), 0), axis=-1)
    return results.steps[edges[1:] - 1], np.take_along_axis(binned, last, axis=-1)


def learning_curves(
    results: Results, path: str | os.PathLike[str] | None = None, metric: str | None = None, max_lines: int = 8
) -> Figure:
    """See `Results.plot`."""
    metric = metric or results.judged_by
    steps, values = curve(results, metric)
    final = results.iqm(metric)
    order = ranking(final)
    named = order[: min(max_lines, len(COLOURS))]
    figure, axes = _figure()
    for cell in order[len(named) :]:
        axes.plot(steps, bootstrap(values[cell], num_resamples=1).point, color=GREY, linewidth=0.8, zorder=1)
    if len(order) > len(named):
        axes.plot([], [], color=GREY, linewidth=0.8, label=f"{len(order) - len(named)} other settings")
    for rank, cell in enumerate(named):
        _line(axes, rank, steps, bootstrap(values[cell]), _label(results.label(cell), _at(final, cell)))
    title = f"{results.config.get('algorithm', 'runs')} on {results.config.get('env', 'an environment')}"
    _finish(figure, axes, title, metric)
    return _sign(figure, _caption(results), path)


def compare(
    runs: Mapping[str, Results], path: str | os.PathLike[str] | None = None, metric: str | None = None
) -> Figure:
    """Learning curves of several runs in one figure: of each the best setting.

    Args:
      runs: {label: results}, at most 8.
      path: image to write, in the format of its suffix.
      metric: what to draw; `None` is what the first is judged by.
    Returns:
      The matplotlib Figure.
    Raises:
      ValueError: if there are no runs or too many.
    """
    if not 1 <= len(runs) <= len(COLOURS):
        raise ValueError(f"compare draws 1 to {len(COLOURS)} runs, got {len(runs)}; leave some out")
    metric = metric or next(iter(runs.values())).judged_by
    figure, axes = _figure()
    captions = []
    for rank, (name, results) in enumerate(runs.items()):
        steps, values = curve(results, metric)
        final = results.iqm(metric)
        cell = ranking(final)[0]
        label = f"{name}: {results.label(cell)}" if results.label(cell) else name
        _line(axes, rank, steps, bootstrap(values[cell]), _label(label, _at(final, cell)))
        captions.append(f"{name}: {_caption(results)}")
    envs = sorted({str(results.config.get("env", "an environment")) for results in runs.values()})
    _finish(figure, axes, ", ".join(envs), metric)
    return _sign(figure, "\n".join(captions), path)


def heat_cells(results: Results, x: str, y: str, metric: str | None = None) -> np.ndarray:
    """Which setting stands where on a heat map: the best over all further settings, [rows of y, columns of x].

    Returns:
      int, indices of settings; -1 where none was run.
    Raises:
      ValueError: unless both are swept settings, and different ones.
    """
    for name in (x, y):
        if name not in results.hparams:
            raise ValueError(f"unknown setting {name!r}; expected two of {', '.join(results.hparams)}")
    if x == y:
        raise ValueError(f"x and y are both {x!r}; expected two different settings of {', '.join(results.hparams)}")
    point = results.iqm(metric or results.judged_by).point
    columns, rows = distinct(results.hparams[x]), distinct(results.hparams[y])
    chosen = np.full((len(rows), len(columns)), -1)
    for i, j in np.ndindex(*chosen.shape):
        cells = np.flatnonzero((results.hparams[y] == rows[i]) & (results.hparams[x] == columns[j]))
        finite = cells[~np.isnan(point[cells])]
        if len(cells):
            chosen[i, j] = finite[point[finite].argmax()] if len(finite) else cells[0]
    return chosen


def heatmap(
    results: Results, x: str, y: str, path: str | os.PathLike[str] | None = None, metric: str | None = None
) -> Figure:
    """See `Results.heatmap`."""
    metric = metric or results.judged_by
    chosen = heat_cells(results, x, y, metric)
    columns, rows, estimate = distinct(results.hparams[x]), distinct(results.hparams[y]), results.iqm(metric)
    shown = np.where(chosen >= 0, estimate.point[chosen], np.nan)

    values = shown[np.isfinite(shown)]
    middle = (values.min() + values.max()) / 2 if len(values) else 0.0

    figure, axes = _figure((1.8 + 1.35 * len(columns), 1.9 + 0.75 * len(rows)))
    image = axes.imshow(np.ma.masked_invalid(shown), cmap="cividis", aspect="auto", origin="lower")
    axes.set_facecolor("#E8E8E8")
    for i, j in np.ndindex(*shown.shape):
        text = _estimate_text(_at(estimate, int(chosen[i, j])), "\n") if chosen[i, j] >= 0 else "not run"
        dark = bool(shown[i, j] < middle)
        axes.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    axes.set_xticks(range(len(columns)), [format_value(v.item()) for v in columns])
    axes.set_yticks(range(len(rows)), [format_value(v.item()) for v in rows])
    axes.set(xlabel=x, ylabel=y)
    figure.colorbar(image, ax=axes, label=f"final {_name(metric)}, IQM")
    others = [name for name in results.hparams if name not in (x, y) and len(distinct(results.hparams[name])) > 1]
    title = f"{results.config.get('algorithm', 'runs')} on {results.config.get('env', 'an environment')}"
    axes.set_title(title + (f"\nbest over {', '.join(others)}" if others else ""), loc="left", fontsize=11)
    return _sign(figure, _caption(results), path)


def table(results: Results, metric: str | None = None, window: float = 0.1) -> Any:
    """See `Results.table`."""
    from rich.table import Table

    metric = metric or results.judged_by
    estimate = results.iqm(metric, window)
    lost = results.diverged.sum(1)
    result = Table(title=f"final {_name(metric)} of {_seeds(results)}", title_justify="left")
    for name in results.hparams:
        result.add_column(name, justify="right")
    for name in ("IQM", "95 % interval", *(["diverged"] if lost.any() else [])):
        result.add_column(name, justify="right")
    for rank, cell in enumerate(ranking(estimate)):
        point, low, high = (f"{bound[cell]:.4g}" for bound in estimate)
        interval = "-" if np.isnan(estimate.low[cell]) else f"{low} … {high}"
        row = [*map(format_value, results.setting(cell).values()), "-" if point == "nan" else point, interval]
        row += [f"{lost[cell]} of {len(results.seeds)}"] if lost.any() else []
        result.add_row(*row, style="bold" if rank == 0 and point != "nan" else None)
    return result


def _figure(size: tuple[float, float] = (8.6, 4.6)) -> tuple[Figure, Axes]:
    # Without pyplot no window system is touched and no figure is kept alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _line(axes: Axes, rank: int, steps: np.ndarray, estimate: Estimate, label: str) -> None:
    colour = COLOURS[rank]
    axes.fill_between(steps, estimate.low, estimate.high, color=colour, alpha=0.12, linewidth=0, zorder=2)
    marker = "o" if len(steps) == 1 else None
    axes.plot(
        steps,
        estimate.point,
        color=colour,
        linestyle=STYLES[rank],
        linewidth=1.7,
        zorder=9 - rank,
        label=label,
        marker=marker,
    )


def _finish(figure: Figure, axes: Axes, title: str, metric: str) -> None:
    from matplotlib.ticker import EngFormatter

    axes.set_title(title, loc="left", fontsize=11)
    axes.set(xlabel="environment steps", ylabel=_name(metric))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.7)
    axes.set_axisbelow(True)
    handles, labels = axes.get_legend_handles_labels()
    # The grey lines come first where they exist, and are named last.
    shift = 1 if labels and labels[0].endswith("other settings") else 0
    figure.legend(
        handles[shift:] + handles[:shift],
        labels[shift:] + labels[:shift],
        loc="outside right upper",
        frameon=False,
        fontsize=8,
        handlelength=2.6,
        labelspacing=0.7,
        title="final value: IQM [95 % interval]",
        title_fontsize=8,
        alignment="left",
    )


def _sign(figure: Figure, caption: str, path: str | os.PathLike[str] | None) -> Figure:
    width = int(figure.get_figwidth() * 20)
    lines = [part for line in caption.split("\n") for part in textwrap.wrap(line, width)]
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=6, color="#666666")
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    return figure


def _caption(results: Results) -> str:
    versions, device = results.info.get("versions") or {}, results.info.get("device") or {}
    kind = device.get("kind") if isinstance(device, Mapping) else device
    parts = [
        f"IQM and 95 % bootstrap interval over {_seeds(results)}"
        if len(results.seeds) > 1
        else "one seed, no interval",
        *(f"{name} {versions[name]}" for name in ("jaxrl", "jax") if name in versions),
        *([f"on {kind}"] if kind else []),
        *([f"commit {_short(results.info['commit'])}"] if results.info.get("commit") else []),
        *([str(results.info["command"])] if results.info.get("command") else []),
    ]
    return "; ".join(parts)


def ranking(estimate: Estimate) -> list[int]:
    """Indices of an estimate's entries, best first, those without a value last."""
    return np.argsort(-np.nan_to_num(estimate.point, nan=-np.inf), kind="stable").tolist()


def _at(estimate: Estimate, index: int) -> Estimate:
    return Estimate(*(bound[index] for bound in estimate))


def _label(text: str, estimate: Estimate) -> str:
    # A legend wider than this would leave the curves too little room.
    lines = textwrap.wrap(text, 44, break_long_words=False, break_on_hyphens=False)
    return "\n".join([*lines, _estimate_text(estimate)])


def _estimate_text(estimate: Estimate, separator: str = " ") -> str:
    if np.isnan(estimate.point):
        return "no value"
    interval = "" if np.isnan(estimate.low) else f"{separator}[{estimate.low:.4g}, {estimate.high:.4g}]"
    return f"{estimate.point:.4g}{interval}"


def _seeds(results: Results) -> str:
    return f"{len(results.seeds)} seeds" if len(results.seeds) > 1 else "one seed"


def _name(metric: str) -> str:
    return metric.replace("/", " ").replace("_", " ")


def _short(commit: str) -> str:
    """A commit's first ten characters, and whether the tree differed from it."""
    name, plus, changes = commit.partition("+")
    return name[:10] + plus + changes
