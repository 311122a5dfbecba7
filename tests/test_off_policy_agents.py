"""What off-policy actor-critics have in common, and TD3 and DSAC-T, against numbers worked out by hand."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformance import count_primitives
from tiny_agents import KEY, WIDE, batch, constant, differs, make, updates

from jaxrl.agents.common import RewardScaler, init_normalizers, observe
from jaxrl.agents.dsac_t import ReturnTargets, return_distribution_loss
from jaxrl.algorithm import sweep, train
from jaxrl.networks import Torso
from jaxrl.ops.distributions import TanhMixture, TanhNormal
from jaxrl.presets import PRESETS
from jaxrl.spaces import Box, Discrete, MultiDiscrete
from jaxrl.types import Progress, Sample, Transition
from jaxrl.value_networks import Actor, StateActionValue, apply_ensemble, fold_inputs
from jaxrl_envs import probes

CONTINUOUS = ("sac", "td3", "dsac_t", "mdpo_off", "pmoe")


@pytest.mark.parametrize("name", CONTINUOUS)
def test_targets_by_hand(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Target critics say 2 and 1.5, the next log-probability is -1.3, alpha .2: 2.7424; 2.485 for TD3; 1 at an end."""

    def known(self: Any, key: jax.Array) -> Any:
        return self.mode(), jnp.full(self.mode().shape[:-1], -1.3)

    for distribution in (TanhNormal, TanhMixture):
        monkeypatch.setattr(distribution, "sample_and_log_prob", known)
    agent, state = make(name, initial_alpha=0.2, entropy_coef=0.2, policy_noise=0.0)
    per_critic = 2 if name == "dsac_t" else 1
    online = constant(state.params["critic"], [[0.0] * per_critic] * 2)
    target = constant(state.targets["critic"], [[2.0] * per_critic, [1.5] * per_critic])
    state = state.replace(params={**state.params, "critic": online}, targets={**state.targets, "critic": target})
    update = jax.jit(lambda sample: agent.update(KEY, state, sample, Progress(0, 1))[1])
    for discount, expected in ((0.99, 2.485 if name == "td3" else 2.7424), (0.0, 1.0)):
        metrics = update(batch(3, discount=discount))
        np.testing.assert_allclose(metrics["priority"], expected, rtol=1e-6)  # the online critics say 0
        if name != "dsac_t":
            assert metrics["loss/critic"] == pytest.approx(expected**2, rel=1e-6)


def learning_rates(actor: float, critic: float) -> dict[str, float]:
    return {"actor_learning_rate": actor, "critic_learning_rate": critic, "alpha_learning_rate": actor}


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.thorough
def test_actor_and_critic_learn_apart(name: str) -> None:
    """Each by its own rate; and what the critics are taught reaches the actor only through them."""
    sample, other = batch(6), batch(6, reward=-7.0)
    agent, state = make(name, hidden_sizes=(4,), **learning_rates(0.0, 0.0))
    assert not differs(updates(agent, state, sample, 2).params, state.params)
    agent, state = make(name, hidden_sizes=(4,), **learning_rates(0.0, 0.01))
    after = updates(agent, state, sample, 2)
    assert not differs(after.params["actor"], state.params["actor"])
    assert differs(after.params["critic"], state.params["critic"])
    agent, state = make(name, hidden_sizes=(4,), **learning_rates(0.01, 0.0))
    after = updates(agent, state, sample, 2)
    assert differs(after.params["actor"], state.params["actor"])
    assert not differs(after.params["critic"], state.params["critic"])
    assert not differs(after.params["actor"], updates(agent, state, other, 2).params["actor"])


@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_actor_and_the_targets_wait(name: str) -> None:
    """With a delay of 2 they move at updates 0, 2, …; the critics at each."""
    agent, state = make(name, policy_delay=2, **learning_rates(0.01, 0.01))
    for i in range(4):
        after = updates(agent, state, batch(6), 1, i)
        assert differs(after.params["critic"], state.params["critic"])
        for before, now in ((state.params["actor"], after.params["actor"]), (state.targets, after.targets)):
            assert differs(before, now) == (i % 2 == 0)
        state = after


