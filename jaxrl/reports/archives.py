"""Archives in a report: maps whose cells can be chosen, and replays of some of those who live there."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxrl.archive_plots import cell_map
from jaxrl.plotting import ranking
from jaxrl.presets.quality_diversity import bounded_behaviour
from jaxrl.qd.archive import Archive
from jaxrl.reports.numbers import shorten
from jaxrl.reports.replays import Recorder
from jaxrl.trained import Run

_PIXELS, _MAX_SEEDS = 160, 4


def archives(run: Run, metric: str, num_replays: int, recorder: Recorder) -> dict[str, list[dict[str, Any]]]:
    """Maps of the best setting's first seeds, best seed first, and replays from the archive of that one.

    Returns:
      `archives`, one for each seed shown; `replays`, each with the `place` in the archive of whom it shows.
    """
    results = run.results
    setting = ranking(results.iqm(metric))[0]
    final = np.nan_to_num(results.final(metric)[setting], nan=-np.inf)
    shown: list[dict[str, Any]] = []
    replays: list[dict[str, Any]] = []
    for seed in results.seeds[np.argsort(-final, kind="stable")][:_MAX_SEEDS].tolist():
        archive: Archive = run.state(setting, seed).archive
        _, _, env_params = run.policy(setting, seed)
        _, low, high = bounded_behaviour(run.env, env_params)
        places = spread_places(archive, low, high, 0 if shown else num_replays)
        where = archive.descriptors if isinstance(archive.centroids, tuple) else archive.centroids
        for place in places:
            replay = recorder.record(run, setting, seed, np.asarray(where)[place].tolist())
            replays.append(replay | {"place": place})
        shown.append({"setting": setting, "seed": seed, **archive_data(archive, low, high)})
    return {"archives": shown, "replays": replays}


def spread_places(archive: Archive, low: np.ndarray, high: np.ndarray, num: int) -> list[int]:
    """Who is shown: the fittest half of `num`, then whoever is farthest from all chosen so far."""
    fitness = np.asarray(archive.fitness)
    kept = np.flatnonzero(np.isfinite(fitness))
    if num < 1 or not len(kept):
        return []
    chosen = kept[np.argsort(-fitness[kept], kind="stable")][: (num + 1) // 2].tolist()
    scaled = (np.asarray(archive.descriptors) - low) / (high - low)
    apart = np.min([np.square(scaled[kept] - scaled[place]).sum(-1) for place in chosen], axis=0)
    while len(chosen) < min(num, len(kept)):
        apart[np.isin(kept, chosen)] = -1.0
        chosen.append(int(kept[apart.argmax()]))
        apart = np.minimum(apart, np.square(scaled[kept] - scaled[chosen[-1]]).sum(-1))
    return chosen


def archive_data(archive: Archive, low: np.ndarray, high: np.ndarray) -> dict[str, Any]:
    """Who is in an archive, and maps of it: `places` [N], `fitness` [N], `descriptors` [N, D], `low`, `high` [D]; for
    each pair of axes the place that each pixel shows, as runs of equal ones."""
    fitness = np.asarray(archive.fitness)
    kept = np.flatnonzero(np.isfinite(fitness))
    num = len(low)
    pairs = [(i, i + 1) for i in range(0, num - 1, 2)] or [(0, 1)]
    flat, below, above = (archive, low, high) if num > 1 else _widened(archive, low, high)
    return {
        "size": len(fitness),
        "places": kept,
        "fitness": shorten(fitness[kept]),
        "descriptors": shorten(np.asarray(archive.descriptors)[kept]),
        "low": shorten(low),
        "high": shorten(high),
        "pixels": _PIXELS,
        "maps": [{"axes": pair, "runs": _runs(cell_map(flat, below, above, pair, _PIXELS))} for pair in pairs],
    }


def _widened(archive: Archive, low: np.ndarray, high: np.ndarray) -> tuple[Archive, np.ndarray, np.ndarray]:
    """A descriptor of one number with a second one that is always the same."""

    def widen(values: Any, by: float) -> Any:
        values = np.asarray(values)
        return np.concatenate([values, np.full_like(values, by)], axis=-1)

    centroids = () if isinstance(archive.centroids, tuple) else widen(archive.centroids, 0.5)
    wide = dataclasses.replace(archive, descriptors=widen(archive.descriptors, 0.5), centroids=centroids)
    return wide, widen(low, 0.0), widen(high, 1.0)


def _runs(places: np.ndarray) -> list[int]:
    """[place, how many pixels, place, how many, …], row by row from the lowest."""
    flat = places.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    lengths = np.diff(np.append(starts, len(flat)))
    return np.stack([flat[starts], lengths], axis=1).ravel().tolist()
