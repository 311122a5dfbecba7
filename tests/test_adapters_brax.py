"""The Brax adapter. CPU backends compile slowly: four environments here, all of them under `slow`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.adapters import BRAX_ENVS, make_env
from jaxrl.adapters.brax import BraxEnvironment, BraxParams, _scaled
from jaxrl.env_checks import check_environment
from jaxrl.spaces import Box

QUICKEST = [
    ("fast", None),
    ("inverted_pendulum", "spring"),
    ("inverted_double_pendulum", "spring"),
    ("reacher", "spring"),
]


@pytest.mark.quick("fast", "inverted_pendulum")
@pytest.mark.parametrize(("name", "backend"), QUICKEST)
def test_brax_environments_pass_check_environment(name, backend):
    env = make_env(f"brax/{name}", **({"backend": backend} if backend else {}))
    report = check_environment(env, num_steps=200, num_envs=2, num_eager_steps=0)
    assert (report.num_terminated > 0) == ("pendulum" in name)


@pytest.mark.slow
@pytest.mark.parametrize("name", BRAX_ENVS)
def test_all_brax_environments_pass_check_environment(name):
    check_environment(make_env(f"brax/{name}"), num_steps=10, num_envs=2, num_eager_steps=0)


def test_the_table_equals_brax_s_registry():
    import brax.envs

    assert sorted(BRAX_ENVS) == sorted(brax.envs._envs)


def test_transitions_are_brax_s_own():
    import brax.envs

    raw, env = brax.envs.get_environment("fast"), make_env("brax/fast")
    key, action = jax.random.key(0), jnp.array([0.5])
    expected = raw.reset(jax.random.key_data(key))
    state, obs = env.reset(key, env.default_params)
    np.testing.assert_array_equal(obs, expected.obs)
    for _ in range(4):
        expected = raw.step(expected, action)
        state, t = env.step(key, state, action, env.default_params)
        np.testing.assert_array_equal(t.obs, expected.obs)
        assert t.reward == expected.reward
        assert bool(t.terminated) == bool(expected.done)


def test_episodes_are_truncated_not_terminated():
    env = make_env("brax/fast", episode_length=3)
    state, _ = env.reset(jax.random.key(0), env.default_params)
    step = lambda state, _: env.step(jax.random.key(0), state, jnp.ones(1), env.default_params)  # noqa: E731
    _, t = jax.lax.scan(step, state, length=4)
    np.testing.assert_array_equal(t.truncated, [False, False, True, True])
    assert not t.terminated.any()
    assert make_env("brax/fast").max_steps == 1000


def test_spaces():
    env = make_env("brax/inverted_pendulum")
    assert env.observation_space(env.default_params) == Box(-np.inf, np.inf, (4,))
    assert env.action_space(env.default_params) == Box(-1, 1, (1,))


def test_params_scale_the_physics():
    system = make_env("brax/inverted_pendulum").brax_env.sys
    scaled = _scaled(system, BraxParams(gravity=2.0, gear=0.5, friction=3.0))
    np.testing.assert_allclose(scaled.gravity, [0, 0, 2 * -9.81], rtol=1e-6)
    np.testing.assert_allclose(scaled.opt.gravity, [0, 0, 2 * -9.81], rtol=1e-6)
    np.testing.assert_allclose(scaled.actuator.gear, 0.5 * system.actuator.gear)
    np.testing.assert_allclose(scaled.actuator_gear, 0.5 * system.actuator_gear)
    np.testing.assert_allclose(scaled.geom_friction, 3.0 * system.geom_friction)
    assert np.asarray(system.actuator.gear).all()


@pytest.mark.thorough
@pytest.mark.parametrize("backend", ["generalized", pytest.param("positional", marks=pytest.mark.slow), "mjx"])
def test_params_may_be_vmapped_on_every_backend(backend):
    env = make_env("brax/inverted_pendulum", backend=backend)

    def step(params):
        state, _ = env.reset(jax.random.key(0), params)
        return env.step(jax.random.key(0), state, jnp.zeros(1), params)[1]

    batch = jax.tree.map(lambda factor: factor * jnp.array([0.5, 1.0, 2.0]), env.default_params)
    assert jax.eval_shape(jax.vmap(step), batch).obs.shape == (3, 4)


@pytest.mark.slow
def test_more_gravity_makes_the_pole_fall_faster():
    env = make_env("brax/inverted_pendulum", backend="spring")

    def fall(gravity):
        params = BraxParams(gravity=gravity)
        state, _ = env.reset(jax.random.key(1), params)
        step = lambda state, _: env.step(jax.random.key(0), state, jnp.zeros(1), params)  # noqa: E731
        speed = jax.lax.scan(step, state, length=25)[1].obs[:, 3]
        return jnp.abs(speed[-1] - speed[0])

    gained = jax.jit(jax.vmap(fall))(jnp.array([0.0, 1.0, 2.0]))
    assert gained[0] < 0.1 * gained[1] < 0.1 * gained[2]


class Reporting:
    """A Brax environment whose step adds entries to both dictionaries, and changes a dtype."""

    action_size = 1

    def reset(self, rng):
        from brax.envs import State

        del rng
        zero = jnp.zeros(())
        return State(None, jnp.zeros(2), zero, zero, {"distance": 0}, {"seen": zero})

    def step(self, state, action):
        state.metrics.update(distance=action[0], speed=action[0])
        state.info["late"] = action
        return state.replace(obs=state.obs + action, reward=1, done=action[0] > 0.5)


def test_dictionaries_that_grow_keep_their_structure_and_their_owner():
    env = BraxEnvironment(Reporting())
    state, _ = env.reset(jax.random.key(0), env.default_params)
    next_state, t = env.step(jax.random.key(0), state, jnp.ones(1), env.default_params)
    assert set(state.metrics) == set(next_state.metrics) == {"distance"}
    assert set(state.info) == set(next_state.info) == {"seen"}
    assert all(a.dtype == b.dtype for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(next_state), strict=True))
    assert t.reward.dtype == jnp.float32
    assert t.terminated.dtype == jnp.bool_
    assert bool(t.terminated)
    check_environment(env, num_steps=8, num_envs=2)


def test_the_swimmer_can_step_again():
    """jax 0.10 removed the argument of `clip` that Brax 0.14.2 uses in fluids."""
    env = make_env("brax/swimmer")
    state, _ = jax.eval_shape(env.reset, jax.random.key(0), env.default_params)
    action = jax.ShapeDtypeStruct((2,), jnp.float32)
    _, t = jax.eval_shape(env.step, jax.random.key(0), state, action, env.default_params)
    assert t.obs.shape == (8,)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"backend": "mujoco"}, "backend to be one of generalized, positional, spring, mjx, got 'mujoco'"),
        ({"episode_length": 0}, "max_steps >= 1"),
        ({"gravity": 2.0}, "takes the arguments .*backend.* got gravity"),
    ],
)
def test_mistakes_name_the_fix(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_env("brax/ant", **kwargs)
