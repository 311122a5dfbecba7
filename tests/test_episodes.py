"""The shared evaluation: returns, lengths, descriptors and sums of scripted episodes, known to the last digit."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import SCRIPTS, ScriptedEnv, ScriptParams, assert_trees_close, assert_trees_equal, scripted_agent

from jaxrl.agents.policy import policy_agent, policy_network, policy_outputs, policy_state
from jaxrl.env import sign_rewards, time_limit
from jaxrl.evo.episodes import Experience, average, episodes, final, obs_sums, trace
from jaxrl.evo.evolve import in_chunks
from jaxrl.presets.policies import behaviour_of
from jaxrl.spaces import Box, Discrete
from jaxrl.types import Evaluation
from jaxrl_envs import probes

KEY, ENV, PARAMS = jax.random.key(0), ScriptedEnv(), ScriptParams()


@dataclasses.dataclass(frozen=True)
class Network:
    hidden_sizes: tuple[int, ...] = (6, 5)
    activation: str = "tanh"
    torso: str = "auto"
    memory: str = "none"
    memory_size: int = 4
    output: str = "clip"
    normalize_obs: bool = False
    virtual_norm: bool = False


def play(num_episodes: int, **settings: Any) -> Evaluation:
    one = episodes(scripted_agent(), ENV, PARAMS, num_episodes, **settings)
    return jax.jit(lambda key: one(key, key, ()))(KEY)


def kinds(num_episodes: int) -> list[int]:
    """The scripts that `play` meets: drawn by the environment from the keys of the resets."""
    keys = jax.random.split(jax.random.split(KEY)[0], num_episodes)
    return [int(jax.random.randint(k, (), 0, len(SCRIPTS))) for k in keys]


def observations(kind: int) -> np.ndarray:
    """Those acted on in an episode of a script."""
    return np.array([[kind, time] for time in range(SCRIPTS[kind][0])], np.float32)


def rewards(kind: int) -> np.ndarray:
    return np.array([kind + time / 10 + 100 * (time % 2) for time in range(SCRIPTS[kind][0])])


# ------------------------------------------------------------------------------------------- what is made of episodes


def test_fitness_and_steps() -> None:
    """Mean undiscounted return of the first episode of each environment; only its own steps are counted."""
    result = play(9)
    assert len({SCRIPTS[kind][0] for kind in kinds(9)}) > 2  # of different lengths, so that some end before others
    np.testing.assert_allclose(result.fitness, np.mean([rewards(kind).sum() for kind in kinds(9)]), rtol=1e-6)
    assert float(result.steps) == sum(SCRIPTS[kind][0] for kind in kinds(9))
    assert result.descriptor == ()
    assert result.gathered == ()


def test_signs_of_rewards() -> None:
    """The scripted rewards are positive but the first of kind 0, which is 0: with each negated, too."""
    for scale in (1.0, -2.0):
        result = episodes(scripted_agent(), sign_rewards(ENV), ScriptParams(scale), 9)(KEY, KEY, ())
        expected = np.mean([np.sign(scale * rewards(kind)).sum() for kind in kinds(9)])
        np.testing.assert_allclose(result.fitness, expected, rtol=1e-6)


def test_cut_after_max_steps() -> None:
    result = play(9, max_steps=2)
    assert float(result.steps) == sum(min(SCRIPTS[kind][0], 2) for kind in kinds(9))
    np.testing.assert_allclose(result.fitness, np.mean([rewards(kind)[:2].sum() for kind in kinds(9)]), rtol=1e-6)


def test_final_and_average() -> None:
    """Of the time after each step, 1 … length, and of the action."""

    def feature(moment: Any) -> jax.Array:
        return jnp.stack([moment.env_state.time.astype(jnp.float32), moment.action.astype(jnp.float32)])

    lengths = np.array([SCRIPTS[kind][0] for kind in kinds(9)])
    last = [lengths.mean(), ((lengths - 1) % 2).mean()]
    np.testing.assert_allclose(play(9, behaviour=final(feature)).descriptor, last, rtol=1e-6)
    mean = [(lengths / 2 + 0.5).mean(), ((lengths // 2) / lengths).mean()]
    np.testing.assert_allclose(play(9, behaviour=average(feature)).descriptor, mean, rtol=1e-6)


class Timed(ScriptedEnv):
    """Described by the time after a step; `summary` says of which steps."""

    def __init__(self, summary: str) -> None:
        self.behaviour_summary = summary

    def behaviour(self, state: Any, params: ScriptParams) -> jax.Array:
        return state.time[None]


def test_what_environments_call_their_behaviour() -> None:
    """The last step's or the mean over steps, as the environment says, below what wraps it; else what was seen last."""
    lengths = np.array([SCRIPTS[kind][0] for kind in kinds(9)])
    for summary, expected in (("final", lengths.mean()), ("average", (lengths / 2 + 0.5).mean())):
        behaviour, size = behaviour_of(Timed(summary), PARAMS)
        assert size == 1
        np.testing.assert_allclose(play(9, behaviour=behaviour).descriptor, [expected], rtol=1e-6)
        wrapped = behaviour_of(Timed(summary), PARAMS, lambda state: state.env_state)[0]
        one = episodes(scripted_agent(), time_limit(ENV, 100), PARAMS, 9, behaviour=wrapped)
        np.testing.assert_allclose(jax.jit(lambda key: one(key, key, ()))(KEY).descriptor, [expected], rtol=1e-6)  # noqa: B023
    behaviour, size = behaviour_of(ENV, PARAMS)
    assert size == 2
    np.testing.assert_allclose(play(9, behaviour=behaviour).descriptor, [np.mean(kinds(9)), lengths.mean()], rtol=1e-6)


