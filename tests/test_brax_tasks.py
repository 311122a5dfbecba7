"""Brax's tasks of quality-diversity: descriptors of the right length, rewards within their bounds, feet that touch."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.adapters import BRAX_TASKS, make_env
from jaxrl.adapters.brax_tasks import TASKS, BraxTask

pytestmark = pytest.mark.thorough  # compilation takes most of a minute

SIZES = {
    "walker2d_uni": (18, 2), "halfcheetah_uni": (18, 2), "hopper_uni": (12, 1), "ant_uni": (28, 4),
    "humanoid_uni": (245, 2), "ant_omni": (30, 2), "anttrap_omni": (30, 2), "humanoid_omni": (247, 2),
    "hexapod_omni": (50, 2),
}  # fmt: skip


def test_every_task_has_a_name() -> None:
    assert set(BRAX_TASKS) == set(TASKS) == set(SIZES)


def test_bounds_are_the_published_ones() -> None:
    """Of the humanoid's two published bounds, 10 and 30, ours are those of its 1,000 steps."""
    reached = {name: (task.reach, task.num_steps) for name, task in TASKS.items() if not task.feet}
    assert reached == {
        "ant_omni": (30.0, 250), "anttrap_omni": (30.0, 250), "humanoid_omni": (10.0, 1000), "hexapod_omni": (2.0, 250),
    }  # fmt: skip


def test_who_runs_far_ends_at_the_border() -> None:
    """Positions are clipped, so that nobody leaves the descriptor's box."""
    env = make_env("brax/ant_omni")
    body = SimpleNamespace(x=SimpleNamespace(pos=jnp.array([[45.0, -31.0, 0.5]])))
    np.testing.assert_array_equal(env._see(SimpleNamespace(pipeline_state=body)), [30.0, -30.0])


def played(name: str, num_steps: int = 6) -> Any:
    """Observations, rewards and behaviours of a few steps, actions of 0.3; and the first observation."""
    env = make_env(f"brax/{name}")
    params = env.default_params

    def step(state: Any, key: Any) -> Any:
        action = jnp.full(env.action_space(params).shape, 0.3)
        after, timestep = env.step(key, state, action, params)
        return after, (timestep, env.behaviour(after, params), state.env_state.pipeline_state.x.pos[0, :2])

    state, obs = env.reset(jax.random.key(0), params)
    return obs, jax.lax.scan(step, state, jax.random.split(jax.random.key(1), num_steps))[1]


@pytest.mark.quick("ant_omni")
@pytest.mark.parametrize("name", TASKS)
def test_what_a_task_tells(name: str) -> None:
    env = make_env(f"brax/{name}")
    params = env.default_params
    size, num = SIZES[name]
    low, high = env.behaviour_bounds(params)
    assert len(low) == len(high) == num
    assert env.observation_space(params).shape == (size,)
    obs, (timestep, behaviour, position) = jax.jit(lambda: played(name))()
    settings = TASKS[name]
    assert obs.shape == (size,)
    np.testing.assert_allclose(timestep.obs[:, -1], 1 - np.arange(1, 7) / settings.num_steps, rtol=1e-6)
    assert behaviour.shape == (6, num)
    assert (timestep.reward >= 0).all()
    if settings.feet:
        assert set(np.unique(behaviour)) <= {0.0, 1.0}
    else:
        np.testing.assert_allclose(behaviour, position, atol=1e-6)  # before each action
    if settings.env == "ant" and not settings.feet:
        cost = 0.5 * 8 * 0.3**2  # and 1 for being healthy
        np.testing.assert_allclose(timestep.reward, 1.0 - cost + 3.03, atol=1e-5)
        np.testing.assert_allclose(timestep.obs[:-1, :2] * 30, position[1:], atol=1e-5)
    if settings.env == "hexapod":
        np.testing.assert_allclose(timestep.reward, 1.0 - 0.25 * 18 * 0.3**2 + 3.53, atol=1e-5)
        np.testing.assert_allclose(timestep.obs[:-1, :2] * 2, position[1:], atol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "seconds"), [("ant_uni", 5.0), ("hopper_uni", 0.5)])
