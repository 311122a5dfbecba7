"""The policy-gradient emitter: what is remembered, what is learnt from it, and where offspring come from; by hand."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_agents import constant

from jaxrl.agents.td3 import td3, td3_networks
from jaxrl.buffers import replay
from jaxrl.evo.episodes import Experience
from jaxrl.presets import PRESETS
from jaxrl.presets.quality_diversity import dcrl_map_elites
from jaxrl.qd.conditioning import (
    PolicyGradientNumbers,
    PolicyGradientSizes,
    followed_by,
    labelled,
    scaled,
    similarity,
    told,
)
from jaxrl.qd.emitters import iso_line
from jaxrl.qd.policy_gradient import Learner, climb, policy_gradient
from jaxrl.spaces import Box
from jaxrl.types import Evaluation, Progress, Sample, Transition
from jaxrl.value_networks import fold_inputs
from jaxrl_envs.point_mass import PointMass, point_mass
from jaxrl_envs.probes import continuous_probe

pytestmark = pytest.mark.thorough  # compilation takes most of a minute

KEY = jax.random.key(0)
HP = PolicyGradientNumbers()
SIZES = PolicyGradientSizes(num_pg=2, num_injected=2, num_agent_updates=2, num_pg_steps=2, batch_size=8, buffer_size=64)
ACTIONS = Box(-1.0, 1.0, (2,))


def evaluated(reward: Any, played: Any, descriptor: Any, terminated: Any = None, truncated: Any = None) -> Evaluation:
    """N individuals of T steps, one episode each; observations [N, T, 1, 3] say whose and which step they are."""
    reward, played = jnp.asarray(reward, jnp.float32)[..., None], jnp.asarray(played, bool)[..., None]
    num, steps = reward.shape[:2]
    who, when = jnp.meshgrid(jnp.arange(num), jnp.arange(steps), indexing="ij")
    obs = jnp.stack([who, when, who * 0], -1).astype(jnp.float32)[:, :, None]
    no = jnp.zeros(reward.shape, bool)
    ends = [no if flag is None else jnp.asarray(flag, bool)[..., None] for flag in (terminated, truncated)]
    rows = Transition(obs, jnp.zeros((*reward.shape, 2)), reward, ends[0], ends[1], obs + jnp.array([0.0, 1.0, 0.0]))
    return Evaluation(reward.sum((1, 2)), jnp.asarray(descriptor), 1.0, ((), Experience(rows, played)))


# -------------------------------------------------------------------------------------------------- what is learnt


def test_similarity_and_scaling_by_hand() -> None:
    d, other = jnp.array([0.0, 0.0]), jnp.array([0.06, 0.08])
    assert float(similarity(d, other, 0.1)) == pytest.approx(np.exp(-1), rel=1e-6)
    assert float(similarity(other, d, 0.1)) == float(similarity(d, other, 0.1))
    assert float(similarity(d, d, 0.1)) == 1.0
    assert float(similarity(d[:0], d[:0], 0.1)) == 1.0  # nobody is told anything
    many = jax.random.normal(KEY, (1000, 2))
    assert ((similarity(many, d, 0.5) > 0) & (similarity(many, d, 0.5) <= 1)).all()
    np.testing.assert_allclose(scaled(jnp.array([15.0, -30.0]), -30.0, 30.0), [0.5, -1.0], rtol=1e-6)
    np.testing.assert_allclose(scaled(jnp.array([0.25, 10.0]), jnp.array([0, 0]), jnp.array([1, 10])), [-0.5, 1.0])


@functools.cache
def tiny_agent() -> Any:
    """TD3 without hidden layers on observations of 3 numbers and a command of 2; its critics say 0, their targets 5."""
    preset = PRESETS["td3"]
    config = dataclasses.replace(preset.config, hidden_sizes=())
    space = Box(-jnp.inf, jnp.inf, (5,))
    agent = td3(space, ACTIONS, config, preset.hparams.replace(gamma=0.99))
    state = agent.init(KEY, space, ACTIONS)
    online = constant(state.params["critic"], [[0.0], [0.0]])
    target = constant(state.targets["critic"], [[6.0], [5.0]])
    known = state.replace(params={**state.params, "critic": online}, targets={**state.targets, "critic": target})
    return known, jax.jit(lambda sample: agent.update(KEY, known, sample, Progress(1, 2)))


@pytest.mark.parametrize(
    ("settings", "reward", "expected"),
    [
        ({}, 2.0, 5.685759),
        ({"terminated": [[True]]}, 2.0, 0.735759),
        ({"truncated": [[True]]}, 2.0, 0.0),
        ({"truncated": [[True]], "terminated": [[True]]}, 2.0, 0.735759),
        ({}, -3.0, 4.95),
    ],
)
def test_targets_by_hand(settings: dict[str, Any], reward: float, expected: float) -> None:
    """S = e^-1, r = 2, gamma = .99, min Q = 5; truncated rows are no loss; negative rewards count as nothing."""
    evaluation = evaluated([[reward]], [[True]], [[0.0, 0.0]], **settings)
    rows = labelled(evaluation, jnp.array([[0.0, 0.0]]), jnp.array([[0.06, 0.08]]), SIZES)
    buffer = replay(64, 1, 1, 8, 0.99)
    state = buffer.add(buffer.init(jax.tree.map(lambda leaf: leaf[0, 0], rows)), rows)
    sample = told(buffer.sample(KEY, state), SIZES, HP)
    np.testing.assert_allclose(sample.obs, np.tile([0, 0, 0, 0.06, 0.08], (8, 1)))
    np.testing.assert_allclose(sample.final_obs, np.tile([0, 1, 0, 0.06, 0.08], (8, 1)))
    known, update = tiny_agent()
    after, metrics = update(sample)
    np.testing.assert_allclose(metrics["priority"], expected, rtol=1e-5)
    if expected == 0.0:
        jax.tree.map(np.testing.assert_array_equal, after.params["critic"], known.params["critic"])


def test_truncated_transitions_may_bootstrap() -> None:
    evaluation = evaluated([[1.0, 1.0]], [[True, True]], [[0.0]], truncated=[[False, True]])
    for mask, weight in ((True, [1.0, 0.0]), (False, [1.0, 1.0])):
        sizes = dataclasses.replace(SIZES, mask_truncated=mask)
        rows = labelled(evaluation, jnp.zeros((1, 1)), jnp.zeros((1, 1)), sizes)
        assert rows.obs["weight"][:, 0].tolist() == weight


def test_an_early_end_is_repeated_from_the_start_or_left_out() -> None:
    """Of 5 steps the first individual plays 2, the second all; what would follow the end is never remembered."""
    played = [[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]
    ends = [[0, 1, 0, 1, 1], [0, 0, 0, 0, 0]]
    evaluation = evaluated([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]], played, [[0.1], [0.2]], terminated=ends)
    for drop in (False, True):
        sizes = dataclasses.replace(SIZES, drop_repeated=drop)
        rows = labelled(evaluation, jnp.array([[0.1], [0.2]]), jnp.array([[0.3], [0.4]]), sizes)
        assert rows.reward[:, 0].tolist() == [1, 2, 1, 2, 1, 6, 7, 8, 9, 10]
        assert rows.obs["obs"][:, 0, 1].tolist() == [0, 1, 0, 1, 0, 0, 1, 2, 3, 4]
        assert rows.terminated[:, 0].tolist() == [False, True, False, True, False] + [False] * 5
        assert rows.obs["weight"][:, 0].tolist() == [1, 1, *([0, 0, 0] if drop else [1, 1, 1]), 1, 1, 1, 1, 1]
        np.testing.assert_allclose(rows.obs["achieved"][:, 0, 0], [0.1] * 5 + [0.2] * 5)
        np.testing.assert_allclose(rows.obs["command"][:, 0, 0], [0.3] * 5 + [0.4] * 5)


def test_reversed_negatives_double_the_batch() -> None:
    """The second half is told what others achieved, in reverse; its rewards are scaled accordingly."""
    evaluation = evaluated(np.ones((8, 1)), np.ones((8, 1)), np.zeros((8, 1)))
    achieved = jnp.linspace(-1, 1, 8)[:, None]
    rows = labelled(evaluation, achieved, achieved, SIZES)
    buffer = replay(64, 1, 1, 8, 0.99)
    state = buffer.add(buffer.init(jax.tree.map(lambda leaf: leaf[0, 0], rows)), rows)
    drawn = buffer.sample(KEY, state)
    sample = told(drawn, dataclasses.replace(SIZES, negatives="reversed"), HP)
    did = np.asarray(drawn.obs["achieved"])[:, 0]
    np.testing.assert_allclose(sample.obs[:, 3], np.concatenate([did, did[::-1]]))
    np.testing.assert_allclose(sample.reward[:8], 1.0)
    np.testing.assert_allclose(sample.reward[8:], np.exp(-np.abs(did - did[::-1]) / 0.1), rtol=1e-5)
    assert sample.discount.shape == sample.weight.shape == (16,)


# ------------------------------------------------------------------------------------------------------- variation


def quadratic(genotype: Any, command: jax.Array, obs: jax.Array) -> jax.Array:
    """A critic that prefers actions near command + obs."""
    return jnp.square(genotype["a"] - command - obs.mean()).sum()


def test_climbing_leads_to_the_optimum_of_each_command() -> None:
    parents, commands = {"a": jnp.zeros((3, 2))}, jnp.array([[0.5, -0.5], [0.2, 0.1], [0.0, 0.9]])
    draw = functools.partial(jax.random.uniform, shape=(10, 1), minval=-0.01, maxval=0.01)
    run = jax.jit(lambda rate, num=200: climb(KEY, quadratic, draw, parents, commands, num, rate))
    np.testing.assert_allclose(run(0.02)["a"], commands, atol=0.02)
    np.testing.assert_array_equal(parents["a"], 0.0)
    np.testing.assert_array_equal(run(0.0)["a"], parents["a"])
    np.testing.assert_array_equal(climb(KEY, quadratic, draw, parents, commands, 0, 0.1)["a"], parents["a"])


def test_climbing_is_adam_on_shared_batches() -> None:
    """Two steps of Adam by hand for every parent, on the same two batches."""
    parents, commands = {"a": jnp.array([[0.3], [-0.2]])}, jnp.array([[0.5], [1.0]])
    found = climb(KEY, quadratic, lambda key: jax.random.normal(key, (5, 1)), parents, commands, 2, 0.1)["a"]
    batches = [float(jax.random.normal(key, (5, 1)).mean()) for key in jax.random.split(KEY, 2)]
    for start, command, end in zip([0.3, -0.2], [0.5, 1.0], np.asarray(found)[:, 0], strict=True):
        x, m, v = start, 0.0, 0.0
        for t, mean in enumerate(batches, 1):
            g = 2 * (x - command - mean)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            x -= 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        assert end == pytest.approx(x, rel=1e-4)  # float32: 1 - 0.999 has four digits


def test_batches_are_not_copied_for_every_parent() -> None:
    """What 64 parents need beside their parameters is less than a batch for each of them."""
    num, steps, width = 64, 150, 20
    parents = {"a": jnp.zeros((num, 2))}
    draw = functools.partial(jax.random.normal, shape=(100, width))
    run = jax.jit(lambda key: climb(key, quadratic, draw, parents, jnp.zeros((num, 2)), steps, 0.1))
    assert run.lower(KEY).compile().memory_analysis().temp_size_in_bytes < num * 100 * width * 4


def test_an_injected_actor_is_the_actor_that_is_told() -> None:
    config = dataclasses.replace(PRESETS["td3"].config, hidden_sizes=(16, 16), initializer="lecun_uniform")
    whole, plain = (td3_networks(Box(-jnp.inf, jnp.inf, (n,)), ACTIONS, config) for n in (6, 4))
    actor = whole.actor.init(KEY, jnp.zeros((1, 6)))
    actor = jax.tree.map(lambda leaf: leaf + 0.05, actor)
    obs, command = jax.random.normal(KEY, (50, 4)), jnp.array([0.7, -0.4])
    folded = fold_inputs(actor, command)
    answer = whole.policy(actor, followed_by(obs, jnp.tile(command, (50, 1))))
    np.testing.assert_allclose(plain.policy(folded, obs), answer, atol=1e-5)
    policies = plain.actor.init(KEY, jnp.zeros((1, 4)))
    assert jax.tree.structure(folded) == jax.tree.structure(policies)
    assert jax.tree.map(jnp.shape, folded) == jax.tree.map(jnp.shape, policies)


# ----------------------------------------------------------------------------------------- who is told what, and when

VARIANTS: dict[str, tuple[str, dict[str, Any], int]] = {
    "map_elites": ("map_elites", {}, 256),
    "pga": ("pga_map_elites", {}, 256),
    "dcg, rerun": ("dcg_map_elites", {}, 320),
    "dcg, first": ("dcg_map_elites", {"num_probes": 256, "pg_command": "own"}, 512),
    "dcrl": ("dcrl_map_elites", {}, 256),
    "ablation ai": ("dcg_map_elites", {"num_probes": 0}, 256),
    "ablation actor": ("dcg_map_elites", {"num_probes": 0, "blind_actor": True}, 256),
    "ablation positives": ("dcg_map_elites", {"num_probes": 0, "pg_command": "own"}, 256),
    "ablation reversed": ("dcg_map_elites", {"num_probes": 0, "negatives": "reversed"}, 256),
}
OPERATORS = {
    "map_elites": {"ga": 256},
    "pga": {"pg": 127, "ai": 1, "ga": 128},
    "dcg, rerun": {"pg": 128, "ga": 128, "probe": 64},
    "dcg, first": {"pg": 128, "ga": 128, "probe": 256},
    "dcrl": {"pg": 64, "ai": 64, "ga": 128},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_evaluations_and_operators_of_every_variant(variant: str) -> None:
    """The table of variants: from shapes alone, nothing is compiled."""
    preset, settings, num = VARIANTS[variant]
    config = dataclasses.replace(PRESETS[preset].config, episode_steps=5, grid_shape=(4, 4), **settings)
    assert config.num_evaluations == num
    assert config.steps_per_update == num * 5
    algorithm = PRESETS[preset].make(PointMass(), config, PRESETS[preset].hparams, None)
    state = jax.eval_shape(algorithm.init, KEY)
    after, metrics = jax.eval_shape(algorithm.step, KEY, state, jnp.int32(0))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    operators = OPERATORS.get(variant, {"pg": 128, "ga": 128})
    added = {n.removeprefix("operator/").removesuffix("_added") for n in metrics if n.endswith("_added")}
    assert added == set(operators) - {"probe"}
    assert sum(operators.values()) == num


def small(preset: str = "dcrl_map_elites", **settings: Any) -> Any:
    sizes = {
        "num_ga": 4, "num_pg": 3, "num_injected": 2, "num_initial": 6, "num_agent_updates": 4, "num_pg_steps": 2,
        "batch_size": 8, "buffer_size": 400, "hidden_sizes": (8, 8), "critic_hidden_sizes": (8,), "grid_shape": (5, 5),
        "episode_steps": 10, "total_steps": 10_000,
    }  # fmt: skip
    config = dataclasses.replace(PRESETS[preset].config, **{**sizes, **settings})
    return PRESETS[preset].make(point_mass(), config, PRESETS[preset].hparams, None), config


@functools.cache
def one_iteration(preset: str, settings: tuple[tuple[str, Any], ...] = ()) -> Any:
    algorithm, config = small(preset, **dict(settings))
    state = jax.jit(algorithm.init)(KEY)
    return state, *jax.jit(algorithm.step)(jax.random.key(1), state, jnp.int32(0)), config


@pytest.mark.parametrize(
    ("preset", "settings"),
    [("dcrl_map_elites", ()), ("dcg_map_elites", (("num_injected", 0), ("num_probes", 2), ("pg_command", "own")))],
)
def test_what_is_remembered_of_whom(preset: str, settings: tuple[tuple[str, Any], ...]) -> None:
    """The first population and ga are told what they did; pg its parent's descriptor or its own; ai and probes one of
    the archive's."""
    before, after, metrics, config = one_iteration(preset, settings)
    data = jax.tree.map(np.asarray, after.emitter.buffer.data)
    num = config.num_evaluations
    assert int(after.emitter.buffer.size) == (config.num_initial + num) * 10
    achieved, command = (data.obs[name][: (config.num_initial + num) * 10, 0] for name in ("achieved", "command"))
    assert np.abs(achieved).max() <= 1
    per = [x.reshape(-1, 10, 2) for x in (achieved, command)]
    assert (per[0] == per[0][:, :1]).all()  # the same at every step of an episode
    achieved, command = (x[:, 0] for x in per)
    np.testing.assert_array_equal(achieved[:6], command[:6])
    ga = slice(6 + config.num_pg + config.num_injected, 6 + config.num_pg + config.num_injected + 4)
    np.testing.assert_array_equal(achieved[ga], command[ga])
    kept = np.asarray(before.archive.descriptors)[np.asarray(before.archive.occupied)]
    told_others = [i for i in range(6, 6 + num) if not ga.start <= i < ga.stop]
    if config.pg_command == "own":
        np.testing.assert_array_equal(achieved[6:9], command[6:9])
        told_others = told_others[3:]
    assert told_others
    for i in told_others:
        assert np.abs(kept - command[i]).max(1).min() < 1e-6
    assert float(metrics["evolution/evaluations"]) == num
    assert int(after.num_evaluations) == 6 + num
    assert float(metrics["evolution/steps"]) == num * 10