def test_trace() -> None:
    """Times 1, 3, 5, 7 of an episode of n steps, and n where it was over."""
    result = play(9, behaviour=trace(lambda moment: moment.env_state.time, num=4, every=2))
    lengths = [SCRIPTS[kind][0] for kind in kinds(9)]
    rows = [[time if time <= n else n for time in (1, 3, 5, 7)] for n in lengths]
    np.testing.assert_allclose(result.descriptor, np.mean(rows, 0), rtol=1e-6)


def test_obs_sums() -> None:
    """What an environment shows after its episode has ended is not in the statistics."""
    sums = play(9, gather=obs_sums()).gathered
    seen = np.concatenate([observations(kind) for kind in kinds(9)])
    assert float(sums.num) == len(seen)
    np.testing.assert_allclose(sums.total, seen.sum(0), rtol=1e-6)
    np.testing.assert_allclose(sums.squares, np.square(seen).sum(0), rtol=1e-6)


def test_transitions_are_kept_only_if_asked_for() -> None:
    plain = play(9, max_steps=8, gather=obs_sums())
    result = play(9, max_steps=8, gather=obs_sums(), keep_transitions=True)
    assert_trees_close(result[:3], plain[:3], atol=0, rtol=1e-6)
    sums, kept = result.gathered
    assert_trees_close(sums, plain.gathered, rtol=1e-6)
    assert isinstance(kept, Experience)
    for i, kind in enumerate(kinds(9)):
        length, terminated, truncated = SCRIPTS[kind]
        assert np.asarray(kept.played[:, i]).tolist() == [t < length for t in range(8)]
        own = jax.tree.map(lambda leaf: np.asarray(leaf)[:length, i], kept.transitions)  # noqa: B023
        np.testing.assert_array_equal(own.obs, observations(kind))
        np.testing.assert_array_equal(own.final_obs, observations(kind) + [0, 1])
        np.testing.assert_allclose(own.reward, rewards(kind), rtol=1e-6)
        assert own.terminated.tolist() == [False] * (length - 1) + [terminated]
        assert own.truncated.tolist() == [False] * (length - 1) + [truncated]
    shapes = jax.eval_shape(episodes(scripted_agent(), ENV, PARAMS, 3), KEY, KEY, ())
    assert max(leaf.size for leaf in jax.tree.leaves(shapes)) == 1


