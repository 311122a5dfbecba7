"""`mean_field` as an environment: the contract, and a continuous swarm of a few lines to try it on."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import jaxrl_envs
from jaxrl.env_checks import check_environment
from jaxrl.spaces import Box, Space
from jaxrl_envs.mean_field import tasks
from jaxrl_envs.mean_field.control import MeanFieldEnv, mean_field
from jaxrl_envs.mean_field.dynamics import exact, particles
from jaxrl_envs.mean_field.model import Swarm
from jaxrl_envs.mean_field.registry import make_mean_field


@struct.dataclass
class RingParams:
    speed: Any = 0.3
    max_steps: Any = 4


@dataclasses.dataclass(frozen=True)
class RingSwarm:
    """Agents on a ring and a height; each sees its height, moves along the ring, and is paid for order."""

    @property
    def default_params(self) -> RingParams:
        return RingParams()

    @property
    def periodic(self) -> tuple[bool, ...]:
        return (True, False)

    def state_space(self, params: Any) -> Space:
        return Box((0.0, -1.0), (2 * np.pi, 1.0), (2,))

    def observation_space(self, params: Any) -> Space:
        return Box(-1.0, 1.0, (1,))

    def action_space(self, params: Any) -> Space:
        return Box(-1.0, 1.0, (1,))

    def reset(self, key: Any, num_agents: int, params: Any) -> Swarm:
        unit = jax.random.uniform(key, (num_agents, 2))
        return Swarm(jnp.stack([2 * jnp.pi * unit[:, 0], 2 * unit[:, 1] - 1], -1), jnp.int32(0))

    def observe(self, key: Any, swarm: Swarm, params: Any) -> jax.Array:
        return swarm.x[:, 1:]

    def step(self, key: Any, swarm: Swarm, action: jax.Array, params: Any) -> Any:
        angle = swarm.x[:, 0]
        order = jnp.abs(jnp.exp(1j * angle).mean())
        moved = jnp.mod(angle + params.speed * action[:, 0] + 0.1 * jax.random.normal(key, angle.shape), 2 * jnp.pi)
        return Swarm(jnp.stack([moved, swarm.x[:, 1]], -1), swarm.time + 1), order, {"swarm/order": order}


NAMES = [name for name in jaxrl_envs.list_envs() if name.startswith("mean_field_")]


@pytest.mark.quick("mean_field_two_room", "mean_field_lq")
@pytest.mark.parametrize("name", NAMES)
def test_registered_tasks_pass_check_environment(name: str) -> None:
    env = jaxrl_envs.make(name, num_agents=12)
    params = env.default_params
    if params.max_steps > 21:  # of the tasks that move; those with known answers have their own
        params = params.replace(max_steps=10)
    report = check_environment(env, num_steps=45 if "lq" in name else 24, params=params)
    assert report.num_truncated > 0
    assert report.num_terminated == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: mean_field(RingSwarm(), dynamics=particles(9), observe_time="one_hot"),
        lambda: mean_field(RingSwarm(), dynamics=particles(1), fully_observed=True, observe_time="scalar"),
        lambda: make_mean_field("crowd_modelling", "exact"),
        lambda: make_mean_field("lq", "gaussian"),
    ],
)
def test_others_pass_check_environment(make: Any) -> None:
    check_environment(make(), num_steps=48)


def test_observations_and_actions_of_a_continuous_swarm() -> None:
    env = mean_field(RingSwarm(), dynamics=particles(20_000))
    params = env.default_params
    assert env.action_space(params).shape == (10,)  # 5 centres of heights, mean and deviation each
    assert not env.action_space(params).is_bounded
    state, obs = env.reset(jax.random.key(0), params)
    np.testing.assert_allclose(obs, np.ones(25), atol=0.15)  # uniform start
    xi = jnp.tile(jnp.array([20.0, -20.0]), 5)  # everybody forward, for certain
    after, timestep = env.step(jax.random.key(1), state, xi, params)
    moved = np.mod(np.asarray(after.field.x - state.field.x)[:, 0], 2 * np.pi)
    np.testing.assert_allclose(np.angle(np.exp(1j * moved).mean()), 0.3, atol=0.005)
    assert set(timestep.info) == {"rule/lipschitz", "swarm/order"}
    assert timestep.info["rule/lipschitz"] == 0.0
    np.testing.assert_allclose(timestep.reward, timestep.info["swarm/order"])


def test_lipschitz_bound_is_in_info() -> None:
    env = make_mean_field("two_room", num_agents=5)
    state, _ = env.reset(jax.random.key(0), env.default_params)
    xi = jnp.log(jnp.array([0.9, 0.1, 0.4, 0.6]))
    _, timestep = env.step(jax.random.key(0), state, xi, env.default_params)
    np.testing.assert_allclose(timestep.info["rule/lipschitz"], 0.5, rtol=1e-5)


def test_the_order_of_agents_changes_nothing() -> None:
    """O1: permuting agents permutes nothing that the upper level sees."""
    env = mean_field(RingSwarm(), dynamics=particles(30))
    params = env.default_params
    state, obs = env.reset(jax.random.key(0), params)
    shuffled = dataclasses.replace(
        state, field=state.field.replace(x=jax.random.permutation(jax.random.key(1), state.field.x))
    )
    np.testing.assert_allclose(env.observe(shuffled, params), obs, rtol=1e-5, atol=1e-6)


@pytest.mark.thorough
def test_time_and_how_episodes_end() -> None:
    plain, scalar = make_mean_field("two_room"), make_mean_field("two_room", observe_time="scalar")
    forced = mean_field(tasks.two_room(), terminal_on_horizon=True)
    one_hot = make_mean_field("two_room", "exact", observe_time="one_hot")
    for env, terminates in ((plain, False), (scalar, True), (forced, True), (one_hot, True)):
        params, key = env.default_params, jax.random.key(0)
        state, _ = env.reset(key, params)
        for t in range(10):
            state, timestep = jax.jit(env.step)(key, state, jnp.zeros(4), params)
            assert bool(timestep.terminated) == (terminates and t == 9)
            assert bool(timestep.truncated) == (not terminates and t == 9)
    np.testing.assert_allclose(timestep.obs[2:], np.eye(11)[10])
    _, obs = scalar.reset(key, scalar.default_params)
    assert obs[2] == 0.0
    assert plain.observation_space(plain.default_params).shape == (2,)


def test_exact_dynamics_are_the_limit_of_particles() -> None:
    xis = jax.random.normal(jax.random.key(0), (5, 4))

    def play(env: MeanFieldEnv, key: Any) -> jax.Array:
        def step(state: Any, inputs: Any) -> Any:
            state, timestep = env.step(inputs[1], state, inputs[0], env.default_params)
            return state, (timestep.obs, timestep.reward)

        keys = jax.random.split(key, 6)
        return jax.lax.scan(step, env.reset(keys[0], env.default_params)[0], (xis, keys[1:]))[1]

    env = make_mean_field("two_room")
    obs, reward = play(env.with_dynamics(exact()), jax.random.key(1))
    many_obs, many_reward = play(env.with_agents(100_000), jax.random.key(1))
    np.testing.assert_allclose(many_obs, obs, atol=0.02)
    np.testing.assert_allclose(many_reward, reward, atol=0.01)


def test_populations_of_two_sizes_share_their_noise() -> None:
    """What agents that both have see and do is the same, where agents do not interact."""
    small, large = (mean_field(RingSwarm(), dynamics=particles(num)) for num in (6, 50))
    params, xi = small.default_params, jax.random.normal(jax.random.key(2), (10,))
    states = [env.reset(jax.random.key(0), params)[0] for env in (small, large)]
    for t in range(3):
        key = jax.random.key(t)
        states = [env.step(key, s, xi, params)[0] for env, s in zip((small, large), states, strict=True)]
    np.testing.assert_allclose(states[0].field.x, states[1].field.x[:6], atol=1e-5)


def test_full_observation() -> None:
    env = make_mean_field("two_room", full=True)
    model = env.model
    assert env.fully_observed
    assert model.sizes == (2, 2, 2)
    seen = model.observe(jax.random.key(0), Swarm(jnp.array([0, 1, 1, 0]), jnp.int32(0)), model.params)
    np.testing.assert_array_equal(seen, [0, 1, 1, 0])
    ring = mean_field(RingSwarm(), fully_observed=True)
    assert ring.action_space(ring.default_params).shape == (50,)  # 5 x 5 centres
    lq = make_mean_field("lq", full=True)
    assert lq.default_params.obs_noise == 0.0


def test_memory_of_a_rollout_does_not_grow_with_the_number_of_steps_times_agents() -> None:
    """What a compiled rollout of 64 steps holds beside its swarm is features and rules: as much as of 8 steps."""
    from jaxrl.agents.policy import player
    from jaxrl.env import autoreset, vectorize
    from jaxrl.loops.rollout import begin, rollout

    def temporary_bytes(num_agents: int, num_steps: int) -> int:
        env = autoreset(vectorize(mean_field(RingSwarm(), dynamics=particles(num_agents)), 2))
        params = env.default_params
        agent = player(lambda state, obs: jnp.zeros((len(obs), 10)), lambda key: ())

        def run(key: Any) -> Any:
            return rollout(key, agent, (), env, params, begin(key, agent, env, params), num_steps)[1:]

        memory = jax.jit(run).lower(jax.random.key(0)).compile().memory_analysis()
        return memory.temp_size_in_bytes + memory.output_size_in_bytes

    short, long = temporary_bytes(4096, 8), temporary_bytes(4096, 64)
    one_swarm = 2 * 4096 * 2 * 4
    assert long - short < one_swarm  # 56 further steps of states would be 56 of these


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_mean_field("three_room"), "expected one of two_room"),
        (lambda: make_mean_field("two_room", "grid"), "particles, exact, gaussian"),
        (lambda: make_mean_field("two_room", "gaussian"), "linear model"),
        (lambda: make_mean_field("lq", "exact"), "TabularModel"),
        (lambda: jaxrl_envs.make("mean_field_lq", num_agents=0), "num_agents >= 1"),
    ],
)
def test_mistakes_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
