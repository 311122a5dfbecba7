"""Small parts for tests: settings that compile fast, and an environment and an agent whose every number is known."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxrl.progress import Progress
from jaxrl.spaces import Box, Discrete, Space
from jaxrl.types import Agent, Key, Timestep

TINY: dict[str, Any] = {
    "num_envs": 4,
    "num_steps": 8,
    "num_epochs": 2,
    "num_minibatches": 2,
    "hidden_sizes": (8, 8),
    "total_steps": 320,
}

# The ring goes round within six iterations.
TINY_REPLAY: dict[str, Any] = {
    "num_envs": 4,
    "num_steps": 2,
    "num_gradient_steps": 3,
    "batch_size": 8,
    "buffer_size": 40,
    "fill_steps": 16,
    "hidden_sizes": (8, 8),
    "total_steps": 320,
}


def assert_trees_equal(actual: Any, expected: Any) -> None:
    """Bit for bit, NaN included."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(expected)[0]]
    for path, a, b in zip(paths, jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype, path
        np.testing.assert_array_equal(a, b, err_msg=path)


def assert_trees_close(actual: Any, expected: Any, atol: float = 1e-5, rtol: float = 1e-5) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(expected)[0]]
    for path, a, b in zip(paths, jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=atol, rtol=rtol, err_msg=path)


@struct.dataclass
class ScriptParams:
    """`scale` multiplies rewards; traced."""

    scale: float | jax.Array = 1.0


@struct.dataclass
class ScriptState:
    """Which script the episode follows, and the steps it has behind it."""

    kind: jax.Array
    time: jax.Array


# kind -> (episode length, terminated at its end, truncated at its end)
SCRIPTS = ((2, True, False), (3, False, True), (4, True, True), (1, False, True), (7, True, False))


class ScriptedEnv:
    """Each episode follows one of `SCRIPTS`, drawn at the reset; obs = (kind, time); reward = kind + time / 10."""

    default_params = ScriptParams()

    def reset(self, key: Key, params: ScriptParams) -> tuple[ScriptState, jax.Array]:
        state = ScriptState(jax.random.randint(key, (), 0, len(SCRIPTS)), jnp.int32(0))
        return state, self._obs(state)

    def step(self, key: Key, state: ScriptState, action: jax.Array, params: ScriptParams) -> tuple[Any, Timestep]:
        length, terminated, truncated = (jnp.array(column)[state.kind] for column in zip(*SCRIPTS, strict=True))
        reward = params.scale * (state.kind + state.time / 10 + 100 * action)
        state = state.replace(time=state.time + 1)
        over = state.time >= length
        obs = self._obs(state)
        return state, Timestep(obs, reward, over & terminated, over & truncated, obs, {})

    def observation_space(self, params: ScriptParams) -> Space:
        return Box(0.0, 2000.0, (2,))

    def action_space(self, params: ScriptParams) -> Space:
        return Discrete(2)

    @staticmethod
    def _obs(state: ScriptState) -> jax.Array:
        return jnp.stack([state.kind, state.time]).astype(jnp.float32)


def scripted_agent() -> Agent:
    """Action 1 at odd times; memory counts the steps of the episode; extras tell both."""

    def act(key: Key, state: Any, memory: jax.Array, obs: jax.Array, is_first: jax.Array, explore: bool) -> Any:
        memory = jnp.where(is_first, 0, memory) + 1
        action = (obs[:, 1] % 2).astype(jnp.int32)
        return action, memory, {"value": 100 * obs[:, 0] + obs[:, 1], "memory": memory}

    def update(key: Key, state: Any, rollout: Any, progress: Any) -> Any:
        return state, {}

    return Agent(lambda *_: (), lambda num: jnp.zeros(num, jnp.int32), act, update)


@struct.dataclass
class WalkParams:
    """`reward` multiplies rewards; traced."""

    reward: float | jax.Array = 1.0


class WalkEnv:
    """A point x, observed as it is, starts within 0.1 of 0 and moves by the action; it is paid -(x - 1)^2 for 4 steps.

    What a policy does is seen from where it ends up, and different policies earn differently.
    """

    default_params = WalkParams()

    def reset(self, key: Key, params: WalkParams) -> tuple[Any, jax.Array]:
        state = (jax.random.uniform(key, (1,), minval=-0.1, maxval=0.1), jnp.int32(0))
        return state, state[0]

    def step(self, key: Key, state: Any, action: jax.Array, params: WalkParams) -> tuple[Any, Timestep]:
        place, time = state[0] + action, state[1] + 1
        reward = -params.reward * jnp.square(place[0] - 1.0)
        return (place, time), Timestep(place, reward, time >= 4, jnp.bool_(False), place, {})

    def observation_space(self, params: WalkParams) -> Space:
        return Box(-5.0, 5.0, (1,))

    def action_space(self, params: WalkParams) -> Space:
        return Box(-1.0, 1.0, (1,))


@struct.dataclass
class ChainParams:
    """Traced: steps after which an episode is cut, and whether it starts anywhere instead of at 0."""

    max_steps: int | jax.Array = 1_000_000
    uniform_start: bool | jax.Array = False


class ChainEnv:
    """States 0, 1, 2, observed as themselves; left (0) and right (1); right from 2 earns 1 and terminates."""

    default_params = ChainParams()

    def reset(self, key: Key, params: ChainParams) -> tuple[ScriptState, jax.Array]:
        start = jnp.where(params.uniform_start, jax.random.randint(key, (), 0, 3), 0)
        return ScriptState(start, jnp.int32(0)), start

    def step(self, key: Key, state: ScriptState, action: jax.Array, params: ChainParams) -> tuple[Any, Timestep]:
        reached = (state.kind == 2) & (action == 1)
        place = jnp.clip(state.kind + 2 * action - 1, 0, 2)
        state = ScriptState(place, state.time + 1)
        cut = state.time >= params.max_steps
        return state, Timestep(place, reached.astype(jnp.float32), reached, cut & ~reached, place, {})

    def observation_space(self, params: ChainParams) -> Space:
        return Discrete(3)

    def action_space(self, params: ChainParams) -> Space:
        return Discrete(2)


def chain_values(gamma: float, alpha: float = 0.0, num_steps: int = 1) -> np.ndarray:
    """Q [3, 2] of the chain by value iteration; soft where alpha > 0, n-step under uniformly random actions."""
    q = np.zeros((3, 2))
    for _ in range(500):
        value = alpha * np.log(np.exp(q / alpha).sum(1)) if alpha else q.max(1)
        mean = value  # of the n-step return that begins at a state, n counting down
        for n in range(num_steps):
            step = np.array([[gamma * mean[max(s - 1, 0)], gamma * mean[s + 1] if s < 2 else 1.0] for s in range(3)])
            mean = step.mean(1)
            if n == num_steps - 1:
                q = step
    return q


class Interrupted(Exception):
    """What `interrupted` raises."""


@contextlib.contextmanager
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The run inside is stopped when its first chunk is done, as by a kill."""

    def interrupt(self: Progress, *args: Any) -> None:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "report", interrupt)
        with pytest.raises(Interrupted):
            yield
