"""PQN: exploration, targets and the first step by hand; then the probes, whose action values are known exactly."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TINY, assert_trees_close, assert_trees_equal
from test_probes_learning import GAMMA, NAMES, Many, Which, known_values, observations

import jaxrl
from jaxrl.agents.common import epsilon_at, epsilon_greedy
from jaxrl.algorithm import train
from jaxrl.networks import Torso
from jaxrl.ops.statistics import RunningMoments
from jaxrl.presets import PRESETS, PQNConfig, PQNHparams, pqn, pqn_agent
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space
from jaxrl.types import Agent, Progress, Rollout
from jaxrl.value_networks import ActionValues

KEYS = jax.random.split(jax.random.key(0), 4)
OBS_SPACE = Box(-10.0, 10.0, (2,))
# The oracle's numbers, and unclipped gradients.
HP = PQNHparams(learning_rate=1e-2, gamma=0.9, q_lambda=0.5, max_grad_norm=1e6, reward_scale=1.0)


@dataclasses.dataclass(frozen=True)
class Blank:
    """Spaces only."""

    actions: Space = Discrete(3)
    default_params: Any = None

    def observation_space(self, params: Any) -> Box:
        return OBS_SPACE

    def action_space(self, params: Any) -> Space:
        return self.actions


def make(hp: PQNHparams = HP, num_envs: int = 1, num_steps: int = 3, **settings: Any) -> tuple[Agent, Any]:
    sizes = {"num_envs": num_envs, "num_steps": num_steps, "num_epochs": 1, "num_minibatches": 1}
    agent = pqn_agent(Blank(), PQNConfig(**{**TINY, **sizes, **settings}), hp)
    return agent, jax.jit(lambda key: agent.init(key, OBS_SPACE, Discrete(3)))(KEYS[0])


def experience(**changes: Any) -> Rollout:
    """Oracle 5 of the specification: three steps with rewards of 1 in one environment, each with another action."""
    no = jnp.zeros((3, 1), bool)
    rollout = Rollout(
        obs=jax.random.normal(KEYS[1], (3, 1, 2)),
        action=jnp.arange(3)[:, None],
        reward=jnp.ones((3, 1)),
        terminated=no,
        truncated=no,
        is_first=no,
        extras={"value": jnp.full((3, 1), jnp.nan)},  # of no use
        next_extras={"value": jnp.array([[2.0], [3.0], [4.0]])},
        memory=(),
    )
    return rollout._replace(**changes)


def update(agent: Agent, state: Any, rollout: Rollout, done: int = 0) -> tuple[Any, Any]:
    return jax.jit(lambda state, rollout: agent.update(KEYS[2], state, rollout, Progress(done, 10)))(state, rollout)


def head(state: Any) -> dict[str, jax.Array]:
    return state.params["params"]["head_q"]


AT_ONE = jnp.array([[False], [True], [False]])


@pytest.mark.parametrize(
    ("changes", "targets"),
    [
        ({}, [3.889, 4.42, 4.6]),
        ({"truncated": AT_ONE, "next_extras": {"value": jnp.array([[2.0], [5.0], [4.0]])}}, [4.375, 5.5, 4.6]),
        ({"terminated": AT_ONE, "next_extras": {"value": jnp.array([[2.0], [9.0], [4.0]])}}, [2.35, 1.0, 4.6]),
        # Both flags: termination wins.
        ({"terminated": AT_ONE, "truncated": AT_ONE}, [2.35, 1.0, 4.6]),
    ],
    ids=["running", "truncated", "terminated", "both"],
)
def test_targets_and_the_first_step_by_hand(changes: dict[str, Any], targets: list[float]) -> None:
    """With Q = 0, the gradient of the head's bias for action t is -G_t / 3; RAdam's first step is the gradient."""
    agent, state = make()
    silent = {**state.params["params"], "head_q": jax.tree.map(jnp.zeros_like, head(state))}
    state = state.replace(params={"params": silent})
    after, metrics = update(agent, state, experience(**changes))
    np.testing.assert_allclose(head(after)["bias"], 1e-2 * np.array(targets) / 3, rtol=1e-5)
    assert float(metrics["loss/value"]) == pytest.approx(0.5 * np.mean(np.square(targets)), rel=1e-5)
    assert metrics["value/mean"] == 0.0


def test_only_the_value_of_the_action_taken_is_moved() -> None:
    agent, state = make()
    after, _ = update(agent, state, experience(action=jnp.ones((3, 1), jnp.int32)))
    moved = np.abs(np.asarray(head(after)["bias"] - head(state)["bias"])) > 0
    np.testing.assert_array_equal(moved, [False, True, False])


def test_gradients_are_clipped_by_their_global_norm() -> None:
    """RAdam's first step is as long as the clipped gradient."""
    agent, state = make(HP.replace(max_grad_norm=0.5))
    after, metrics = update(agent, state, experience())
    assert metrics["grad_norm"] > 1.0
    moved = [np.asarray(a - b) for a, b in zip(*map(jax.tree.leaves, (after.params, state.params)), strict=True)]
    assert np.sqrt(sum((leaf**2).sum() for leaf in moved)) == pytest.approx(1e-2 * 0.5, rel=1e-3)


