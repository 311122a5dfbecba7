"""The toy with two horizons: its bandits by hand, its intervals, and that rules of both kinds learn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.temporally_aware_toy import HORIZONS, Bandit, Config, TwoHorizons, interval, main, table


def test_bandits_pay_as_they_say() -> None:
    env, keys = TwoHorizons(num_arms=3, gap=0.5), jax.random.split(jax.random.key(0), 4000)
    pay = jax.vmap(lambda key, arm: env.step(key, jnp.int32(0), arm, Bandit(1, 3))[1].reward, (0, None))
    means = [float(pay(keys, jnp.int32(arm)).mean()) for arm in range(3)]
    np.testing.assert_allclose(means, [-0.5, 0.5, -0.5], atol=0.05)
    drawn = jax.vmap(env.sample_params)(keys)
    assert set(np.unique(drawn.lifetime)) == set(HORIZONS)
    np.testing.assert_allclose((drawn.lifetime == HORIZONS[0]).mean(), env.short_share, atol=0.03)
    assert set(np.unique(drawn.best)) == {0, 1, 2}


def test_intervals() -> None:
    """Student's t for 5 values: 2.776 standard errors."""
    row = interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    half = 2.7764451 * np.sqrt(2.5 / 5)
    np.testing.assert_allclose([row["mean"], *row["interval_95"]], [3.0, 3.0 - half, 3.0 + half], rtol=1e-6)


@pytest.mark.slow
def test_rules_learn() -> None:
    """A small run: both kinds of rule, at both horizons, against a uniform policy, whose return is 0.4 (2/5 - 1)."""
    config = Config(seeds=2, generations=60, num_pairs=32, num_tests=500, out=None)
    arrays = main(config)
    for name in ("plain", "time_aware"):
        assert (arrays[f"{name}/returns"] > -0.24 + 0.1).all()
    rows = table(config, arrays)["horizons"]
    assert set(rows) == {str(n) for n in HORIZONS}
