"""Scores of learned rules: bootstraps and normalised returns by hand, and lifetimes on held-out levels."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.meta_scores import (
    baseline_scores,
    crossed_bootstrap,
    fraction_above,
    normalized,
    random_return,
    share_of_optimum,
)
from jaxrl.meta_testing import LevelReturns, level_returns, meta_test
from jaxrl.objectives.lpg import LPGConfig, lpg_init
from jaxrl.objectives.lpo import LPOConfig, lpo_init
from jaxrl.presets import MetaConfig, MetaHparams
from jaxrl.presets.meta import lpg
from jaxrl.results import Results
from jaxrl.rules import KINDS, Rule, save_rule
from jaxrl_envs.gridworld import LevelDistribution, grid_random, optimal_return, policy_value

CONFIG = LPGConfig(width=4, target_width=3, embedding_width=2)
# Every level has one object, which is worth something, close by; an agent lives for 12 to 24 updates.
EASY = LevelDistribution((2, 3), (6, 12), (1, 1), 0, (12, 24), p_respawn=(0.5, 1.0), p_term=(0.01, 0.02))
AGENTS = MetaConfig(total_steps=10**8, num_lifetimes=2, lifetime_batch=2, num_envs=6, num_steps=8)


def a_rule(seed: int, config: LPGConfig = CONFIG) -> Rule:
    return Rule("lpg", config, jax.jit(lambda key: lpg_init(key, config))(jax.random.key(seed)), {})


# ---------------------------------------------------------------------------------------------- scores by hand


def test_normalised_scores_by_hand() -> None:
    """A2C gains 2, 0.05 and -1, and 0.5 from -1: the second and third level are left out, negative returns are not."""
    returns = LevelReturns(
        rule=np.array([[1.0, 9.0, 9.0, -1.0], [3.0, 9.0, 9.0, -0.25]]),
        random_rule=np.array([[0.0, 9.0, 9.0, -1.25], [1.0, 9.0, 9.0, -1.0]]),
        a2c=np.array([2.0, 0.05, -1.0, -0.5]),
        random_policy=np.array([0.0, 0.0, 0.0, -1.0]),
        optimal=np.full(4, np.nan),
    )
    scores = normalized(returns)
    np.testing.assert_array_equal(scores.kept, [True, False, False, True])
    np.testing.assert_allclose(scores.rule, [[0.5, 0.0], [1.5, 1.5]])
    np.testing.assert_allclose(scores.random_rule, [[0.0, -0.5], [0.5, 0.0]])
    assert normalized(returns, 0.04).kept.tolist() == [True, True, False, True]
    for gap in (0.0, 2.5):
        with pytest.raises(ValueError, match="A2C's gain over a random policy reaches on some level; the largest is 2"):
            normalized(returns, gap)


def test_crossed_bootstrap_has_the_spread_of_both_factors() -> None:
    """Effects of rows and columns that add up: the variance of the mean is the sum of both parts, in closed form."""
    rows, columns = np.array([-1.0, 0.0, 2.5, 3.0]), np.linspace(-2.0, 4.0, 30)
    estimate = crossed_bootstrap(rows[:, None] + columns, num_resamples=4000)
    deviation = np.sqrt(rows.var() / len(rows) + columns.var() / len(columns))
    assert estimate.point == pytest.approx(rows.mean() + columns.mean())
    np.testing.assert_allclose(estimate.high - estimate.low, 2 * 1.96 * deviation, rtol=0.08)
    one = crossed_bootstrap(columns[None], num_resamples=4000)
    np.testing.assert_allclose(one.high - one.low, 2 * 1.96 * columns.std() / np.sqrt(30), rtol=0.08)
    # Paired: what both have in common cancels.
    same = crossed_bootstrap(columns + np.zeros((4, 1)) + 0.25 - columns)
    np.testing.assert_allclose(same, 0.25)


def test_fraction_above_by_hand() -> None:
    scores = np.array([[0.1, 0.5, 0.9, 1.2], [0.5, 0.5, 0.5, 2.0]])
    found = fraction_above(scores, np.array([0.0, 0.5, 1.0, 3.0]))
    np.testing.assert_allclose(found.point, [1.0, 0.375, 0.25, 0.0])
    assert np.all((found.low <= found.point) & (found.point <= found.high))
    assert found.low[0] == found.high[0] == 1.0


def test_shares_of_the_best_return_by_hand() -> None:
    zeros = np.zeros(3)
    returns = LevelReturns(np.array([[1.0, 0.5, 3.0]]), np.zeros((1, 3)), zeros, zeros, np.array([2.0, 0.0, np.nan]))
    shares, kept = share_of_optimum(returns)
    np.testing.assert_array_equal(kept, [True, False, False])
    np.testing.assert_array_equal(shares, [[0.5]])
    with pytest.raises(ValueError, match="some level; the best returns are"):
        share_of_optimum(returns, min_optimum=5.0)


def test_scores_by_a_baseline_by_hand() -> None:
    """Two environments, three seeds: (rule - random) / (mean baseline - random); all of them together by the IQM."""

    def results(rule: Any, baseline: Any) -> Results:
        values = np.stack([rule, baseline])[..., None].astype(float)  # [2, S, 1]
        counts = {"episode/return": values, "episode/count": np.ones_like(values)}
        return Results({"objective": ["rule", "a2c"]}, np.arange(3), np.array([10]), counts)

    tests = {"a": results([3.0, 5.0, 7.0], [9.0, 11.0, 13.0]), "b": results([0.0, 0.0, 0.0], [2.0, 2.0, 2.0])}
    found = baseline_scores(tests, {"a": 1.0, "b": -2.0})
    assert found["a"]["score"] == pytest.approx((2.0 + 4.0 + 6.0) / 3 / 10)
    assert found["b"] == {"score": 0.5, "low": 0.5, "high": 0.5, "rule": 0.0, "baseline": 2.0, "random": -2.0}
    assert found["all"]["score"] == pytest.approx(np.mean([0.4, 0.5, 0.5, 0.5]))  # the middle of .2 .4 .5 .5 .5 .6
    assert found["a"]["low"] < found["a"]["score"] < found["a"]["high"]
    with pytest.raises(ValueError, match="no better than a random policy"):
        baseline_scores(tests, {"a": 20.0, "b": 0.0})


def test_a_random_policy_pays_what_it_is_worth() -> None:
    """Known figures: CartPole lasts 22 steps, Pendulum costs about 1,200."""
    assert random_return("CartPole-v1") == pytest.approx(22.0, abs=3.0)
    assert random_return("Pendulum-v1", num_episodes=64) == pytest.approx(-1200.0, abs=200.0)


# ---------------------------------------------------------------------------------------------- lifetimes


@pytest.fixture(scope="module")
def played() -> LevelReturns:
    rules = [a_rule(0), a_rule(1)]
    return level_returns(rules, grid_random(EASY), AGENTS, MetaHparams(learning_rate=10.0), range(10), batch=4)


@pytest.mark.thorough
def test_returns_on_held_out_levels(played: LevelReturns) -> None:
    """10 levels in pieces of 4: nobody beats the best policy, A2C learns, a random policy gets what it is worth."""
    assert played.rule.shape == played.random_rule.shape == (2, 10)
    assert played.a2c.shape == played.random_policy.shape == played.optimal.shape == (10,)
    env = grid_random(EASY)
    base = jax.random.fold_in(jax.random.key(0), 0x6C76)
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(base, i))[0])(jnp.arange(10))

    def values(key: Any) -> Any:
        level = env.sample_params(key)
        return optimal_return(level, env), policy_value(level, env)

    best, uniform = jax.jit(jax.vmap(values))(keys)
    np.testing.assert_allclose(played.optimal, best, rtol=1e-6)
    # Six episodes of at most 12 collections on ten levels: the mean over levels is known to about 0.2.
    assert abs(played.random_policy.mean() - uniform.mean()) < 0.3 * uniform.mean()
    assert played.a2c.mean() > played.random_policy.mean() + 0.2 * (best - uniform).mean()
    assert played.a2c.mean() < 1.1 * best.mean()


@pytest.mark.thorough
def test_rules_are_told_apart_and_pieces_fit_together(played: LevelReturns) -> None:
    """Levels 7, 8 and 9 alone, the rules in the other order: the same numbers, in the other order."""
    again = level_returns(
        [a_rule(1), a_rule(0)], grid_random(EASY), AGENTS, MetaHparams(learning_rate=10.0), [7, 8, 9, 5], batch=4
    )
    np.testing.assert_allclose(again.rule[::-1], played.rule[:, [7, 8, 9, 5]], atol=1e-5)
    np.testing.assert_allclose(again.a2c, played.a2c[[7, 8, 9, 5]], atol=1e-5)
    assert np.abs(played.rule[0] - played.rule[1]).max() > 0.0


def test_bad_requests(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="held-out levels need an environment with `sample_params"):
        level_returns([a_rule(0)], jaxrl.make_env("jaxrl/probe_action"), AGENTS)
    env = grid_random(EASY)
    other = a_rule(0, LPGConfig(width=5, target_width=3, embedding_width=2))
    finite = dataclasses.replace(env, levels=jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), env.default_params))
    with pytest.raises(ValueError, match=r"levels = \[0, 2\]: the environment has 2"):
        level_returns([a_rule(0)], finite, AGENTS, levels=[0, 2])
    for rules in ([], [a_rule(0), other]):
        with pytest.raises(ValueError, match="expected one or more rules of one kind and config"):
            level_returns(rules, env, AGENTS)
    with pytest.raises(ValueError, match=r"save it first with `jaxrl\.save_rule`"):
        meta_test(a_rule(0), "jaxrl/probe_action", out=tmp_path / "run")


@pytest.mark.thorough
def test_a_rule_beside_a2c_on_an_environment_by_name(tmp_path: Path) -> None:
    save_rule(tmp_path / "rule.npz", a_rule(0))
    settings = {"total_steps": 160, "num_envs": 4, "num_steps": 4, "hidden_sizes": (4,)}
    results = jaxrl.meta_test(tmp_path / "rule.npz", "jaxrl/probe_action", 2, settings, progress=False)
    assert list(results.hparams["objective"]) == [str(tmp_path / "rule.npz"), "a2c"]
    assert np.isfinite(results.final()).all()
    assert np.isfinite(results.metrics["loss/prediction"][0]).all()
    assert "lpg" in KINDS


@pytest.mark.thorough
def test_a_drift_is_tested_beside_ppo() -> None:
    """With one update per rollout, as A2C has, the ratio is 1 and every drift 0."""
    config = LPOConfig(width=4)
    rule = Rule("lpo", config, lpo_init(jax.random.key(0), config), {})
    settings = {"total_steps": 160, "num_envs": 4, "num_steps": 4, "hidden_sizes": (4,), "num_minibatches": 2}
    results = jaxrl.meta_test(rule, "jaxrl/probe_action", 2, settings, progress=False)
    assert results.hparams["objective"][1] == "ppo"
    assert np.isfinite(results.metrics["loss/policy"]).all()


@pytest.mark.thorough
def test_random_grids_that_nobody_solves_have_no_optimum() -> None:
    env = grid_random(EASY, tabular=False)
    agents = dataclasses.replace(AGENTS, torso="mlp")
    returns = level_returns([a_rule(0)], env, agents, MetaHparams(learning_rate=1e-2), range(2), batch=2)
    assert np.isnan(returns.optimal).all()
    assert np.isfinite(returns.rule).all()
    with pytest.raises(ValueError, match="score = 'optimal_regret' needs an environment with .* tabular"):
        lpg(env, dataclasses.replace(agents, score="optimal_regret"))
