"""The toy with two horizons: its bandits, rules by hand against a loop, its intervals, and that time helps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.temporally_aware_toy import (
    COIN,
    HORIZONS,
    PREFERENCE,
    SPANS,
    Bandit,
    Config,
    TwoHorizons,
    fittest,
    hand_made,
    interval,
    judge,
    main,
    preset_config,
    table,
)

KEY = jax.random.key(0)


def test_bandits_pay_as_they_say() -> None:
    """(1 + gap) / 2 and (1 - gap) / 2 in the second quarter, exchanged in the third, else even."""
    env, keys = TwoHorizons(num_arms=3, gap=0.5), jax.random.split(jax.random.key(0), 4000)

    def pay(age: int, arm: int) -> float:
        step = jax.vmap(lambda key: env.step(key, jnp.int32(age), jnp.int32(arm), Bandit(1, 8))[1].reward)
        return float(step(keys).mean())

    for age, sign in enumerate((COIN, 0.0, 1.0, 1.0, -1.0, -1.0, 0.0, 0.0)):
        wanted = sign * np.array([-0.5, 0.5, -0.5])
        tolerance = 0.05 * (COIN if age == 0 else 1.0)
        np.testing.assert_allclose([pay(age, arm) for arm in range(3)], wanted, atol=tolerance)
    ends = [bool(env.step(keys[0], jnp.int32(age), jnp.int32(0), Bandit(1, 8))[1].terminated) for age in range(8)]
    assert ends == [False] * 7 + [True]
    drawn = jax.vmap(env.sample_params)(keys)
    assert set(np.unique(drawn.lifetime)) == set(HORIZONS)
    np.testing.assert_allclose((drawn.lifetime == HORIZONS[0]).mean(), env.short_share, atol=0.03)
    assert set(np.unique(drawn.best)) == {0, 1, 2}


def test_rules_by_hand_against_a_loop() -> None:
    """`size * reward` in NumPy, from the definition of a policy gradient: the same returns within their errors."""
    config, env, size, lifetime, num = preset_config(Config(), "none"), TwoHorizons(), 1.0, HORIZONS[0], 1500
    rng = np.random.default_rng(0)
    expected = {}
    for name, (begin, end) in SPANS.items():
        found = []
        for _ in range(num):
            first, best = rng.normal(size=env.num_arms), rng.integers(env.num_arms)
            logits = PREFERENCE * first / np.linalg.norm(first)
            for n in range(lifetime):
                policy = np.exp(logits) / np.exp(logits).sum()
                arms = rng.choice(env.num_arms, config.num_envs, p=policy)
                truth = {0: 1.0, 3: 1.0, 4: 1.0, 5: -1.0, 6: -1.0, 7: -1.0}.get(n, 0.0)  # of a life of 10
                chance = 0.5 + 0.5 * env.gap * truth * np.where(arms == best, 1, -1)
                reward = np.where(rng.random(config.num_envs) < chance, 1.0, -1.0) * (COIN if n == 0 else 1.0)
                step = size if begin <= n / lifetime < end else 0.0
                logits = logits + 4.0 * np.mean((step * reward)[:, None] * (np.eye(env.num_arms)[arms] - policy), 0)
            found.append(env.gap * (2 * np.exp(logits[best]) / np.exp(logits).sum() - 1))
        expected[name] = np.mean(found)
    judged = jax.jit(lambda span: judge(KEY, hand_made(size, span, config), config, jnp.int32(lifetime), num))
    for name, value in expected.items():
        assert float(judged(SPANS[name])) == pytest.approx(value, abs=0.04)
    assert expected["listens"] > expected["always"] + 0.1  # what there is to gain


def test_intervals() -> None:
    """Student's t for 5 values: 2.776 standard errors."""
    row = interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    half = 2.7764451 * np.sqrt(2.5 / 5)
    np.testing.assert_allclose([row["mean"], *row["interval_95"]], [3.0, 3.0 - half, 3.0 + half], rtol=1e-6)


def test_each_seed_keeps_the_fittest_of_its_evolutions() -> None:
    """Two seeds with three evolutions each; only the last of 20 generations counts."""
    fitness = np.full((6, 20), 9.0)
    fitness[:, -1] = [0.0, 2.0, 1.0, 5.0, 3.0, 4.0]
    np.testing.assert_array_equal(fittest(jnp.asarray(fitness), 3), [1, 3])


@pytest.mark.slow
def test_time_helps() -> None:
    """The fittest of five evolutions of either kind; a policy that knows nothing earns 0, the best 0.6."""
    config = Config(seeds=1, restarts=5, num_tests=500, out=None)
    arrays = main(config)
    assert arrays["time_aware/returns"].min() > 0.4
    assert (arrays["time_aware/returns"] - arrays["plain/returns"]).min() > 0.05
    rows = table(config, arrays)["horizons"]
    assert set(rows) == {str(n) for n in HORIZONS}