def test_an_injected_individual_is_the_actor_told_a_descriptor_of_the_archive() -> None:
    before, *_, config = one_iteration("dcrl_map_elites")
    # The emitted genotypes, by the step's own keys.
    key_emit = jax.random.split(jax.random.key(1), 3)[0]
    emitter = _emitter_of(config)
    genotypes, commands = jax.jit(emitter.emit)(key_emit, before.emitter, before.archive)
    obs = jax.random.normal(KEY, (30, 4))
    space, told_space = (Box(-jnp.inf, jnp.inf, (n,)) for n in (4, 6))
    plain, whole = td3_networks(space, ACTIONS, config.td3), td3_networks(told_space, ACTIONS, config.td3)
    for i in (3, 4):
        one = jax.tree.map(lambda leaf: leaf[i], genotypes)  # noqa: B023
        answer = whole.policy(before.emitter.agent.params["actor"], followed_by(obs, jnp.tile(commands[i], (30, 1))))
        np.testing.assert_allclose(plain.policy(one, obs), answer, atol=1e-5)


def _emitter_of(config: Any) -> Any:
    """The emitter of a preset's algorithm, put together from its parts."""
    hp = PRESETS["dcrl_map_elites"].hparams
    space, told_space = (Box(-jnp.inf, jnp.inf, (n,)) for n in (4, 6))
    networks = td3_networks(told_space, ACTIONS, config.td3)
    learner = Learner(
        td3(told_space, ACTIONS, config.td3, hp.td3),
        told_space,
        ACTIONS,
        td3_networks(space, ACTIONS, config.td3).policy,
        networks.value,
        lambda state, command: fold_inputs(state.params["actor"], command),
    )
    others = iso_line(config.num_ga, hp.iso_sigma, hp.line_sigma)
    return policy_gradient(learner, others, config.sizes, HP, np.full(2, -1.0), np.full(2, 1.0))


