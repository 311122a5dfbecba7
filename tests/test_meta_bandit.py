"""The bandit over agents' numbers: its draws by hand, what it remembers, and that it finds the arm that pays."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_meta_gradient import KEY, TINY, world

from jaxrl.algorithm import init, train
from jaxrl.meta.bandit import BanditState, arm_logits, bandit_levels
from jaxrl.presets import find_preset
from jaxrl.presets.meta import MetaConfig, MetaHparams, lpg
from jaxrl_envs.gridworld import HANDCRAFTED, handcrafted, handcrafted_set, optimal_return

E, C, L = 2, 3, 4


@dataclasses.dataclass
class Numbers:
    bandit_temperature: float = 0.5
    bandit_bonus: float = 0.2


def a_task(key: Any) -> tuple[jax.Array, jax.Array]:
    task = jax.random.bernoulli(key).astype(jnp.int32)
    return 10 * task, task


SAMPLER = bandit_levels(a_task, E, C, L, Numbers())


def test_logits_by_hand() -> None:
    total, count = np.array([[3.0, 1.0, 0.0]]), np.array([[3, 2, 4]])
    n = 9
    expected = [
        (1.0 + 0.2 * np.sqrt(np.log(1 + n) / 3)) / 0.5,
        (0.5 + 0.2 * np.sqrt(np.log(1 + n) / 2)) / 0.5,
        (0.0 + 0.2 * np.sqrt(np.log(1 + n) / 4)) / 0.5,
    ]
    np.testing.assert_allclose(arm_logits(jnp.array(total), jnp.array(count), 0.5, 0.2)[0], expected, rtol=1e-6)


def test_arms_without_a_return_go_first() -> None:
    logits = arm_logits(jnp.array([9.0, 0.0, 0.0]), jnp.array([1, 0, 0]), 0.5, 0.2)
    np.testing.assert_array_equal(logits, [-np.inf, 0.0, 0.0])


def test_returns_are_added_where_they_were_earned() -> None:
    """Against a loop; padding, and a return that is NaN, are left out."""
    state = SAMPLER.init(KEY)
    total, count = np.zeros((E, C)), np.zeros((E, C), int)
    rng = np.random.default_rng(0)
    tasks, arms = np.zeros(L, int), np.zeros(L, int)
    for turn in range(30):
        slots = np.r_[rng.permutation(L)[:2], L]  # the last is padding
        drawn, state = SAMPLER.sample(jax.random.key(turn), state, jnp.asarray(slots))
        np.testing.assert_array_equal(drawn.level, 10 * np.r_[np.asarray(state.task)[slots[:2]], drawn.level[2] // 10])
        tasks[slots[:2]], arms[slots[:2]] = np.asarray(drawn.level)[:2] // 10, np.asarray(drawn.arm)[:2]
        scores = rng.normal(size=3).astype(np.float32)
        if turn % 5 == 0:
            scores[0] = np.nan
        for slot, score in zip(slots[:2], scores, strict=False):
            if not np.isnan(score):
                total[tasks[slot], arms[slot]] += score
                count[tasks[slot], arms[slot]] += 1
        state = SAMPLER.update(state, jnp.asarray(slots), jnp.asarray(scores))
    np.testing.assert_array_equal(state.count, count)
    np.testing.assert_allclose(state.total, total, atol=1e-5)
    assert count.min() >= 1


def test_the_better_arm_of_each_task_is_drawn_more() -> None:
    count = jnp.full((E, C), 50)
    state = BanditState(count * jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), count, *jnp.zeros((2, L), jnp.int32))
    sample = jax.jit(jax.vmap(lambda key: SAMPLER.sample(key, state, jnp.arange(L))[0]))
    drawn = sample(jax.random.split(KEY, 500))
    for task, best in ((0, 0), (1, 2)):
        arms = np.asarray(drawn.arm)[np.asarray(drawn.level) == 10 * task]
        # A difference of 1 in the mean at temperature 1/2: e^2 to 1 to 1.
        share = np.exp(2.0) / (np.exp(2.0) + 2.0)
        assert abs(np.mean(arms == best) - share) < 5 * np.sqrt(share * (1 - share) / len(arms))


def test_arms_are_pairs_of_numbers() -> None:
    config = dataclasses.replace(TINY, bandit_learning_rates=(20.0, 40.0), bandit_prediction_coefs=(0.1, 0.5, 1.0))
    pairs = [config.with_arm(MetaHparams(), jnp.int32(arm)) for arm in range(config.num_arms)]
    found = [(float(hp.learning_rate), round(float(hp.prediction_coef), 6)) for hp in pairs]
    assert found == [(rate, coef) for rate in (20.0, 40.0) for coef in (0.1, 0.5, 1.0)]
    rates_only = dataclasses.replace(TINY, bandit_learning_rates=(20.0, 40.0)).with_arm(MetaHparams(), jnp.int32(1))
    assert (float(rates_only.learning_rate), rates_only.prediction_coef) == (40.0, MetaHparams().prediction_coef)


@pytest.mark.thorough
def test_a_rate_that_freezes_agents_is_given_to_fewer() -> None:
    """Meta-training as a whole: the lifetimes' returns reach their arms, and the arms their agents."""
    config = dataclasses.replace(TINY, bandit_learning_rates=(0.0, 5.0), num_lifetimes=4)
    algorithm = lpg(world(), config, MetaHparams())
    state = jax.jit(lambda key: init(key, algorithm))(KEY)
    assert set(np.asarray(state.slots.level.arm).tolist()) <= {0, 1}
    after, metrics = jax.jit(lambda key, state: train(key, algorithm, 6, state))(KEY, state)
    ended = int(metrics["lifetime/count"].sum())
    assert int(after.levels.count.sum()) == ended > 4
    totals = float(np.nansum(metrics["lifetime/score"] * metrics["lifetime/count"]))
    np.testing.assert_allclose(float(after.levels.total.sum()), totals, atol=1e-4)
    # Agents of arm 0 have the parameters that they began with.
    frozen = np.asarray(state.slots.level.arm) == 0
    one, _ = jax.jit(algorithm.step)(jax.random.key(5), state, jnp.int32(0))
    for old, new in zip(*(jax.tree.leaves(s.slots.state.agent.agent.params) for s in (state, one)), strict=True):
        moved = np.abs(np.asarray(new) - np.asarray(old)).reshape(len(frozen), -1).max(-1) > 0
        assert not moved[frozen & (np.asarray(one.slots.age) > 0)].any()
        assert moved[~frozen & (np.asarray(one.slots.age) > 0)].all()


