"""`time_limit`, `vectorize` and `autoreset` against tables written by hand."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import jaxrl
from jaxrl.env import Environment, autoreset, frame_stack, time_limit, vectorize
from jaxrl.spaces import Box, Discrete
from jaxrl.types import Timestep


@struct.dataclass
class Params:
    length: int = 3


@struct.dataclass
class State:
    start: jax.Array
    time: jax.Array


class Counter:
    """obs = (a start drawn at the reset, steps since); reward = steps taken; terminates after `length` steps."""

    default_params = Params()

    def reset(self, key, params):
        del params
        state = State(jax.random.randint(key, (), 1, 1000), jnp.int32(0))
        return state, self._obs(state)

    def step(self, key, state, action, params):
        del key, action
        state = dataclasses.replace(state, time=state.time + 1)
        obs = self._obs(state)
        ended = state.time >= params.length
        return state, Timestep(
            obs, state.time.astype(jnp.float32), ended, jnp.array(False), obs, {"start": state.start}
        )

    def observation_space(self, params):
        del params
        return Box(0, 1000, (2,), jnp.int32)

    def action_space(self, params):
        del params
        return Discrete(2)

    def _obs(self, state):
        return jnp.stack([state.start, state.time])


ENV = Counter()
SEED = jax.random.key(0)


@functools.partial(jax.jit, static_argnums=(0, 1))
def run(env, num_steps, params, key=SEED):
    """Initial observation, final state and Timesteps with leaves [T, …]; actions are all 0."""
    key_reset, key_steps = jax.random.split(key)
    state, obs = env.reset(key_reset, params)
    action = jnp.zeros(obs.shape[:-1], jnp.int32)
    state, timesteps = jax.lax.scan(
        lambda state, key: env.step(key, state, action, params), state, jax.random.split(key_steps, num_steps)
    )
    return obs, state, timesteps


def test_the_wrappers_keep_the_protocol():
    assert isinstance(ENV, Environment)
    assert isinstance(time_limit(ENV, 3), Environment)
    assert isinstance(autoreset(vectorize(ENV, 2)), Environment)
    assert autoreset(vectorize(ENV, 2)).num_envs == 2


@pytest.mark.parametrize(
    ("length", "limit", "terminated", "truncated"),
    [
        (9, 3, [0, 0, 0, 0], [0, 0, 1, 1]),
        (2, 9, [0, 1, 1, 1], [0, 0, 0, 0]),
        (3, 3, [0, 0, 1, 1], [0, 0, 1, 1]),  # both flags on one step
        (9, 1, [0, 0, 0, 0], [1, 1, 1, 1]),
    ],
)
def test_time_limit_truncates_and_leaves_termination_alone(length, limit, terminated, truncated):
    obs, _, timesteps = run(time_limit(ENV, limit), 4, Params(length))
    np.testing.assert_array_equal(timesteps.terminated, np.array(terminated, bool))
    np.testing.assert_array_equal(timesteps.truncated, np.array(truncated, bool))
    np.testing.assert_array_equal(timesteps.obs[:, 1], [1, 2, 3, 4])
    np.testing.assert_array_equal(timesteps.final_obs, timesteps.obs)
    assert obs[1] == 0


def test_time_limit_may_be_traced():
    ends = jax.vmap(lambda limit: run(time_limit(ENV, limit), 4, Params(9))[2].truncated)(jnp.array([1, 3]))
    np.testing.assert_array_equal(ends, [[True, True, True, True], [False, False, True, True]])


def test_the_tighter_of_two_time_limits_wins():
    _, _, timesteps = run(time_limit(time_limit(ENV, 2), 3), 4, Params(9))
    np.testing.assert_array_equal(timesteps.truncated, [False, True, True, True])


def test_vectorize_equals_instances_stepped_alone():
    env, keys, params = vectorize(ENV, 3), jax.random.split(jax.random.key(1)), Params()
    state, obs = env.reset(keys[0], params)
    next_state, timestep = env.step(keys[1], state, jnp.zeros(3, jnp.int32), params)
    for i, (key_reset, key_step) in enumerate(
        zip(jax.random.split(keys[0], 3), jax.random.split(keys[1], 3), strict=True)
    ):
        state_alone, obs_alone = ENV.reset(key_reset, params)
        alone = ENV.step(key_step, state_alone, jnp.int32(0), params)
        np.testing.assert_array_equal(obs[i], obs_alone)
        jax.tree.map(
            lambda batched, one, i=i: np.testing.assert_array_equal(batched[i], one), (next_state, timestep), alone
        )
    assert len(set(np.asarray(obs[:, 0]))) == 3


def test_autoreset_follows_the_table():
    """Two instances of length 3, seven steps: each step's clock in obs and final_obs, its reward and flag."""
    obs, _, t = run(autoreset(vectorize(ENV, 2)), 7, Params(3))
    starts, final_starts = np.asarray(t.obs[..., 0]), np.asarray(t.final_obs[..., 0])
    for i in range(2):
        np.testing.assert_array_equal(t.final_obs[:, i, 1], [1, 2, 3, 1, 2, 3, 1])
        np.testing.assert_array_equal(t.obs[:, i, 1], [1, 2, 0, 1, 2, 0, 1])
        np.testing.assert_array_equal(t.reward[:, i], [1, 2, 3, 1, 2, 3, 1])
        np.testing.assert_array_equal(t.terminated[:, i], np.array([0, 0, 1, 0, 0, 1, 0], bool))
        np.testing.assert_array_equal(t.truncated[:, i], np.zeros(7, bool))
        # A start is kept until the episode ends, and `final_obs` still shows the old one.
        np.testing.assert_array_equal(final_starts[:3, i], np.repeat(obs[i, 0], 3))
        np.testing.assert_array_equal(final_starts[3:6, i], np.repeat(starts[2, i], 3))
        assert len({int(obs[i, 0]), starts[2, i], starts[5, i]}) == 3
        np.testing.assert_array_equal(t.info["start"][:, i], final_starts[:, i])
    assert starts[2, 0] != starts[2, 1]


