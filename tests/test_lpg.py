"""LPG's network and update, against naive loops and identities (numbers of the oracles: published or derived)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_close, assert_trees_equal

from jaxrl.agents.actor_critic import actor_critic
from jaxrl.objectives import a2c_objective
from jaxrl.objectives.lpg import LPGConfig, LPGInputs, LPGTargets, lpg_init, lpg_objective, lpg_targets
from jaxrl.ops.distributions import Categorical
from jaxrl.ops.returns import gae
from jaxrl.ops.statistics import standardize
from jaxrl.presets import PPOConfig, PPOHparams
from jaxrl.spaces import Box, Discrete, Indexed, MultiDiscrete
from jaxrl.types import Objective, Progress, Rollout

KEY = jax.random.key(0)
SMALL = LPGConfig(width=6, target_width=3, embedding_width=4)
T, B, A = 7, 3, 2
NOW = Progress(3, 10)


@dataclasses.dataclass
class Numbers:
    """What `lpg_objective` asks of hyperparameters."""

    gamma: Any = 0.9
    prediction_coef: Any = 0.5


def num_parameters(config: LPGConfig) -> int:
    shapes = jax.eval_shape(lambda key: lpg_init(key, config), KEY)
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))


def random_inputs(seed: int = 0, m: int = 3, ends: bool = True) -> LPGInputs:
    rng = np.random.default_rng(seed)

    def floats(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    terminated = rng.random((T, B)) < (0.2 if ends else 0.0)
    truncated = rng.random((T, B)) < (0.2 if ends else 0.0)
    y, y_next = jax.nn.softmax(floats(T, B, m)), jax.nn.softmax(floats(T, B, m))
    probability = jnp.asarray(rng.random((T, B)), jnp.float32)
    return LPGInputs(floats(T, B), jnp.asarray(terminated), jnp.asarray(truncated), probability, y, y_next)


def noisy(params: Any, seed: int = 5) -> Any:
    """Biases are 0 at first, which would hide their mistakes."""
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    return tree.unflatten([leaf + 0.3 * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves])


def columns(tree: Any, index: np.ndarray) -> Any:
    return jax.tree.map(lambda leaf: leaf[:, index], tree)


targets_of = jax.jit(lpg_targets, static_argnums=1)


def test_parameter_counts() -> None:
    assert num_parameters(LPGConfig()) == 203_946
    assert num_parameters(LPGConfig(time_features="paper")) == 205_482
    lpg2020 = LPGConfig(core="lstm", target_width=30, include_gamma=True)
    assert num_parameters(lpg2020) == 277_792
    assert num_parameters(dataclasses.replace(lpg2020, time_features="raw")) == 279_840


@pytest.mark.parametrize("core", ["gru", "lstm"])
def test_targets_against_a_naive_loop(core: str) -> None:
    """Worker by worker and step by step, from the last to the first, in NumPy."""
    config = dataclasses.replace(SMALL, core=core, include_gamma=True, time_features="paper")
    params, inputs = noisy(lpg_init(KEY, config)), random_inputs()
    p = jax.tree.map(np.asarray, params)["params"]

    def sigmoid(x: Any) -> Any:
        return 1 / (1 + np.exp(-x))

    def dense(name: str, x: Any) -> Any:
        return x @ p[name]["kernel"] + p[name]["bias"]

    def embed(y: Any) -> Any:
        return dense("embed_out", np.maximum(dense("embed_hidden", y), 0.0))

    def gru(h: Any, x: Any) -> tuple[Any, Any]:
        wr, wz, wn = np.split(p["core"]["input_kernel"], 3, 1)
        ur, uz, un = np.split(p["core"]["memory_kernel"], 3, 1)
        br, bz, bn = np.split(p["core"]["bias"], 3)
        r, z = sigmoid(x @ wr + h @ ur + br), sigmoid(x @ wz + h @ uz + bz)
        n = np.tanh(x @ wn + bn + r * (h @ un + p["core"]["candidate_bias"]))
        h = (1 - z) * n + z * h
        return h, h

    def lstm(state: Any, x: Any) -> tuple[Any, Any]:
        h, c = state[:6], state[6:]
        gates = [np.split(p["core"][name], 4, -1) for name in ("input_kernel", "memory_kernel", "bias")]
        i, f, g, o = (x @ w + h @ u + b for w, u, b in zip(*gates, strict=True))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        return np.concatenate([h, c]), h

    i = jax.tree.map(np.asarray, inputs)
    pi_hat, log_y = np.zeros((T, B)), np.zeros((T, B, 3))
    for b in range(B):
        memory = np.zeros(6 if core == "gru" else 12)
        for t in reversed(range(T)):
            if i.terminated[t, b] or i.truncated[t, b]:
                memory = np.zeros_like(memory)
            successor = 0.0 if i.terminated[t, b] else embed(i.next_prediction[t, b])[0]
            own = embed(i.prediction[t, b])[0]
            time = [NOW.update / NOW.num_updates, np.log(NOW.num_updates * T * B)]
            row = [i.reward[t, b], float(i.terminated[t, b]), i.probability[t, b], own, successor, 0.9, *time]
            memory, h = (gru if core == "gru" else lstm)(memory, np.array(row))
            pi_hat[t, b] = dense("head_policy", np.maximum(h, 0))[0]
            logits = dense("head_prediction", np.maximum(h, 0))
            log_y[t, b] = logits - np.log(np.exp(logits).sum())
    actual = targets_of(params, config, inputs, 0.9, NOW)
    np.testing.assert_allclose(actual[0], pi_hat, atol=2e-6)
    np.testing.assert_allclose(actual[1], log_y, atol=2e-6)


def test_all_zero_meta_parameters_say_nothing() -> None:
    zeros = jax.tree.map(jnp.zeros_like, lpg_init(KEY, SMALL))
    policy, log_prediction = targets_of(zeros, SMALL, random_inputs(), 0.9, NOW)
    np.testing.assert_array_equal(policy, 0.0)
    np.testing.assert_allclose(np.exp(log_prediction), 1 / 3, rtol=1e-6)


def test_time_aware_with_zero_time_rows_is_plain() -> None:
    params = noisy(lpg_init(KEY, SMALL))
    aware = dataclasses.replace(SMALL, time_features="paper")
    core = params["params"]["core"]
    padded = core | {"input_kernel": jnp.concatenate([core["input_kernel"], jnp.zeros((2, 18))])}
    aware_params = {"params": params["params"] | {"core": padded}}
    expected = targets_of(params, SMALL, random_inputs(), 0.9, NOW)
    for progress in (NOW, Progress(0, 250), Progress(99, 100)):
        actual = targets_of(aware_params, aware, random_inputs(), 0.9, progress)
        assert_trees_close(actual, expected, atol=1e-6)
    moved = jax.tree.map(lambda leaf: leaf + 0.1, aware_params)
    early, late = (targets_of(moved, aware, random_inputs(), 0.9, Progress(n, 100))[0] for n in (0, 99))
    assert np.abs(early - late).max() > 1e-3  # else the test above would show nothing


def test_raw_time_features_are_counters() -> None:
    params = noisy(lpg_init(KEY, dataclasses.replace(SMALL, time_features="raw")))
    raw = targets_of(params, dataclasses.replace(SMALL, time_features="raw"), random_inputs(), 0.9, Progress(3, 10))
    paper = dataclasses.replace(SMALL, time_features="paper")
    # n/N = 3 and log N = 10 are what the counters 3 and 10 look like.
    total = np.exp(10.0) / (T * B)
    same = targets_of(params, paper, random_inputs(), 0.9, Progress(3 * total, total))
    assert_trees_close(raw, same, atol=1e-5)


def test_targets_depend_on_the_future_of_the_same_episode_only() -> None:
    """The influence of r_t on step t' is not zero exactly where t' <= t and no end lies in [t', t)."""
    params, inputs = noisy(lpg_init(KEY, SMALL)), random_inputs(3)
    done = np.asarray(inputs.terminated | inputs.truncated)
    assert done.any()
    assert not done.all()

    def policy(reward: jax.Array) -> jax.Array:
        return targets_of(params, SMALL, inputs._replace(reward=reward), 0.9, NOW)[0]

    influence = np.asarray(jax.jit(jax.jacobian(policy))(inputs.reward))  # [T, B, T, B]
    for b in range(B):
        for earlier in range(T):
            for later in range(T):
                reaches = earlier <= later and not done[earlier:later, b].any()
                assert (influence[earlier, b, later, b] != 0.0) == reaches
            assert not influence[earlier, b, :, np.arange(B) != b].any()


def test_termination_hides_the_successor_and_truncation_shows_it() -> None:
    params, inputs = noisy(lpg_init(KEY, SMALL)), random_inputs(ends=False)
    flag = jnp.zeros((T, B), bool).at[2].set(True)
    other = inputs._replace(next_prediction=inputs.next_prediction[::-1])

    def change(**flags: jax.Array) -> np.ndarray:
        one, two = (targets_of(params, SMALL, i._replace(**flags), 0.9, NOW)[0][2] for i in (inputs, other))
        return np.abs(np.asarray(one - two))

    assert (change(terminated=flag) == 0.0).all()
    assert (change(truncated=flag) > 1e-4).all()


def test_workers_are_independent() -> None:
    params, inputs = noisy(lpg_init(KEY, SMALL)), random_inputs()
    whole = targets_of(params, SMALL, inputs, 0.9, NOW)
    order = np.array([2, 0, 1])
    permuted = targets_of(params, SMALL, columns(inputs, order), 0.9, NOW)
    assert_trees_close(permuted, columns(whole, order), atol=1e-6)
    for b in range(B):
        alone = np.array([b])
        one = targets_of(params, SMALL, columns(inputs, alone), 0.9, NOW)
        assert_trees_close(one, columns(whole, alone), atol=1e-6)


def test_the_loss_by_hand() -> None:
    """Two samples: -mean(pi_hat log pi) + 0.5 mean KL(y || y_hat), with the sign of the paper."""
    objective = lpg_objective({}, LPGConfig(target_width=2), Numbers())
    policy = Categorical(jnp.log(jnp.array([[0.25, 0.75], [0.5, 0.5]])))
    outputs = {"policy": policy, "prediction": jnp.log(jnp.array([[0.5, 0.5], [0.2, 0.8]]))}
    y_hat = jnp.log(jnp.array([[0.9, 0.1], [0.2, 0.8]]))
    targets = LPGTargets(jnp.array([1, 0]), jnp.array([2.0, -1.0]), y_hat)
    loss, metrics = objective.loss((), outputs, targets)
    policy_loss = -(2.0 * np.log(0.75) - np.log(0.5)) / 2
    divergence = (0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1)) / 2
    np.testing.assert_allclose(loss, policy_loss + 0.5 * divergence, rtol=1e-6)
    np.testing.assert_allclose(metrics["target/policy_square"], 2.5, rtol=1e-6)
    np.testing.assert_allclose(metrics["target/prediction_square"], (0.82 + 0.68) / 2, rtol=1e-6)


