"""Rules by evolution: lifetimes as fitness, what pairs share, and the presets' own checks."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_close, assert_trees_equal

import jaxrl
from jaxrl.algorithm import Algorithm, init, train
from jaxrl.evo.evolve import in_chunks
from jaxrl.execution import Options
from jaxrl.presets import PRESETS, find_preset
from jaxrl.presets.evolution import live
from jaxrl.presets.evolved import EvolvedDriftConfig, EvolvedDriftHparams, TALPGConfig, TALPGHparams, lpo, ta_lpg
from jaxrl.presets.on_policy import PPOHparams
from jaxrl.spaces import Box
from jaxrl.types import Evaluation
from jaxrl_envs import probes
from jaxrl_envs.gridworld import GridWorld, LevelDistribution, grid_random

KEY = jax.random.key(0)
LPG = TALPGConfig(
    total_steps=10**6, num_pairs=3, population_batch=0, noise_batch=0, lifetime=5, num_envs=3, num_steps=4, width=5,
    target_width=3, embedding_width=2, max_episode_steps=12, evaluation_episodes=4, initial="random",
)  # fmt: skip
SHORT = LevelDistribution((3, 4), (5, 10), (1, 2), 2, (2, 7))
DRIFT = EvolvedDriftConfig(
    total_steps=10**6, agent_steps=80, num_pairs=2, population_batch=0, width=4, num_envs=2, num_steps=8, num_epochs=1,
    num_minibatches=2, hidden_sizes=(4,),
)  # fmt: skip


@functools.cache
def world() -> GridWorld:
    return grid_random(SHORT)


def counter(lengths: Any) -> Algorithm:
    """A state that adds up keys; an episode of return t ends in update t, where `lengths` says so."""

    def step(key: jax.Array, state: Any, t: jax.Array) -> Any:
        over = jnp.asarray(lengths)[t]
        row = {"episode/return": jnp.where(over, t.astype(jnp.float32), jnp.nan), "episode/count": over * 2.0}
        return state + jax.random.normal(key), row

    return Algorithm(lambda key: jax.random.normal(key), step)


def test_a_life_is_train_until_its_end() -> None:
    """The same keys as `train`, to the bit; side by side, each stops at its own end."""
    run = jax.jit(lambda n: live(KEY, KEY, counter([True] * 40), n))
    states, lasts = jax.jit(jax.vmap(lambda n: live(KEY, KEY, counter([True] * 40), n)))(jnp.array([1, 7, 40]))
    for i, n in enumerate((1, 7, 40)):
        expected, _ = jax.jit(lambda n=n: train(KEY, counter([True] * 40), n))()
        assert_trees_equal(run(n)[0], expected)
        np.testing.assert_allclose(states[i], expected, rtol=1e-6)
    # The last tenth: updates 0, 6, and 36 … 39.
    np.testing.assert_allclose(lasts, [0.0, 6.0, 37.5])


def test_the_outcome_is_of_episodes_that_ended() -> None:
    ends = np.zeros(40, bool)
    ends[[3, 37]] = True
    assert live(KEY, KEY, counter(ends), 40)[1] == 37.0
    assert np.isnan(live(KEY, KEY, counter(ends), 30)[1])


# ---------------------------------------------------------------------------------------------------------- TA-LPG


def watched(config: TALPGConfig, seed: int = 1) -> Evaluation:
    """Fitness and steps of one generation in which no rule is perturbed: all that differs is what they are given."""
    seen: list[Evaluation] = []

    def spread(one: Any) -> Any:
        def everyone(individuals: Any, shared: Any) -> Any:
            genomes, groups, numbers = individuals
            still = genomes._replace(sign=jnp.zeros_like(genomes.sign))
            seen.append(jax.jit(in_chunks()(one))((still, groups, numbers), shared))
            return seen[-1]

        return everyone

    algorithm = ta_lpg(world(), config, TALPGHparams(), spread=spread)
    algorithm.step(jax.random.key(seed), init(KEY, algorithm), jnp.int32(0))
    return seen[0]


@pytest.mark.thorough
def test_pairs_live_the_same_life() -> None:
    """Oracle 16: equal rules have equal lives in a pair, and others in other pairs; with keys of their own, they share
    the level, and so how long they learn and how much reward there is, but not what happens."""
    shared = watched(LPG)
    fitness = np.asarray(shared.fitness).reshape(3, 2)
    np.testing.assert_array_equal(fitness[:, 0], fitness[:, 1])
    assert len(set(fitness[:, 0].tolist())) == 3
    lengths = np.asarray(shared.steps).reshape(3, 2)
    np.testing.assert_array_equal(lengths[:, 0], lengths[:, 1])
    own = watched(dataclasses.replace(LPG, sampling="own"))
    assert (np.asarray(own.fitness).reshape(3, 2)[:, 0] != fitness[:, 0]).any()
    alone = np.asarray(own.fitness).reshape(3, 2)
    assert (alone[:, 0] != alone[:, 1]).any()


@functools.cache
def generations(num: int = 2, **changes: Any) -> Any:
    algorithm = ta_lpg(world(), dataclasses.replace(LPG, **changes))
    return jax.jit(lambda key: train(key, algorithm, num))(KEY)


@pytest.mark.thorough
def test_chunks_change_nothing() -> None:
    whole, parts = generations(), generations(population_batch=2, noise_batch=1)
    assert_trees_close(parts, whole, atol=1e-5, rtol=1e-4)
    assert whole[0].generation == 2
    # Lifetimes are cut at the configuration's: no agent learns for more than 5 updates of 12 steps.
    assert (whole[1]["evolution/steps"] <= 6 * (5 * 12 + 4 * 12)).all()


@pytest.mark.thorough
def test_the_first_mean() -> None:
    for initial, is_zero in (("zeros", True), ("random", False)):
        state = init(KEY, ta_lpg(world(), dataclasses.replace(LPG, initial=initial)))
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(state.params)) == is_zero
    shapes = [leaf.shape for leaf in jax.tree.leaves(state.params)]
    plain = init(KEY, ta_lpg(world(), dataclasses.replace(LPG, time_features="none"))).params
    assert sum(np.prod(s) for s in shapes) - sum(leaf.size for leaf in jax.tree.leaves(plain)) == 2 * 3 * 5


# ----------------------------------------------------------------------------------------------------- LPO, TA-LPO


@pytest.mark.thorough
def test_of_zeros_the_drift_is_ppo() -> None:
    """The mean of a first generation without perturbations is PPO within xi: its return is PPO's, from `train`."""
    from jaxrl.presets.on_policy import ppo

    env, config = probes.contextual_probe(), dataclasses.replace(DRIFT, num_pairs=1, num_groups=1)
    hp = EvolvedDriftHparams(sigma=1e-9, learning_rate=1e-2)
    metrics = jax.jit(lambda: train(KEY, lpo(env, config, hp), 1)[1])()
    key_groups = jax.random.split(jax.random.fold_in(jax.random.split(KEY)[1], 0), 4)[1]
    key_life = jax.random.split(jax.random.fold_in(key_groups, 0), 3)[1]
    algorithm = ppo(env, config.agent, PPOHparams(learning_rate=1e-2))
    rows = jax.jit(lambda: train(key_life, algorithm, config.agent.num_updates)[1])()
    assert config.agent.num_updates == 5
    assert 0.0 < abs(rows["episode/return"][-1]) < 1.0
    np.testing.assert_allclose(metrics["fitness/mean"][0], rows["episode/return"][-1], rtol=1e-3)
    np.testing.assert_array_equal(metrics["evolution/steps"], 2 * 80)


