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
    age_of,
    hand_made,
    interval,
    judge,
    main,
    preset_config,
    table,
)

KEY = jax.random.key(0)


def test_bandits_pay_as_they_say() -> None:
    """By thirds of the life: at random, (1 + gap) / 2 and (1 - gap) / 2, the opposite; afterwards the truth again."""
    env, keys = TwoHorizons(num_arms=3, gap=0.5), jax.random.split(jax.random.key(0), 4000)

    def pay(age: int, arm: int) -> float:
        step = jax.vmap(lambda key: env.step(key, jnp.int32(age), jnp.int32(arm), Bandit(1, 6))[1].reward)
        return float(step(keys).mean())

    truth = np.array([-0.5, 0.5, -0.5])
    for age, sign in ((0, 0), (1, 0), (2, 1), (3, 1), (4, -1), (5, -1), (6, 1), (15, 1)):
        np.testing.assert_allclose([pay(age, arm) for arm in range(3)], sign * truth, atol=0.06)
    for lifetime in HORIZONS:
        signs = [int(age_of(n / lifetime)) for n in range(lifetime)]
        assert signs == [sign for sign in (0, 1, -1) for _ in range(lifetime // 3)]
    ends = [bool(env.step(keys[0], jnp.int32(age), jnp.int32(0), Bandit(1, 6))[1].terminated) for age in range(16)]
    assert ends == [False] * 15 + [True]
    drawn = jax.vmap(env.sample_params)(keys)
    assert set(np.unique(drawn.lifetime)) == set(HORIZONS)
    np.testing.assert_allclose((drawn.lifetime == HORIZONS[0]).mean(), env.short_share, atol=0.03)
    assert set(np.unique(drawn.best)) == {0, 1, 2}


def test_rules_by_hand_against_a_loop() -> None:
    """`size * reward` in NumPy, from the definition of a policy gradient: the same returns within their errors."""
    config, env, size, lifetime, num = preset_config(Config(), "none"), TwoHorizons(), 0.5, HORIZONS[0], 1500
    rng = np.random.default_rng(0)
    expected = {}
    for attends in (False, True):
        found = []
        for _ in range(num):
            logits, best = np.zeros(env.num_arms), rng.integers(env.num_arms)
            for n in range(lifetime):
                policy = np.exp(logits) / np.exp(logits).sum()
                arms = rng.choice(env.num_arms, config.num_envs, p=policy)
                sign = (0, 1, -1)[3 * n // lifetime]
                lead = sign * env.gap
                chance = 0.5 + 0.5 * lead * np.where(arms == best, 1, -1)
                reward = np.where(rng.random(config.num_envs) < chance, 1.0, -1.0)
                step = size * sign if attends else size
                # Twice the rate: the one observation's kernel moves, and so does the bias.
                logits = logits + 8.0 * np.mean((step * reward)[:, None] * (np.eye(env.num_arms)[arms] - policy), 0)
            found.append(env.gap * (2 * np.exp(logits[best]) / np.exp(logits).sum() - 1))
        expected[attends] = np.mean(found)
    judged = jax.jit(lambda w: judge(KEY, hand_made(size, w, config), config, jnp.int32(lifetime), num))
    for attends, value in expected.items():
        assert float(judged(attends)) == pytest.approx(value, abs=0.04)
    assert expected[True] > expected[False] + 0.1  # what there is to gain


def test_intervals() -> None:
    """Student's t for 5 values: 2.776 standard errors."""
    row = interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    half = 2.7764451 * np.sqrt(2.5 / 5)
    np.testing.assert_allclose([row["mean"], *row["interval_95"]], [3.0, 3.0 - half, 3.0 + half], rtol=1e-6)


@pytest.mark.slow
def test_time_helps() -> None:
    """A small run: with time a rule gets further at both horizons, and its targets depend on time."""
    config = Config(seeds=2, generations=250, num_tests=500, out=None)
    arrays = main(config)
    assert (arrays["time_aware/returns"] > arrays["plain/returns"]).all()
    rows = table(config, arrays)["horizons"]
    assert set(rows) == {str(n) for n in HORIZONS}
    assert all(row["derivative"]["mean"] > 0.01 for row in rows.values())
