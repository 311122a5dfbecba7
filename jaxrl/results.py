"""Labelled results of a run or sweep, and what is asked of them: which setting is best, how sure, how sensitive.

Axes: H settings (cells of the grid), S seeds, K logged points.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrl import files
from jaxrl.reporting import Estimate, bootstrap, iqm, stratified_bootstrap, weighted_mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RETURN = "episode/return"
FORMAT_VERSION = 1
_REPORTED = ("wall_seconds", "compile_seconds", "steps_per_second", "versions", "device", "command")


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """What a run or sweep measured.

    Args:
      hparams: {name: [H]} of the swept settings, numbers or strings; anything else is kept as its string.
      seeds: [S].
      steps: [K], environment steps taken at each logged point.
      metrics: {name: [H, S, K]}; NaN where there is nothing to log, such as a return where no episode ended.
      config: everything that was set; "algorithm" and "env" among it.
      info: how it ran: versions, device, command, wall_seconds, compile_seconds, steps_per_second …
    Raises:
      ValueError: if the shapes do not fit together.
    """

    hparams: Mapping[str, np.ndarray]
    seeds: np.ndarray
    steps: np.ndarray
    metrics: Mapping[str, np.ndarray]
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        arrays = {name: np.asarray(values) for name, values in self.metrics.items()}
        hparams = {name: _labels(values) for name, values in self.hparams.items()}
        seeds, steps = np.atleast_1d(self.seeds), np.atleast_1d(self.steps)
        num = len(next(iter(hparams.values()))) if hparams else next((len(v) for v in arrays.values()), 1)
        for name, labels in hparams.items():
            if labels.shape != (num,):
                raise ValueError(f"setting {name} has shape {labels.shape}, expected {(num,)}: one value per setting")
        for name, values in arrays.items():
            if values.shape != (num, len(seeds), len(steps)):
                expected = (num, len(seeds), len(steps))
                raise ValueError(f"metric {name} has shape {values.shape}, expected {expected}: settings, seeds, steps")
        for name, value in {"hparams": hparams, "seeds": seeds, "steps": steps, "metrics": arrays}.items():
            object.__setattr__(self, name, value)

    @property
    def num_settings(self) -> int:
        """H."""
        return len(next(iter({**self.hparams, **self.metrics}.values()), [None]))

    def setting(self, index: int) -> dict[str, Any]:
        """The swept settings of one cell, as Python values."""
        return {name: values[index].item() for name, values in self.hparams.items()}

    def label(self, index: int) -> str:
        """The settings that differ between cells, as text."""
        varied = [name for name, values in self.hparams.items() if len(np.unique(values)) > 1]
        return ", ".join(f"{name}={format_value(self.setting(index)[name])}" for name in varied or self.hparams)

    @property
    def diverged(self) -> np.ndarray:
        """[H, S] bool: was any loss ever NaN or infinite?"""
        return self.diverged_at >= 0

    @property
    def diverged_at(self) -> np.ndarray:
        """[H, S] int: environment steps at the first logged point with a non-finite loss; -1 where there is none."""
        bad = np.zeros((self.num_settings, len(self.seeds), len(self.steps)), bool)
        for name, values in self.metrics.items():
            if name.startswith("loss/"):
                broken = ~np.isfinite(values) & self.logged[:, None, :]
                broken[self.config.get("missing_metrics", {}).get(name, [])] = False
                bad |= broken
        first = np.where(bad.any(-1), bad.argmax(-1), -1)
        return np.append(self.steps, -1)[first]

    @property
    def logged(self) -> np.ndarray:
        """[H, K] bool: does the setting have a row there? Settings whose updates are larger have fewer rows."""
        rows = np.zeros((self.num_settings, len(self.steps)), bool)
        for values in self.metrics.values():
            rows |= ~np.isnan(values).all(1)
        return rows

    @property
    def judged_by(self) -> str:
        """The metric that is meant where none is named: the algorithm's, by default the return of episodes."""
        return str(self.config.get("metric", RETURN))

    def metric(self, name: str) -> np.ndarray:
        """[H, S, K] float64.

        Raises:
          ValueError: for an unknown name.
        """
        if name not in self.metrics:
            raise ValueError(f"unknown metric {name!r}; expected one of {', '.join(sorted(self.metrics))}")
        return self.metrics[name].astype(np.float64)

    def weights(self, metric: str) -> np.ndarray:
        """[H, S, K]: what each logged point counts.

        Of `episode/…` the episodes, of `lifetime/…` the lifetimes that ended there, where those are counted; else 1
        where there is a value, or should be one: NaN where a loss is logged, or where other seeds were evaluated, is
        what became of the seed, and propagates.
        """
        values = self.metric(metric)
        group = metric.split("/")[0]
        count = f"{group}/count"
        if metric != count and count in self.metrics:
            return np.nan_to_num(self.metrics[count].astype(np.float64))
        present = ~np.isnan(values)
        if group == "loss":
            due = np.broadcast_to(self.logged[:, None, :], values.shape).copy()
            due[self.config.get("missing_metrics", {}).get(metric, [])] = False
            present |= due
        elif group == "evaluation":
            present |= present.any(1, keepdims=True)
        return present.astype(np.float64)

    def final(self, metric: str | None = None, window: float = 0.1) -> np.ndarray:
        """[H, S]: mean of a metric over the last part of training.

        Args:
          metric: its name; `None` is `judged_by`, here and wherever a metric may be named. `episode/…` is
            weighted by the episodes that ended at each point, where those are counted.
          window: share of the setting's logged points, in (0, 1]; at least one point.
        Returns:
          Means over the points that have a value; of a seed without one there (no episode ended), its last before; NaN
          where it never had any.
        Raises:
          ValueError: for an unknown metric or a window out of range.
        """
        metric = metric or self.judged_by
        if not 0 < window <= 1:
            raise ValueError(f"window = {window}: expected a share of the logged points, in (0, 1]")
        values, weights, logged = self.metric(metric), self.weights(metric), self.logged
        result = np.full(values.shape[:2], np.nan)
        for cell in range(len(values)):
            rows = np.flatnonzero(logged[cell])
            if not len(rows):
                continue
            num = max(1, math.ceil(round(window * len(rows), 9)))
            for seed in range(values.shape[1]):
                counted = rows[weights[cell, seed, rows] > 0]
                recent = counted[counted >= rows[-num]]
                chosen = recent if len(recent) else counted[-1:]
                if len(chosen):
                    result[cell, seed] = weighted_mean(values[cell, seed, chosen], weights[cell, seed, chosen])
        return result

    def iqm(self, metric: str | None = None, window: float = 0.1, confidence: float = 0.95, seed: int = 0) -> Estimate:
        """Interquartile mean over seeds of `final`, per setting, with bootstrap intervals: three arrays [H].

        NaN where a seed has no value, lest a diverged seed flatter its setting; the bounds also with one seed.
        """
        return bootstrap(self.final(metric, window).T, confidence=confidence, seed=seed)

    def best(self, metric: str | None = None, window: float = 0.1) -> dict[str, Any]:
        """The setting with the highest IQM: `hyperparameters`, `iqm`, `iqm_low`, `iqm_high`, and its `index`.

        Raises:
          ValueError: if no setting has a value for all seeds.
        """
        metric = metric or self.judged_by
        estimate = self.iqm(metric, window)
        if np.isnan(estimate.point).all():
            raise ValueError(f"no setting has a final {metric} for all seeds; train longer, or look at `diverged`")
        index = int(np.nanargmax(estimate.point))
        point, low, high = (float(bound[index]) for bound in estimate)
        return {"hyperparameters": self.setting(index), "iqm": point, "iqm_low": low, "iqm_high": high, "index": index}

    def sensitivity(self, metric: str | None = None, window: float = 0.1) -> list[dict[str, Any]]:
        """How much each swept setting matters: one row per setting and value, the most influential setting first.

        Returns:
          Rows with `hyperparameter`, `value`; `iqm`, `iqm_low`, `iqm_high` over all seeds and all other settings (the
          bootstrap is stratified by these); and `best_iqm`, the best that the other settings reach with this value.
          Settings are ordered by the range of their `iqm`. `pandas.DataFrame(rows)` is a table.
        """
        scores = self.final(metric, window)
        per_setting = iqm(scores, axis=1)
        groups = []
        for name, labels in self.hparams.items():
            rows = []
            for value in distinct(labels):
                chosen = labels == value
                point, low, high = (float(bound) for bound in stratified_bootstrap(scores[chosen].T))
                best = max((float(v) for v in per_setting[chosen] if not np.isnan(v)), default=math.nan)
                row = {"hyperparameter": name, "value": value.item(), "iqm": point, "iqm_low": low, "iqm_high": high}
                rows.append({**row, "best_iqm": best})
            finite = [row["iqm"] for row in rows if math.isfinite(row["iqm"])]
            groups.append((max(finite) - min(finite) if finite else -1.0, rows))
        return [row for _, rows in sorted(groups, key=lambda group: -group[0]) for row in rows]

    def summary(self, metric: str | None = None) -> dict[str, Any]:
        """What `summary.json` holds; values that are not known are None.

        Returns:
          `algorithm`, `env`, `num_settings`, `num_seeds`, `num_env_steps` of each agent, `num_diverged` agents,
          `metric`, `best` (None, or as from `best`), `wall_seconds`, `compile_seconds`, `steps_per_second`,
          `versions`, `device`, `command`, then whatever else is in `info`.
        """
        metric = metric or self.judged_by
        try:
            best = self.best(metric)
        except ValueError:
            best = None
        return {
            "algorithm": self.config.get("algorithm"),
            "env": self.config.get("env"),
            "num_settings": self.num_settings,
            "num_seeds": len(self.seeds),
            "num_env_steps": int(self.steps[-1]) if len(self.steps) else 0,
            "num_diverged": int(self.diverged.sum()),
            "metric": metric,
            "best": best,
            **{name: self.info.get(name) for name in _REPORTED},
            **{name: value for name, value in self.info.items() if name not in _REPORTED},
        }

    def to_dataframe(self) -> Any:
        """A tidy pandas DataFrame: one row per setting, seed and logged point; a column per setting and metric."""
        import pandas

        cell, seed, point = (axis.ravel() for axis in np.indices((self.num_settings, len(self.seeds), len(self.steps))))
        columns = {name: values[cell] for name, values in self.hparams.items()}
        columns |= {"seed": self.seeds[seed], "step": self.steps[point]}
        return pandas.DataFrame(columns | {name: values.ravel() for name, values in self.metrics.items()})

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` of dimensions (setting, seed, step); the swept settings are coordinates of `setting`."""
        import xarray

        coords = {name: ("setting", values) for name, values in self.hparams.items()}
        coords |= {"seed": ("seed", self.seeds), "step": ("step", self.steps)}
        data = {name: (("setting", "seed", "step"), values) for name, values in self.metrics.items()}
        return xarray.Dataset(data, coords=coords, attrs={str(k): str(v) for k, v in self.config.items()})

    def table(self, metric: str | None = None, window: float = 0.1) -> Any:
        """A `rich` table of the settings, best first: IQM, its 95 % interval, and how many seeds diverged."""
        from jaxrl import plotting

        return plotting.table(self, metric, window)

    def plot(self, path: str | os.PathLike[str] | None = None, metric: str | None = None, max_lines: int = 8) -> Figure:
        """Learning curves: IQM over seeds with a 95 % bootstrap band; the best settings in colour, the rest grey.

        Args:
          path: image to write, in the format of its suffix.
          metric: what to draw.
          max_lines: how many settings are coloured and named, at most 8.
        Returns:
          The matplotlib Figure.
        """
        from jaxrl import plotting

        return plotting.learning_curves(self, path, metric, max_lines)

    def heatmap(self, x: str, y: str, path: str | os.PathLike[str] | None = None, metric: str | None = None) -> Figure:
        """Final IQM over two swept settings; of any further setting the best value is taken."""
        from jaxrl import plotting

        return plotting.heatmap(self, x, y, path, metric)

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Writes `results.npz` (all arrays) and `results.json` (config, info) into `directory`."""
        arrays = {f"hparams/{name}": values for name, values in self.hparams.items()}
        arrays |= {"seeds": self.seeds, "steps": self.steps}
        arrays |= {f"metrics/{name}": values for name, values in self.metrics.items()}
        manifest = {"version": FORMAT_VERSION, "config": dict(self.config), "info": dict(self.info)}
        files.write_json(Path(directory) / "results.json", manifest)
        files.write_npz(Path(directory) / "results.npz", arrays)  # last: where it is, all is

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Results:
        """Reads what `save` wrote; pickle stays disabled.

        Raises:
          ValueError: if there are no results, or they cannot be read.
        """
        directory = Path(directory)
        if not (directory / "results.npz").is_file() or not (directory / "results.json").is_file():
            raise ValueError(f"{directory} holds no results; expected results.npz and results.json in it")
        try:
            arrays = files.read_npz(directory / "results.npz")
            manifest = files.read_json(directory / "results.json")
            if manifest["version"] > FORMAT_VERSION:
                raise ValueError(f"format version {manifest['version']}, expected {FORMAT_VERSION}; upgrade jaxrl")
            fields = {
                kind: {name.removeprefix(f"{kind}/"): a for name, a in arrays.items() if name.startswith(f"{kind}/")}
                for kind in ("hparams", "metrics")
            }
            seeds, steps = arrays["seeds"], arrays["steps"]
            return cls(fields["hparams"], seeds, steps, fields["metrics"], manifest["config"], manifest["info"])
        # Damage surfaces as almost any exception of zipfile, json and NumPy's header parser.
        except Exception as error:
            raise ValueError(f"the results in {directory} cannot be read ({error})") from error


def format_value(value: Any) -> str:
    """A setting in a label: 0.0003 rather than 0.00030000000000000003."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _labels(values: Any) -> np.ndarray:
    items = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if all(isinstance(item, (bool, int, float, np.generic)) for item in items):
        return np.asarray(values)
    return np.asarray([str(item) for item in items])


def distinct(labels: np.ndarray) -> np.ndarray:
    """Distinct values: numbers ascending, strings in order of appearance."""
    values, first = np.unique(labels, return_index=True)
    return values if labels.dtype.kind in "biuf" else labels[np.sort(first)]
