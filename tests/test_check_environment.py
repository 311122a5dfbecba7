"""`check_environment` catches each way of breaking the contract, and says which."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxrl.env import time_limit, vectorize
from jaxrl.env_checks import check_environment
from jaxrl.spaces import Box, Discrete, Indexed
from jaxrl.types import Timestep


@struct.dataclass
class Params:
    length: int = 4
    scale: float = 1.0


@struct.dataclass
class State:
    position: jax.Array
    time: jax.Array


class Good:
    """A noisy walk that terminates after `length` steps: nothing is wrong with it."""

    default_params = Params()

    def reset(self, key, params):
        del params
        state = State(jax.random.uniform(key), jnp.int32(0))
        return state, self.observe(state)

    def step(self, key, state, action, params):
        noise = 0.1 * params.scale * jax.random.uniform(key)
        position = jnp.clip(state.position + noise * (2 * action - 1), 0.0, 1.0)
        state = State(position, state.time + 1)
        obs = self.observe(state)
        return state, Timestep(obs, position, state.time >= params.length, jnp.array(False), obs, {})

    def observation_space(self, params):
        del params
        return Box(0.0, 1.0, (1,))

    def action_space(self, params):
        del params
        return Discrete(2)

    def observe(self, state):
        return state.position[None]


def answer(**changes):
    """A Good whose step returns a Timestep with these fields changed by functions of the Timestep and its state."""

    class Broken(Good):
        def step(self, key, state, action, params):
            state, t = super().step(key, state, action, params)
            return state, t._replace(**{name: change(t, state) for name, change in changes.items()})

    return Broken()


def check(env, **kwargs):
    return check_environment(env, **({"num_steps": 12, "num_envs": 2} | kwargs))


def test_a_good_environment_passes_and_is_reported():
    report = check(Good(), num_envs=3)
    assert report.num_steps == 36
    assert report.num_terminated == 9  # length 4, three instances of 12 steps
    assert report.num_truncated == 0
    assert 0.0 <= report.min_reward < report.max_reward <= 1.0
    assert check(time_limit(Good(), 2)).num_truncated == 12


def test_other_keys_and_params_are_taken():
    report = check(Good(), key=jax.random.key(5), params=Params(length=2))
    assert report.num_terminated == 12


class NoParams(Good):
    default_params = ()

    def step(self, key, state, action, params):
        assert params == ()
        return super().step(key, state, action, Params())


def test_an_environment_may_have_no_params():
    assert check(NoParams()).num_terminated == 6


class NoReset:
    default_params = None
    step = observation_space = action_space = None


class Unhashable(Good):
    __hash__ = None

    def __eq__(self, other):
        return self is other


class ObjectParams(Good):
    default_params = Params(length="long")


class ForeignSpace(Good):
    def action_space(self, params):
        return (2,)


class ChangingSpace(Good):
    count = 1

    def action_space(self, params):
        self.count += 1
        return Discrete(self.count)


class SpaceOfParams(Good):
    def action_space(self, params):
        return Discrete(int(params.length))


class SpaceUnderTracing(Good):
    def observation_space(self, params):
        return Box(0.0, 1.0 if isinstance(params.scale, float) else 2.0, (1,))


class WrongShape(Good):
    def observe(self, state):
        return jnp.stack([state.position, state.position])


class WrongResetDtype(Good):
    def reset(self, key, params):
        state, obs = super().reset(key, params)
        return state, obs.astype(jnp.int32)


class DictObs(Good):
    def observe(self, state):
        return {"position": state.position}


class OtherOrder(Good):
    def reset(self, key, params):
        return super().reset(key, params)[::-1]


class FiveValues(Good):
    def step(self, key, state, action, params):
        state, t = super().step(key, state, action, params)
        return t.obs, state, t.reward, t.terminated, {}


class NotATimestep(Good):
    def step(self, key, state, action, params):
        state, t = super().step(key, state, action, params)
        return state, tuple(t)


class GrowingState(Good):
    def reset(self, key, params):
        state, obs = super().reset(key, params)
        return {"state": state}, obs

    def step(self, key, state, action, params):
        inner, t = super().step(key, state["state"], action, params)
        return {"state": inner, "last_action": action}, t


class StateDtype(Good):
    def reset(self, key, params):
        state, obs = super().reset(key, params)
        return dataclasses.replace(state, time=jnp.float32(0)), obs

    def step(self, key, state, action, params):
        state, t = super().step(key, state, action, params)
        return dataclasses.replace(state, time=state.time.astype(jnp.int32)), t


class KeyInState(Good):
    def reset(self, key, params):
        state, obs = super().reset(key, params)
        return (state, key), obs

    def step(self, key, state, action, params):
        inner, t = super().step(key, state[0], action, params)
        return (inner, key), t


class BranchesOnState(Good):
    def step(self, key, state, action, params):
        if state.position > 0.5:
            action = 1 - action
        return super().step(key, state, action, params)


class BranchesOnParams(Good):
    def step(self, key, state, action, params):
        if params.scale > 0.5:
            action = 1 - action
        return super().step(key, state, action, params)


class CannotVmap(Good):
    def step(self, key, state, action, params):
        state, t = super().step(key, state, action, params)
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return state, t._replace(reward=jax.pure_callback(lambda x: x, shape, t.reward))


class HostRandomness(Good):
    """Draws anew at every call, but inside compiled code."""

    def step(self, key, state, action, params):
        state, t = super().step(key, state, action, params)
        draw = on_host(lambda x: np.random.random(x.shape).astype(np.float32), t.reward)  # noqa: NPY002
        return state, t._replace(reward=draw)


class TraceTimeRandomness(Good):
    """Draws once per trace, and at every uncompiled call."""

    def step(self, key, state, action, params):
        state, t = super().step(key, state, action, params)
        return state, t._replace(reward=jnp.float32(np.random.random()))  # noqa: NPY002


class RandomReset(Good):
    def reset(self, key, params):
        state, _ = super().reset(key, params)
        state = dataclasses.replace(state, position=jnp.float32(np.random.random()))  # noqa: NPY002
        return state, self.observe(state)


def on_host(function, x):
    """Calls `function` with x of all instances at once, [B, …]."""
    return jax.pure_callback(function, jax.ShapeDtypeStruct((), jnp.float32), x, vmap_method="expand_dims")


def average(x):
    return np.full_like(x, np.mean(x))


@jax.custom_batching.custom_vmap
def halved_in_company(x):
    return x


@halved_in_company.def_vmap
def _(axis_size, in_batched, x):
    return x / 2, in_batched[0]


class ChangesItsArgument(Good):
    def reset(self, key, params):
        state, obs = super().reset(key, params)
        return {"state": state}, obs

    def step(self, key, state, action, params):
        state["state"], t = super().step(key, state["state"], action, params)
        return dict(state), t


class LeavesItsSpace(Good):
    def observe(self, state):
        return state.position[None] + jnp.float32(state.time)


class Tabular(Good):
    """Observes one of 20,000 states and the time; the last ones, from the second step on, by `error` too far."""

    def __init__(self, error=0.0):
        self.error = error

    def observation_space(self, params):
        del params
        return Indexed(20_000, 1)

    def observe(self, state):
        index = jnp.where(state.time == 0, 0.0, 19_999.0 + self.error)
        return jnp.stack([index, 1e4 * state.time])


class FirstObsOutside(Good):
    def reset(self, key, params):
        state, obs = super().reset(key, params)
        return state, obs - 2.0


BROKEN = {
    "no reset": (NoReset(), "without reset"),
    "vectorised": (vectorize(Good(), 2), "before `vectorize`"),
    "unhashable": (Unhashable(), "hashable environment"),
    "params that are no numbers": (ObjectParams(), "got str at .length"),
    "foreign space": (ForeignSpace(), "expected action_space to be a Discrete"),
    "changing space": (ChangingSpace(), "same spaces at every call"),
    "space computed from params": (SpaceOfParams(), "spaces are static"),
    "space that differs under tracing": (SpaceUnderTracing(), "same spaces under tracing"),
    "wrong observation shape": (WrongShape(), "obs of reset: expected shape (1,) and dtype float32, got (2,)"),
    "wrong observation dtype": (
        WrongResetDtype(),
        "obs of reset: expected shape (1,) and dtype float32, got (1,) and int",
    ),
    "step's observation differs": (answer(obs=lambda t, s: t.obs[0]), "obs of step: expected shape (1,)"),
    "final_obs differs in type": (answer(final_obs=lambda t, s: t.obs > 0), "final_obs of step: expected shape (1,)"),
    "observation in a dict": (DictObs(), "obs of reset: expected one array"),
    "obs before state": (OtherOrder(), "obs of reset: expected one array"),
    "old five values": (FiveValues(), "expected step to return (state, Timestep), got tuple"),
    "no Timestep": (NotATimestep(), "got (state, tuple)"),
    "integer reward": (
        answer(reward=lambda t, s: t.terminated.astype(int)),
        "reward: expected shape () and dtype float32",
    ),
    "reward vector": (answer(reward=lambda t, s: t.obs), "reward: expected shape ()"),
    "float flag": (answer(terminated=lambda t, s: t.terminated * 1.0), "terminated: expected shape () and dtype bool"),
    "flag vector": (answer(truncated=lambda t, s: t.obs > 2), "truncated: expected shape () and dtype bool"),
    "info that is no dict": (answer(info=lambda t, s: ()), "expected info to be a dict"),
    "state that grows": (GrowingState(), "one structure of the state"),
    "state that changes dtype": (
        StateDtype(),
        "state.time after step, as after reset: expected shape () and dtype float32",
    ),
    "key in the state": (KeyInState(), "no key in the state, got one at [1]"),
    "if on the state": (BranchesOnState(), "expected step to be traceable"),
    "if on a parameter": (BranchesOnParams(), "expected step to accept traced parameters"),
    "no vmap": (CannotVmap(), "expected step to be vmappable"),
    "host randomness": (HostRandomness(), "reward: expected the same numbers from the same key"),
    "randomness of the trace": (TraceTimeRandomness(), "reward of step: expected equal numbers with and without jit"),
    "randomness of reset's trace": (RandomReset(), "obs of reset: expected equal numbers with and without jit"),
    "instances that mix": (answer(reward=lambda t, s: on_host(average, t.reward)), "alone and under vmap"),
    "different under vmap": (answer(reward=lambda t, s: halved_in_company(t.reward)), "alone and under vmap"),
    "argument changed in place": (ChangesItsArgument(), "leave the state it is given alone"),
    "observation out of its space": (LeavesItsSpace(), "obs of step: expected elements of Box"),
    "NaN observation": (answer(obs=lambda t, s: t.obs / 0 * 0), "obs of step: expected elements of Box"),
    "index beyond the last": (Tabular(1.0), "obs of step: expected elements of Indexed(n=20000, num_features=1)"),
    "index that is no integer": (Tabular(-0.5), "got 19998.5 at entry (0,)"),
    "first observation out of its space": (FirstObsOutside(), "obs of reset: expected elements of Box"),
    "NaN reward at an end": (
        answer(reward=lambda t, s: jnp.where(t.terminated, jnp.nan, t.reward)),
        "reward: expected finite numbers, got nan at step 3",
    ),
    "resets itself": (
        answer(obs=lambda t, s: jnp.where(t.terminated, 0.0, t.obs)),
        "final_obs: expected the same as obs",
    ),
}


def test_tabular_observations_pass():
    assert check(Tabular()).num_steps > 0


def test_actions_are_no_indices():
    class ByIndex(Good):
        def action_space(self, params):
            return Indexed(3)

    with pytest.raises(ValueError, match="expected action_space to be a Discrete, MultiDiscrete or Box of"):
        check(ByIndex())


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_environment_is_caught(what):
    env, message = BROKEN[what]
    with pytest.raises(ValueError, match=re.escape(message)):
        check(env)


def test_instances_are_checked_without_uncompiled_steps_too():
    def by_place(x):
        return x + np.arange(x.size, dtype=np.float32).reshape(x.shape)

    with pytest.raises(ValueError, match="not to touch each other"):
        check(answer(reward=lambda t, s: on_host(by_place, t.reward)), num_eager_steps=0)


@pytest.mark.parametrize("wrong", [{"num_steps": 3}, {"num_envs": 1}, {"num_eager_steps": -1}])
def test_bad_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match="num_steps >= 4, num_envs >= 2"):
        check(Good(), **wrong)


def test_keys_that_vmap_changes_are_refused():
    with pytest.raises(ValueError, match="threefry2x32"):
        check(Good(), key=jax.random.key(0, impl="rbg"))
