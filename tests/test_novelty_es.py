"""NS-ES and its relatives by one generation in NumPy; statistics of observations; policies evolved by name."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import ScriptedEnv, ScriptParams, assert_trees_close

from jaxrl.evo.episodes import ObsSums
from jaxrl.evo.novelty import NoveltySearch
from jaxrl.evo.novelty_es import NoveltyESHparams, novelty_es
from jaxrl.evo.observing import observing, random_observations
from jaxrl.evo.open_es import OpenESHparams, open_es
from jaxrl.types import Evaluation, Key

pytestmark = pytest.mark.thorough  # compilation takes most of a minute

KEY = jax.random.key(0)
SEARCH = NoveltySearch(size=2, capacity=50, num_neighbours=2)
HP = OpenESHparams(0.1, 1.0, 0.0, 0.3, 1.0, 0.0)


def start(key: Key) -> jax.Array:
    return jax.random.normal(key, (3,))


def strategy(reward_weight: float = 0.0, change: float = 0.0, patience: int = 2, num_policies: int = 2) -> Any:
    numbers = NoveltyESHparams(reward_weight, change, patience)
    return novelty_es(start, optax.identity(), HP, numbers, 4, SEARCH, num_policies)


def judge(params: Any) -> Evaluation:
    """Fitness and behaviour of parameters [N, 3]."""
    return Evaluation(-jnp.sum(jnp.square(params), -1), params[:, :2])


def generation(es: Any, state: Any, key: Key, returns: Any = None) -> tuple[Any, Any, Any]:
    """One of `evolve`, in the open: (the state after it, the members, their evaluation)."""
    members, state = es.ask(key, state)
    evaluation = judge(jax.vmap(lambda one: es.decode(state, one))(members))
    few, state = es.again(key, state, members, evaluation)
    second = judge(jax.vmap(lambda one: es.decode(state, one))(few))
    if returns is not None:
        second = second._replace(fitness=jnp.asarray(returns))
    return es.tell(key, state, members, evaluation, few, second), members, evaluation


def ranks(x: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(x)) / (len(x) - 1) - 0.5


@pytest.mark.parametrize("reward_weight", [0.0, 0.5, 1.0])
def test_generations_equal_numpy(reward_weight: float) -> None:
    """The first archives all policies and moves none; the second moves the chosen one by ranks of both kinds."""
    es = strategy(reward_weight)
    begun = es.init(KEY)
    state, _, _ = generation(es, begun, jax.random.key(1))
    np.testing.assert_array_equal(state.policies.params, begun.policies.params)
    np.testing.assert_array_equal(state.archive.entries[:2], begun.policies.params[:, :2])
    assert int(state.archive.count) == 2
    after, members, evaluation = generation(es, state, jax.random.key(2))
    chosen = int(members.policy[0])
    assert (members.policy == chosen).all()
    archived = np.asarray(state.archive.entries[:2])
    distances = np.linalg.norm(np.asarray(evaluation.descriptor)[:, None] - archived, axis=-1)
    weights = reward_weight * ranks(np.asarray(evaluation.fitness)) + (1 - reward_weight) * ranks(distances.mean(1))
    asked = es.ask(jax.random.key(2), state)[1]
    noise = np.asarray(asked.noise)
    played = np.asarray(jax.vmap(lambda one: es.decode(asked, one))(members) - state.policies.params[chosen])
    np.testing.assert_allclose(played[::2], 0.3 * noise, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(played[1::2], -0.3 * noise, rtol=1e-4, atol=1e-6)
    gradient = (weights[::2] - weights[1::2]) @ noise / (8 * 0.3)
    expected = np.asarray(state.policies.params[chosen]) + 0.1 * gradient
    np.testing.assert_allclose(after.policies.params[chosen], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(after.policies.params[1 - chosen], state.policies.params[1 - chosen])
    # Its new behaviour is archived, and no other.
    assert int(after.archive.count) == 3
    np.testing.assert_array_equal(after.archive.entries[2], after.policies.params[chosen][:2])


def test_the_more_novel_policy_is_chosen_more_often() -> None:
    es = strategy()
    state = es.init(KEY)
    archive = state.archive.replace(entries=state.archive.entries.at[0].set(jnp.array([0.0, 0.0])), count=jnp.int32(1))
    state = state.replace(archive=archive, behaviours=jnp.array([[3.0, 0.0], [0.0, 1.0]]))
    draws = jax.vmap(lambda key: es.ask(key, state)[0].policy[0])(jax.random.split(KEY, 4000))
    assert abs(float((draws == 0).mean()) - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 4000)


def test_the_weight_follows_the_best_return() -> None:
    """It falls after `patience` generations without a better return, and rises with one; it stays in [0, 1]."""
    es = strategy(1.0, 0.25, patience=2, num_policies=1)
    state, seen = es.init(KEY), []
    for i, best in enumerate([1.0, 2.0, 2.0, 1.0, 0.0, 1.0, 5.0, 1.0, 1.0]):
        state, _, _ = generation(es, state, jax.random.key(i), [best])
        seen.append(float(state.weight))
    assert seen == [1.0, 1.0, 1.0, 0.75, 0.75, 0.5, 0.75, 0.75, 0.5]
    assert float(state.best) == 5.0


def test_moments_of_observations() -> None:
    """Of those who are heard, merged with what was there; variances count as 0.01 at least."""
    data = [jax.random.normal(jax.random.key(i), (n, 2)) * jnp.array([3.0, 0.01]) + 1.0 for i, n in enumerate((5, 9))]
    plain = open_es(start, optax.identity(), HP, 1)
    ours = observing(plain, (2,))
    state = ours.init(KEY)
    assert_trees_close(state.inner, plain.init(KEY), atol=0)
    members, state = ours.ask(KEY, state)
    sums = ObsSums(*(jnp.stack(x) for x in zip(*[(float(len(d)), d.sum(0), (d**2).sum(0)) for d in data], strict=True)))
    after = ours.tell(KEY, state, members, Evaluation(jnp.zeros(2), (), 0.0, sums))
    everything = np.concatenate(data)
    np.testing.assert_allclose(after.moments.mean, everything.mean(0), rtol=1e-3)
    np.testing.assert_allclose(after.moments.var, everything.var(0), rtol=1e-2, atol=2e-4)
    informed = ours.solution(after)
    np.testing.assert_array_equal(informed.moments.var, [after.moments.var[0], np.float32(0.01)])
    nobody = observing(plain, (2,), 0.0).tell(KEY, state, members, Evaluation(jnp.zeros(2), (), 0.0, sums))
    assert_trees_close(nobody.moments, state.moments, atol=0)


def test_reference_observations() -> None:
    """Of episodes that random actions made, none from behind an episode's end; the same for the same key."""
    found = np.asarray(random_observations(KEY, ScriptedEnv(), ScriptParams(), 64))
    assert found.shape == (64, 2)
    lengths = np.array([2, 3, 4, 1, 7])
    assert (found[:, 1] < lengths[found[:, 0].astype(int)]).all()
    assert len(np.unique(found, axis=0)) > 5
    np.testing.assert_array_equal(found, random_observations(KEY, ScriptedEnv(), ScriptParams(), 64))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="num_policies = 0"):
        strategy(num_policies=0)
    with pytest.raises(ValueError, match="num_neighbours = 0"):
        novelty_es(start, optax.identity(), HP, NoveltyESHparams(), 4, SEARCH._replace(num_neighbours=0))