def test_the_published_preset() -> None:
    config = find_preset("lpg2020").config
    assert isinstance(config, MetaConfig)
    assert (config.num_arms, config.core, config.target_width, config.include_gamma) == (9, "lstm", 30, True)
    tiny = dataclasses.replace(config, num_lifetimes=4, lifetime_batch=4, num_envs=2, num_steps=2, width=4)
    shapes = jax.eval_shape(lambda key: init(key, lpg(handcrafted_set(), tiny)), KEY)
    assert shapes.levels.count.shape == (5, 9)  # a bandit for each level


def test_a_bandit_and_a_curriculum_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="score = 'alg_regret' with a bandit.*use score = 'uniform'"):
        dataclasses.replace(TINY, score="alg_regret", bandit_learning_rates=(20.0,))


@pytest.mark.parametrize("index", [0, 4])
def test_padded_levels_are_the_same_levels(index: int) -> None:
    name = ("dense", "sparse", "long_horizon", "longer_horizon", "long_dense")[index]
    whole, alone = handcrafted_set(), handcrafted(name)
    level = jax.tree.map(lambda leaf: leaf[index], whole.levels)
    assert (int(level.limit), int(level.lifetime)) == (int(alone.default_params.limit), 2343)
    short = [lv.replace(limit=np.int32(12)) for lv in (level, HANDCRAFTED[name].default_params)]
    expected = float(optimal_return(short[1], alone))
    np.testing.assert_allclose(float(optimal_return(short[0], whole)), expected, atol=1e-5)
    assert expected > 0
