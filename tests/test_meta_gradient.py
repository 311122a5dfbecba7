"""Meta-gradients through the updates of LPG agents: against finite differences, and what must not be differentiated."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_trees_close, assert_trees_equal

from jaxrl.algorithm import Algorithm, init, train
from jaxrl.meta.gradient import MetaState, frozen_after
from jaxrl.presets.meta import MetaConfig, MetaHparams, lpg, lpg_lifetime
from jaxrl.types import Metrics
from jaxrl_envs.gridworld import DISTRIBUTIONS, GridWorld, LevelDistribution, grid_random, level_from_drawing

TINY = MetaConfig(
    total_steps=10**6, num_lifetimes=4, lifetime_batch=4, ended_batch=2, num_inner=2, num_envs=3, num_steps=4,
    width=5, target_width=3, embedding_width=2, num_levels=12, max_episode_steps=12,
)  # fmt: skip
# Lifetimes of 3 to 5 updates: they end at different meta-steps of K = 2.
SHORT = LevelDistribution((3, 4), (5, 10), (1, 2), 2, (3, 5))
KEY = jax.random.key(0)


@functools.cache
def world(distribution: Any = SHORT) -> GridWorld:
    return grid_random(distribution)


def algorithm(config: MetaConfig = TINY, **numbers: Any) -> Algorithm:
    return lpg(world(), config, MetaHparams(**numbers))


@functools.cache
def first(config: MetaConfig = TINY) -> MetaState:
    return jax.jit(lambda key: init(key, algorithm(config)))(KEY)


@functools.cache
def stepper(config: MetaConfig = TINY) -> Any:
    """`(key, state, hparams, t)` -> one meta-step, compiled once per configuration."""
    return jax.jit(lambda key, state, hp, t: lpg(world(), config, hp).step(key, state, t))


def step(state: MetaState, config: MetaConfig = TINY, seed: int = 1, **numbers: Any) -> tuple[MetaState, Metrics]:
    hp = jax.tree.map(jnp.float32, MetaHparams(**numbers))
    return stepper(config)(jax.random.key(seed), state, hp, jnp.int32(0))


def change(before: MetaState, after: MetaState) -> float:
    """The largest change of any meta-parameter."""
    moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), before.params, after.params)
    return float(max(jax.tree.leaves(moved)))


# ---------------------------------------------------------------------------------------------- the gradient itself


def recorded_loss() -> tuple[Any, Any]:
    """The meta-loss of one lifetime as a function of the rule, float64, everything experienced recorded beforehand.

    The agent's own functions on K recorded rollouts and a last one; the tables, too, are float64.
    """
    from jaxrl.agents.actor_critic import actor_critic
    from jaxrl.loops.on_policy import on_policy
    from jaxrl.objectives.lpg import lpg_init, lpg_objective
    from jaxrl.ops.statistics import standardize
    from jaxrl.types import Agent, Progress

    env, hp = world(), MetaHparams(learning_rate=5.0)
    level = env.sample_params(jax.random.key(3))
    spaces = env.observation_space(level), env.action_space(level)
    wide = jax.tree.map(lambda x: 3.0 * x.astype(jnp.float64), lpg_init(jax.random.key(4), TINY.rule))

    def agent_of(eta: Any) -> Agent:
        return actor_critic(lpg_objective(eta, TINY.rule, hp), *spaces, TINY.agent, hp)

    rollouts: list[Any] = []
    spy = agent_of(wide)
    recorder = spy._replace(update=lambda key, state, rollout, progress: (state, {"rollout": rollout}))
    loop = on_policy(recorder, env, level, num_envs=3, num_steps=4, num_updates=10)
    state = loop.init(KEY)
    for k in range(3):
        state, metrics = loop.step(jax.random.key(10 + k), state, jnp.int32(k))
        rollouts.append(metrics["rollout"])
    theta = jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, spy.init(KEY, *spaces))

    def outputs(agent: Agent, theta: Any, rollout: Any) -> Any:
        at = jax.vmap(lambda o: agent.act(KEY, theta, (), o, jnp.zeros(3, bool), True)[2])
        return at(rollout.obs)

    # What the rule reads of the agents is recorded, too: it is a constant of the gradient, and so of the differences.
    now = theta
    for k in range(2):
        seen = outputs(spy, now, rollouts[k])
        rollouts[k] = rollouts[k]._replace(extras=seen, next_extras=jax.tree.map(lambda x: jnp.roll(x, -1, 0), seen))
        now, _ = spy.update(KEY, now, rollouts[k], Progress(k, 10))

    def loss(eta: Any) -> jax.Array:
        agent, now, regularizer = agent_of(eta), theta, jnp.zeros(())
        for k in range(2):
            now, metrics = agent.update(KEY, now, rollouts[k], Progress(k, 10))
            regularizer += metrics["target/policy_square"] - metrics["policy/entropy"] - metrics["prediction/entropy"]
        last = rollouts[2]
        log_prob = outputs(agent, now, last)["policy"].log_prob(last.action)
        return -jnp.mean(log_prob * standardize(last.reward + 0.1 * last.obs[..., 0])) + 0.05 * regularizer

    return loss, wide


@pytest.mark.thorough
def test_gradient_equals_finite_differences() -> None:
    """K = 2 updates of T = 4 steps, actions recorded; float64; the product with five random directions."""
    with jax.enable_x64(True):
        loss, eta = recorded_loss()
        value_of, grad = jax.jit(loss), jax.jit(jax.grad(loss))(eta)
        rng = np.random.default_rng(0)
        for _ in range(5):
            direction = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), eta)
            moved = [value_of(jax.tree.map(lambda x, d, s=s: x + s * 1e-5 * d, eta, direction)) for s in (1.0, -1.0)]
            numeric = (moved[0] - moved[1]) / 2e-5
            exact = sum(jnp.vdot(g, d) for g, d in zip(jax.tree.leaves(grad), jax.tree.leaves(direction), strict=True))
            assert abs(numeric) > 1e-5
            np.testing.assert_allclose(exact, numeric, rtol=1e-4)


@pytest.mark.thorough
def test_whole_meta_step_equals_finite_differences() -> None:
    """The preset's own gradient, K = 1, float64: nothing that is experienced before the update depends on the rule.

    What the gradient leaves out (advantages, the rule's inputs, draws of actions) does not vary then, so the
    differences of what the step reports as its loss are its gradient.
    """
    config = dataclasses.replace(TINY, num_inner=1)
    weight = 0.05  # of the one regulariser that reports what it adds to the loss at K = 1
    numbers = {**dict.fromkeys(REGULARIZERS, 0.0), "policy_target_coef": weight, "learning_rate": 5.0}

    def wide(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf, tree)

    with jax.enable_x64(True):
        state = jax.jit(lambda key: init(key, algorithm(config)))(KEY)
        agents = dataclasses.replace(state.slots.state, agent=wide(state.slots.state.agent))
        state = dataclasses.replace(
            state, opt_state=wide(state.opt_state), slots=dataclasses.replace(state.slots, state=agents)
        )
        eta = jax.tree.map(lambda leaf: 3.0 * leaf, wide(state.params))
        hp = jax.tree.map(jnp.float64, MetaHparams(**numbers))
        run = jax.jit(
            lambda params: lpg(world(), config, hp).step(
                jax.random.key(1), dataclasses.replace(state, params=params), jnp.int32(0)
            )
        )
        # Adam's first moment after one step is a tenth of the gradient.
        grad = jax.tree.map(lambda leaf: leaf / 0.1, run(eta)[0].opt_state[0].mu)
        rng = np.random.default_rng(0)
        for _ in range(3):
            direction = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), eta)
            moved = [run(jax.tree.map(lambda x, d, s=s: x + s * 1e-6 * d, eta, direction))[1] for s in (1.0, -1.0)]
            value = [m["loss/meta"] + weight * m["target/policy_square"] for m in moved]
            numeric = (value[0] - value[1]) / 2e-6
            exact = sum(jnp.vdot(g, d) for g, d in zip(jax.tree.leaves(grad), jax.tree.leaves(direction), strict=True))
            assert abs(numeric) > 1e-3
            np.testing.assert_allclose(exact, numeric, rtol=1e-6)


@pytest.mark.thorough
def test_agents_that_do_not_learn_give_no_gradient_but_the_regularisers_do() -> None:
    nothing = {"policy_entropy_coef": 0.0, "prediction_entropy_coef": 0.0}
    squares = {"policy_target_coef": 0.0, "prediction_target_coef": 0.0}
    still = step(first(), learning_rate=0.0, **nothing, **squares)
    assert still[1]["meta/grad_norm"] == 0.0
    assert change(first(), still[0]) == 0.0
    assert step(first(), learning_rate=0.0, **nothing)[1]["meta/grad_norm"] > 0.0
    assert step(first(), learning_rate=0.0, **squares)[1]["meta/grad_norm"] == 0.0  # entropies need learning
    assert step(first(), **nothing, **squares)[1]["meta/grad_norm"] > 0.0


@pytest.mark.thorough
def test_zero_meta_parameters_have_a_finite_gradient() -> None:
    """The agents' gradients are then 0, where the derivative of their norm does not exist."""
    state = first()
    zeros = dataclasses.replace(state, params=jax.tree.map(jnp.zeros_like, state.params))
    after, metrics = step(zeros, prediction_coef=0.0)
    assert np.isfinite(metrics["meta/grad_norm"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))


@pytest.mark.thorough
@pytest.mark.parametrize("batch", [1, 2])
def test_minibatches_of_lifetimes_give_the_full_gradient(batch: int) -> None:
    whole, metrics = step(first())
    part, others = step(first(), dataclasses.replace(TINY, lifetime_batch=batch))
    np.testing.assert_allclose(others["meta/grad_norm"], metrics["meta/grad_norm"], rtol=1e-5)
    # Adam's first step is the sign of the gradient times the rate: compare its moments instead.
    mu, mu_part = (s.opt_state[0].mu for s in (whole, part))
    assert_trees_close(mu_part, mu, atol=1e-6)
    assert_trees_close(part.slots.state.agent, whole.slots.state.agent, atol=1e-6)


@pytest.mark.thorough
def test_critics_learn() -> None:
    """What the reference release fails: in one meta-step critics change, unless their learning rate is 0."""
    before = first()
    for rate, trains in ((4.0, True), (0.0, False)):
        after, _ = step(before, critic_learning_rate=rate)
        alive = np.asarray(after.slots.age) > 0  # in the others a new life has begun, with a new critic
        assert alive.any()
        pairs = zip(*(jax.tree.leaves(s.slots.state.agent.params) for s in (before, after)), strict=True)
        moved = np.stack([np.abs(np.asarray(a) - np.asarray(b)).reshape(4, -1).max(1) for a, b in pairs]).max(0)
        assert (moved[alive] > 1e-4).any() if trains else (moved[alive] == 0.0).all()


def test_advantages_and_experience_are_constants_of_the_gradient() -> None:
    """After K updates only log-probabilities carry a gradient: it vanishes for agents whose policies are cut off."""
    slot = jax.tree.map(lambda leaf: leaf[0], first().slots)

    def outcome(eta: Any, cut: bool) -> jax.Array:
        life = lpg_lifetime(world(), TINY, MetaHparams(), eta, slot.level)
        state, _ = train(KEY, life.algorithm, 2, slot.state)
        agent = state.agent
        # The critic's parameters, from which advantages are made, and the environments keep what they owe to the rule.
        owed = dataclasses.replace(agent, agent=jax.lax.stop_gradient(agent.agent)) if cut else agent
        return life.examine(KEY, dataclasses.replace(state, agent=owed), jnp.int32(2))[1]["loss/meta"]

    for cut in (False, True):
        value, grad = jax.jit(jax.value_and_grad(outcome), static_argnums=1)(first().params, cut)
        assert value != 0.0
        largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grad))
        assert largest == 0.0 if cut else largest > 1e-8