def test_pga_tells_nobody_anything() -> None:
    """Commands without numbers: plain TD3, rewards as they are, and the actor itself as an individual."""
    before, after, *_, config = one_iteration("pga_map_elites", (("num_injected", 1),))
    assert before.emitter.agent.params["actor"]["params"]["torso"]["Dense_0"]["kernel"].shape == (4, 8)
    assert after.emitter.buffer.data.obs["command"].shape[-1] == 0
    sample = told(replay(400, 1, 1, 8, 0.99).sample(KEY, after.emitter.buffer), config.sizes, HP)
    assert sample.obs.shape == (8, 4)
    assert (sample.reward >= 0.5).all()


def test_a_blind_actor_sees_zeros_and_its_critic_does_not() -> None:
    before, after, *_ = one_iteration("dcg_map_elites", (("num_injected", 0), ("num_probes", 2), ("blind_actor", True)))
    kernel = after.emitter.agent.params["actor"]["params"]["torso"]["Dense_0"]["kernel"]
    first = before.emitter.agent.params["actor"]["params"]["torso"]["Dense_0"]["kernel"]
    np.testing.assert_array_equal(kernel[4:], first[4:])  # no gradient reaches what is never seen
    assert not np.array_equal(kernel[:4], first[:4])
    critics = [s.emitter.agent.params["critic"]["params"]["torso"]["Dense_0"]["kernel"] for s in (before, after)]
    assert not np.array_equal(critics[0][:, 4:6], critics[1][:, 4:6])


