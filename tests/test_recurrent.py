"""Memory: the recurrent cell against a loop, its resets, and what an update makes of whole sequences."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from helpers import TINY, ScriptedEnv, ScriptParams, assert_trees_equal

from jaxrl.env import autoreset, vectorize
from jaxrl.loops.rollout import begin, rollout
from jaxrl.networks import GRU
from jaxrl.objectives import OBJECTIVES
from jaxrl.presets import PPOConfig, PPOHparams, on_policy_agent
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space
from jaxrl.types import Agent, Objective, Progress, Rollout, Timestep

T, B, D, M = 9, 4, 3, 5


@functools.cache
def sequence() -> dict[str, np.ndarray]:
    """Inputs with resets at other times in each environment; the last environment has none."""
    rng = np.random.default_rng(0)
    is_first = rng.random((T, B)) < 0.25
    is_first[:, -1] = False
    return {
        "memory": rng.normal(size=(B, M)).astype(np.float32),
        "x": rng.normal(size=(T, B, D)).astype(np.float32),
        "is_first": is_first,
    }


@functools.cache
def weights() -> dict[str, jax.Array]:
    """Of a cell whose every number matters: the biases, too, are random."""
    data = sequence()
    params = GRU(M).init(jax.random.key(0), data["memory"], data["x"], data["is_first"])["params"]
    random = {name: jax.random.normal(jax.random.key(1), params[name].shape) for name in ("bias", "candidate_bias")}
    return {**params, **random}


def unroll(memory: Any, x: Any, is_first: Any) -> tuple[np.ndarray, np.ndarray]:
    last, all_steps = GRU(M).apply({"params": weights()}, *map(jnp.asarray, (memory, x, is_first)))
    return np.asarray(last), np.asarray(all_steps)


def test_the_cell_is_the_loop_from_its_definition() -> None:
    data = sequence()
    assert data["is_first"].any()
    last, steps = unroll(**data)
    expected = oracles.gru(**data, weights={name: np.asarray(w, np.float64) for name, w in weights().items()})
    np.testing.assert_allclose(steps, expected, atol=2e-6)
    np.testing.assert_array_equal(last, steps[-1])


def test_the_cell_is_linens() -> None:
    """The same gates as `nn.GRUCell`, from whose parameters ours are stacked."""
    data, ours = sequence(), weights()
    parts = {name: jnp.split(ours[name], 3, -1) for name in ("input_kernel", "memory_kernel", "bias")}
    theirs = {}
    for i, gate in enumerate("rzn"):
        theirs[f"i{gate}"] = {"kernel": parts["input_kernel"][i], "bias": parts["bias"][i]}
        theirs[f"h{gate}"] = {"kernel": parts["memory_kernel"][i]}
    theirs["hn"]["bias"] = ours["candidate_bias"]
    expected, _ = nn.GRUCell(M).apply({"params": theirs}, data["memory"], data["x"][0])
    _, steps = unroll(data["memory"], data["x"][:1], np.zeros((1, B), bool))
    np.testing.assert_allclose(steps[0], expected, atol=1e-6)


def test_an_unroll_with_resets_is_the_concatenation_of_independent_unrolls() -> None:
    data = sequence()
    _, whole = unroll(**data)
    num_parts = 0
    for b in range(B):
        starts = sorted({0, *np.flatnonzero(data["is_first"][:, b])})
        for start, end in zip(starts, [*starts[1:], T], strict=True):
            fresh = bool(data["is_first"][start, b])
            memory = np.zeros((B, M), np.float32) if fresh else data["memory"]
            _, part = unroll(memory, data["x"][start:end], np.zeros((end - start, B), bool))
            np.testing.assert_array_equal(part[:, b], whole[start:end, b])
            num_parts += 1
    assert num_parts > B + 3


def test_one_step_at_a_time_is_the_unroll() -> None:
    data = sequence()
    last, whole = unroll(**data)
    memory = data["memory"]
    for t in range(T):
        memory, step = unroll(memory, data["x"][t : t + 1], data["is_first"][t : t + 1])
        np.testing.assert_allclose(step[0], whole[t], atol=1e-6)
    np.testing.assert_allclose(memory, last, atol=1e-6)


def test_the_first_weights_of_the_cell() -> None:
    """Each gate's recurrent matrix is orthogonal by itself; inputs have variance 1 / D; under vmap over seeds."""
    data = sequence()

    def first(key: jax.Array) -> Any:
        return GRU(M).init(key, data["memory"], jnp.zeros((T, B, 64)), data["is_first"])["params"]

    params = jax.vmap(first)(jax.random.split(jax.random.key(0), 3))
    for kernel in np.asarray(params["memory_kernel"]):
        gates = np.split(kernel, 3, -1)
        for gate in gates:
            np.testing.assert_allclose(gate.T @ gate, np.eye(M), atol=1e-5)
        assert np.abs(gates[0] - gates[1]).max() > 0.1
    assert np.asarray(params["input_kernel"]).var() == pytest.approx(1 / 64, rel=0.15)
    assert not np.any(params["bias"])
    assert not np.any(params["candidate_bias"])


