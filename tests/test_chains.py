"""Delayed chains: what is observed and paid, by hand; the distribution over lifetimes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl.env_checks import check_environment
from jaxrl_envs.chains import VARIANTS, ChainParams, DelayedChain, chain, sample_chain


def play(env, params, actions, key):
    """Observations [T + 1], rewards [T] and terminations [T]."""
    state, obs = env.reset(key, params)

    def step(state, inputs):
        state, t = env.step(*inputs[:1], state, inputs[1], params)
        return state, (t.obs, t.reward, t.terminated)

    keys = jax.random.split(key, len(actions))
    _, (later, reward, terminated) = jax.lax.scan(step, state, (keys, actions))
    return jnp.concatenate([obs[None], later]), reward, terminated


play = jax.jit(play, static_argnums=0)


@pytest.mark.parametrize("name", ["chain_short", "chain_long_noisy", "chain_distractor"])
def test_chains_pass_check_environment(name):
    report = check_environment(jaxrl_envs.make(name), num_steps=120)
    assert report.num_terminated > 0
    assert report.num_truncated == 0


@pytest.mark.parametrize(("first", "pays"), [(1, -1.0), (0, 1.0)])
def test_only_the_first_action_counts(first, pays):
    env, params = DelayedChain(2, 4), ChainParams(jnp.int32(3), jnp.int32(0))
    obs, reward, terminated = play(env, params, jnp.array([first, 1, 0]), jax.random.key(0))
    np.testing.assert_array_equal(obs, [0, 4 * first + 1, 4 * first + 2, 4 * first + 3])
    np.testing.assert_array_equal(reward, [0.0, 0.0, pays])
    np.testing.assert_array_equal(terminated, [False, False, True])


def test_noise_is_fair_and_leaves_the_last_reward():
    env, params = VARIANTS["long_noisy"], ChainParams(jnp.int32(50), jnp.int32(1))
    keys = jax.random.split(jax.random.key(0), 100)
    _, reward, _ = jax.vmap(lambda key: play(env, params, jnp.ones(50, jnp.int32), key))(keys)
    assert set(np.unique(reward[:, :-1])) == {-1.0, 1.0}
    assert abs(float(reward[:, :-1].mean())) < 4 / np.sqrt(4900)
    np.testing.assert_array_equal(reward[:, -1], 1.0)


def test_distracting_bits_are_random_and_the_first_two_are_not():
    env, params = VARIANTS["distractor"], ChainParams(jnp.int32(30), jnp.int32(1))
    obs, _, _ = play(env, params, jnp.ones(30, jnp.int32).at[5].set(0), jax.random.key(0))
    assert obs.shape == (31, 22)
    np.testing.assert_array_equal(obs[:, 0], np.arange(31) == 0)
    np.testing.assert_array_equal(obs[:, 1], np.arange(31) > 0)
    assert abs(float(obs[:, 2:].mean()) - 0.5) < 4 * 0.5 / np.sqrt(620)
    assert len(np.unique(np.asarray(obs[:, 2:]), axis=0)) == 31


def test_lifetimes_are_uniform():
    draws = jax.jit(jax.vmap(lambda key: sample_chain(key, "short")))(jax.random.split(jax.random.key(0), 2600))
    counts = np.bincount(draws.length, minlength=31)
    assert counts[:5].sum() == 0
    assert len(counts) == 31
    assert np.abs(counts[5:] - 100).max() < 50  # five standard deviations
    assert abs(float(draws.correct.mean()) - 0.5) < 0.05


def test_levels_of_meta_training_are_lifetimes():
    env, keys = chain("short"), jax.random.split(jax.random.key(0), 200)
    ours = jax.vmap(env.sample_params)(keys)
    expected = jax.vmap(lambda key: sample_chain(key, "short"))(keys)
    np.testing.assert_array_equal(ours.length, expected.length)
    assert len(np.unique(ours.length)) > 10


def test_every_variant_has_a_name():
    assert {name: jaxrl_envs.make(f"chain_{name}") for name in VARIANTS} == VARIANTS


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="expected one of short, short_noisy"):
        chain("medium")
    with pytest.raises(ValueError, match="2 <= min_length <= max_length"):
        DelayedChain(5, 4)