@pytest.mark.parametrize("preset", ["map_elites", "pga_map_elites", "dcrl_map_elites", "cma_map_elites"])
def test_every_container_is_a_setting_of_every_preset(preset: str) -> None:
    """From shapes alone: thresholds of CMA-MAE, cells of MAP-Elites, and neither of them."""
    sizes = {"episode_steps": 5, "num_cells": 12, "num_samples": 50}
    for name, num_cells, thresholds in (("elites", 12, 0), ("annealed", 12, 12), ("dominated_novelty", 0, 0)):
        config = dataclasses.replace(PRESETS[preset].config, container=name, **sizes)
        algorithm = PRESETS[preset].make(PointMass(), config, PRESETS[preset].hparams, None)
        state = jax.eval_shape(algorithm.init, KEY)
        jax.eval_shape(algorithm.step, KEY, state, jnp.int32(0))
        assert state.archive.fitness.shape == (12,)
        assert np.size(state.archive.thresholds) == thresholds
        assert len(getattr(state.archive.centroids, "shape", [0])) == (2 if num_cells else 1)


# ----------------------------------------------------------------------------------------------------- bad input


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="buffer_size = 100 holds less than one iteration of 12800"):
        dataclasses.replace(PRESETS["dcrl_map_elites"].config, buffer_size=100, episode_steps=50)
    with pytest.raises(ValueError, match="container = 'box'"):
        dataclasses.replace(PRESETS["map_elites"].config, container="box")
    with pytest.raises(ValueError, match="makes no individual"):
        dataclasses.replace(PRESETS["map_elites"].config, num_ga=0)
    with pytest.raises(ValueError, match="pg_command = 'mine'"):
        dataclasses.replace(PRESETS["dcrl_map_elites"].config, pg_command="mine")
    with pytest.raises(ValueError, match="num_pg = -1"):
        PolicyGradientSizes(num_pg=-1)
    with pytest.raises(ValueError, match="batch_size = 0"):
        PolicyGradientSizes(batch_size=0)
    with pytest.raises(ValueError, match="keep_transitions=True"):
        labelled(Evaluation(jnp.zeros(2), jnp.zeros((2, 1))), jnp.zeros((2, 1)), jnp.zeros((2, 1)), SIZES)
    with pytest.raises(ValueError, match="does not say what its episodes are described by"):
        dcrl_map_elites(continuous_probe(), PRESETS["dcrl_map_elites"].config)


