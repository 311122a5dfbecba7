"""Statistics of a few seeds: interquartile means, stratified bootstrap intervals, performance profiles.

Host side, NumPy only. Scores are [S, C]: S seeds (runs) of each of C cells, which are tasks, or settings of one task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

Statistic = Callable[..., np.ndarray]  # (values, axis=…) -> reduced over that axis or those axes, as np.mean does


class Estimate(NamedTuple):
    """A statistic and its bootstrap interval; numbers, or arrays of one shape."""

    point: np.ndarray
    low: np.ndarray
    high: np.ndarray


def iqm(values: np.ndarray, axis: int | tuple[int, ...] | None = None) -> np.ndarray:
    """Interquartile mean: the mean of the middle half, robust to outliers yet more efficient than the median.

    Of n sorted values the floor(n / 4) lowest and as many of the highest are dropped and the rest averaged with equal
    weights, as `scipy.stats.trim_mean(values, 0.25)` and rliable do: for n = 5 the middle 3, for n = 8 the middle 4,
    for n < 4 all. NaN propagates: a run without a score is not a run to be forgotten.

    >>> float(iqm([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 100.0]))
    4.5

    Args:
      values: array of any shape.
      axis: one axis, or several which are pooled; all by default.
    Returns:
      Float array with `axis` removed.
    Raises:
      ValueError: if there is nothing along `axis`.
    References:
      Agarwal et al. 2021, arXiv:2108.13264, sec. 4.3.
    """
    values = np.asarray(values, np.float64)
    axes = tuple(range(values.ndim)) if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
    values = np.moveaxis(values, axes, range(-len(axes), 0))
    values = np.sort(values.reshape(*values.shape[: values.ndim - len(axes)], -1), axis=-1)
    num = values.shape[-1]
    if num == 0:
        raise ValueError("iqm needs at least one value along its axis, got none")
    cut = num // 4
    return np.where(np.isnan(values[..., -1]), np.nan, values[..., cut : num - cut].mean(-1))  # NaN sorts last


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over the last axis; entries of weight zero are absent, NaN with a weight propagates.

    Args:
      values, weights: [..., N]; weights >= 0.
    Returns:
      [...], NaN where all weights are zero.
    """
    total = weights.sum(-1)
    weighted = np.where(weights > 0, values, 0.0) * weights
    return np.where(total > 0, weighted.sum(-1) / np.where(total > 0, total, 1.0), np.nan)


def stratified_bootstrap(
    scores: np.ndarray,
    statistic: Statistic = iqm,
    num_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """A statistic of all scores together, with a percentile interval; seeds are resampled within each cell.

    Args:
      scores: [S, C].
      statistic: reduces both axes of `scores`; `iqm`, `np.mean`, `np.median`, or alike.
      num_resamples: bootstrap samples.
      confidence: of the interval, in (0, 1).
      seed: of the resampling, so that figures can be made again.
    Returns:
      `Estimate` of floats. With one seed nothing is known about the spread and the bounds are NaN.
    Raises:
      ValueError: if `scores` is not [S, C] or empty, or a setting is out of range.
    References:
      Agarwal et al. 2021, arXiv:2108.13264, sec. 4.1.
    """
    scores = _check_scores(scores, num_resamples, confidence)
    point = statistic(scores, axis=(0, 1))
    draws = [statistic(chunk, axis=(1, 2)) for chunk in _resamples(scores, num_resamples, seed)]
    return _estimate(point, np.concatenate(draws), confidence, scores.shape[0])


def bootstrap(
    values: np.ndarray,
    statistic: Statistic = iqm,
    num_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """A statistic over seeds of each entry by itself, with percentile intervals: learning curves, cells of a sweep.

    Args:
      values: [S, …].
      statistic: reduces one axis.
      num_resamples, confidence, seed: as for `stratified_bootstrap`.
    Returns:
      `Estimate` of arrays […]; the bounds are NaN with one seed.
    Raises:
      ValueError: as for `stratified_bootstrap`.
    """
    values = np.asarray(values, np.float64)
    flat = _check_scores(values.reshape(len(values), -1), num_resamples, confidence)
    # One draw of seeds for all entries: a curve is resampled as a whole.
    index = np.random.default_rng(seed).integers(0, len(flat), (num_resamples, len(flat)))
    parts = []
    width = max(1, 4_000_000 // index.size)
    for start in range(0, flat.shape[1], width):
        part = flat[:, start : start + width]
        parts.append(_estimate(statistic(part, axis=0), statistic(part[index], axis=1), confidence, len(flat)))
    joined = (np.concatenate(arrays).reshape(values.shape[1:]) for arrays in zip(*parts, strict=True))
    return Estimate(*joined)


def performance_profile(
    scores: np.ndarray,
    thresholds: np.ndarray,
    num_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Share of runs that score above each threshold, over all cells, with pointwise stratified bootstrap intervals.

    Args:
      scores: [S, C]; NaN is above no threshold.
      thresholds: [N].
      num_resamples, confidence, seed: as for `stratified_bootstrap`.
    Returns:
      `Estimate` of arrays [N].
    Raises:
      ValueError: as for `stratified_bootstrap`.
    References:
      Agarwal et al. 2021, arXiv:2108.13264, sec. 4.2 (run-score distributions).
    """
    scores = _check_scores(scores, num_resamples, confidence)
    thresholds = np.asarray(thresholds, np.float64)

    def shares(samples: np.ndarray) -> np.ndarray:
        return np.stack([(samples > threshold).mean((-2, -1)) for threshold in thresholds], axis=-1)

    draws = [shares(chunk) for chunk in _resamples(scores, num_resamples, seed)]
    return _estimate(shares(scores), np.concatenate(draws), confidence, scores.shape[0])


def _check_scores(scores: np.ndarray, num_resamples: int, confidence: float) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(f"scores must be [seeds, cells], neither empty, got shape {scores.shape}; use scores[:, None]")
    if num_resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"the bootstrap needs num_resamples >= 1 and 0 < confidence < 1, got {num_resamples} and {confidence}"
        )
    return scores


def _resamples(scores: np.ndarray, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Chunks [r, S, C], `num_resamples` in all: seeds drawn with replacement, for each cell by itself."""
    rng = np.random.default_rng(seed)
    for done in range(0, num_resamples, 500):
        index = rng.integers(0, len(scores), (min(500, num_resamples - done), *scores.shape))
        yield np.take_along_axis(scores[None], index, 1)


def _estimate(point: np.ndarray, draws: np.ndarray, confidence: float, num_seeds: int) -> Estimate:
    if num_seeds == 1:
        return Estimate(point, np.full_like(point, np.nan), np.full_like(point, np.nan))
    tail = (1 - confidence) / 2
    # The bounds are draws themselves: interpolation between two infinite scores would be NaN.
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0, method="nearest")
    return Estimate(point, low, high)