def test_where_prediction_and_target_agree_nothing_pulls() -> None:
    objective = lpg_objective({}, SMALL, Numbers())
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)

    def loss(logits_now: jax.Array) -> jax.Array:
        policy = Categorical(jnp.zeros((5, A)))
        targets = LPGTargets(jnp.zeros(5, jnp.int32), jnp.zeros(5), jax.nn.log_softmax(logits))
        return objective.loss((), {"policy": policy, "prediction": logits_now}, targets)[0]

    value, grad = jax.value_and_grad(loss)(logits)
    assert abs(value) < 1e-7
    assert np.abs(grad).max() < 1e-7


OBS_SPACE, ACTIONS = Indexed(5, 1), Discrete(A)
CONFIG = PPOConfig(
    total_steps=T * B, num_envs=B, num_steps=T, num_epochs=1, num_minibatches=1, torso="table", optimizer="sgd",
    hidden_sizes=(), anneal_learning_rate=False,
)  # fmt: skip
HP = PPOHparams(learning_rate=2.0, ent_coef=0.0, vf_coef=0.0, gamma=0.9, gae_lambda=0.8)


def collected(objective: Objective) -> tuple[Any, Any, Rollout]:
    """An agent with a table, its state, and a rollout whose extras are its own."""
    agent = actor_critic(objective, OBS_SPACE, ACTIONS, CONFIG, HP)
    state = agent.init(KEY, OBS_SPACE, ACTIONS)
    rng = np.random.default_rng(1)
    obs = jnp.asarray(np.stack([rng.integers(0, 5, (T, B)), rng.random((T, B))], -1), jnp.float32)

    def outputs(obs: jax.Array) -> Any:
        return jax.vmap(lambda o: agent.act(KEY, state, (), o, jnp.zeros(B, bool), True)[2])(obs)

    ends = jnp.asarray(rng.random((T, B)) < 0.2)
    action = jnp.asarray(rng.integers(0, A, (T, B)), jnp.int32)
    reward = jnp.asarray(rng.normal(size=(T, B)), jnp.float32)
    never = jnp.zeros((T, B), bool)
    return agent, state, Rollout(obs, action, reward, ends, never, never, outputs(obs), outputs(obs[::-1]), ())