REGULARIZERS = {
    "policy_entropy_coef": ("policy/entropy", 1.0),
    "prediction_entropy_coef": ("prediction/entropy", 1.0),
    "policy_target_coef": ("target/policy_square", -1.0),
    "prediction_target_coef": ("target/prediction_square", -1.0),
}


@pytest.mark.parametrize("name", REGULARIZERS)
def test_each_regulariser_pushes_its_own_way(name: str) -> None:
    """A meta-step that hears little else, then the same updates again: entropies have risen, squares have fallen."""
    metric, sign = REGULARIZERS[name]
    silent = dict.fromkeys(REGULARIZERS, 0.0)
    numbers = {**silent, name: 1e4, "meta_learning_rate": 1e-3}
    state, before = step(first(), **numbers)
    _, after = step(dataclasses.replace(first(), params=state.params), **numbers)
    assert sign * float(after[metric] - before[metric]) > 1e-7


# ------------------------------------------------------------------------------------------------------- lifetimes


def test_nothing_changes_after_the_end() -> None:
    counter = Algorithm(lambda key: jnp.zeros(3), lambda key, state, t: (state + 1.0, {"x": state.sum()}))
    state, _ = train(KEY, frozen_after(counter, 4), 10)
    assert_trees_equal(state, jnp.full(3, 4.0))
    life = lpg_lifetime(world(), TINY, MetaHparams(), first().params, world().default_params)
    run = jax.jit(lambda n: train(KEY, frozen_after(life.algorithm, 3), 8, stop=n)[0])
    assert_trees_equal(run(8), run(3))
    two, three = (run(n).agent.agent.params["params"]["kernel"] for n in (2, 3))
    assert np.abs(three - two).max() > 0