@pytest.mark.parametrize("name", ["td3", "mdpo_off"])
def test_waiting_is_a_real_branch_in_a_sweep(name: str) -> None:
    """Else every update of many seeds would pay for the actor."""
    preset, env = PRESETS[name], probes.continuous_probe()
    conds = []
    for delay in (1, 2):
        config = dataclasses.replace(preset.config, hidden_sizes=(4,), policy_delay=delay)
        hparams = jax.tree.map(lambda leaf: jnp.full(2, leaf), preset.hparams)
        run = functools.partial(sweep, functools.partial(preset.make, env, config))
        jaxpr = jax.make_jaxpr(lambda hp, keys, run=run: run(hp, keys, 3))(hparams, jax.random.split(KEY, 2))
        conds.append(count_primitives(jaxpr.jaxpr, "cond"))
    assert conds[1] == conds[0] + 1


@pytest.mark.parametrize("name", ["td3", "dsac_t", "sac"])
def test_targets_move_by_tau(name: str) -> None:
    agent, state = make(name, policy_delay=1, tau=0.25)
    after = updates(agent, state, batch(6), 1)
    assert ("actor" in state.targets) == (name != "sac")
    for part, target in after.targets.items():
        expected = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, state.targets[part], after.params[part])
        for a, b in zip(jax.tree.leaves(target), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.quick("dqn", "sac")
@pytest.mark.parametrize("name", ["dqn", "sac", "sac discrete", "td3", "dsac_t", "mdpo_off", "pmoe"])
def test_a_bandit_is_learnt_in_200_updates(name: str) -> None:
    discrete = name in ("dqn", "sac discrete")
    preset = PRESETS[name.split()[0]]
    env = probes.action_probe() if discrete else probes.continuous_probe()
    config = dataclasses.replace(
        preset.config, total_steps=64 + 8 * 50, num_envs=8, num_gradient_steps=4, batch_size=64, buffer_size=4096,
        fill_steps=64, hidden_sizes=(32,),
    )  # fmt: skip
    assert config.num_updates * config.num_gradient_steps == 200
    wanted = {
        "learning_rate": 0.02, "actor_learning_rate": 0.02, "critic_learning_rate": 0.02, "alpha_learning_rate": 0.0,
        "initial_alpha": 0.01, "entropy_coef": 0.01, "kl_coef": 0.05, "tau": 0.1,
    }  # fmt: skip
    known = {field.name for field in dataclasses.fields(preset.hparams)}
    hparams = preset.hparams.replace(**{k: v for k, v in wanted.items() if k in known})
    agent = preset.agent(env, config, hparams)

    def run(key: jax.Array) -> jax.Array:
        state, _ = train(key, preset.make(env, config, hparams), config.num_updates)
        return agent.act(key, state.agent, (), jnp.zeros((1, 1)), jnp.zeros(1, bool), False)[0][0]

    actions = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(KEY, 5)))
    np.testing.assert_allclose(actions.ravel(), 1 if discrete else 0.5, atol=0.15)


@pytest.mark.parametrize("cuts", [(4,), (1, 3), (3, 1), (1, 1, 1, 1)])
def test_statistics_are_of_what_was_met_once(cuts: tuple[int, ...]) -> None:
    """Rewards 1 with an end after the third, gamma .9: discounted returns so far 1, 1.9, 2.71, 1, however cut."""
    config = dataclasses.replace(PRESETS["sac"].config, num_envs=1, normalize_obs=True, normalize_reward=True)
    normalizers = init_normalizers(config, Box(-10.0, 10.0, (1,)))
    obs = jnp.array([1.0, 5.0, -2.0, 4.0])[:, None, None]
    ends = jnp.array([[False], [False], [True], [False]])
    whole = Transition(obs, jnp.zeros((4, 1, 1)), jnp.ones((4, 1)), jnp.zeros((4, 1), bool), ends, obs + 100)
    start = 0
    for num in cuts:
        part = jax.tree.map(lambda leaf: leaf[start : start + num], whole)  # noqa: B023
        normalizers = observe(normalizers, part, 0.9)
        start += num
    assert isinstance(normalizers.reward, RewardScaler)
    returns = np.array([1.0, 1.9, 2.71, 1.0])
    np.testing.assert_allclose(normalizers.reward.moments.var, returns.var(), rtol=1e-3)
    np.testing.assert_allclose(normalizers.obs.mean, 2.0, rtol=1e-3)
    np.testing.assert_allclose(normalizers.obs.var, 7.5, rtol=1e-3)
    assert normalizers.scale_reward(jnp.float32(3.0)) == pytest.approx(3 / returns.std(), rel=1e-3)