def test_with_advantages_for_targets_an_update_is_one_of_a2c() -> None:
    """U replaced by normalised GAE, and no prediction: the same parameters as A2C without entropy bonus."""
    lpg = lpg_objective(lpg_init(KEY, SMALL), SMALL, Numbers(prediction_coef=0.0))

    def prepare(state: Any, outputs: Any, next_outputs: Any, rollout: Rollout, progress: Any) -> Any:
        flags = (rollout.terminated, rollout.truncated)
        advantage = gae(rollout.reward, *flags, outputs["value"], next_outputs["value"], HP.gamma, HP.gae_lambda)
        uniform = jnp.full((T, B, 3), -jnp.log(3.0))
        return LPGTargets(rollout.action, standardize(advantage), uniform), state

    agent, state, rollout = collected(lpg._replace(prepare=prepare))
    after, _ = jax.jit(agent.update)(KEY, state, rollout, NOW)
    a2c = a2c_objective(HP, "batch")._replace(heads=lpg.heads)
    expected, _ = jax.jit(collected(a2c)[0].update)(KEY, state, rollout, NOW)
    assert_trees_close(after.params, expected.params, atol=1e-6)
    assert_trees_equal(after.params["params"]["kernel"][:, A + 1 :], state.params["params"]["kernel"][:, A + 1 :])
    assert np.abs(after.params["params"]["kernel"] - state.params["params"]["kernel"]).max() > 0.05