@pytest.mark.parametrize(("anneal", "share"), [(True, 0.2), (False, 1.0)])
def test_the_learning_rate_falls_linearly(anneal: bool, share: float) -> None:
    agent, state = make(anneal_learning_rate=anneal)
    early, late = (update(agent, state, experience(), done)[0] for done in (0, 8))
    moves = [jax.tree.map(lambda a, b: np.asarray(a - b), after.params, state.params) for after in (early, late)]
    assert_trees_close(moves[1], jax.tree.map(lambda leaf: share * leaf, moves[0]), atol=1e-7, rtol=1e-3)


def test_rewards_are_multiplied_by_their_scale() -> None:
    scaled, state = make(HP.replace(reward_scale=0.1))
    plain, _ = make()
    expected, _ = update(plain, state, experience(reward=jnp.full((3, 1), 0.1)))
    assert_trees_close(update(scaled, state, experience())[0].params, expected.params, atol=1e-7)
    assert np.abs(head(update(plain, state, experience())[0])["bias"] - head(expected)["bias"]).max() > 1e-3


def test_statistics_belong_to_the_agent_and_count_from_the_next_update_on() -> None:
    agent, state = make(normalize_obs=True, normalize_reward=True)
    plain, _ = make()
    moments = RunningMoments(jnp.array([1.0, -1.0]), jnp.array([4.0, 0.25]), jnp.float32(1e6))
    state = state.replace(obs_moments=moments)
    rollout = experience(reward=jnp.array([[1.0], [2.0], [3.0]]))
    after, _ = update(agent, state, rollout)
    returns = np.array([1.0, 2.9, 5.61])  # discounted, so far
    standard = rollout._replace(
        obs=(rollout.obs - moments.mean) / jnp.array([2.0, 0.5]), reward=rollout.reward / returns.std()
    )
    expected, _ = update(plain, state.replace(obs_moments=(), reward_scaler=()), standard)
    assert_trees_close(after.params, expected.params, atol=1e-5)
    assert float(after.obs_moments.count) == pytest.approx(1e6 + 3)
    np.testing.assert_allclose(after.reward_scaler.returns, returns[-1:], rtol=1e-5)


def test_epsilon_by_hand() -> None:
    hp = HP.replace(epsilon_start=1.0, epsilon_end=0.1, exploration_fraction=0.5)
    table = {0.0: 1.0, 0.1: 0.82, 0.25: 0.55, 0.4: 0.28, 0.5: 0.1, 0.7: 0.1, 1.0: 0.1}
    for fraction, epsilon in table.items():
        assert float(epsilon_at(fraction, hp)) == pytest.approx(epsilon, abs=1e-6)
    at_once = hp.replace(exploration_fraction=0.0)
    assert [float(epsilon_at(f, at_once)) for f in (0.0, 0.1, 1.0)] == pytest.approx([1.0, 0.1, 0.1])
    rising = hp.replace(epsilon_start=0.0, epsilon_end=0.5)
    assert float(epsilon_at(0.25, rising)) == pytest.approx(0.25)


