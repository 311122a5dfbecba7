"""The DQN family against value iteration on a chain, and its parts against numbers worked out by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ChainEnv, ChainParams, chain_values

from jaxrl.agents.common import epsilon_at
from jaxrl.agents.q_learning import importance_weights
from jaxrl.algorithm import train
from jaxrl.presets import PRESETS, DQNConfig, DQNHparams, dqn
from jaxrl.spaces import Box
from jaxrl.types import Agent, Progress, Sample

GAMMA = 0.9
OPTIMAL = np.array([[0.729, 0.81], [0.729, 0.9], [0.81, 1.0]])
# One-hot observations and no hidden layer: a table. All actions are random, so that all are tried.
CONFIG = DQNConfig(
    total_steps=8 * 820,
    num_envs=8,
    num_gradient_steps=2,
    batch_size=64,
    buffer_size=4096,
    fill_steps=160,
    hidden_sizes=(),
    double=False,
    dueling=False,
    loss="huber",
)
HPARAMS = DQNHparams(learning_rate=0.03, gamma=GAMMA, tau=0.1, epsilon_end=1.0, v_min=0.0, v_max=1.2)


def test_value_iteration_gives_the_known_numbers() -> None:
    np.testing.assert_allclose(chain_values(GAMMA), OPTIMAL, atol=1e-9)
    soft = [[0.8155191, 0.8543668], [0.8155191, 0.9188571], [0.8543668, 1.0]]
    np.testing.assert_allclose(chain_values(GAMMA, alpha=0.1), soft, atol=1e-6)


def q_table(config: DQNConfig, params: Any) -> np.ndarray:
    """Q [3, 2] of a linear network, by hand: means over atoms or quantiles."""
    heads = jax.tree.map(np.asarray, params["params"])
    outputs = (heads["head_q"]["kernel"] + heads["head_q"]["bias"]).reshape(3, 2, -1)
    if config.dueling:
        value = heads["head_value"]["kernel"] + heads["head_value"]["bias"]
        outputs = value[:, None] + outputs - outputs.mean(1, keepdims=True)
    if config.distribution == "c51":
        probs = np.exp(outputs - outputs.max(-1, keepdims=True))
        return probs / probs.sum(-1, keepdims=True) @ np.linspace(0, 1.2, config.num_atoms)
    return outputs.mean(-1)


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "double, dueling": {"double": True, "dueling": True},
    "squared error, target copies": {"loss": "mse", "double": True, "target_period": 40, "tau": 1.0},
    "prioritised": {"prioritized": True, "double": True},
    "c51": {"distribution": "c51", "num_atoms": 13, "learning_rate": 0.1},
    "qr, dueling": {"distribution": "qr", "num_atoms": 5, "dueling": True},
    "three steps": {"num_step_returns": 3, "double": True},
}


def learn(settings: dict[str, Any], params: ChainParams) -> list[np.ndarray]:
    """Q tables after training, one for each of several parameters [N] of the chain."""
    static = {field.name for field in dataclasses.fields(CONFIG)}
    config = dataclasses.replace(CONFIG, **{k: v for k, v in settings.items() if k in static})
    hparams = HPARAMS.replace(**{k: v for k, v in settings.items() if k not in static})  # type: ignore[attr-defined]

    def run(key: jax.Array, params: ChainParams) -> Any:
        return train(key, dqn(ChainEnv(), config, hparams, params), config.num_updates)[0].agent.params

    num = len(params.max_steps)  # type: ignore[arg-type]
    learned = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), num), params)
    return [q_table(config, jax.tree.map(lambda leaf: leaf[i], learned)) for i in range(num)]  # noqa: B023


# From 0 without a limit; and cut every two steps, from anywhere: the values are the same, since a cut is no end.
BOTH = ChainParams(jnp.array([1_000_000, 2]), jnp.array([False, True]))


@pytest.mark.quick("plain", "c51")
@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "three steps"])
def test_the_chain_is_solved(name: str) -> None:
    whole, cut = learn(VARIANTS[name], BOTH)
    np.testing.assert_allclose(whole, OPTIMAL, atol=0.015)
    np.testing.assert_allclose(cut, OPTIMAL, atol=0.015)


def test_n_step_returns_have_the_fixed_point_of_their_own() -> None:
    """Three steps, of which the second and third are random: lower values than the best, and exactly these."""
    learned = learn(VARIANTS["three steps"], ChainParams(jnp.full(8, 1_000_000), jnp.zeros(8, bool)))
    expected = chain_values(GAMMA, num_steps=3)
    assert np.abs(expected - OPTIMAL).max() > 0.1
    np.testing.assert_allclose(np.mean(learned, 0), expected, atol=0.02)  # the returns are random: so is what is learnt


OBS_SPACE = Box(-1.0, 1.0, (2,))


def small_agent(**changes: Any) -> tuple[Agent, Any]:
    """An agent whose network is a matrix [2, 2] without bias that counts, and its state."""
    static = {field.name for field in dataclasses.fields(CONFIG)}
    config = dataclasses.replace(CONFIG, **{k: v for k, v in changes.items() if k in static})
    hparams = HPARAMS.replace(**{k: v for k, v in changes.items() if k not in static})  # type: ignore[attr-defined]
    env = ChainEnv()
    agent = PRESETS["dqn"].agent(_Boxed(env), config, hparams)
    return agent, agent.init(jax.random.key(0), OBS_SPACE, env.action_space(env.default_params))


class _Boxed:
    """The chain's actions, and observations of two numbers."""

    def __init__(self, env: ChainEnv) -> None:
        self.default_params, self.action_space = env.default_params, env.action_space

    def observation_space(self, params: Any) -> Box:
        return OBS_SPACE


