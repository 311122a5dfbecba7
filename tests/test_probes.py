"""Every probe's documented value, by numbers written out and by the Bellman equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl.env_checks import check_environment
from jaxrl_envs.probes import ProbeParams

GAMMA = 0.9
NAMES = [name for name in jaxrl_envs.list_envs() if name.startswith("probe_")]


@pytest.mark.parametrize("name", NAMES)
def test_every_probe_passes_check_environment(name):
    report = check_environment(jaxrl_envs.make(name), num_steps=30)
    assert (report.num_truncated > 0) == (name == "probe_truncation")
    assert (report.num_terminated > 0) == (name != "probe_truncation")


@pytest.mark.parametrize(
    ("name", "obs", "value"),
    [
        ("probe_constant", [0.0], 1.0),
        ("probe_observation", [-1.0], -1.0),
        ("probe_observation", [1.0], 1.0),
        ("probe_discount", [0.0], 0.9),
        ("probe_discount", [1.0], 1.0),
        ("probe_action", [0.0], 1.0),
        ("probe_contextual", [-1.0], 1.0),
        ("probe_truncation", [0.0], 10.0),
        ("probe_termination", [0.0], 4.0951),  # 1 + 0.9 + 0.81 + 0.729 + 0.6561
        ("probe_termination", [0.8], 1.0),
        ("probe_continuous", [0.0], 0.0),
        ("probe_memory", [1.0, 0.0], 0.59049),  # 0.9**5
        ("probe_memory", [0.0, 1.0], 1.0),
    ],
)
def test_documented_values(name, obs, value):
    probe = jaxrl_envs.make(name)
    np.testing.assert_allclose(probe.value(jnp.array(obs), GAMMA, probe.default_params), value, rtol=1e-5, atol=1e-6)


def best_action(name, state, params):
    if name == "probe_continuous":
        return jnp.array([params.target])
    right = (state.sign > 0) | (name == "probe_action")
    return right.astype(jnp.int32)


@pytest.mark.parametrize("params", [ProbeParams(), ProbeParams(reward=-2.5, num_steps=3, target=-0.25)])
@pytest.mark.parametrize("name", NAMES)
def test_values_solve_the_bellman_equation(name, params):
    """V(obs) = r + gamma (1 - terminated) V(final_obs) at the best action; truncation bootstraps."""
    probe = jaxrl_envs.make(name)

    def episode(key):
        state, obs = probe.reset(key, params)

        def step(carry, _):
            state, obs = carry
            next_state, t = probe.step(key, state, best_action(name, state, params), params)
            bootstrap = jnp.where(t.terminated, 0.0, probe.value(t.final_obs, GAMMA, params))
            error = t.reward + GAMMA * bootstrap - probe.value(obs, GAMMA, params)
            return (next_state, t.obs), (error, t.terminated | t.truncated)

        return jax.lax.scan(step, (state, obs), length=10)[1]

    errors, ends = jax.vmap(episode)(jax.random.split(jax.random.key(0), 8))
    first = np.cumsum(ends, 1) - ends == 0  # only the first episode: a raw environment goes on past its end
    assert ends.any(1).all()
    np.testing.assert_allclose(np.asarray(errors)[first], 0.0, atol=1e-5)


def test_rewards_of_single_actions():
    def reward(name, sign, action, time=0):
        probe = jaxrl_envs.make(name)
        state, _ = probe.reset(jax.random.key(0), probe.default_params)
        state = type(state)(jnp.int32(time), jnp.float32(sign))
        return float(probe.step(jax.random.key(0), state, jnp.asarray(action), probe.default_params)[1].reward)

    assert [reward("probe_action", 1, a) for a in (0, 1)] == [-1.0, 1.0]
    assert [reward("probe_contextual", s, a) for s in (-1, 1) for a in (0, 1)] == [1.0, -1.0, -1.0, 1.0]
    assert [reward("probe_memory", s, 1, time=5) for s in (-1, 1)] == [-1.0, 1.0]
    assert reward("probe_memory", 1, 1, time=4) == 0.0
    assert reward("probe_continuous", 1, [-0.5]) == -1.0


def test_the_cue_is_shown_once_and_is_fair():
    probe = jaxrl_envs.make("probe_memory")
    params = probe.default_params
    states, obs = jax.vmap(probe.reset, (0, None))(jax.random.split(jax.random.key(0), 200), params)
    assert set(np.unique(obs[:, 0])) == {-1.0, 1.0}
    assert 60 < int((obs[:, 0] > 0).sum()) < 140
    _, t = jax.vmap(probe.step, (None, 0, None, None))(jax.random.key(0), states, jnp.int32(0), params)
    assert not np.asarray(t.obs[:, 0]).any()


def test_params_are_traced():
    probe = jaxrl_envs.make("probe_termination")

    def length(num_steps):
        state, _ = probe.reset(jax.random.key(0), probe.default_params)
        params = ProbeParams(num_steps=num_steps)
        _, ends = jax.lax.scan(
            lambda state, _: (lambda s, t: (s, t.terminated))(*probe.step(jax.random.key(0), state, 0, params)),
            state,
            length=8,
        )
        return jnp.argmax(ends) + 1

    np.testing.assert_array_equal(jax.vmap(length)(jnp.array([1, 4, 7])), [1, 4, 7])


def test_unknown_names_and_arguments_are_refused():
    with pytest.raises(ValueError, match="probe_memory"):
        jaxrl_envs.make("probe_memroy")
    with pytest.raises(ValueError, match="unexpected keyword"):
        jaxrl_envs.make("probe_memory", length=3)
