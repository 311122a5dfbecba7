"""The numbers of a report, as plain data: what each setting reached, curves with intervals, what a sweep says."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrl.fitness_plots import fitness_bands, has_fitness
from jaxrl.plotting import curve, heat_cells, ranking
from jaxrl.reporting import Estimate, bootstrap
from jaxrl.results import RETURN, Results, distinct, format_value

MAX_POINTS, MAX_CELLS, MAX_SEEDS, MAX_PAIRS = 100, 12, 10, 10
_MANY_SEEDS, _FEW_RESAMPLES = 32, 500
_PREFERRED = (RETURN, "evaluation/return", "archive/coverage", "archive/max_fitness", "episode/length")
_MOST_CURVES = 40  # that have an interval, over all metrics; each costs about a tenth of a second


def spoken(metric: str) -> str:
    """A metric's name, for people."""
    return metric.replace("/", " ").replace("_", " ")


def shorten(values: Any) -> Any:
    """Arrays as lists of numbers with five digits, and None where there is none."""
    values = np.asarray(values, float)
    if values.ndim:
        return [shorten(value) for value in values]
    return float(f"{values:.5g}") if np.isfinite(values) else None


def estimate_text(estimate: Estimate) -> tuple[str, str]:
    """An estimate, and its interval, as text."""
    point, low, high = (float(bound) for bound in estimate)
    if np.isnan(point):
        return "no value", ""
    return f"{point:.4g}", "" if np.isnan(low) else f"{low:.4g} to {high:.4g}"


def swept(results: Results) -> dict[str, list[str]]:
    """{setting that differs between cells: its values as text}."""
    found = {name: [format_value(v.item()) for v in distinct(labels)] for name, labels in results.hparams.items()}
    return {name: values for name, values in found.items() if len(values) > 1}


def table(results: Results, metric: str) -> list[dict[str, Any]]:
    """Every setting, best first: `cell`, `label`, `values` as text, `iqm`, `low`, `high`, `text`, `interval`,
    `diverged` seeds, `seeds` {seed: final value}."""
    estimate, final, lost = results.iqm(metric), results.final(metric), results.diverged.sum(1)
    rows = []
    for cell in ranking(estimate):
        text, interval = estimate_text(Estimate(*(bound[cell] for bound in estimate)))
        values = {name: format_value(value) for name, value in results.setting(cell).items()}
        row = {"cell": cell, "label": results.label(cell), "values": values, "text": text, "interval": interval}
        row |= {name: shorten(bound[cell]) for name, bound in zip(("iqm", "low", "high"), estimate, strict=True)}
        row |= {
            "diverged": int(lost[cell]),
            "seeds": dict(zip(map(int, results.seeds), shorten(final[cell]), strict=True)),
        }
        rows.append(row)
    return rows


