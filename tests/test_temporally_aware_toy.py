"""The toy with two horizons: its bandits, rules by hand against a loop, its intervals, and that time helps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.temporally_aware_toy import (
    HORIZONS,
    PREFERENCE,
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
    """(1 + gap) / 2 and (1 - gap) / 2, from half of the life on the other way round; the episode is a whole life."""
    env, keys = TwoHorizons(num_arms=3, gap=0.5), jax.random.split(jax.random.key(0), 4000)

    def pay(age: int, arm: int) -> float:
        step = jax.vmap(lambda key: env.step(key, jnp.int32(age), jnp.int32(arm), Bandit(1, 6))[1].reward)
        return float(step(keys).mean())

    for age, sign in ((0, 1.0), (2, 1.0), (3, -1.0), (5, -1.0)):
        np.testing.assert_allclose([sign * pay(age, arm) for arm in range(3)], [-0.5, 0.5, -0.5], atol=0.05)
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
    for stops in (False, True):
        found = []
        for _ in range(num):
            first, best = rng.normal(size=env.num_arms), rng.integers(env.num_arms)
            logits = PREFERENCE * first / np.linalg.norm(first)
            for n in range(lifetime):
                policy = np.exp(logits) / np.exp(logits).sum()
                arms = rng.choice(env.num_arms, config.num_envs, p=policy)
                lead = env.gap if 2 * n < lifetime else -env.gap
                chance = 0.5 + 0.5 * lead * np.where(arms == best, 1, -1)
                reward = np.where(rng.random(config.num_envs) < chance, 1.0, -1.0)
                step = 0.0 if stops and 2 * n >= lifetime else size
                logits = logits + 4.0 * np.mean((step * reward)[:, None] * (np.eye(env.num_arms)[arms] - policy), 0)
            found.append(env.gap * (2 * np.exp(logits[best]) / np.exp(logits).sum() - 1))
        expected[stops] = np.mean(found)
    judged = jax.jit(lambda w: judge(KEY, hand_made(size, w, config), config, jnp.int32(lifetime), num))
    for stops, value in expected.items():
        assert float(judged(stops)) == pytest.approx(value, abs=0.04)
    assert expected[True] > expected[False] + 0.1  # what there is to gain


def test_intervals() -> None:
    """Student's t for 5 values: 2.776 standard errors."""
    row = interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    half = 2.7764451 * np.sqrt(2.5 / 5)
    np.testing.assert_allclose([row["mean"], *row["interval_95"]], [3.0, 3.0 - half, 3.0 + half], rtol=1e-6)


@pytest.mark.slow
def test_both_kinds_of_rule_learn() -> None:
    """A smaller run than the committed one; a policy that knows nothing earns 0.6 (2/4 - 1)."""
    config = Config(seeds=2, generations=200, num_tests=500, out=None)
    arrays = main(config)
    for name in ("plain", "time_aware"):
        assert (arrays[f"{name}/returns"].mean(0) > -0.3 + 0.1).all()
    rows = table(config, arrays)["horizons"]
    assert set(rows) == {str(n) for n in HORIZONS}