@pytest.mark.thorough
def test_fitness_by_evaluation_and_time() -> None:
    env = probes.termination_probe()
    for changes in ({"fitness": "evaluation", "evaluation_episodes": 3}, {"time_aware": True}):
        config = dataclasses.replace(DRIFT, **changes)
        state, metrics = jax.jit(lambda c=config: train(KEY, lpo(env, c), 1))()
        assert np.isfinite(metrics["fitness/mean"]).all()
        assert state.params["hidden"].shape == (16 if config.time_aware else 8, 4)
        assert (metrics["evolution/steps"][0] > 4 * 80) == (config.fitness == "evaluation")


def test_families_are_ppo_s() -> None:
    for name in ("lpo", "ta_lpo"):
        for family in ("minatar", "brax"):
            expected = PRESETS["ppo"].overrides[family]
            settings = PRESETS[name].overrides[family]
            config = PRESETS[name].config
            known = {field.name for field in dataclasses.fields(config)}
            chosen = dataclasses.replace(config, **{n: v for n, v in settings.items() if n in known})
            assert chosen.agent.total_steps == expected["total_steps"]
            assert chosen.agent.num_envs == expected["num_envs"]
            assert settings.get("learning_rate") == expected["learning_rate"]
            assert chosen.num_updates >= 800