def test_zero_meta_parameters_move_the_prediction_towards_uniform_and_leave_the_policy() -> None:
    zeros = jax.tree.map(jnp.zeros_like, lpg_init(KEY, SMALL))
    agent, state, rollout = collected(lpg_objective(zeros, SMALL, Numbers()))
    after, metrics = jax.jit(agent.update)(KEY, state, rollout, NOW)
    before, now = (s.params["params"]["kernel"] for s in (state, after))
    assert_trees_equal(now[:, : A + 1], before[:, : A + 1])
    again = jax.jit(agent.update)(KEY, after, rollout, NOW)[1]
    assert again["prediction/entropy"] > metrics["prediction/entropy"]


@pytest.mark.parametrize("space", [Box(-1.0, 1.0, (2,)), MultiDiscrete((2, 2))])
def test_other_actions_are_refused(space: Any) -> None:
    with pytest.raises(ValueError, match=r"LPG reads the probability of a discrete action.*lpo"):
        lpg_objective({}, SMALL, Numbers()).heads(space)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"core": "rnn"}, r"core = 'rnn': expected one of gru, lstm"),
        ({"time_features": "n"}, r"time_features = 'n': expected one of none, paper, raw"),
        ({"target_width": 1}, r"target_width = 1: expected an integer >= 2"),
    ],
)
def test_bad_configurations_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LPGConfig(**settings)
