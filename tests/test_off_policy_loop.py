"""The off-policy loop with an environment and an agent whose every number is known."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from helpers import SCRIPTS, ScriptedEnv, ScriptParams

from jaxrl.algorithm import init, train
from jaxrl.buffers import replay
from jaxrl.loops.off_policy import off_policy
from jaxrl.types import Agent, Progress, Sample, Transition

NUM_ENVS, NUM_STEPS, NUM_GRADIENT_STEPS, BATCH, FILL = 5, 2, 3, 4, 17
PARAMS = ScriptParams(0.0)  # rewards 0 but for the actions': 100 where it is 1
LOGGED = 40


def logging_agent() -> Agent:
    """Always acts 7, though there are two actions; notes the index, the lifetime and the sample of every update."""

    def initialize(key: Any, obs_space: Any, action_space: Any) -> dict[str, jax.Array]:
        del key, obs_space, action_space
        return {
            "progress": jnp.full((LOGGED, 2), -1),
            "actions": jnp.full((LOGGED, BATCH), -1),
            "count": jnp.int32(0),
            "met": jnp.int32(0),
            "steps": jnp.zeros(2, jnp.int32),
        }

    def act(key: Any, state: Any, memory: Any, obs: jax.Array, is_first: jax.Array, explore: bool) -> Any:
        assert explore
        return jnp.full(len(obs), 7, jnp.int32), memory, ()

    def update(key: Any, state: Any, sample: Sample, progress: Progress) -> Any:
        at = state["count"]
        log = {
            **state,
            "progress": state["progress"].at[at].set(jnp.array([progress.update, progress.num_updates])),
            "actions": state["actions"].at[at].set(sample.action),
            "count": at + 1,
        }
        metrics = {"loss/x": jnp.float32(at), "policy/x": jnp.where(at % 2 == 0, at, jnp.nan)}
        return log, metrics | {"priority": jnp.where(sample.action == 7, 1e-6, 1e4)}

    def observed(state: Any, experience: Transition) -> Any:
        """How much was met, and the least and the largest action of the last call."""
        sizes = jnp.array([experience.action.min(), experience.action.max()])
        return {**state, "met": state["met"] + experience.reward.size, "steps": sizes}

    return Agent(initialize, lambda num: (), act, update, observed)


def make(exponent: float | None = None) -> Any:
    buffer = replay(60, NUM_ENVS, NUM_STEPS, BATCH, 0.9, 1, exponent)
    return off_policy(
        logging_agent(),
        ScriptedEnv(),
        PARAMS,
        buffer,
        num_envs=NUM_ENVS,
        num_steps=NUM_STEPS,
        num_gradient_steps=NUM_GRADIENT_STEPS,
        num_updates=9,
        fill_steps=FILL,
    )


def test_the_buffer_begins_with_whole_iterations_of_random_actions() -> None:
    state = jax.jit(lambda key: init(key, make()))(jax.random.key(0))
    assert state.buffer.size == state.buffer.head == 4  # rows: 17 steps are two iterations of 10
    actions = np.asarray(state.buffer.data.action[:4])
    assert set(np.unique(actions)) == {0, 1}
    assert state.agent["met"] == 20
    assert state.agent["count"] == 0


def test_what_is_stored_is_what_was_answered() -> None:
    """Every transition belongs to a script: flags, and the successor before the reset."""
    state, metrics = jax.jit(lambda key: train(key, make(), 4))(jax.random.key(1))
    data = jax.tree.map(np.asarray, state.buffer.data)
    kind, time = data.obs[..., 0].astype(int), data.obs[..., 1].astype(int)
    assert state.buffer.size == 12
    assert len(np.unique(kind)) == len(SCRIPTS)
    for row in range(12):
        for env in range(NUM_ENVS):
            length, terminated, truncated = SCRIPTS[kind[row, env]]
            over = time[row, env] + 1 == length
            assert data.terminated[row, env] == (over and terminated)
            assert data.truncated[row, env] == (over and truncated)
            np.testing.assert_array_equal(data.final_obs[row, env], [kind[row, env], time[row, env] + 1])
            if not over and row < 11:  # episodes run on from the filling to the first iteration, and so on
                np.testing.assert_array_equal(data.obs[row + 1, env], [kind[row, env], time[row, env] + 1])
    assert np.all(data.action[4:] == 7)
    ends = data.terminated | data.truncated
    np.testing.assert_array_equal(metrics["episode/count"], ends[4:].reshape(4, NUM_STEPS, -1).sum((1, 2)))


def test_updates_are_counted_and_averaged() -> None:
    state, metrics = jax.jit(lambda key: train(key, make(), 4))(jax.random.key(1))
    log = jax.tree.map(np.asarray, state.agent)
    assert log["count"] == 4 * NUM_GRADIENT_STEPS
    np.testing.assert_array_equal(log["progress"][:12], np.stack([np.arange(12), np.full(12, 27)], 1))
    assert log["met"] == 20 + 4 * NUM_ENVS * NUM_STEPS
    np.testing.assert_array_equal(log["steps"], [7, 7])  # the agent was shown the new experience alone
    # Updates 0 1 2, 3 4 5, …: a mean over all, and one over those that were not NaN.
    np.testing.assert_allclose(metrics["loss/x"], [1, 4, 7, 10])
    np.testing.assert_allclose(metrics["policy/x"], [1, 4, 7, 10])
    assert "priority" not in metrics


def test_new_experience_can_be_drawn_at_once() -> None:
    """Of the 30 transitions at the first iteration a third is new; over many keys, so is a third of what is drawn."""
    states = jax.jit(jax.vmap(lambda key: train(key, make(), 1)[0].agent))(jax.random.split(jax.random.key(0), 200))
    actions = np.asarray(states["actions"])[:, :NUM_GRADIENT_STEPS]
    assert 0.28 < np.mean(actions == 7) < 0.39


def test_priorities_reach_the_buffer() -> None:
    """After one iteration what was drawn weighs what the agent said, and all else the 1 that it began with."""
    state, _ = jax.jit(lambda key: train(key, make(1.0), 1))(jax.random.key(3))
    weights = np.asarray(state.buffer.tree[0]).ravel()[:60].reshape(12, NUM_ENVS)[:6]
    drawn = np.unique(np.asarray(state.agent["actions"])[:NUM_GRADIENT_STEPS])
    assert set(drawn) == {0, 1, 7}
    assert set(np.round(weights[:4].ravel(), 3)) == {1.0, 1e4}
    np.testing.assert_allclose(np.unique(weights[4:]), [2e-6, 1.0], rtol=1e-3)
    assert state.buffer.max_priority == 1e4
    # The next rows begin with the largest so far.
    later, _ = jax.jit(lambda key: train(key, make(1.0), 2))(jax.random.key(3))
    newest = np.asarray(later.buffer.tree[0]).ravel()[:60].reshape(12, NUM_ENVS)[6:8]
    assert set(np.round(newest.ravel())) <= {0.0, 1e4}
    assert newest.max() == 1e4
