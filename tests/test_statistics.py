"""Running moments against NumPy on everything seen."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from jaxrl.ops.statistics import RunningMoments, init_moments, normalize, scale, update_moments


def moments_of(batches: list[np.ndarray], shape: tuple[int, ...] = ()) -> RunningMoments:
    moments = init_moments(shape)
    for batch in batches:
        moments = update_moments(moments, jnp.asarray(batch))
    return moments


def test_merge_by_hand() -> None:
    """[1, 2] with [3, 4, 8]: mean 3.6, variance 5.84."""
    exact = RunningMoments(jnp.float32(1.5), jnp.float32(0.25), jnp.float32(2.0))
    merged = update_moments(exact, jnp.array([3.0, 4.0, 8.0]))
    np.testing.assert_allclose([merged.mean, merged.var, merged.count], [3.6, 5.84, 5.0], rtol=1e-6)
    from_nothing = moments_of([np.array([1.0, 2.0]), np.array([3.0, 4.0, 8.0])])
    np.testing.assert_allclose([from_nothing.mean, from_nothing.var], [3.6, 5.84], rtol=1e-3)


def test_any_split_into_batches_gives_the_same() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(3.0, 2.0, (60, 4)).astype(np.float32)
    mean, var = oracles.mean_and_variance([rows])
    for batches in ([rows], np.split(rows, 6), [rows[:1], rows[1:2], rows[2:]], [rows.reshape(5, 12, 4)]):
        moments = moments_of(batches, (4,))
        np.testing.assert_allclose(moments.mean, mean, rtol=1e-4)
        np.testing.assert_allclose(moments.var, var, rtol=1e-4)
        assert moments.count == pytest.approx(60, abs=1e-2)


def test_long_streams_stay_accurate() -> None:
    """A mean of many deviations and many samples: a difference of float32 squares would lose the variance."""
    rng = np.random.default_rng(1)
    batches = [rng.normal(100.0, 0.5, 256).astype(np.float32) for _ in range(100)]
    mean, var = oracles.mean_and_variance(batches)
    moments = jax.lax.scan(lambda m, x: (update_moments(m, x), None), init_moments(()), jnp.stack(batches))[0]
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(moments.var, var, rtol=1e-3)


def test_integers_are_counted_as_numbers() -> None:
    moments = moments_of([np.array([[0, 255], [255, 255]], np.uint8)], (2,))
    np.testing.assert_allclose(moments.mean, [127.5, 255.0], rtol=1e-4)
    np.testing.assert_allclose(moments.var, [127.5**2, 0.0], rtol=1e-3, atol=4.0)  # the prior weighs 1e-4


def test_fresh_moments_change_nothing_and_normalised_data_is_standard() -> None:
    x = jnp.array([[0.5, -3.0], [2.0, 0.0]])
    np.testing.assert_allclose(normalize(init_moments((2,)), x), x, rtol=1e-6)
    rows = np.random.default_rng(2).normal([5.0, -2.0], [0.1, 30.0], (500, 2)).astype(np.float32)
    standard = np.asarray(normalize(moments_of([rows], (2,)), jnp.asarray(rows)))
    np.testing.assert_allclose(standard.mean(0), 0.0, atol=2e-3)
    np.testing.assert_allclose(standard.std(0), 1.0, atol=2e-3)


def test_outliers_are_clipped_and_scaling_keeps_signs() -> None:
    moments = RunningMoments(jnp.float32(5.0), jnp.float32(4.0), jnp.float32(10.0))
    np.testing.assert_allclose(normalize(moments, jnp.array([7.0, 1e6, -1e6])), [1.0, 10.0, -10.0], rtol=1e-6)
    np.testing.assert_allclose(scale(moments, jnp.array([4.0, -2.0, 1e6])), [2.0, -1.0, 10.0], rtol=1e-6)


def test_a_constant_stream_stays_finite() -> None:
    moments = moments_of([np.full(1000, 3.0, np.float32)] * 50)
    assert np.isfinite(normalize(moments, jnp.float32(3.0)))
    assert abs(float(normalize(moments, jnp.float32(3.0)))) < 0.1
