"""The level buffer: which level a lifetime gets, and what is remembered of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.meta.levels import LevelBuffer, LevelSampler, fixed_levels, frozen_levels, replay_levels, uniform_levels
from jaxrl.types import Key

L, M = 4, 12


@dataclasses.dataclass
class Numbers:
    """What `replay_levels` asks of hyperparameters."""

    replay_probability: float = 0.5
    score_temperature: float = 1.0
    staleness_coef: float = 0.0


def a_level(key: Key) -> dict[str, jax.Array]:
    """Never the same twice."""
    return {"id": jax.random.bits(key), "twice": jax.random.bits(key)}


def filled(scores: Any, **numbers: float) -> tuple[LevelSampler, LevelBuffer]:
    """A buffer in which every level has a score and no lifetime runs."""
    scores = jnp.asarray(scores, jnp.float32)
    sampler = replay_levels(a_level, L, len(scores), Numbers(**numbers))
    state = sampler.init(jax.random.key(0))
    ids = jnp.arange(len(scores), dtype=jnp.uint32)
    none = jnp.zeros(len(scores), bool)
    return sampler, dataclasses.replace(state, levels={"id": ids, "twice": ids}, score=scores, new=none, active=none)


def draws(sampler: LevelSampler, state: LevelBuffer, size: int, num: int = 4000) -> np.ndarray:
    """[num, size] ids of replayed levels, from the same state."""
    keys = jax.random.split(jax.random.key(7), num)
    sample = jax.jit(jax.vmap(lambda key: sampler.sample(key, state, jnp.arange(size))[0]["id"]))
    return np.asarray(sample(keys))


def test_equal_scores_are_drawn_uniformly_and_without_replacement() -> None:
    found = draws(*filled(np.ones(M), replay_probability=1.0), size=3)
    assert all(len(set(row)) == 3 for row in found)
    counts = np.bincount(found.ravel(), minlength=M)
    expected = found.size / M
    # Chi-square with 11 degrees of freedom: mean 11, deviation 4.7; draws within a row exclude each other.
    assert ((counts - expected) ** 2 / expected).sum() < 11 + 5 * np.sqrt(22)


def test_ranks_are_drawn_in_proportion_to_their_weights() -> None:
    """First draws: 1/rank^(1/temperature); two levels share the second rank, and there is then no third."""
    scores = np.array([5.0, 9.0, 5.0, 1.0, 0.0, -1.0, -2.0, -3.0])
    ranks = np.array([2, 1, 2, 4, 5, 6, 7, 8])
    for temperature in (1.0, 0.5):
        sampler, state = filled(scores, replay_probability=1.0, score_temperature=temperature)
        weights = ranks ** (-1.0 / temperature)
        share = np.bincount(draws(sampler, state, 1).ravel(), minlength=8) / 4000
        np.testing.assert_allclose(share, weights / weights.sum(), atol=0.03)


def test_staleness_draws_what_has_waited() -> None:
    sampler, state = filled(np.arange(8.0), replay_probability=1.0, staleness_coef=1.0)
    state = dataclasses.replace(state, clock=jnp.int32(10), drawn=jnp.array([10, 10, 10, 10, 10, 10, 8, 4]))
    share = np.bincount(draws(sampler, state, 1).ravel(), minlength=8) / 4000
    np.testing.assert_allclose(share, [0, 0, 0, 0, 0, 0, 0.25, 0.75], atol=0.03)


def test_topk_takes_the_highest() -> None:
    sampler = replay_levels(a_level, L, 8, Numbers(replay_probability=1.0), "topk")
    _, state = filled([3.0, 1.0, 9.0, 2.0, 7.0, 0.0, -1.0, 4.0])
    assert set(np.asarray(sampler.sample(jax.random.key(0), state, jnp.arange(3))[0]["id"])) == {2, 4, 7}


def test_new_levels_take_the_places_of_the_lowest_scores() -> None:
    sampler, state = filled(np.arange(8.0), replay_probability=0.0)
    state = dataclasses.replace(state, active=jnp.arange(8) == 1)
    _, after = sampler.sample(jax.random.key(0), state, jnp.array([0, 1, L]))  # the third is padding
    np.testing.assert_array_equal(after.active, [True, True, True, *[False] * 5])
    np.testing.assert_array_equal(after.new, [True, False, True, *[False] * 5])
    np.testing.assert_array_equal(after.place, [0, 2, 8, 8])
    np.testing.assert_array_equal(after.score[3:], np.arange(3.0, 8.0))
    assert (np.asarray(after.levels["id"][jnp.array([0, 2])]) > 8).all()


def test_replay_waits_for_enough_levels() -> None:
    """Fewer than L levels with a score and without a lifetime: a new level, whatever the probability."""
    sampler, state = filled(np.arange(8.0), replay_probability=1.0)
    busy = dataclasses.replace(state, active=jnp.arange(8) < 5)
    assert (np.asarray(sampler.sample(jax.random.key(0), busy, jnp.arange(3))[0]["id"]) > 8).all()
    enough = dataclasses.replace(state, active=jnp.arange(8) < 4)
    assert (np.asarray(sampler.sample(jax.random.key(0), enough, jnp.arange(3))[0]["id"]) < 8).all()


def test_invariants_over_a_long_random_history() -> None:
    """One slot per active level; the slot's level is the one in its place; scored levels stay so until overwritten."""
    sampler = replay_levels(a_level, L, M, Numbers())
    sample, update = jax.jit(sampler.sample), jax.jit(sampler.update)
    rng, key = np.random.default_rng(0), jax.random.key(1)
    levels, state = sample(key, sampler.init(key), jnp.arange(L))
    lives = {slot: int(levels["id"][slot]) for slot in range(L)}
    scored: dict[int, float] = {}
    replayed = 0
    for turn in range(150):
        ended = np.flatnonzero(rng.random(L) < 0.5)
        slots = jnp.asarray(np.concatenate([ended, np.full(L - len(ended), L)]))
        scores = rng.normal(size=L).astype(np.float32)
        before = state
        state = update(state, slots, jnp.asarray(scores))
        for slot, score in zip(ended, scores, strict=False):
            scored[lives[slot]] = float(score)
        levels, state = sample(jax.random.fold_in(key, turn), state, slots)
        for row, slot in enumerate(ended):
            lives[slot] = int(levels["id"][row])
            replayed += lives[slot] in scored
        place, ids = np.asarray(state.place), np.asarray(state.levels["id"])
        assert len(set(place)) == L
        np.testing.assert_array_equal(np.flatnonzero(state.active), np.sort(place))
        assert [int(ids[p]) for p in place] == [lives[slot] for slot in range(L)]
        np.testing.assert_array_equal(ids, state.levels["twice"])
        for m in range(M):
            if not state.new[m]:
                assert float(state.score[m]) == scored[int(ids[m])]
            if not before.new[m] and state.new[m]:
                assert ids[m] != before.levels["id"][m]  # overwritten
    assert 100 < replayed < 250  # half of some 300 ends


