"""Statistics over seeds against numbers worked out by hand, and SciPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats

from jaxrl.reporting import bootstrap, iqm, performance_profile, stratified_bootstrap


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 2.0, 6.0], 3.0),  # fewer than 4: nothing is dropped
        ([100.0, 1.0, 2.0, 4.0], 3.0),  # sorted 1 2 4 100
        ([5.0, 1.0, 2.0, 9.0, 4.0], 11 / 3),  # 2 4 5
        ([1, 2, 3, 4, 5, 6, 7], 4.0),  # 2 … 6
        ([8, 7, 6, 5, 4, 3, 2, 1], 4.5),  # 3 … 6
        ([-np.inf, 0.0, 1.0, 2.0], 0.5),
    ],
)
def test_iqm_by_hand(values: list[float], expected: float) -> None:
    assert iqm(values) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("n", range(1, 14))
def test_iqm_is_scipys_trimmed_mean(n: int) -> None:
    values = np.random.default_rng(n).normal(size=(3, n, 2))
    np.testing.assert_allclose(iqm(values, axis=1), scipy.stats.trim_mean(values, 0.25, axis=1), rtol=1e-13)
    np.testing.assert_allclose(iqm(values, axis=(0, 2)), iqm(values.swapaxes(0, 1).reshape(n, 6), axis=1), rtol=1e-13)
    np.testing.assert_allclose(iqm(values), scipy.stats.trim_mean(values.ravel(), 0.25), rtol=1e-13)


def test_iqm_refuses_to_forget_and_to_invent() -> None:
    np.testing.assert_array_equal(iqm([[1, 2, 3, 4], [1, 2, 3, np.nan]], axis=1), [2.5, np.nan])
    with pytest.raises(ValueError, match="at least one value"):
        iqm(np.zeros((3, 0)), axis=1)


def test_bootstrap_finds_the_exact_distribution() -> None:
    """The mean of 3 draws from {0, 1, 5}: 27 equally likely samples, so exact quantiles are known."""
    exact = np.sort([np.mean(sample) for sample in itertools.product([0.0, 1.0, 5.0], repeat=3)])
    expected = exact[2], exact[24]  # 10 % and 90 % of 27; both lie inside a run of equal values, away from its edges
    assert expected == (1 / 3, 11 / 3)
    scores = np.array([[0.0], [1.0], [5.0]])
    point, low, high = stratified_bootstrap(scores, np.mean, num_resamples=20_000, confidence=0.8)
    assert (point, low, high) == pytest.approx((2.0, *expected))
    curve = bootstrap(np.stack([scores[:, 0], 10 * scores[:, 0]], 1), np.mean, num_resamples=20_000, confidence=0.8)
    np.testing.assert_allclose(curve.low, [expected[0], 10 * expected[0]])
    np.testing.assert_allclose(curve.high, [expected[1], 10 * expected[1]])


def test_bootstrap_stays_within_its_stratum() -> None:
    """Tasks whose seeds agree have no spread, however far apart the tasks are."""
    scores = np.tile([0.0, 10.0, 1000.0, 50.0], (5, 1))
    point, low, high = stratified_bootstrap(scores, np.mean)
    assert (point, low, high) == (265.0, 265.0, 265.0)


def test_bootstrap_is_reproducible_and_widens_with_confidence() -> None:
    scores = np.random.default_rng(0).normal(size=(8, 3))
    assert stratified_bootstrap(scores, seed=1) == stratified_bootstrap(scores, seed=1)
    narrow, wide = (stratified_bootstrap(scores, confidence=c) for c in (0.5, 0.95))
    assert wide.low < narrow.low < narrow.point < narrow.high < wide.high


def test_bootstrap_coverage() -> None:
    """Of 300 experiments with 10 seeds nearly 95 % of the intervals hold the true mean (the percentile one: 90 %)."""
    samples = np.random.default_rng(0).normal(size=(10, 300))
    _, low, high = bootstrap(samples, np.mean, num_resamples=1000)
    assert 0.86 < np.mean((low < 0) & (high > 0)) < 0.96


def test_bootstrap_in_parts_equals_bootstrap_at_once() -> None:
    values = np.random.default_rng(0).normal(size=(8, 300, 2))  # 1,200,000 draws and more: several parts
    whole, part = bootstrap(values), bootstrap(values[:, 200:210])
    np.testing.assert_array_equal(whole.low[200:210], part.low)
    assert whole.point.shape == (300, 2)


def test_one_seed_has_no_interval() -> None:
    assert np.isnan(stratified_bootstrap(np.array([[1.0, 2.0]]))[1:]).all()
    assert np.isnan(bootstrap(np.array([[1.0, 2.0]])).high).all()


def test_missing_scores_reach_the_interval() -> None:
    point, low, high = bootstrap(np.array([[1.0, np.nan], [2.0, 2.0]]), np.mean)
    assert np.isnan([point[1], low[1], high[1]]).all()
    assert np.isfinite([point[0], low[0], high[0]]).all()


def test_infinite_scores_give_infinite_bounds() -> None:
    point, low, high = stratified_bootstrap(np.array([[-np.inf], [1.0], [2.0], [3.0], [4.0]]))
    assert (point, low) == (2.0, -np.inf)
    assert high <= 4.0


def test_performance_profile_by_hand() -> None:
    scores = np.array([[0.0, 1.0], [2.0, 3.0], [2.0, np.nan]])
    point, low, high = performance_profile(scores, np.array([-1.0, 0.0, 1.0, 2.0, 3.0]))
    np.testing.assert_allclose(point, [5 / 6, 4 / 6, 3 / 6, 1 / 6, 0.0])
    assert (low <= point).all()
    assert (point <= high).all()
    assert high[-1] == 0.0


@pytest.mark.parametrize("shape", [(3,), (0, 2), (3, 0), (2, 2, 2)])
def test_shapes_are_checked(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[seeds, cells\]"):
        stratified_bootstrap(np.zeros(shape))


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="confidence"):
        bootstrap(np.zeros((2, 2)), confidence=95)
    with pytest.raises(ValueError, match="num_resamples"):
        stratified_bootstrap(np.zeros((2, 2)), num_resamples=0)