def test_an_actor_that_is_no_individual_is_refused() -> None:
    """Folded, it must have the archive's shapes: another width cannot be inserted."""
    _, config = small()
    emitter = _emitter_of(config)
    before, *_ = one_iteration("dcrl_map_elites")
    wide = dataclasses.replace(config.td3, hidden_sizes=(9, 8))
    told_space = Box(-jnp.inf, jnp.inf, (6,))
    agent = td3(told_space, ACTIONS, wide, PRESETS["dcrl_map_elites"].hparams.td3)
    other = dataclasses.replace(before.emitter, agent=agent.init(KEY, told_space, ACTIONS))
    with pytest.raises(ValueError, match="cannot be injected"):
        jax.eval_shape(emitter.emit, KEY, other, before.archive)


# ------------------------------------------------------------------------------------------- the descriptor bandit


@functools.cache
def bandit(length_scale: float, negatives: bool) -> tuple[float, float]:
    """Errors of critic and actor: d = a, r = 1, one step. The best action is the command itself."""
    preset = PRESETS["td3"]
    config = dataclasses.replace(preset.config, hidden_sizes=(64, 64), critic_targets="every")
    space, actions = Box(-jnp.inf, jnp.inf, (2,)), Box(-1.0, 1.0, (1,))
    hp = preset.hparams.replace(actor_learning_rate=1e-3, critic_learning_rate=1e-3, max_grad_norm=jnp.inf)
    agent, networks = td3(space, actions, config, hp), td3_networks(space, actions, config)
    numbers = PolicyGradientNumbers(length_scale=length_scale)

    def step(state: Any, inputs: Any) -> Any:
        key, i = inputs
        key_action, key_command, key_update = jax.random.split(key, 3)
        action = jax.random.uniform(key_action, (256, 1), minval=-1.0, maxval=1.0)
        command = jax.random.uniform(key_command, (256, 1), minval=-1.0, maxval=1.0) if negatives else action
        kept = {"obs": jnp.zeros((256, 1)), "achieved": action, "command": command, "weight": jnp.ones(256)}
        ones = jnp.ones(256)
        drawn = Sample(kept, action, ones, 0.0 * ones, kept["obs"], ones, ones)
        return agent.update(key_update, state, told(drawn, SIZES, numbers), Progress(i, 5000))[0], None

    state = agent.init(KEY, space, actions)
    state, _ = jax.jit(lambda s: jax.lax.scan(step, s, (jax.random.split(KEY, 5000), jnp.arange(5000))))(state)
    a, d = (x.ravel()[:, None] for x in jnp.meshgrid(jnp.linspace(-1, 1, 41), jnp.linspace(-1, 1, 41)))
    seen = followed_by(jnp.zeros_like(d), d)
    error = networks.value(state, seen, a) - jnp.exp(-jnp.abs(a - d)[:, 0] / length_scale)
    policy = networks.policy(state.params["actor"], seen)
    return float(jnp.sqrt(jnp.square(error).mean())), float(jnp.abs(policy - d).mean())


@pytest.mark.slow
@pytest.mark.parametrize("length_scale", [0.5, 0.1])
def test_an_agent_that_is_told_a_descriptor_learns_to_reach_it(length_scale: float) -> None:
    critic, actor = bandit(length_scale, True)
    assert critic < 0.02
    assert actor < 0.01


@pytest.mark.slow
def test_from_hits_alone_it_learns_nothing() -> None:
    """The critic says 1 to everything, since nobody was ever told anything else than what was done."""
    critic, actor = bandit(0.1, False)
    assert critic > 0.2
    assert actor > 0.2