@dataclasses.dataclass(frozen=True)
class Varied(ScriptedEnv):
    """The scripted environment with other spaces; actions change nothing."""

    actions: Space = Discrete(3)
    image: bool = False

    def reset(self, key: jax.Array, params: ScriptParams) -> Any:
        state, obs = super().reset(key, params)
        return state, self._shown(obs)

    def step(self, key: jax.Array, state: Any, action: jax.Array, params: ScriptParams) -> Any:
        state, timestep = super().step(key, state, jnp.int32(0), params)
        obs = self._shown(timestep.obs)
        return state, Timestep(obs, timestep.reward, timestep.terminated, timestep.truncated, obs, {})

    def observation_space(self, params: ScriptParams) -> Box:
        return Box(0.0, 10.0, (4, 3, 2) if self.image else (2,))

    def action_space(self, params: ScriptParams) -> Space:
        return self.actions

    def _shown(self, obs: jax.Array) -> jax.Array:
        obs = obs / 5
        return obs * jnp.arange(12.0).reshape(4, 3, 1) / 12 if self.image else obs


KINDS = {
    "discrete": Varied(),
    "multi-discrete": Varied(MultiDiscrete((2, 3))),
    "box": Varied(Box(-1.0, 1.0, (2,))),
    "image": Varied(image=True),
}
CONFIG = PPOConfig(**{**TINY, "memory": "gru", "memory_size": 6, "num_steps": 10, "num_epochs": 1})
HP = PPOHparams(learning_rate=0.0)


def watched(config: PPOConfig, hp: PPOHparams) -> Objective:
    """PPO, which also measures each minibatch: the ratio's distance from 1, and where its samples come from."""
    inner = OBJECTIVES["ppo"](config, hp)

    def prepare(state: Any, outputs: Any, next_outputs: Any, data: Rollout, progress: Any) -> Any:
        targets, state = inner.prepare(state, outputs, next_outputs, data, progress)
        t, b = (jnp.broadcast_to(i, data.reward.shape) for i in jnp.ogrid[: len(data.reward), : data.reward.shape[1]])
        return (targets, t, b, data.obs), state

    def loss(state: Any, outputs: Any, targets: Any) -> Any:
        targets, t, b, obs = targets
        total, metrics = inner.loss(state, outputs, targets)
        ratio = jnp.exp(outputs["policy"].log_prob(targets.action) - targets.log_prob)
        t, b = (leaf.reshape(config.num_steps, -1) for leaf in (t, b))
        mixed = (t != jnp.arange(config.num_steps)[:, None]) | (b != b[0])
        return total, metrics | {"test/ratio": jnp.abs(ratio - 1).max(), "test/mixed": mixed.any(), "test/b": b.sum()}

    return inner._replace(prepare=prepare, loss=loss)