def test_each_update_sets_the_epsilon_of_the_next_rollout() -> None:
    agent, state = make(HP.replace(epsilon_start=1.0, epsilon_end=0.1, exploration_fraction=0.5))
    assert state.epsilon == 1.0
    for done, before, after in ((0, 1.0, 0.82), (1, 0.82, 0.64), (4, 0.28, 0.1), (9, 0.1, 0.1)):
        state, metrics = update(agent, state, experience(), done)
        if done < 2:  # the states between are skipped
            assert metrics["policy/epsilon"] == pytest.approx(before)
        assert state.epsilon == pytest.approx(after)


def test_epsilon_greedy_is_greedy_as_often_as_it_should() -> None:
    """Four actions, epsilon 0.4: the best has probability 0.6 + 0.1, each other 0.1."""
    q = jnp.broadcast_to(jnp.array([0.0, 2.0, -1.0, 1.0]), (40_000, 4))
    actions = epsilon_greedy(KEYS[0], q, 0.4)
    assert actions.dtype == jnp.int32
    np.testing.assert_allclose(np.bincount(actions, minlength=4) / 40_000, [0.1, 0.7, 0.1, 0.1], atol=0.012)
    np.testing.assert_array_equal(epsilon_greedy(KEYS[0], q, 0.0), 1)
    uniform = np.bincount(epsilon_greedy(KEYS[0], q, 1.0), minlength=4) / 40_000
    np.testing.assert_allclose(uniform, 0.25, atol=0.012)
    mixed = np.asarray(epsilon_greedy(KEYS[0], q, jnp.arange(40_000) % 2))  # one epsilon per element
    np.testing.assert_array_equal(mixed[::2], 1)
    assert (mixed[1::2] == 1).mean() == pytest.approx(0.25, abs=0.012)


def test_random_actions_do_not_depend_on_the_coin() -> None:
    """A small epsilon keeps all actions possible, and one key per call gives other actions."""
    q = jnp.zeros((40_000, 5)).at[:, 4].set(1.0)
    actions = np.asarray(epsilon_greedy(KEYS[0], q, 0.05))
    share = np.bincount(actions[actions < 4], minlength=4) / 40_000
    np.testing.assert_allclose(share, 0.01, atol=0.003)
    assert (actions != np.asarray(epsilon_greedy(KEYS[1], q, 0.05))).any()
    assert epsilon_greedy(KEYS[0], jnp.array([1.0, 3.0, 3.0]), 0.0) == 1  # ties: the lowest index


def test_acting_greedily_and_exploring() -> None:
    agent, state = make()
    network = ActionValues(3, 1, Torso((8, 8), "relu", layer_norm=True))
    obs = 10 * jax.random.normal(KEYS[1], (50, 2))
    q = np.asarray(network.apply(state.params, obs))[..., 0]
    never = jnp.zeros(50, bool)
    greedy, memory, extras = agent.act(KEYS[2], state.replace(epsilon=jnp.float32(1.0)), (), obs, never, False)
    np.testing.assert_array_equal(greedy, q.argmax(-1))
    np.testing.assert_allclose(extras["value"], q.max(-1), rtol=1e-5)
    assert memory == ()
    exploring, _, extras = agent.act(KEYS[2], state.replace(epsilon=jnp.float32(1.0)), (), obs, never, True)
    assert (np.asarray(exploring) != q.argmax(-1)).sum() > 20
    np.testing.assert_allclose(extras["value"], q.max(-1), rtol=1e-5)  # of the best action, not of the one taken
    settled, _, _ = agent.act(KEYS[2], state.replace(epsilon=jnp.float32(0.0)), (), obs, never, True)
    np.testing.assert_array_equal(settled, q.argmax(-1))