def test_autoreset_resets_only_the_instance_that_ended():
    env = autoreset(vectorize(ENV, 2))
    state, _ = env.reset(jax.random.key(0), Params())
    ahead = dataclasses.replace(
        state, env_state=dataclasses.replace(state.env_state, time=jnp.array([2, 0], jnp.int32))
    )
    next_state, t = env.step(jax.random.key(1), ahead, jnp.zeros(2, jnp.int32), Params())
    np.testing.assert_array_equal(t.terminated, [True, False])
    np.testing.assert_array_equal(t.final_obs[:, 1], [3, 1])
    np.testing.assert_array_equal(next_state.env_state.time, [0, 1])
    assert t.obs[0, 0] == next_state.env_state.start[0] != state.env_state.start[0]
    assert t.obs[1, 0] == state.env_state.start[1]


def test_both_flags_reset_once():
    _, state, t = run(autoreset(vectorize(time_limit(ENV, 3), 1)), 4, Params(3))
    np.testing.assert_array_equal(t.terminated[:, 0], [False, False, True, False])
    np.testing.assert_array_equal(t.truncated[:, 0], [False, False, True, False])
    np.testing.assert_array_equal(t.obs[:, 0, 1], [1, 2, 0, 1])
    np.testing.assert_array_equal(t.final_obs[:, 0, 1], [1, 2, 3, 1])
    assert state.env_state.time[0] == 1  # the limit's own clock restarted too


def test_truncation_alone_resets():
    _, _, t = run(autoreset(vectorize(time_limit(ENV, 2), 1)), 4, Params(9))
    np.testing.assert_array_equal(t.truncated[:, 0], [False, True, False, True])
    np.testing.assert_array_equal(t.terminated[:, 0], np.zeros(4, bool))
    np.testing.assert_array_equal(t.obs[:, 0, 1], [1, 0, 1, 0])


def test_a_pool_supplies_the_first_states_until_it_is_refreshed():
    env, params = autoreset(vectorize(ENV, 4), pool=3), Params(2)
    _, state, t = run(env, 40, params)
    pool = set(np.asarray(state.pool[0].start).tolist())
    restarts = np.asarray(t.obs[1::2])
    assert set(restarts[..., 0].ravel().tolist()) == pool
    assert len(pool) == 3
    assert not restarts[..., 1].any()
    refreshed = env.refresh(jax.random.key(7), state, params)
    assert set(np.asarray(refreshed.pool[0].start).tolist()).isdisjoint(pool)
    jax.tree.map(np.testing.assert_array_equal, refreshed.env_state, state.env_state)