# --------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dataclasses.replace(LPG, noise_batch=2), "num_pairs = 3 is not divisible by noise_batch = 2; use 1"),
        (lambda: dataclasses.replace(LPG, total_steps=100), "less than one generation; use at least 360"),
        (lambda: dataclasses.replace(LPG, shaping="ranks"), "shaping = 'ranks': expected one of pair_ranks"),
        (lambda: dataclasses.replace(LPG, sampling="other"), "sampling = 'other'"),
        (lambda: dataclasses.replace(LPG, time_features="n"), "time_features = 'n'"),
        (lambda: dataclasses.replace(DRIFT, num_minibatches=5), "not divisible by num_minibatches = 5"),
        (lambda: dataclasses.replace(DRIFT, fitness="best"), "fitness = 'best'"),
        (lambda: ta_lpg(_boxed(), dataclasses.replace(LPG, torso="mlp")), "Discrete"),
        (lambda: ta_lpg(_boxed(), LPG), "LPG reads the probability of a discrete action"),
        (lambda: ta_lpg(probes.termination_probe(), LPG), "table"),
        (lambda: PRESETS["ta_lpg"].agent(world(), LPG, TALPGHparams()), "leaves a rule and no policy"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def _boxed() -> Any:
    return dataclasses.replace(probes.termination_probe(), single_action_space=Box((-1.0, 0.0), (1.0, 3.0), (2,)))


@pytest.mark.thorough
@pytest.mark.parametrize(("preset", "env"), [("ta_lpo", "jaxrl/probe_contextual"), ("ta_lpg", "jaxrl/grid_debug")])
def test_two_devices_share_the_population_of_a_run(preset: str, env: str) -> None:
    """One run on one device, and on two that evaluate half of its rules each: the same fitness."""
    settings: dict[str, Any] = {"num_pairs": 2, "population_batch": 0, "num_envs": 4, "width": 4}
    if preset == "ta_lpo":
        settings |= {"agent_steps": 64, "num_steps": 8, "num_epochs": 1, "num_minibatches": 2, "hidden_sizes": (4,)}
    else:
        settings |= {"noise_batch": 0, "num_steps": 5, "lifetime": 4, "evaluation_episodes": 4, "initial": "random"}
    config = dataclasses.replace(find_preset(preset).config, **settings)
    settings["total_steps"] = 3 * config.steps_per_update
    alone, shared = (
        jaxrl.run(preset, env, settings=settings, progress=False, options=Options(num_chunks=1, num_devices=num))
        for num in (1, 2)
    )
    assert [r.info["layout"] for r in (alone, shared)] == [[[1, 1, 1]], [[1, 1, 2]]]
    assert_trees_close(dict(shared.metrics), dict(alone.metrics), rtol=1e-5, atol=1e-6)