@functools.cache
def collected(kind: str, hp: PPOHparams = HP, **settings: Any) -> tuple[Agent, Any, Rollout, Any]:
    """The second of two rollouts of a fresh agent, which therefore begins inside episodes; and the update's key."""
    env, config = KINDS[kind], dataclasses.replace(CONFIG, **settings)
    agent = on_policy_agent(env, config, hp, objective=watched(config, hp))
    envs, params = autoreset(vectorize(env, config.num_envs)), env.default_params

    def run(key: jax.Array) -> Any:
        keys = jax.random.split(key, 4)
        state = agent.init(keys[0], env.observation_space(params), env.action_space(params))
        now = begin(keys[1], agent, envs, params)
        now, _, _ = rollout(keys[2], agent, state, envs, params, now, config.num_steps)
        return state, rollout(keys[3], agent, state, envs, params, now, config.num_steps)[1]

    state, experience = jax.jit(run)(jax.random.key(3))
    return agent, state, experience, jax.random.key(4)


def updated(agent: Agent, state: Any, experience: Rollout, key: Any) -> dict[str, float]:
    _, metrics = jax.jit(lambda e: agent.update(key, state, e, Progress(0, 10)))(experience)
    return {name: float(value) for name, value in metrics.items()}


@pytest.mark.quick("discrete", "image")
@pytest.mark.parametrize("kind", KINDS)
def test_the_unroll_of_an_update_repeats_the_rollout(kind: str) -> None:
    """Before the first step the policy is the one that collected: in every minibatch, for every space."""
    agent, state, experience, key = collected(kind)
    assert experience.is_first[1:].any()
    assert not experience.is_first[0].all()  # it goes on inside episodes
    assert np.abs(np.asarray(experience.memory)).max() > 0.1
    metrics = updated(agent, state, experience, key)
    assert metrics["test/ratio"] < 1e-5
    assert abs(metrics["policy/approx_kl"]) < 1e-9
    assert metrics["policy/clip_fraction"] == 0.0


@pytest.mark.parametrize("forgotten", ["memory", "is_first"])
def test_the_repetition_needs_the_first_memory_and_the_resets(forgotten: str) -> None:
    """The ratio sees a lost memory and a lost reset; else the test above would show nothing."""
    # Gain 100 on the policy's head, which is nearly uniform at first.
    agent, state, experience, key = collected("discrete")
    heads = state.params["params"]["heads"]
    loud = {**heads, "head_policy": jax.tree.map(lambda leaf: 100 * leaf, heads["head_policy"])}
    state = state.replace(params={"params": {**state.params["params"], "heads": loud}})
    policy = experience.extras["policy"]
    extras = {**experience.extras, "policy": policy.replace(logits=100 * policy.logits)}
    experience = experience._replace(extras=extras)
    assert updated(agent, state, experience, key)["test/ratio"] < 1e-4
    blank = {forgotten: jnp.zeros_like(getattr(experience, forgotten))}
    assert updated(agent, state, experience._replace(**blank), key)["test/ratio"] > 1e-3


def test_minibatches_are_of_whole_environments() -> None:
    agent, state, experience, key = collected("discrete")
    metrics = updated(agent, state, experience, key)
    assert metrics["test/mixed"] == 0.0
    # Every environment once: the mean over two minibatches of sums over ten steps of indices 0 … 3.
    assert metrics["test/b"] == 10 * 6 / 2
    agent, state, experience, key = collected("discrete", memory="none")
    assert updated(agent, state, experience, key)["test/mixed"] == 1.0  # without memory, of any samples