def test_without_a_pool_refresh_changes_nothing():
    env = autoreset(vectorize(ENV, 2))
    state, _ = env.reset(jax.random.key(0), Params())
    jax.tree.map(np.testing.assert_array_equal, env.refresh(jax.random.key(1), state, Params()), state)


def test_seeds_side_by_side_equal_seeds_alone():
    env, keys = autoreset(vectorize(ENV, 2), pool=2), jax.random.split(jax.random.key(3), 3)
    together = jax.vmap(lambda key: run(env, 5, Params(2), key))(keys)
    for i, key in enumerate(keys):
        alone = run(env, 5, Params(2), key)
        jax.tree.map(lambda batched, one, i=i: np.testing.assert_array_equal(batched[i], one), together, alone)


def test_params_are_traced_through_all_wrappers():
    env = autoreset(vectorize(ENV, 1))
    ends = jax.vmap(lambda length: run(env, 6, Params(length))[2].terminated[:, 0])(jnp.array([2, 3]))
    np.testing.assert_array_equal(ends, np.array([[0, 1, 0, 1, 0, 1], [0, 0, 1, 0, 0, 1]], bool))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: time_limit(ENV, 0), "max_steps >= 1, got 0"),
        (lambda: vectorize(ENV, 0), "num_envs >= 1, got 0"),
        (lambda: autoreset(ENV), "autoreset\\(vectorize"),
        (lambda: autoreset(vectorize(ENV, 2), pool=0), "pool >= 1 or None, got 0"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- frame_stack ---


def test_stacked_frames_by_hand():
    """Three frames of (start, time): the first stands thrice after a reset, and the last one comes last."""
    env = frame_stack(ENV, 3)
    state, obs = env.reset(SEED, Params())
    start = int(obs[0])
    np.testing.assert_array_equal(obs, [start, 0] * 3)
    for expected in ([0, 0, 1], [0, 1, 2], [1, 2, 3]):
        state, step = env.step(SEED, state, jnp.int32(0), Params())
        np.testing.assert_array_equal(step.obs, [x for time in expected for x in (start, time)])
        np.testing.assert_array_equal(step.final_obs, step.obs)
        assert step.obs.dtype == jnp.int32
    assert step.terminated
    assert step.reward == 3.0


def test_stacks_begin_anew_with_each_episode():
    """What followed the last step is kept before the reset; the new episode shows nothing of the old one."""
    env = autoreset(vectorize(frame_stack(ENV, 2), 4))
    state, obs = env.reset(SEED, Params())
    before = np.asarray(obs)
    for i in range(3):
        state, step = env.step(jax.random.key(i), state, jnp.zeros(4, jnp.int32), Params())
    np.testing.assert_array_equal(step.final_obs, np.stack([before[:, 0], [2] * 4, before[:, 0], [3] * 4], 1))
    obs = np.asarray(step.obs)
    np.testing.assert_array_equal(obs[:, [1, 3]], 0)
    np.testing.assert_array_equal(obs[:, 0], obs[:, 2])
    assert (obs[:, 0] != before[:, 0]).any()


def test_the_space_of_stacked_frames():
    class Images(Counter):
        def observation_space(self, params):
            return Box(np.zeros((3, 3, 2)), np.full((3, 3, 2), [1.0, 7.0]), (3, 3, 2))

    space = frame_stack(Images(), 2).observation_space(Params())
    assert space.shape == (3, 3, 4)
    np.testing.assert_array_equal(space.bounds()[1][0, 0], [1.0, 7.0, 1.0, 7.0])
    assert frame_stack(ENV, 2).observation_space(Params()) == Box(0, 1000, (4,), jnp.int32)
    assert frame_stack(ENV, 2).action_space(Params()) == ENV.action_space(Params())
    hash(space)


def test_stacked_frames_keep_the_contract():
    assert jaxrl.check_environment(frame_stack(ENV, 3), num_steps=12).num_terminated > 0


def test_what_cannot_be_stacked_says_so():
    class Index(Counter):
        def observation_space(self, params):
            return Discrete(3)

    with pytest.raises(ValueError, match="frame_stack needs num_frames >= 1, got 0"):
        frame_stack(ENV, 0)
    with pytest.raises(ValueError, match=r"frame_stack needs observations in a Box of at least one axis, got Discrete"):
        frame_stack(Index(), 2)