@pytest.mark.parametrize("space", [Discrete(3), MultiDiscrete((2, 2)), Box(-np.inf, 1.0, (1,)), Box(-1.0, 1.0, (2, 2))])
@pytest.mark.parametrize("name", ["dqn", *CONTINUOUS])
def test_actions_that_do_not_fit_are_refused(name: str, space: Any) -> None:
    if isinstance(space, Discrete):
        if name == "sac":
            return
        space = Box(-1.0, 1.0, (2,)) if name == "dqn" else space
    expected = "takes a Discrete" if name == "dqn" else "takes a bounded float Box of one axis"
    with pytest.raises(ValueError, match=f"{name} {expected} .* got .*; use .*ppo"):
        make(name, space)


def test_integers_are_no_continuous_actions() -> None:
    with pytest.raises(ValueError, match="bounded float Box"):
        make("td3", Box(0, 5, (1,), jnp.int32))


# TD3


@pytest.mark.thorough
def test_smoothing_noise_is_clipped_twice() -> None:
    """Noise within half of half the range, and actions within the range; Q' is the action itself."""
    agent, state = make("td3", policy_noise=10.0, noise_clip=0.5)
    target = constant(state.targets["critic"], [[0.0]] * 2)
    target["params"]["head_q"]["kernel"] = target["params"]["head_q"]["kernel"].at[:, 1].set(1.0)
    online = constant(state.params["critic"], [[-100.0]] * 2)  # so that errors are positive
    for mean, low, high in ((0.0, -1.0, 1.0), (1.5, 0.5, 2.0)):
        actor = constant(state.targets["actor"], [np.arctanh(mean / 2)])
        known = state.replace(params={**state.params, "critic": online}, targets={"actor": actor, "critic": target})
        _, metrics = agent.update(KEY, known, batch(2000, discount=1.0, reward=0.0), Progress(0, 1))
        action = np.asarray(metrics["priority"]) - 100
        assert action.min() == pytest.approx(low, abs=1e-4)
        assert action.max() == pytest.approx(high, abs=1e-4)
        assert np.mean(np.abs(action - low) < 1e-3) == pytest.approx(0.48, abs=0.03)  # deviation 20, half below -1