def test_slots_start_again_at_the_meta_step_in_which_their_lifetime_ends() -> None:
    """ceil(N / K) meta-steps, whatever the others do, also when more end at once than are replaced at once."""
    state = first()
    born, ages = np.zeros(4, int), []
    lifetimes = np.asarray(state.slots.level.lifetime)
    assert len(set(lifetimes)) > 1
    ended = 0
    for t in range(12):
        before = state
        state, metrics = step(state, seed=t)
        over = np.asarray(state.slots.age) == 0
        due = -(-lifetimes // 2) == t + 1 - born
        np.testing.assert_array_equal(over, due)
        assert metrics["lifetime/count"] == due.sum()
        ended += due.sum()
        ages.append(np.asarray(before.slots.age))
        born[over] = t + 1
        lifetimes = np.asarray(state.slots.level.lifetime)
        fresh = np.asarray(state.slots.state.interaction.is_first).all(1)
        assert (fresh | ~over).all()
    assert ended > 12


def test_meta_training_twice_gives_the_same() -> None:
    both = [step(step(first(), seed=1)[0], seed=2)[0] for _ in range(2)]
    assert_trees_equal(*both)


# --------------------------------------------------------------------------------------------------------- GROOVE


def groove(score: str, **settings: Any) -> MetaConfig:
    return dataclasses.replace(TINY, score=score, **settings)


@pytest.mark.thorough
def test_an_antagonist_changes_nothing_of_what_is_learnt() -> None:
    """Where every level is new, GROOVE is LPG, to the bit in the agents and their rule until a lifetime ends."""
    plain, scored = first(), first(groove("alg_regret"))
    same_levels = dataclasses.replace(scored.slots, level=plain.slots.level, state=plain.slots.state)
    scored = dataclasses.replace(scored, params=plain.params, opt_state=plain.opt_state, slots=same_levels)
    one, two = step(plain)[0], step(scored, groove("alg_regret"))[0]
    alive = np.asarray(one.slots.age) > 0
    assert alive.any()
    assert_trees_close(two.params, one.params, atol=1e-6)
    pick = [jax.tree.map(lambda leaf: leaf[alive], s.slots.state.agent) for s in (one, two)]
    assert_trees_close(pick[1], pick[0], atol=1e-6)


@pytest.mark.thorough
def test_lifetimes_stay_on_a_frozen_set() -> None:
    config = groove("frozen", num_levels=2)
    state = first(config)
    known = {tuple(np.asarray(leaf)) for leaf in state.levels.reward}
    for t in range(4):
        state, metrics = step(state, config, seed=t)
        assert {tuple(np.asarray(leaf)) for leaf in state.slots.level.reward} <= known
    assert metrics["lifetime/count"] >= 0
    assert len(known) == 2


@pytest.mark.thorough
@pytest.mark.parametrize("score", ["alg_regret", "optimal_regret", "l1_value_loss", "positive_value_loss", "max_mc"])
def test_every_score_reaches_its_level(score: str) -> None:
    config = groove(score)
    state, scores = first(config), []
    for t in range(6):
        state, metrics = step(state, config, seed=t)
        if metrics["lifetime/count"] > 0:
            scores.append(float(metrics["lifetime/score"]))
    known = ~np.asarray(state.levels.new)
    assert known.any()
    assert np.isfinite(np.asarray(state.levels.score)[known]).all()
    assert len(scores) >= 2
    assert len({round(s, 6) for s in scores}) > 1
    if score in ("optimal_regret", "l1_value_loss", "positive_value_loss"):
        assert min(scores) >= (-1.0 if score == "optimal_regret" else 0.0)


def test_regret_of_equal_agents_is_zero_and_of_frozen_ones_positive() -> None:
    """The antagonist in the protagonist's place; then a protagonist that never learns, on a level where A2C does."""
    config = groove("alg_regret", num_envs=16, num_steps=10, max_episode_steps=20)
    # Oracle D of the specification: one object beside the start; at best 1.859 in 20 steps, at random 1.026.
    level = level_from_drawing("S0.\n...\n...", [(1.0, 0.0, 0.05)], limit=20)
    env = GridWorld(3, 1, 1)
    life = lpg_lifetime(env, config, MetaHparams(), first().params, level)
    assert life.companion is not None
    rival = jax.jit(lambda key: train(key, life.companion, 300)[0])(KEY)
    untrained = life.companion.init(KEY)
    final = jax.jit(life.final)
    equal, metrics = final(KEY, rival, rival)
    assert equal == 0.0
    assert metrics["return"] == metrics["antagonist_return"]
    regrets = [float(final(jax.random.key(seed), untrained, rival)[0]) for seed in range(5)]
    assert np.mean(regrets) > 0.4


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lifetime_batch": 3}, "num_lifetimes = 4 is not divisible by lifetime_batch = 3; use 2"),
        ({"num_inner": 5, "lifetime": 4}, "num_inner = 5 is more than the lifetime = 4; .*use num_inner = 4 or"),
        ({"score": "regret"}, "score = 'regret': expected one of uniform, frozen, alg_regret"),
        ({"core": "rnn"}, "core = 'rnn': expected one of gru, lstm"),
        ({"total_steps": 100}, "total_steps = 100 is less than one meta-update; use at least 144"),
    ],
)
def test_bad_configurations_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **settings)