def matrix(rows: list[list[float]]) -> Any:
    return {"params": {"head_q": {"kernel": jnp.array(rows), "bias": jnp.zeros(2)}}}


def sample(**changes: Any) -> Sample:
    """One transition from (1, 0) to (0, 1) by action 0, of reward 1 and discount .9."""
    default = Sample(
        obs=jnp.array([[1.0, 0.0]]),
        action=jnp.array([0]),
        reward=jnp.array([1.0]),
        discount=jnp.array([0.9]),
        final_obs=jnp.array([[0.0, 1.0]]),
        probability=jnp.ones(1),
        index=jnp.zeros(1, jnp.int32),
    )
    return default._replace(**changes)


@pytest.mark.parametrize(
    ("double", "discount", "error"),
    [
        # Online values of the successor: 1 and 2; the target network's: 5 and 3. Q(s, a) = -0.5.
        (True, 0.9, 1 + 0.9 * 3 + 0.5),
        (False, 0.9, 1 + 0.9 * 5 + 0.5),
        (True, 0.0, 1.5),
    ],
)
@pytest.mark.parametrize("loss", ["huber", "mse"])
def test_double_targets_by_hand(double: bool, discount: float, error: float, loss: str) -> None:
    agent, state = small_agent(double=double, loss=loss, learning_rate=0.0)
    state = state.replace(params=matrix([[-0.5, 7.0], [1.0, 2.0]]), target_params=matrix([[9.0, 9.0], [5.0, 3.0]]))
    _, metrics = agent.update(jax.random.key(0), state, sample(discount=jnp.array([discount])), Progress(0, 10))
    np.testing.assert_allclose(metrics["priority"], [error], rtol=1e-6)
    assert metrics["loss/q"] == pytest.approx(error - 0.5 if loss == "huber" else error**2 / 2, rel=1e-6)
    assert metrics["value/q"] == -0.5


def test_the_gradient_moves_only_what_was_done() -> None:
    """One step of Adam is a step of the learning rate, up for the action taken and nowhere else."""
    agent, state = small_agent(learning_rate=0.1)
    state = state.replace(params=matrix([[0.0, 0.0], [0.0, 0.0]]))
    new, _ = agent.update(jax.random.key(0), state, sample(), Progress(0, 10))
    np.testing.assert_allclose(new.params["params"]["head_q"]["kernel"], [[0.1, 0.0], [0.0, 0.0]], atol=1e-6)