@pytest.mark.parametrize("space", [Box(-1.0, 1.0, (1,)), MultiDiscrete((2, 2))], ids=["box", "multi-discrete"])
def test_other_actions_are_refused(space: Space) -> None:
    with pytest.raises(ValueError, match=r"maximum over Discrete actions, got .*; use ppo"):
        pqn_agent(Blank(space), PQNConfig(), PQNHparams())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_minibatches": 3}, r"num_envs \* num_steps = 2048 is not divisible by num_minibatches = 3; use 2 or 4"),
        ({"total_steps": 100}, "less than one update of num_envs"),
        ({"activation": "sin"}, "activation = 'sin': expected one of"),
        ({"torso": "rnn"}, "torso = 'rnn': expected one of auto, mlp, cnn"),
        ({"hidden_sizes": (8, 0)}, "expected widths >= 1"),
        ({"num_epochs": 0}, "num_epochs = 0: expected an integer >= 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PQNConfig(**settings)


def test_minatar_settings_fit() -> None:
    preset = PRESETS["pqn"]
    names = {field.name for field in dataclasses.fields(preset.config)}
    chosen = {name: value for name, value in preset.overrides["minatar"].items() if name in names}
    assert dataclasses.replace(preset.config, **chosen).num_updates == 2441


CONFIG = PQNConfig(total_steps=24_576, num_envs=8, num_steps=16, num_epochs=4, num_minibatches=4, hidden_sizes=(32, 32))
HPARAMS = PQNHparams(learning_rate=2e-2, gamma=GAMMA, q_lambda=0.65, reward_scale=1.0, epsilon_end=0.5)
NUM_SEEDS = 3


@pytest.fixture(scope="module")
def learned() -> dict[str, np.ndarray]:
    """{probe: Q [NUM_SEEDS, N, 2]} at every observation of the probe."""

    def run(index: jax.Array, key: jax.Array) -> Any:
        return train(key, pqn(Many(), CONFIG, HPARAMS, Which(index)), CONFIG.num_updates)[0].agent.params

    keys = jax.random.split(jax.random.key(0), NUM_SEEDS)
    params = jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))(jnp.arange(len(NAMES)), keys)
    network = ActionValues(2, 1, Torso(CONFIG.hidden_sizes, CONFIG.activation, layer_norm=True))
    result = {}
    for i, name in enumerate(NAMES):
        of_probe = jax.tree.map(lambda leaf: leaf[i], params)  # noqa: B023
        result[name] = np.asarray(jax.vmap(lambda p: network.apply(p, observations(name))[..., 0])(of_probe))  # noqa: B023
    return result


def known_action_values(name: str) -> np.ndarray:
    """[N, 2]."""
    if name in ("action", "contextual"):
        right = np.sign(observations(name)[:, 0] + 0.5)  # 1 where action 1 is right
        return np.stack([-right, right], -1)
    return np.repeat(known_values(name)[:, None], 2, axis=1)  # actions do not matter


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.thorough
def test_action_values_are_the_known_ones(learned: dict[str, np.ndarray], name: str) -> None:
    known = known_action_values(name)
    tolerance = 0.02 * max(1.0, np.abs(known).max())
    np.testing.assert_allclose(learned[name], np.tile(known, (NUM_SEEDS, 1, 1)), atol=tolerance)


def test_truncation_bootstraps_and_termination_does_not(learned: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(learned["truncation"], 1 / (1 - GAMMA), atol=0.1)
    np.testing.assert_allclose(learned["termination"][:, -1], 1.0, atol=0.1)


def test_the_same_update_without_layer_normalisation_differs() -> None:
    """The switch reaches the network: other parameters, the head's alike."""
    with_norm, without = (make(layer_norm=on)[1].params["params"] for on in (True, False))
    assert {"LayerNorm_0", "LayerNorm_1"} <= set(with_norm["torso"])
    assert set(without["torso"]) == {"Dense_0", "Dense_1"}
    assert_trees_equal(with_norm["head_q"], without["head_q"])


@pytest.mark.slow
def test_cartpole_is_solved() -> None:
    """The default settings: interquartile mean of the last tenth of training, over five seeds."""
    results = jaxrl.run("pqn", "CartPole-v1", seeds=5, progress=False)
    assert results.iqm().point[0] >= 475