def test_exploration_noise_is_in_units_of_the_range() -> None:
    agent, state = make("td3", exploration_noise=0.1)
    obs, first, noise = jnp.zeros((20_000, 1)), jnp.zeros(20_000, bool), agent.memory(20_000)
    for mean, deviation in ((0.0, 0.2), (1.999, 0.117)):  # half a Gaussian of deviation .2, the rest at the bound
        known = state.replace(params={**state.params, "actor": constant(state.params["actor"], [np.arctanh(mean / 2)])})
        action, _, _ = agent.act(KEY, known, noise, obs, first, True)
        assert np.std(action) == pytest.approx(deviation, rel=0.03)
        assert np.abs(action).max() <= 2.0
        plain, _, _ = agent.act(KEY, known, noise, obs, first, False)
        np.testing.assert_allclose(plain, mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_exploration_noise_remembers_within_an_episode(correlation: float) -> None:
    """Deviation 0.1 of half the range at every step; `correlation^k` from step to step, nothing across a reset."""
    agent, state = make("td3", exploration_noise=0.1, exploration_correlation=correlation)
    state = state.replace(params={**state.params, "actor": constant(state.params["actor"], [0.0])})
    obs, num, noise = jnp.zeros((20_000, 1)), 6, agent.memory(20_000)
    actions = []
    for i in range(num):
        first = jnp.full(20_000, i == 0) | (jnp.arange(20_000) >= 10_000) & (i == 3)  # half begin again at step 3
        action, noise, _ = agent.act(jax.random.fold_in(KEY, i), state, noise, obs, first, True)
        actions.append(np.asarray(action)[:, 0])
    np.testing.assert_allclose(np.std(actions, 1), 0.2, rtol=0.03)
    running, anew = np.corrcoef(np.array(actions)[:, :10_000]), np.corrcoef(np.array(actions)[:, 10_000:])
    steps = np.abs(np.arange(num)[:, None] - np.arange(num))
    known = correlation ** np.where(steps == 0, 0, steps)
    np.testing.assert_allclose(running, known, atol=0.03)
    same = (np.arange(num) < 3)[:, None] == (np.arange(num) < 3)
    np.testing.assert_allclose(anew, np.where(same, known, 0.0), atol=0.03)


def test_the_actor_climbs_the_first_critic() -> None:
    agent, state = make("td3", actor_learning_rate=0.01, critic_learning_rate=0.0)
    critic = constant(state.params["critic"], [[0.0]] * 2)
    critic["params"]["head_q"]["kernel"] = critic["params"]["head_q"]["kernel"].at[:, 1, 0].set(jnp.array([1.0, -9.0]))
    state = state.replace(params={"actor": constant(state.params["actor"], [0.0]), "critic": critic})
    after = updates(agent, state, batch(4), 1)
    assert float(after.params["actor"]["params"]["head_policy"]["bias"][0]) == pytest.approx(0.01, rel=1e-3)


# DSAC-T


def test_distributional_loss_by_hand() -> None:
    """Q 1, deviation 2, targets 4.168 and 8.5 (10.108 before the bound), b 2.5."""
    targets = ReturnTargets(jnp.array([4.168]), jnp.array([8.5]))
    loss = functools.partial(return_distribution_loss, targets=targets, running=jnp.float32(2.5))
    of_q, of_std = jax.grad(loss, (0, 1))(jnp.array([1.0]), jnp.array([2.0]))
    assert of_q[0] == pytest.approx(-4.8292683, rel=1e-6)
    assert of_std[0] == pytest.approx(-17.5123403, rel=1e-6)
    whole = jax.grad(lambda std: loss(jnp.array([1.0]), std, std_half=False))(jnp.array([2.0]))
    assert whole[0] == pytest.approx(6.25 / 4.1 * (4 - 7.5**2) / 2.1, rel=1e-6)


def softplus_inverse(x: float) -> float:
    return float(np.log(np.expm1(x)))


def test_the_agents_targets_are_those_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers through an update: the target critic of the smaller mean says 3 and 1.5, and z is 4, cut to 3.

    So the sample is 3 + 1.5 * 3 = 7.5 and not 9: y_z = 1 + .99 * 7.7 = 8.623, and the bound 1 + 7.5 = 8.5 still binds.
    """
    monkeypatch.setattr(TanhNormal, "sample_and_log_prob", lambda self, key: (self.mode(), -jnp.ones(1)))
    agent, state = make("dsac_t", initial_alpha=0.2, num_critics=2, max_grad_norm=1e9)
    target = constant(state.targets["critic"], [[5.0, 0.0], [3.0, softplus_inverse(1.5)]])
    online = constant(state.params["critic"], [[1.0, softplus_inverse(2.0)]] * 2)
    extra = state.extra.replace(running=jnp.full(2, 2.5), initialised=jnp.ones((), bool))
    state = state.replace(
        params={**state.params, "critic": online}, targets={**state.targets, "critic": target}, extra=extra
    )
    monkeypatch.setattr(jax.random, "normal", lambda key, shape=(), dtype=jnp.float32: jnp.full(shape, 4.0))
    after, metrics = agent.update(KEY, state, batch(1), Progress(1, 2))
    assert metrics["priority"][0] == pytest.approx(4.168 - 1.0, rel=1e-6)
    b = 2.5 + 0.005 * (2.0 - 2.5)  # moves before it is used
    np.testing.assert_allclose(after.extra.running, b, rtol=1e-6)
    bounded = min(1 + 0.99 * (3 + 1.5 * 3 + 0.2), 1 + 3 * b)
    weight = b**2 / 4.1
    of_std = weight * (4 - 0.5 * (1 - bounded) ** 2) / 2.1 * (1 - np.exp(-2.0))  # through the softplus
    moments: Any = after.critic_opt[1].mu
    assert np.sort(np.asarray(moments))[0] == pytest.approx(0.1 * of_std, rel=1e-5)
    assert np.any(np.isclose(np.asarray(moments), -0.1 * weight * 3.168, rtol=1e-5))


def test_running_deviation_begins_with_the_first_batch() -> None:
    agent, state = make("dsac_t", tau_b=0.25, **learning_rates(0.0, 0.0))
    first = updates(agent, state.replace(params=_deviation(state, 2.0)), batch(4), 1)
    np.testing.assert_allclose(first.extra.running, 2.0, rtol=1e-5)
    second = updates(agent, first.replace(params=_deviation(state, 4.0)), batch(4), 1, 1)
    np.testing.assert_allclose(second.extra.running, 2.5, rtol=1e-5)


def _deviation(state: Any, std: float) -> Any:
    return {**state.params, "critic": constant(state.params["critic"], [[0.0, softplus_inverse(std)]] * 2)}


@pytest.mark.thorough
@pytest.mark.parametrize("std_half", [True, False])
def test_deviations_settle_where_they_should(std_half: bool) -> None:
    """Two states: 0 leads to 1 for nothing, 1 ends with -1 or 1. With the half, sqrt(1/2), and half of the variance
    that arrives from there: .9 * sqrt(1/2) * sqrt(1/2); without, 1 and .9."""
    agent, state = make(
        "dsac_t", hidden_sizes=(16,), std_half=std_half, critic_learning_rate=3e-3, actor_learning_rate=0.0,
        alpha_learning_rate=0.0, initial_alpha=1e-9, tau=0.05, policy_delay=1,
    )  # fmt: skip
    num = 128
    obs = jnp.tile(jnp.array([[0.0], [1.0]]), (num // 2, 1))
    ends = obs[:, 0] == 1.0

    def body(state: Any, i: jax.Array) -> Any:
        key_sign, key_action, key = jax.random.split(jax.random.fold_in(KEY, i), 3)
        reward = jnp.where(ends, jax.random.rademacher(key_sign, (num,), jnp.float32), 0.0)
        action = jax.random.uniform(key_action, (num, 1), minval=-2.0, maxval=2.0)
        sample = Sample(obs, action, reward, jnp.where(ends, 0.0, 0.9), jnp.ones((num, 1)), jnp.ones(num), ends)
        return agent.update(key, state, sample, Progress(i, 3000))[0], ()

    state, _ = jax.jit(lambda state: jax.lax.scan(body, state, jnp.arange(3000)))(state)
    network = StateActionValue(2, Torso((16,), PRESETS["dsac_t"].config.activation))
    outputs = apply_ensemble(network, state.params["critic"], jnp.array([[0.0], [1.0]]), jnp.zeros((2, 1)))
    np.testing.assert_allclose(outputs[..., 0], 0.0, atol=0.1)
    expected = [0.9 / 2, np.sqrt(0.5)] if std_half else [0.9, 1.0]
    np.testing.assert_allclose(jax.nn.softplus(outputs[..., 1]).mean(0), expected, rtol=0.08)


def test_the_critics_targets_of_td3_may_move_with_every_update() -> None:
    """Update 1 of a delay of 2: the actor and its target stay, the critics' targets move by tau towards the critics."""
    for targets, moves in (("delayed", False), ("every", True)):
        agent, state = make("td3", critic_targets=targets, tau=0.25)
        after = updates(agent, state, batch(4), 1, first=1)
        assert not differs(after.params["actor"], state.params["actor"])
        assert not differs(after.targets["actor"], state.targets["actor"])
        assert differs(after.params["critic"], state.params["critic"])
        expected = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, state.targets, after.params)["critic"]
        expected = expected if moves else state.targets["critic"]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), after.targets["critic"], expected)
        both = updates(agent, state, batch(4), 1, first=0)
        assert differs(both.targets["actor"], state.targets["actor"])