def test_both_epochs_shuffle_environments_anew() -> None:
    """Of many keys, some put environments 0 and 1 together and some do not: the loss of a first minibatch varies."""
    agent, state, experience, _ = collected("discrete", PPOHparams(learning_rate=1e-2))
    keys = jax.random.split(jax.random.key(5), 8)
    norms = jax.jit(jax.vmap(lambda key: agent.update(key, state, experience, Progress(0, 10))[1]["grad_norm"]))(keys)
    assert len(np.unique(np.round(norms, 5))) > 2


def test_successors_are_valued_with_the_memory_before_the_reset() -> None:
    """Every value by the loop over each episode: at final_obs, with the memory of the episode that ends."""
    agent, state, experience, _ = collected("discrete", shared_torso=True)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.params["params"])

    def dense(layer: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        return x @ layer["kernel"] + layer["bias"]

    def value(memory: np.ndarray, obs: np.ndarray, is_first: bool) -> tuple[np.ndarray, float]:
        x = obs
        for i in range(2):
            x = np.tanh(dense(params["embedding"][f"Dense_{i}"], x))
        memory = oracles.gru(memory[None], x[None, None], np.array([[is_first]]), params["gru"])[0, 0]
        hidden = np.tanh(dense(params["heads"]["torso"]["Dense_0"], memory))
        return memory, float(dense(params["heads"]["head_value"], hidden)[0])

    data = jax.tree.map(np.asarray, experience._replace(memory=()))
    num_cut = 0
    for b in range(CONFIG.num_envs):
        memory = np.asarray(experience.memory)[b]
        for t in range(CONFIG.num_steps):
            obs = np.float64(data.obs[t, b])
            memory, now = value(memory, obs, data.is_first[t, b])
            assert data.extras["value"][t, b] == pytest.approx(now, abs=1e-5)
            successor = obs + np.array([0.0, 0.2])  # (kind, time) / 5, one step later
            _, after = value(memory, successor, False)
            if not data.terminated[t, b]:
                assert data.next_extras["value"][t, b] == pytest.approx(after, abs=1e-5)
            if data.truncated[t, b] and not data.terminated[t, b]:
                num_cut += 1
                assert abs(after - value(memory, successor, True)[1]) > 1e-4  # what a reset memory would say
    assert num_cut > 3


def test_the_agent_resets_its_memory_and_only_that_of_first_observations() -> None:
    agent, state, experience, key = collected("discrete")
    memory = agent.memory(2)
    assert memory.shape == (2, 6)
    assert not np.any(memory)
    memory = jnp.ones((2, 6))
    obs = jnp.array([[0.2, 0.0], [0.2, 0.0]])
    _, after, extras = agent.act(key, state, memory, obs, jnp.array([True, False]), False)
    _, fresh, of_fresh = agent.act(key, state, agent.memory(2), obs, jnp.array([False, False]), False)
    np.testing.assert_array_equal(after[0], fresh[0])
    assert np.abs(after[1] - fresh[1]).max() > 0.1
    np.testing.assert_array_equal(extras["value"][0], of_fresh["value"][0])
    assert on_policy_agent(KINDS["discrete"], dataclasses.replace(CONFIG, memory="none"), HP).memory(2) == ()


def test_a_feed_forward_agent_ignores_memory_settings() -> None:
    """The size of a memory that is not there changes nothing."""
    small, large = (collected("discrete", memory="none", memory_size=size) for size in (3, 7))
    assert_trees_equal(small[1], large[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"memory": "lstm"}, "memory = 'lstm': expected one of none, gru"),
        ({"memory_size": 0}, "memory_size = 0: expected an integer >= 1"),
        (
            {"num_envs": 8, "num_minibatches": 16},
            r"num_envs = 8 is not divisible by num_minibatches = 16 \(minibatches are of whole env.*\); use 4 or 8",
        ),
        ({"num_envs": 6, "num_minibatches": 4}, "use 2 or 3"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PPOConfig(**{"memory": "gru", **settings})


def test_without_memory_minibatches_divide_steps() -> None:
    assert PPOConfig(num_envs=8, num_minibatches=16).num_minibatches == 16
