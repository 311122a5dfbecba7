"""Disco103 as the objective of an ordinary actor-critic: its network, its target network, what the loop tells it."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import TINY, ChainEnv, ScriptedEnv, ScriptParams, assert_trees_close, scripted_agent
from test_disco import SMALL, WEIGHTS, needs_weights

import jaxrl
from experiments.disco103 import make_trainer, mean_returns
from jaxrl.env import autoreset, vectorize
from jaxrl.loops.rollout import begin, rollout
from jaxrl.networks import ActionConditioned, Torso
from jaxrl.objectives.disco import disco_objective, init_disco, load_disco103
from jaxrl.ops.minibatch import direction
from jaxrl.presets import PPOConfig, PPOHparams, on_policy_agent, ppo
from jaxrl_envs.probes import truncation_probe

CONFIG = PPOConfig(
    **{**TINY, "num_epochs": 1, "num_minibatches": 1}, action_size=8, optimizer="adam_bounded", activation="relu"
)
HP = PPOHparams(learning_rate=1e-2, max_grad_norm=1e9)


def num_parameters(tree: Any) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def test_the_size_of_the_published_experiment() -> None:
    """94,607 parameters on Catch 5 x 5, heads of 600, 600 and 601: no value beside those of the actions."""
    env = jaxrl.make_env("Catch-bsuite", rows=5, columns=5)
    config = PPOConfig(hidden_sizes=(64, 64), action_size=32, torso="mlp")
    agent = on_policy_agent(env, config, HP, objective=disco_objective(None))  # its parameters do not matter here
    spaces = env.observation_space(env.default_params), env.action_space(env.default_params)
    state = jax.eval_shape(lambda key: agent.init(key, *spaces), jax.random.key(0))
    assert num_parameters(state.params) == num_parameters(state.target_params) == 94_607


def test_heads_per_action_are_one_recurrent_step_into_each_action() -> None:
    """Against the step written out for one observation and one action."""
    network = ActionConditioned(3, (("y", 4),), (("z", 5),), Torso((6,), "relu"), feature_size=7, action_size=2)
    x = jax.random.normal(jax.random.key(1), (2, 9))
    params, outputs = jax.jit(lambda key: (p := network.init(key, x), network.apply(p, x)))(jax.random.key(0))
    assert {name: out.shape for name, out in outputs.items()} == {"policy": (2, 3), "y": (2, 4), "z": (2, 3, 5)}
    weights = jax.tree.map(np.asarray, params["params"])

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return x @ weights[name]["kernel"] + weights[name]["bias"]

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    hidden = np.maximum(np.asarray(x[1]) @ weights["torso"]["Dense_0"]["kernel"], 0)
    features = dense("features", hidden)
    np.testing.assert_allclose(outputs["policy"][1], dense("head_policy", features), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(outputs["y"][1], dense("head_y", features), rtol=1e-4, atol=1e-6)
    cell = dense("root", features)
    i, g, f, o = np.split(dense("lstm", np.tanh(cell)) + np.eye(3)[2] @ weights["action_kernel"], 4)
    after = sigmoid(o) * np.tanh(sigmoid(f + 1) * cell + sigmoid(i) * np.tanh(g))
    z = dense("head_z", np.maximum(dense("hidden_z", after), 0))
    np.testing.assert_allclose(outputs["z"][1, 2], z, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def three_updates() -> list[Any]:
    """The agent before, and after each of three updates on the chain, and the metrics of the last; for two rules."""

    def algorithm(meta_params: Any) -> Any:
        return ppo(ChainEnv(), CONFIG, HP, objective=disco_objective(meta_params, SMALL))

    rules = jax.jit(jax.vmap(lambda key: init_disco(key, SMALL)))(jax.random.split(jax.random.key(7), 2))
    keys, metrics = jax.random.split(jax.random.key(0), 4), {}
    state = jax.jit(jax.vmap(lambda rule: algorithm(rule).init(keys[0])))(rules)
    step = jax.jit(jax.vmap(lambda rule, key, state, t: algorithm(rule).step(key, state, t), (0, None, 0, None)))
    agents = [state.agent]
    for t in range(3):
        state, metrics = step(rules, keys[t + 1], state, jnp.int32(t))
        agents.append(state.agent)
    return [*agents, metrics]


def test_the_target_network_follows(three_updates: list[Any]) -> None:
    """From the parameters that collected: it stands still for one update, then moves by a tenth of the way."""
    first, second, third, fourth, _ = three_updates
    assert_trees_close(first.target_params, first.params)
    assert_trees_close(second.target_params, first.params, atol=1e-7)
    for before, after in ((second, third), (third, fourth)):
        expected = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, before.target_params, before.params)
        assert_trees_close(after.target_params, expected, atol=1e-7)
    far = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), fourth.params, fourth.target_params)
    assert min(jax.tree.leaves(far)) > 1e-4


def test_the_rule_goes_on_from_update_to_update(three_updates: list[Any]) -> None:
    """One step of its recurrence and of its moments per update; and all of the agent learns, no further than it may."""
    hidden = [np.asarray(agent.objective.hidden) for agent in three_updates[:4]]
    assert not np.any(hidden[0])
    for before, after in zip(hidden, hidden[1:], strict=False):
        assert np.abs(after - before).min() > 1e-6
    decays = [float(agent.objective.advantage.decay_product[0]) for agent in three_updates[:4]]
    np.testing.assert_allclose(decays, 0.99 ** np.arange(4), rtol=1e-6)
    first, second = (three_updates[i].params for i in (0, 1))
    steps = jax.tree.leaves(jax.tree.map(lambda a, b: float(jnp.abs(b - a).max()), first, second))
    assert min(steps) > 1e-3
    assert max(steps) <= 1e-2 * (1 + 1e-4)
    metrics = three_updates[-1]
    assert {"loss/total", "loss/pi", "loss/y", "loss/z", "loss/aux_pi", "loss/q", "policy/entropy"} <= set(metrics)
    assert all(np.isfinite(metrics[name]).all() for name in metrics if not name.startswith("episode"))


def test_the_rule_decides_what_is_learnt(three_updates: list[Any]) -> None:
    """The same agent and experience, under two rules: one policy, then two."""
    first, second, *_ = (agent.params["params"]["head_policy"]["kernel"] for agent in three_updates[:4])
    np.testing.assert_allclose(first[0], first[1], atol=1e-7)
    assert np.abs(second[0] - second[1]).max() > 1e-3


def test_an_agent_may_ask_about_last_observations() -> None:
    """Each successor is what the episode ended in, terminated or cut; else terminated ones are not asked about."""
    envs = autoreset(vectorize(ScriptedEnv(), 12), None)

    def roll(key: jax.Array) -> Any:
        key_begin, key_roll = jax.random.split(key)
        agent = scripted_agent()._replace(reads_terminal=True)
        now = begin(key_begin, agent, envs, ScriptParams())
        return rollout(key_roll, agent, (), envs, ScriptParams(), now, 9)[1]

    whole = jax.jit(roll)(jax.random.key(0))
    assert np.any(whole.terminated & ~whole.truncated)
    np.testing.assert_allclose(whole.next_extras["value"], 100 * whole.obs[..., 0] + whole.obs[..., 1] + 1)
    np.testing.assert_array_equal(whole.next_extras["memory"], whole.extras["memory"] + 1)


def test_bounded_adam_moves_no_parameter_further_than_the_learning_rate() -> None:
    """Where a gradient jumps from next to nothing after 500 steps, Adam overshoots by 0.1 over the root of 0.0025."""
    small, large = jnp.array([1e-6, 1.0, -1e-6]), jnp.array([1.0, 1.0, -1.0])
    gradients = jnp.concatenate([jnp.broadcast_to(small, (500, 3)), large[None]])

    @functools.partial(jax.jit, static_argnums=0)
    def directions(tx: optax.GradientTransformation) -> jax.Array:
        def body(state: Any, gradient: jax.Array) -> Any:
            direction, state = tx.update(gradient, state)
            return state, direction

        return jax.lax.scan(body, tx.init(jnp.zeros(3)), gradients)[1]

    plain, bounded = directions(optax.scale_by_adam()), directions(direction("adam_bounded"))
    overshoot = 0.1 / np.sqrt(0.001 / (1 - 0.999**501))
    np.testing.assert_allclose(plain[-1], [overshoot, 1.0, -overshoot], rtol=1e-3)
    assert overshoot > 1.9
    np.testing.assert_allclose(bounded, np.clip(plain, -1.0, 1.0), rtol=1e-6)


def test_what_the_rule_does_not_fit_is_refused() -> None:
    objective = disco_objective(init_disco(jax.random.key(7), SMALL), SMALL)
    with pytest.raises(ValueError, match=r"needs a Discrete action space, got Box.*use an environment with discrete"):
        on_policy_agent(jaxrl.make_env("Pendulum-v1"), CONFIG, HP, objective=objective)
    with pytest.raises(ValueError, match=r"memory = 'gru': this objective has a target network.*use 'none'"):
        on_policy_agent(truncation_probe(), PPOConfig(memory="gru"), HP, objective=objective)
    with pytest.raises(ValueError, match=r"hidden_sizes = \(\)"):
        on_policy_agent(truncation_probe(), PPOConfig(hidden_sizes=()), HP, objective=objective)
    with pytest.raises(ValueError, match=r"action_size = 0: expected an integer >= 1"):
        PPOConfig(action_size=0)


@pytest.mark.parametrize("size", [5, 8])
def test_returns_of_catch(size: int) -> None:
    """Any policy that does not see the ball earns 2 / columns - 1; one that follows it, 1."""
    env, num = jaxrl.make_env("Catch-bsuite", rows=size, columns=size), 4096

    def episode(key: jax.Array, follow: jax.Array) -> tuple[jax.Array, jax.Array]:
        state, obs = env.reset(key, env.default_params)
        ends = []
        total = jnp.float32(0.0)
        for t in range(size - 1):
            seen, paddle = jnp.argmax(obs[t]), jnp.argmax(obs[-1])
            key_action, key_step = jax.random.split(jax.random.fold_in(key, t))
            action = jnp.where(follow, 1 + jnp.sign(seen - paddle), jax.random.randint(key_action, (), 0, 3))
            state, timestep = env.step(key_step, state, action, env.default_params)
            obs, total = timestep.obs, total + timestep.reward
            ends.append(timestep.terminated & ~timestep.truncated)
        return total, jnp.stack(ends)

    keys = jax.random.split(jax.random.key(size), num)
    returns, ends = jax.jit(jax.vmap(jax.vmap(episode, (0, None)), (None, 0)))(keys, jnp.array([False, True]))
    np.testing.assert_array_equal(ends[..., -1], True)
    assert not np.any(ends[..., :-1])
    mean, error = 2 / size - 1, 2 * np.sqrt((size - 1) / size**2 / num)
    assert float(returns[0].mean()) == pytest.approx(mean, abs=4 * error)
    assert float(returns[1].mean()) == 1.0


@pytest.mark.slow
@needs_weights
def test_the_published_rule_learns_catch_and_a_random_one_does_not() -> None:
    run = make_trainer(600)
    assert mean_returns(run(jax.random.key(0), load_disco103(WEIGHTS)))[-1] >= 0.95
    assert mean_returns(run(jax.random.key(0), init_disco(jax.random.key(1000))))[-1] < -0.4