def test_domain_randomisation_remembers_nothing_and_a_fixed_set_stays() -> None:
    sampler = uniform_levels(a_level)
    assert sampler.init(jax.random.key(0)) == ()
    one, state = sampler.sample(jax.random.key(1), (), jnp.arange(5))
    assert len(set(np.asarray(one["id"]))) == 5
    assert sampler.update(state, jnp.arange(5), jnp.zeros(5)) == ()
    fixed = fixed_levels({"id": np.array([3, 5, 8])})
    found, _ = fixed.sample(jax.random.key(2), (), jnp.arange(300))
    np.testing.assert_allclose(np.unique(found["id"], return_counts=True)[1] / 300, 1 / 3, atol=0.12)


def test_at_low_temperatures_levels_in_use_stay_out() -> None:
    """Weights of low ranks, 1/rank^50, are nothing in float32: they must not be level with those that are not free."""
    sampler, state = filled(np.arange(32.0), replay_probability=1.0, score_temperature=0.02)
    state = dataclasses.replace(state, active=state.active.at[:4].set(True))
    drawn = draws(sampler, state, 16, num=20)
    assert (drawn >= 4).all()
    assert (drawn[:, 0] == 31).all()


def test_a_frozen_set_is_drawn_once_and_uniformly() -> None:
    sampler = frozen_levels(a_level, 5)
    state = sampler.init(jax.random.key(1))
    assert len(set(np.asarray(state["id"]).tolist())) == 5
    drawn, after = sampler.sample(jax.random.key(2), state, jnp.arange(2000))
    np.testing.assert_array_equal(after["id"], state["id"])
    counts = np.array([np.sum(np.asarray(drawn["id"]) == one) for one in np.asarray(state["id"])])
    assert counts.sum() == 2000
    assert ((counts - 400) ** 2 / 400).sum() < 4 + 5 * np.sqrt(8)  # chi-square, 4 degrees of freedom


def test_bad_buffers_are_refused() -> None:
    with pytest.raises(ValueError, match="num_levels = 7: a buffer for 4 lifetimes needs at least 8 places"):
        replay_levels(a_level, L, 7, Numbers())
    with pytest.raises(ValueError, match="priority = 'best': expected one of rank, topk"):
        replay_levels(a_level, L, M, Numbers(), "best")