def test_weights_of_samples_are_in_the_critics_loss() -> None:
    """Errors of 1 in two of four rows of which one counts: a quarter of the loss; nothing where nothing counts."""
    agent, state = make("td3", policy_noise=0.0)
    online = constant(state.params["critic"], [[0.0], [0.0]])
    state = state.replace(params={**state.params, "critic": online})
    update = jax.jit(lambda sample: agent.update(KEY, state, sample, Progress(1, 1)))
    sample = batch(4, discount=0.0)
    for weight, loss in ((jnp.ones(4), 1.0), (jnp.array([1.0, 0.0, 0.0, 0.0]), 0.25), (jnp.zeros(4), 0.0)):
        after, metrics = update(sample._replace(weight=weight))
        assert float(metrics["loss/critic"]) == pytest.approx(loss)
    assert not differs(after.params["critic"], state.params["critic"])  # zero gradient
    assert float(update(sample)[1]["loss/critic"]) == pytest.approx(1.0)


@pytest.mark.parametrize("hidden_sizes", [(), (5,), (5, 4)])
def test_an_actor_that_is_told_some_inputs_for_ever(hidden_sizes: tuple[int, ...]) -> None:
    told = Actor(2, Torso(hidden_sizes, "relu"))
    params = told.init(KEY, jnp.zeros((1, 7)))
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)  # biases, too
    obs, inputs = jax.random.normal(KEY, (20, 4)), jnp.array([0.5, -1.0, 2.0])
    whole = told.apply(params, jnp.concatenate([obs, jnp.broadcast_to(inputs, (20, 3))], 1))
    folded = fold_inputs(params, inputs)
    np.testing.assert_allclose(told.apply(folded, obs), whole, atol=1e-5)
    plain = told.init(KEY, jnp.zeros((1, 4)))
    assert jax.tree.map(jnp.shape, folded) == jax.tree.map(jnp.shape, plain)
    with pytest.raises(ValueError, match="7 inputs"):
        fold_inputs(params, jnp.zeros(7))


def test_networks_may_start_uniform() -> None:
    """Of variance one over the inputs, biases 0: a first policy that does something."""
    preset = PRESETS["td3"]
    config = dataclasses.replace(preset.config, hidden_sizes=(64, 64), initializer="lecun_uniform")
    agent = preset.agent(
        dataclasses.replace(probes.termination_probe(), single_action_space=WIDE), config, preset.hparams
    )
    layers = agent.init(KEY, Box(-1.0, 1.0, (200,)), WIDE).params["actor"]["params"]
    for layer, inputs in ((layers["torso"]["Dense_0"], 200), (layers["head_policy"], 64)):
        assert float(jnp.abs(layer["kernel"]).max()) <= (3 / inputs) ** 0.5
        assert float(jnp.square(layer["kernel"]).mean()) * inputs == pytest.approx(1.0, rel=0.3)
        assert not layer["bias"].any()
    with pytest.raises(ValueError, match="initializer"):
        dataclasses.replace(config, initializer="normal")
    with pytest.raises(ValueError, match="critic_targets"):
        dataclasses.replace(config, critic_targets="never")
    with pytest.raises(ValueError, match="critic_hidden_sizes"):
        dataclasses.replace(config, critic_hidden_sizes=(0,))