def test_zero_learning_rate_changes_nothing() -> None:
    agent, state = small_agent(learning_rate=0.0, tau=0.5)
    new, _ = agent.update(jax.random.key(0), state, sample(), Progress(0, 10))
    for a, b in zip(jax.tree.leaves(new.params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("period", "moves"), [(1, [0, 1, 2, 3, 4, 5]), (3, [2, 5])])
@pytest.mark.parametrize("tau", [1.0, 0.25])
def test_the_target_moves_after_every_period(period: int, moves: list[int], tau: float) -> None:
    """By the share tau of the way; all the way, bit for bit, if that is 1."""
    agent, state = small_agent(target_period=period, tau=tau)
    # So large that `target + (params - target)` would round.
    state = state.replace(target_params=jax.tree.map(lambda leaf: leaf + 1e5, state.target_params))
    update = jax.jit(lambda state, i: agent.update(jax.random.key(0), state, sample(), Progress(i, 6))[0])
    for i in range(6):
        new = update(state, i)
        for old, now, online in zip(
            *map(jax.tree.leaves, (state.target_params, new.target_params, new.params)), strict=True
        ):
            if i not in moves:
                np.testing.assert_array_equal(now, old)
            elif tau == 1.0:
                np.testing.assert_array_equal(now, online)
            else:
                np.testing.assert_allclose(now, 0.75 * old + 0.25 * online, rtol=1e-5)
        state = new


def test_epsilon_by_hand() -> None:
    hp = DQNHparams(epsilon_start=1.0, epsilon_end=0.2, exploration_fraction=0.5)
    values = [float(epsilon_at(fraction, hp)) for fraction in (0.0, 0.25, 0.5, 0.9)]
    np.testing.assert_allclose(values, [1.0, 0.6, 0.2, 0.2], rtol=1e-6)
    at_once = hp.replace(exploration_fraction=0.0)  # type: ignore[attr-defined]
    assert float(epsilon_at(0.1, at_once)) == pytest.approx(0.2)


def test_epsilon_follows_the_progress_and_the_actions_follow_epsilon() -> None:
    agent, state = small_agent(epsilon_end=0.2, exploration_fraction=0.5)
    state = state.replace(params=matrix([[0.0, 1.0], [0.0, 1.0]]))
    obs, first = jnp.ones((20_000, 2)), jnp.zeros(20_000, bool)
    act = jax.jit(agent.act, static_argnums=5)
    explored, _, _ = act(jax.random.key(1), state, (), obs, first, True)
    assert np.mean(np.asarray(explored) == 0) == pytest.approx(0.5, abs=0.02)  # epsilon = 1: half of them
    state, metrics = agent.update(jax.random.key(0), state, sample(), Progress(1, 4))
    assert metrics["policy/epsilon"] == pytest.approx(0.6)
    explored, _, _ = act(jax.random.key(1), state, (), obs, first, True)
    assert np.mean(np.asarray(explored) == 0) == pytest.approx(0.3, abs=0.02)
    greedy, _, _ = act(jax.random.key(1), state, (), obs, first, False)
    assert np.all(np.asarray(greedy) == 1)


def test_importance_weights_by_hand() -> None:
    """Priorities 1, 2, 4, alpha .6 and beta .4: the largest weight is 1."""
    share = np.array([0.20776573, 0.31491396, 0.47732031])
    np.testing.assert_allclose(importance_weights(jnp.asarray(3 * share), 0.4), [1, 0.84674531, 0.71697762], rtol=1e-6)
    np.testing.assert_allclose(importance_weights(jnp.asarray(3 * share), 0.0), 1.0)


def test_the_weights_anneal_to_full_correction() -> None:
    """Two transitions with errors 1 and 3 (Huber 0.5 and 2.5), drawn in the ratio 1 to 4, at both ends of a run."""
    agent, state = small_agent(prioritized=True, priority_beta=0.5, learning_rate=0.0)
    state = state.replace(params=matrix([[0.0, 0.0], [0.0, 0.0]]))
    batch = sample(reward=jnp.array([1.0, 3.0]), discount=jnp.zeros(2), probability=jnp.array([0.4, 1.6]))
    batch = batch._replace(**{n: jnp.repeat(getattr(batch, n), 2, 0) for n in ("obs", "action", "final_obs")})
    _, first = agent.update(jax.random.key(0), state, batch, Progress(0, 4))
    assert first["loss/q"] == pytest.approx((0.5 + 2.5 * 0.5) / 2, rel=1e-6)
    _, last = agent.update(jax.random.key(0), state, batch, Progress(4, 4))
    assert last["loss/q"] == pytest.approx((0.5 + 2.5 * 0.25) / 2, rel=1e-6)
    np.testing.assert_allclose(first["priority"], [1.0, 3.0], rtol=1e-6)
