"""The toy with two horizons: its bandits, rules by hand against a loop, its intervals, and that time helps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.temporally_aware_toy import (
    HORIZONS,
    Bandit,
    Config,
    TwoHorizons,
    hand_made,
    interval,
    judge,
    main,
    preset_config,
    table,
)

KEY = jax.random.key(0)


def test_bandits_pay_as_they_say() -> None:
    """Nothing before half of the life, then (1 + gap) / 2 and (1 - gap) / 2; the episode is as long as the life."""
    env, keys = TwoHorizons(num_arms=3, gap=0.5), jax.random.split(jax.random.key(0), 4000)

    def pay(age: int, arm: int) -> float:
        step = jax.vmap(lambda key: env.step(key, jnp.int32(age), jnp.int32(arm), Bandit(1, 6))[1].reward)
        return float(step(keys).mean())

    np.testing.assert_allclose([pay(age, arm) for age in (0, 2) for arm in range(3)], 0.0, atol=0.05)
    for age in (3, 5):
        np.testing.assert_allclose([pay(age, arm) for arm in range(3)], [-0.5, 0.5, -0.5], atol=0.05)
    ends = [bool(env.step(keys[0], jnp.int32(age), jnp.int32(0), Bandit(1, 6))[1].terminated) for age in range(6)]
    assert ends == [False] * 5 + [True]
    drawn = jax.vmap(env.sample_params)(keys)
    assert set(np.unique(drawn.lifetime)) == set(HORIZONS)
    np.testing.assert_allclose((drawn.lifetime == HORIZONS[0]).mean(), env.short_share, atol=0.03)
    assert set(np.unique(drawn.best)) == {0, 1, 2}


def test_rules_by_hand_against_a_loop() -> None:
    """`size * reward` in NumPy, from the definition of a policy gradient: the same returns within their errors."""
    config, env, size, lifetime, num = preset_config(Config(), "none"), TwoHorizons(), 0.5, HORIZONS[0], 1500
    rng = np.random.default_rng(0)
    expected = {}
    for waits in (False, True):
        found = []
        for _ in range(num):
            logits, best = np.zeros(env.num_arms), rng.integers(env.num_arms)
            for n in range(lifetime):
                policy = np.exp(logits) / np.exp(logits).sum()
                arms = rng.choice(env.num_arms, config.num_envs, p=policy)
                lead = 0.0 if 2 * n < lifetime else env.gap
                chance = 0.5 + 0.5 * lead * np.where(arms == best, 1, -1)
                reward = np.where(rng.random(config.num_envs) < chance, 1.0, -1.0)
                step = 0.0 if waits and 2 * n < lifetime else size
                # Twice the rate: the one observation's kernel moves, and so does the bias.
                logits = logits + 8.0 * np.mean((step * reward)[:, None] * (np.eye(env.num_arms)[arms] - policy), 0)
            found.append(env.gap * (2 * np.exp(logits[best]) / np.exp(logits).sum() - 1))
        expected[waits] = np.mean(found)
    judged = jax.jit(lambda w: judge(KEY, hand_made(size, w, config), config, jnp.int32(lifetime), num))
    for waits, value in expected.items():
        assert float(judged(waits)) == pytest.approx(value, abs=0.04)
    assert expected[True] > expected[False] + 0.1  # what there is to gain


def test_intervals() -> None:
    """Student's t for 5 values: 2.776 standard errors."""
    row = interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    half = 2.7764451 * np.sqrt(2.5 / 5)
    np.testing.assert_allclose([row["mean"], *row["interval_95"]], [3.0, 3.0 - half, 3.0 + half], rtol=1e-6)


@pytest.mark.slow
def test_rules_learn() -> None:
    """A small run: both kinds of rule, at both horizons, against a uniform policy, whose return is 0.5 (2/4 - 1)."""
    config = Config(seeds=2, generations=100, num_tests=500, out=None)
    arrays = main(config)
    for name in ("plain", "time_aware"):
        assert (arrays[f"{name}/returns"] > -0.25 + 0.1).all()
    rows = table(config, arrays)["horizons"]
    assert set(rows) == {str(n) for n in HORIZONS}