def test_what_does_not_fit_is_refused() -> None:
    for make in (lambda: episodes(scripted_agent(), ENV, PARAMS, 0), lambda: trace(lambda m: m.obs, 0)):
        with pytest.raises(ValueError, match="expected"):
            make()


# ------------------------------------------------------------------------------------------------------- policies


def image_env() -> Any:
    return dataclasses.replace(
        probes.contextual_probe(),
        obs_space=Box(-1.0, 1.0, (5, 4, 2)),
        observe=lambda state, params: jnp.full((5, 4, 2), state.sign),
    )


CASES = {
    "mlp": (probes.contextual_probe, Network()),
    "gru": (probes.memory_probe, Network(memory="gru")),
    "cnn": (image_env, Network()),
    "norm": (image_env, Network(virtual_norm=True)),
    "tanh": (probes.continuous_probe, Network(output="tanh")),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", CASES)
def test_a_population_equals_its_individuals(name: str) -> None:
    """Three individuals under `vmap`, in chunks and one by one: the same returns and steps."""
    make, config = CASES[name]
    env = make()
    params = env.default_params
    spaces = env.observation_space(params), env.action_space(params)
    agent = policy_agent(*spaces, config)
    reference = jax.random.normal(KEY, (7, *spaces[0].shape))

    def as_state(weights: Any) -> Any:
        return policy_state(*spaces, config, weights, reference=reference)

    one = episodes(agent, env, params, 16, as_state=as_state, behaviour=final(lambda m: m.timestep.reward))
    people = jax.vmap(lambda key: agent.init(key, *spaces).params)(jax.random.split(KEY, 3))
    # Far from where networks begin, whose outputs are nearly alike.
    people = jax.tree.map(lambda x: x + jax.random.normal(KEY, x.shape), people)

    def population(batch: int) -> Any:
        return jax.jit(lambda people: in_chunks(batch)(lambda p, key: one(key, key, p))(people, KEY))(people)

    whole = population(0)
    assert_trees_close(population(2), whole, rtol=1e-5)
    assert_trees_close(population(1), whole, rtol=1e-5)
    assert whole.fitness.shape == (3,)
    np.testing.assert_allclose(whole.steps, 16 * (params.num_steps + 1 if name == "gru" else 1))


def test_memory_is_carried_through_the_episode() -> None:
    """A GRU that keeps the cue answers right at the end; the same policy without its memory could not."""
    env = probes.memory_probe()
    params = env.default_params
    spaces = env.observation_space(params), env.action_space(params)
    config = Network(hidden_sizes=(), memory="gru", memory_size=1)
    agent = policy_agent(*spaces, config)
    state = jax.tree.map(jnp.zeros_like, agent.init(KEY, *spaces))
    # Gates r, z, n side by side: z closes except at the cue, n is the cue.
    gru = state.params["gru"] | {
        "input_kernel": jnp.array([[0.0, 0.0, 9.0], [0.0, 60.0, 0.0]]),
        "bias": jnp.array([0.0, -6.0, 0.0]),
    }
    head = {"kernel": jnp.array([[-1.0, 1.0]]), "bias": jnp.zeros(2)}
    result = episodes(agent, env, params, 32)(KEY, KEY, state.replace(params={"gru": gru, "head": head}))
    assert float(result.fitness) == 1.0
    assert float(result.steps) == 32 * 6


def test_number_of_parameters() -> None:
    """Spec 1.3: the six sizes printed in the logs of the replication, and the policies for Humanoid and the maze."""

    def count(obs: Any, actions: Any, **settings: Any) -> int:
        shapes = jax.eval_shape(
            lambda key: policy_agent(obs, actions, Network(**settings)).init(key, obs, actions), KEY
        )
        return sum(leaf.size for leaf in jax.tree.leaves(shapes.params))

    frames = Box(0, 255, (84, 84, 4), jnp.uint8)
    table = {18: (4_052_658, 1_008_450), 4: (4_045_476, 1_004_852), 3: (4_044_963, 1_004_595)}
    for num_actions, (large, small) in table.items():
        actions = Discrete(num_actions)
        assert count(frames, actions, hidden_sizes=(512,), activation="relu") == large
        assert count(frames, actions, hidden_sizes=(256,), activation="relu", torso="dqn_small") == small
    assert count(Box(-1, 1, (376,)), Box(-1, 1, (17,)), hidden_sizes=(256, 256)) == 166_673
    assert count(Box(-1, 1, (11,)), Box(-1, 1, (2,)), hidden_sizes=(16,)) == 226


def test_virtual_norm_by_hand() -> None:
    """A dense layer without bias, standardised on the reference batch, then its own bias; what is played is not."""
    space, actions = Box(-9.0, 9.0, (2,)), Discrete(2)
    config = Network(hidden_sizes=(3,), virtual_norm=True)
    agent = policy_agent(space, actions, config)
    fresh = agent.init(KEY, space, actions)
    params = jax.tree.map(lambda x: jax.random.normal(KEY, x.shape), fresh.params)
    reference, obs = jax.random.normal(jax.random.key(1), (50, 2)), jax.random.normal(jax.random.key(2), (4, 2))
    state = policy_state(space, actions, config, params, reference=reference)
    kernel = np.asarray(params["Dense_0"]["kernel"])
    assert "bias" not in params["Dense_0"]
    before = np.asarray(reference) @ kernel
    hidden = (np.asarray(obs) @ kernel - before.mean(0)) / np.sqrt(before.var(0) + 1e-3)
    hidden = np.tanh(hidden + np.asarray(params["VirtualNorm_0"]["bias"]))
    expected = hidden @ np.asarray(params["head"]["kernel"]) + np.asarray(params["head"]["bias"])
    np.testing.assert_allclose(policy_outputs(space, actions, config, state, obs), expected, atol=1e-5)


def test_actions() -> None:
    """The largest output; the raw output; its tanh scaled to the box; and noise only where it explores."""
    obs, box = Box(-1.0, 1.0, (2,)), Box((-1.0, 0.0), (3.0, 2.0), (2,))
    x = jax.random.normal(KEY, (5, 2))

    def act(actions: Any, explore: bool = False, noise: float = 0.0, **settings: Any) -> tuple[Any, Any]:
        config = Network(hidden_sizes=(4,), **settings)
        agent = policy_agent(obs, actions, config, noise)
        state = jax.tree.map(lambda leaf: jax.random.normal(KEY, leaf.shape), agent.init(KEY, obs, actions))
        action, _, _ = agent.act(KEY, state, agent.memory(5), x, jnp.ones(5, bool), explore)
        return np.asarray(action), np.asarray(policy_outputs(obs, actions, config, state, x))

    action, outputs = act(Discrete(3))
    np.testing.assert_array_equal(action, outputs.argmax(-1))
    action, outputs = act(box)
    np.testing.assert_array_equal(action, outputs)
    action, outputs = act(box, output="tanh")
    np.testing.assert_allclose(action, [-1.0, 0.0] + 0.5 * (np.tanh(outputs) + 1.0) * [4.0, 2.0], rtol=1e-6)
    noisy, outputs = act(box, True, 0.5)
    np.testing.assert_allclose(noisy, outputs + 0.5 * jax.random.normal(KEY, (5, 2)), rtol=1e-5)
    assert_trees_equal(act(box, True, 0.0)[0], outputs)
    with pytest.raises(ValueError, match="needs bounded actions"):
        act(Box(-np.inf, np.inf, (2,)), output="tanh")
    with pytest.raises(ValueError, match="torso = 'dqn'"):
        policy_network(obs, box, Network(torso="dqn"))