def test_environments_that_do_not_fit_are_refused() -> None:
    from jaxrl_envs.probes import continuous_probe, truncation_probe

    mlp = dataclasses.replace(TINY, torso="mlp")
    with pytest.raises(ValueError, match="LPG reads the probability of a discrete action"):
        lpg(continuous_probe(), mlp)
    with pytest.raises(ValueError, match="LPG reads the probability of a discrete action"):
        lpg(continuous_probe(), TINY)  # not: torso = 'mlp', which would not help
    with pytest.raises(ValueError, match=r"num_inner = 5 .*shortest lifetime .*, 4; use num_inner = 4 or less"):
        lpg(world(DISTRIBUTIONS["debug"]), dataclasses.replace(TINY, num_inner=5))
    with pytest.raises(ValueError, match="torso = 'table' needs observations in an Indexed space"):
        lpg(truncation_probe(), TINY)
    with pytest.raises(ValueError, match="score = 'optimal_regret' needs an environment with"):
        lpg(truncation_probe(), dataclasses.replace(mlp, score="optimal_regret"))


def test_the_distributions_of_the_paper_fit_the_preset() -> None:
    for name in ("all_vrandlife", "small"):
        shapes = jax.eval_shape(lambda key, name=name: init(key, lpg(world(DISTRIBUTIONS[name]), TINY)), KEY)
        assert shapes.slots.age.shape == (4,)
    assert optax.tree.size(first().params) == 5 * 15 + 5 * 15 + 15 + 5 + (3 * 2 + 2 + 3) + 6 + 18