def shown_metrics(results: Results, metric: str) -> list[str]:
    """What curves are drawn of: all metrics of a small run, of a sweep the first of these."""
    names = [metric, *(name for name in _PREFERRED if name in results.metrics), *sorted(results.metrics)]
    names = [
        name
        for name in dict.fromkeys(names)
        if not name.endswith("/count") and np.isfinite(results.metrics[name]).any()
    ]
    num = max(1, _MOST_CURVES // min(results.num_settings, MAX_CELLS))
    return list(dict.fromkeys([metric, *names[:num]]))


def curves(results: Results, metric: str) -> list[dict[str, Any]]:
    """For each metric its `name`, `steps` [P], and `cells`: of the best settings the IQM with its interval and each
    seed's own curve, of the others the IQM alone."""
    order = ranking(results.iqm(metric))
    found = []
    for name in shown_metrics(results, metric):
        steps, values = curve(results, name, MAX_POINTS)
        cells = []
        for rank, cell in enumerate(order if name == metric else order[:MAX_CELLS]):
            detailed = rank < MAX_CELLS
            point, low, high = bootstrap(values[cell], num_resamples=_num_resamples(results) if detailed else 1)
            drawn: dict[str, Any] = {"cell": cell, "point": shorten(point)}
            if detailed:
                seeds = list(zip(map(int, results.seeds), values[cell], strict=True))[:MAX_SEEDS]
                drawn |= {"low": shorten(low), "high": shorten(high)}
                drawn["seeds"] = {seed: shorten(own) for seed, own in seeds} if len(results.seeds) > 1 else {}
            cells.append(drawn)
        found.append({"name": name, "label": spoken(name), "steps": steps, "cells": cells})
    return found


def heat_maps(results: Results, metric: str) -> list[dict[str, Any]]:
    """For each pair of swept settings, the most influential first: their values, and whose cell stands where."""
    names = list(dict.fromkeys(row["hyperparameter"] for row in results.sensitivity(metric)))
    names = [name for name in names if name in swept(results)]
    return [
        {
            "x": x,
            "y": y,
            "columns": [format_value(v.item()) for v in distinct(results.hparams[x])],
            "rows": [format_value(v.item()) for v in distinct(results.hparams[y])],
            "cells": heat_cells(results, x, y, metric),
        }
        for x, y in itertools.islice(itertools.combinations(names, 2), MAX_PAIRS)
    ]


def sensitivity(results: Results, metric: str) -> list[dict[str, Any]]:
    """`Results.sensitivity`, as text where it is shown and as numbers where it is drawn."""
    varied = swept(results)
    return [
        {"name": row["hyperparameter"], "value": format_value(row["value"])}
        | {short: shorten(row[name]) for short, name in zip(("iqm", "low", "high", "best"), _BOUNDS, strict=True)}
        for row in (results.sensitivity(metric) if varied else [])
        if row["hyperparameter"] in varied
    ]


_BOUNDS = ("iqm", "iqm_low", "iqm_high", "best_iqm")


def fitness(results: Results) -> dict[str, Any] | None:
    """Of a run that evolved a population: fitness over generations, of its best setting."""
    if not has_fitness(results):
        return None
    lines = [
        {"label": label, "x": band.generation, **_bounds(band.estimate)}
        for label, band in fitness_bands(results).items()
    ]
    return {"lines": lines} if lines else None


def comparisons(runs: Mapping[str, Results], metric: str | None) -> list[dict[str, Any]]:
    """Runs in one environment, side by side: of each the best setting's curve, and what it reached."""
    envs: dict[str, list[str]] = {}
    for name, results in runs.items():
        envs.setdefault(str(results.config.get("env")), []).append(name)
    found = []
    for env, names in envs.items():
        shared = _common_metric([runs[name] for name in names], metric)
        if len(names) > 1 and shared is not None:
            lines = [_compared(name, list(runs).index(name), runs[name], shared) for name in names]
            found.append({"env": env, "metric": spoken(shared), "lines": lines})
    return found


def _common_metric(runs: list[Results], metric: str | None) -> str | None:
    """What all of them measured: what they are judged by, else the return."""
    candidates = [metric, *(run.judged_by for run in runs[:1]), RETURN]
    return next((name for name in candidates if name and all(name in run.metrics for run in runs)), None)


def _compared(name: str, run: int, results: Results, metric: str) -> dict[str, Any]:
    final = results.iqm(metric)
    cell = ranking(final)[0]
    steps, values = curve(results, metric, MAX_POINTS)
    text, interval = estimate_text(Estimate(*(bound[cell] for bound in final)))
    return {
        "run": run,
        "name": name,
        "algorithm": str(results.config.get("algorithm")),
        "setting": results.label(cell),
        "num_seeds": len(results.seeds),
        "num_steps": int(results.steps[-1]) if len(results.steps) else 0,
        "text": text,
        "interval": interval,
        "x": steps,
        **_bounds(bootstrap(values[cell], num_resamples=_num_resamples(results))),
    }


def _bounds(estimate: Estimate) -> dict[str, Any]:
    return {name: shorten(bound) for name, bound in zip(("point", "low", "high"), estimate, strict=True)}


def _num_resamples(results: Results) -> int:
    """Of the bands of curves; a hundred seeds at every point would take seconds each."""
    return 2000 if len(results.seeds) <= _MANY_SEEDS else _FEW_RESAMPLES