def test_feet_touch_the_ground_after_a_while(name: str, seconds: float) -> None:
    """The ant settles on its four feet when it does nothing; a hopper that falls touches and leaves the ground."""
    env = make_env(f"brax/{name}")
    params = env.default_params

    def step(state: Any, key: Any) -> Any:
        after, _ = env.step(key, state, jnp.zeros(env.action_space(params).shape), params)
        return after, env.behaviour(after, params)

    num = int(seconds / float(env.brax.brax_env.dt))
    state, _ = env.reset(jax.random.key(0), params)
    seen = jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(jax.random.key(1), num))[1])(state)
    assert seen.max() == 1.0
    if name == "ant_uni":
        assert float(seen[-20:].mean()) > 0.9
        assert float(seen[0].mean()) < 1.0


@pytest.mark.thorough
def test_the_trap_stops_the_ant() -> None:
    """Thrown at the far wall of the U, at 11.5, its torso of radius 0.25 stops there; without the trap it flies on."""
    ends = {}
    for name in ("ant_omni", "anttrap_omni"):
        env = make_env(f"brax/{name}")
        params = env.default_params
        state, _ = env.reset(jax.random.key(0), params)
        body = env.brax.brax_env.pipeline_init(
            state.env_state.pipeline_state.q.at[:3].set(jnp.array([9.5, 0.0, 0.6])),
            state.env_state.pipeline_state.qd.at[0].set(8.0),
        )
        state = state.replace(env_state=state.env_state.replace(pipeline_state=body))

        def step(state: Any, key: Any, env: Any = env, params: Any = params) -> Any:
            after, _ = env.step(key, state, jnp.zeros(8), params)
            return after, after.env_state.pipeline_state.x.pos[0, 0]

        run = jax.jit(lambda s, step=step: jax.lax.scan(step, s, jax.random.split(jax.random.key(1), 25))[1])
        ends[name] = float(run(state).max())
    assert ends["ant_omni"] > 12.0
    assert 11.1 < ends["anttrap_omni"] < 11.4


def test_links_are_found_by_index_and_must_be_the_right_ones() -> None:
    env = make_env("brax/ant_uni")
    for feet, links in (((1, 3), ("", "")), ((2, 99), ("", ""))):
        with pytest.raises(ValueError, match="links"):
            BraxTask(env.brax, dataclasses.replace(env.settings, feet=feet, links=links))


@pytest.mark.thorough
def test_the_hexapod_stands_and_walks() -> None:
    """250 steps: without actions it stands where it was; three legs in turn, swung forward while lifted, carry it."""
    env = make_env("brax/hexapod_omni")
    params = env.default_params
    body = env.brax.brax_env
    assert (body.sys.act_size(), len(body.sys.link_names)) == (18, 1 + 3 * 6)
    phase, side = jnp.array([0.0, jnp.pi] * 3), jnp.array([1.0] * 3 + [-1.0] * 3)

    def gait(time: Any) -> Any:
        turn = jnp.pi * body.dt * time + phase
        coxa, femur = 0.9 * side * jnp.sin(turn), 0.9 * jnp.maximum(jnp.cos(turn), 0.0)
        return jnp.stack([coxa, femur, jnp.zeros(6)], 1).ravel()

    def walk(effort: Any) -> Any:
        def step(state: Any, time: Any) -> Any:
            state, timestep = env.step(jax.random.key(0), state, effort * gait(time), params)
            return state, (state.env_state.pipeline_state.x.pos[0], timestep.terminated)

        return jax.lax.scan(step, env.reset(jax.random.key(0), params)[0], jnp.arange(250))[1]

    place, ended = jax.jit(jax.vmap(walk))(jnp.array([0.0, 1.0]))
    assert not ended.any()
    np.testing.assert_allclose(place[0, -50:, 2], 0.105, atol=0.01)
    assert np.abs(place[0, :, :2]).max() < 0.01
    assert 0.3 < np.linalg.norm(place[1, -1, :2]) < 2.0
    with pytest.raises(ValueError, match="expected 'spring'"):
        make_env("brax/hexapod_omni", backend="positional")
