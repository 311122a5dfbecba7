"""Objectives that bound the policy's step in other ways than PPO, against numbers worked out by hand and identities."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_close
from test_objectives import HP, flat, random_rollout

from jaxrl.objectives import (
    a2c_objective,
    bapo_objective,
    clip_higher_objective,
    dpo_objective,
    empg_objective,
    mdpo_objective,
    ppo_adaptive_kl_objective,
    ppo_kl_objective,
    ppo_objective,
    spo_objective,
    vtrace_objective,
)
from jaxrl.objectives.bapo import HIGH_STEP, LOW_STEP, balanced_bounds, positive_share
from jaxrl.objectives.common import AdvantageTargets
from jaxrl.objectives.dpo import dpo_drift, dpo_surrogate
from jaxrl.objectives.empg import entropy_modulated
from jaxrl.objectives.kl import adapted_kl_coef, mirror_descent_step_size
from jaxrl.objectives.spo import spo_surrogate
from jaxrl.ops.distributions import Categorical, DiagNormal
from jaxrl.types import Objective, Progress, Rollout

ARMS = jnp.array([0.5, 0.3, 0.2])  # the old policy of the bandit, met exactly by ten samples
SAMPLES = jnp.array([0] * 5 + [1] * 3 + [2] * 2)
REWARDS = jnp.array([1.0, 2.0, 0.0])


def bandit_gradient(objective: Objective, progress: Progress = Progress(0, 10)) -> jax.Array:
    """Gradient of the loss by the logits, [3], at the policy that drew the ten samples; values are 0."""
    logits = jnp.broadcast_to(jnp.log(ARMS), (10, 1, 3))
    outputs = {"policy": Categorical(logits), "value": jnp.zeros((10, 1))}
    end, none = jnp.ones((10, 1), bool), jnp.zeros((10, 1), bool)
    rollout = Rollout(None, SAMPLES[:, None], REWARDS[SAMPLES][:, None], end, none, end, outputs, outputs, ())
    targets, state = objective.prepare(objective.init(), outputs, outputs, rollout, progress)

    def loss(logits: jax.Array) -> jax.Array:
        now = {"policy": Categorical(jnp.broadcast_to(logits, (10, 3))), "value": jnp.zeros(10)}
        return objective.loss(state, now, flat(targets))[0]

    return jax.grad(loss)(jnp.log(ARMS))


NO_BONUS = HP.replace(ent_coef=0.0)
FAMILY = {
    "a2c": a2c_objective,
    "ppo": ppo_objective,
    "clip_higher": clip_higher_objective,
    "bapo": bapo_objective,
    "ppo_kl": ppo_kl_objective,
    "ppo_adaptive_kl": ppo_adaptive_kl_objective,
    "mdpo": mdpo_objective,
    "dpo": dpo_objective,
    "spo": spo_objective,
    "vtrace": vtrace_objective,
    "empg": empg_objective,
}


@pytest.mark.parametrize("name", FAMILY)
def test_first_gradient_is_that_of_the_expected_reward(name: str) -> None:
    """d/dlogits of sum pi r is pi (r - sum pi r): all of them start as policy gradients, whatever holds them back."""
    expected = ARMS * (REWARDS - jnp.sum(ARMS * REWARDS))
    np.testing.assert_allclose(bandit_gradient(FAMILY[name](NO_BONUS, "none")), -expected, atol=1e-6)


# --- KL ---


def one_gaussian(objective: Objective, state: Any) -> dict[str, jax.Array]:
    old = DiagNormal(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
    new = DiagNormal(jnp.full((1, 1), 0.5), jnp.log(jnp.full((1, 1), 1.2)))
    action = jnp.zeros((1, 1))
    targets = AdvantageTargets(action, old.log_prob(action), jnp.zeros(1), jnp.zeros(1), jnp.zeros(1), None, old)
    total, metrics = objective.loss(state, {"policy": new, "value": jnp.zeros(1)}, targets)
    return metrics | {"total": total}


def test_penalties_by_hand() -> None:
    """KL(N(0,1) || N(.5,1.2)) = .1163493, and the other way round .1626784: MDPO's is of the new policy first."""
    forward, backward = 0.1163493, 0.1626784
    metrics = one_gaussian(ppo_kl_objective(NO_BONUS.replace(kl_coef=2.0), "none"), ())
    assert metrics["policy/kl"] == pytest.approx(forward, abs=1e-6)
    assert metrics["total"] == pytest.approx(2.0 * forward, abs=1e-6)
    metrics = one_gaussian(ppo_adaptive_kl_objective(NO_BONUS, "none"), jnp.float32(4.0))
    assert metrics["total"] == pytest.approx(4.0 * forward, abs=1e-6)
    assert metrics["policy/kl_coef"] == 4.0
    metrics = one_gaussian(mdpo_objective(NO_BONUS, "none"), jnp.float32(0.25))
    assert metrics["policy/kl"] == pytest.approx(backward, abs=1e-6)
    assert metrics["total"] == pytest.approx(backward / 0.25, abs=1e-6)


@pytest.mark.parametrize(
    ("kl", "factor"),
    [(0.0, 0.5), (0.0066, 0.5), (0.0067, 1.0), (0.01, 1.0), (0.0149, 1.0), (0.0151, 2.0), (1.0, 2.0)],
)
def test_adaptive_weight_halves_and_doubles(kl: float, factor: float) -> None:
    assert adapted_kl_coef(0.8, kl, 0.01) == pytest.approx(0.8 * factor)


def test_adaptive_weight_follows_the_divergence_after_the_update() -> None:
    """KL(old || new) of the outputs that `finish` is shown, whatever the losses on the way were."""
    objective = ppo_adaptive_kl_objective(HP.replace(kl_coef_init=0.8, kl_target=0.01))
    old = Categorical(jnp.log(jnp.array([[0.5, 0.5], [0.2, 0.8]])))
    targets = AdvantageTargets(*[jnp.zeros(2)] * 5, policy=old)
    for new, factor in ((old, 0.5), (Categorical(old.logits.at[0, 0].add(1.0)), 2.0)):
        state = objective.finish(objective.init(), {"policy": new}, targets)
        assert state == pytest.approx(0.8 * factor)
        assert state.dtype == objective.init().dtype


def test_adaptive_weight_comes_back_from_far() -> None:
    coef = jnp.float32(1.0)
    for _ in range(200):
        coef = adapted_kl_coef(coef, 0.0, 0.01)
    assert adapted_kl_coef(coef, 1.0, 0.01) == 2.0 * coef > 0.0
    for _ in range(400):
        coef = adapted_kl_coef(coef, 1.0, 0.01)
    assert np.isfinite(coef)


def test_the_penalty_is_flat_at_the_old_policy_only() -> None:
    now, after, rollout = random_rollout()
    gradients = {}
    for coef in (0.0, 3.0):
        objective = ppo_kl_objective(HP.replace(kl_coef=coef))
        targets, state = objective.prepare((), now, after, rollout, Progress(0, 10))

        def loss(outputs: Any, objective: Any = objective, targets: Any = targets, state: Any = state) -> jax.Array:
            return objective.loss(state, outputs, flat(targets))[0]

        gradients[coef] = (jax.grad(loss)(flat(now)), jax.grad(loss)(flat(after)))
    assert_trees_close(gradients[3.0][0], gradients[0.0][0], atol=1e-6)
    difference = gradients[3.0][1]["policy"].logits - gradients[0.0][1]["policy"].logits
    assert jnp.abs(difference).max() > 1e-2


# --- MDPO ---


def test_mdpo_step_size_falls_from_one_to_one_over_k() -> None:
    sizes = [float(mirror_descent_step_size(Progress(jnp.int32(k), 4))) for k in range(5)]
    np.testing.assert_allclose(sizes, [1.0, 0.75, 0.5, 0.25, 0.25])
    now, after, rollout = random_rollout()
    objective = mdpo_objective(HP)
    _, state = objective.prepare(objective.init(), now, after, rollout, Progress(jnp.int32(3), 4))
    assert state == 0.25
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(
        lambda x: (x.shape, x.dtype), objective.init()
    )


@jax.jit
def mirror_descent_step(old: jax.Array, step_size: jax.Array) -> jax.Array:
    """The policy [3] at which MDPO's own loss on the bandit is least: descent in the logits, scaled by 1 / pi.

    One sample of each arm, its advantage times `3 * old`, stands for the expectation under the old policy; the
    divergence is the same at each.
    """
    objective, arms = mdpo_objective(NO_BONUS, "none"), jnp.arange(3)
    policy = Categorical(jnp.broadcast_to(jnp.log(old), (3, 3)))
    targets = AdvantageTargets(arms, policy.log_prob(arms), 3.0 * old * REWARDS, *jnp.zeros((2, 3)), None, policy)

    def loss(logits: jax.Array) -> jax.Array:
        now = {"policy": Categorical(jnp.broadcast_to(logits, (3, 3))), "value": jnp.zeros(3)}
        return objective.loss(step_size, now, targets)[0]

    def descend(_: int, x: jax.Array) -> jax.Array:
        return x - 0.1 * step_size * jax.grad(loss)(x) / jax.nn.softmax(x)

    logits = jax.lax.fori_loop(0, 2000, descend, jnp.log(old))
    return jax.nn.softmax(logits)


@pytest.mark.parametrize(
    ("step_size", "expected"),
    [(0.5, [0.44805978, 0.44323542, 0.1087048]), (1.0, [0.35995554, 0.58707636, 0.0529681]), (1e-4, [0.5, 0.3, 0.2])],
)
def test_mdpo_fixed_point_on_the_bandit(step_size: float, expected: list[float]) -> None:
    """old * exp(t r) / Z; and with t -> 0 the policy does not move."""
    new = mirror_descent_step(ARMS, jnp.float32(step_size))
    np.testing.assert_allclose(new, expected, atol=1e-4 if step_size < 1e-3 else 2e-6)


def test_mdpo_steps_add_up() -> None:
    """Ten steps of t = 0.5 from the uniform policy: softmax(5 r)."""
    policy = jnp.full(3, 1 / 3)
    for _ in range(10):
        policy = mirror_descent_step(policy, jnp.float32(0.5))
    np.testing.assert_allclose(policy, [0.0066925, 0.9932624, 0.0000451], atol=2e-5)


# --- DPO ---


@pytest.mark.parametrize(
    ("ratio", "advantage", "drift"),
    [
        (1.2, 1, 0.00066401), (1.5, 1, 0.01016268), (2, 1, 0.07576569), (2, 2, 0.47681169), (0.5, 1, 0.0),
        (0.5, -1, 0.20145660), (0.8, -1, 0.00974895), (0.5, -2, 0.79799099), (0.8, -2, 0.06742151), (2, -1, 0.0),
    ],
)  # fmt: skip
def test_dpo_drift_by_hand(ratio: float, advantage: float, drift: float) -> None:
    with jax.enable_x64(True):
        found = dpo_drift(jnp.log(jnp.float64(ratio)), jnp.float64(advantage), 2.0, 0.6)
    assert float(found) == pytest.approx(drift, abs=6e-9)


def test_dpo_drift_is_a_drift() -> None:
    """Never negative; zero and flat at ratio 1; finite with its gradient at every ratio that the host lets through."""
    advantage = jnp.linspace(-3, 3, 25)
    for log_ratio in (-20.0, -1.2, 0.0, 1.1, 20.0):
        at = jnp.full(25, log_ratio)
        drift, slope = (
            dpo_drift(at, advantage, 2.0, 0.6),
            jax.grad(lambda x: dpo_drift(x, advantage, 2.0, 0.6).sum())(at),
        )
        assert drift.min() >= 0.0
        assert np.isfinite(drift).all()
        assert np.isfinite(slope).all()
        if log_ratio == 0.0:
            assert jnp.abs(drift).max() == 0.0
            assert jnp.abs(slope).max() == 0.0


def test_dpo_surrogate_is_the_ratio_less_the_drift() -> None:
    log_ratio, advantage = (x.ravel() for x in np.meshgrid(np.linspace(-20, 20, 81), np.linspace(-3, 3, 25)))
    with jax.enable_x64(True):
        expected = np.exp(log_ratio) * advantage - np.asarray(dpo_drift(log_ratio, advantage, 2.0, 0.6))
        np.testing.assert_allclose(dpo_surrogate(log_ratio, advantage, 2.0, 0.6), expected, rtol=1e-12, atol=1e-6)
    # In float32, too, a good action that is e^20 times as likely gains no more: 1 + alpha, without a slope.
    gain, slope = jax.jit(jax.value_and_grad(lambda x: dpo_surrogate(x, 1.0, 2.0, 0.6)))(20.0)
    assert (float(gain), float(slope)) == (3.0, 0.0)


# --- V-trace ---


def test_vtrace_first_gradient_is_a2cs() -> None:
    """On-policy with gae_lambda = 1: the same targets, advantages and gradients as A2C."""
    now, after, rollout = random_rollout()
    gradients, targets = [], []
    for make in (vtrace_objective, a2c_objective):
        objective = make(HP.replace(gae_lambda=1.0), "none")
        target, state = objective.prepare((), now, after, rollout, Progress(0, 10))

        def loss(outputs: Any, objective: Any = objective, target: Any = target, state: Any = state) -> jax.Array:
            return objective.loss(state, outputs, flat(target))[0]

        gradients.append(jax.grad(loss)(flat(now)))
        targets.append(target)
    np.testing.assert_allclose(targets[0].returns, targets[1].returns, atol=1e-5)
    # Advantages agree where the value of the next observation is the one at which the next step was taken.
    inner = ~(np.asarray(rollout.terminated) | np.asarray(rollout.truncated))
    inner[-1] = False
    expected = rollout.reward[:-1] + 0.9 * targets[1].returns[1:] - now["value"][:-1]
    np.testing.assert_allclose(targets[0].advantage[:-1][inner[:-1]], expected[inner[:-1]], atol=1e-5)
    shifted = {**after, "value": jnp.roll(now["value"], -1, axis=0)}
    same = [
        make(HP.replace(gae_lambda=1.0), "none").prepare((), now, shifted, rollout, Progress(0, 10))[0].advantage
        for make in (vtrace_objective, a2c_objective)
    ]
    np.testing.assert_allclose(*same, atol=1e-5)
    np.testing.assert_allclose(gradients[0]["value"], gradients[1]["value"], atol=1e-6)


@pytest.mark.parametrize(("ratio", "rho_max", "weight"), [(2.0, 1.0, 1.0), (0.5, 1.0, 0.5), (2.0, 3.0, 2.0)])
def test_vtrace_weighs_by_the_capped_ratio(ratio: float, rho_max: float, weight: float) -> None:
    logits, action = jnp.array([[0.1, -0.2, 0.3]]), jnp.array([1])
    old = Categorical(logits).log_prob(action) - jnp.log(ratio)
    targets = AdvantageTargets(action, old, jnp.array([2.0]), jnp.zeros(1), jnp.zeros(1))
    objective = vtrace_objective(NO_BONUS.replace(rho_max=rho_max))

    def loss(logits: jax.Array) -> jax.Array:
        return objective.loss((), {"policy": Categorical(logits), "value": jnp.zeros(1)}, targets)[0]

    expected = weight * np.array([0.675169, -1.499823, 0.824653])
    np.testing.assert_allclose(jax.grad(loss)(logits)[0], expected, atol=5e-6)


# --- Clip-Higher and BAPO ---


def two_gradients(first: Objective, second: Objective, seed: int = 0) -> list[Any]:
    """Gradients at another policy than the one that collected."""
    now, after, rollout = random_rollout(seed=seed)
    gradients = []
    for objective in (first, second):
        targets, state = objective.prepare(objective.init(), now, after, rollout, Progress(0, 10))
        outputs = flat(random_rollout(seed=seed + 1)[0])
        gradients.append(jax.grad(lambda o, f=objective, t=targets, s=state: f.loss(s, o, flat(t))[0])(outputs))
    return gradients


def test_clip_higher_is_ppo_with_another_upper_bound() -> None:
    assert_trees_close(*two_gradients(clip_higher_objective(HP.replace(clip_eps_high=0.2)), ppo_objective(HP)))
    wide, ppo = two_gradients(clip_higher_objective(HP.replace(clip_eps_high=2.0)), ppo_objective(HP))
    assert jnp.abs(wide["policy"].logits - ppo["policy"].logits).max() > 1e-3
    logits, action = jnp.array([[0.1, -0.2, 0.3]]), jnp.array([1])
    old = Categorical(logits).log_prob(action) - jnp.log(1.25)
    targets = AdvantageTargets(action, old, jnp.array([2.0]), jnp.zeros(1), jnp.zeros(1))
    outputs = {"policy": Categorical(logits), "value": jnp.zeros(1)}
    assert clip_higher_objective(HP, "none").loss((), outputs, targets)[1]["loss/policy"] == pytest.approx(-2.5)


def test_clip_higher_is_bapo_that_may_not_move() -> None:
    fixed = HP.replace(bapo_low=0.8, bapo_low_max=0.8, bapo_high=1.28, bapo_high_max=1.28, bapo_target=1.0)
    assert_trees_close(*two_gradients(bapo_objective(fixed), clip_higher_objective(HP)))


def test_positive_share_by_hand() -> None:
    """What is clipped has no gradient and does not count: good actions above the bounds, bad ones below them."""
    ratio, advantage = jnp.array([2.0, 1.0, 0.1]), jnp.array([1.0, -2.0, 0.0])
    assert positive_share(ratio, advantage, (0.6, 2.5)) == pytest.approx(2 / 4)
    assert positive_share(ratio, advantage, (0.6, 2.5), jnp.array([0.5, 1.0, 1.0])) == pytest.approx(1 / 3)
    assert positive_share(ratio, advantage, (0.6, 1.2)) == 0.0
    assert positive_share(ratio, jnp.zeros(3), (0.6, 1.2)) == 1.0
    assert positive_share(jnp.array([1.0, 0.7]), jnp.array([1.0, -1.0]), (0.6, 1.2)) == pytest.approx(1 / 1.7)
    assert positive_share(jnp.array([1.0, 0.5]), jnp.array([1.0, -1.0]), (0.6, 1.2)) == 1.0


def test_no_step_of_the_search_lowers_the_share() -> None:
    rng = np.random.default_rng(0)
    ratio, advantage = jnp.exp(jnp.asarray(rng.normal(size=(100, 40)))), jnp.asarray(rng.normal(size=(100, 40)) - 0.3)
    share = jax.jit(jax.vmap(positive_share, (0, 0, None)))
    ladder = [(0.6, high) for high in np.arange(1.2, 3.0, 0.3)] + [(low, 3.0) for low in np.arange(0.6, 0.91, 0.1)]
    shares = np.stack([share(ratio, advantage, bounds) for bounds in ladder])
    assert (np.diff(shares, axis=0) >= -1e-6).all()
    assert (np.diff(shares[:6], axis=0).max(1) > 0).all()
    assert (np.diff(shares[6:], axis=0).max(1) > 0).all()


def search(ratio: Any, advantage: Any, target: float, **changes: Any) -> tuple[list[float], float]:
    ranges = {"start": (0.6, 1.2), "limit": (0.9, 3.0)} | changes
    bounds, share = balanced_bounds(jnp.asarray(ratio), jnp.asarray(advantage), *ranges.values(), target)
    return [float(bound) for bound in bounds], float(share)


def test_bapo_raises_the_upper_bound_until_the_target_is_met() -> None:
    """At 2.0 the good action of ratio 1.98 is let in: 1.98 / 3.98."""
    bounds, share = search([1.98, 1.0], [1.0, -2.0], 0.4)
    np.testing.assert_allclose(bounds, [0.6, 2.0], atol=1e-6)
    assert share == pytest.approx(1.98 / 3.98, abs=1e-6)


def test_bapo_then_raises_the_lower_bound() -> None:
    """1 / 4.5 however high the upper bound; at .70 the bad action of ratio .69 is kept out."""
    bounds, share = search([1.0, 0.69], [1.0, -5.0], 0.4)
    np.testing.assert_allclose(bounds, [0.7, 3.0], atol=1e-6)
    assert share == 1.0


def test_bapo_leaves_bounds_alone_where_the_target_is_met() -> None:
    bounds, share = search([1.1, 1.0], [1.0, -1.0], 0.4)
    np.testing.assert_allclose(bounds, [0.6, 1.2], atol=1e-7)
    assert share == pytest.approx(1.1 / 2.1)


def test_bapo_ends_at_the_limits_after_51_steps_at_most() -> None:
    """A target that nothing meets: 36 steps of the upper bound and 15 of the lower, then it gives up."""
    bounds, share = search([1.0, 1.0], [-1.0, -1.0], 1.0)
    np.testing.assert_allclose(bounds, [0.9, 3.0], atol=1e-6)
    assert share == 0.0
    assert round((3.0 - 1.2) / HIGH_STEP) + round((0.9 - 0.6) / LOW_STEP) == 51
    # One step fewer does not reach them.
    short, _ = search([1.0, 1.0], [-1.0, -1.0], 1.0, limit=(0.9 - LOW_STEP, 3.0))
    np.testing.assert_allclose(short, [0.88, 3.0], atol=1e-6)
    # Limits below the start: neither bound moves.
    np.testing.assert_allclose(search([1.0], [-1.0], 1.0, limit=(0.0, 1.0))[0], [0.6, 1.2], atol=1e-7)


@pytest.mark.parametrize("target", [0.3, 0.45, 0.5, 0.6, 0.99])
def test_bapo_search_is_the_naive_loop(target: float) -> None:
    rng = np.random.default_rng(4)
    ratio, advantage = np.exp(rng.normal(size=60)).astype(np.float32), rng.normal(size=60).astype(np.float32) - 0.2
    low, high, trips = 0.6, 1.2, 0

    def share() -> float:
        positive = sum(r * a for r, a in zip(ratio, advantage, strict=True) if a > 0 and r <= high)
        negative = sum(-r * a for r, a in zip(ratio, advantage, strict=True) if a <= 0 and r >= low)
        return float(positive / (positive + negative))

    while share() < target and (high < 3.0 - 1e-6 or low < 0.9 - 1e-6):
        high, low = (high + 0.05, low) if high < 3.0 - 1e-6 else (high, low + 0.02)
        trips += 1
    bounds, found = search(ratio, advantage, target)
    assert trips <= 51
    np.testing.assert_allclose(bounds, [low, high], atol=1e-5)
    assert found == pytest.approx(share(), abs=1e-5)


def test_bapo_on_policy_does_not_depend_on_its_bounds() -> None:
    now, after, rollout = random_rollout()
    gradients = []
    for target in (0.0, 1.0):
        objective = bapo_objective(HP.replace(bapo_target=target))
        targets, state = objective.prepare((), now, after, rollout, Progress(0, 10))
        (loss, metrics), gradient = jax.value_and_grad(
            lambda o, f=objective, t=targets, s=state: f.loss(s, o, flat(t)), has_aux=True
        )(flat(now))
        gradients.append((loss, gradient))
        assert metrics["policy/clip_high"] == pytest.approx(3.0 if target else 1.2)
    assert_trees_close(*gradients, atol=1e-7)


# --- EMPG ---


def test_empg_with_equal_entropies_only_centres() -> None:
    advantage, flags = jnp.array([1.0, 2.0, 6.0]), jnp.array([False, True, False])
    found = entropy_modulated(advantage, jnp.full(3, 0.7), jnp.full(3, 0.7), flags, (1.0, 2.0), 0.5)
    np.testing.assert_allclose(found, [-2.0, -1.0, 3.0], atol=1e-6)


def test_empg_by_hand() -> None:
    """Entropies 0 and 1: g = [1, 1/e] over their mean .6839; f of the successors, [1, 0] nats, is [1/e, 1]."""
    entropies = (jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0]))
    never = jnp.zeros(2, bool)
    found = entropy_modulated(jnp.array([2.0, -1.0]), *entropies, never, (1.0, 1.0), 0.5)
    e = np.exp(-1.0)
    raw = np.array([2.0, -e]) / ((1 + e) / 2) + 0.5 * np.array([e, 1.0])
    np.testing.assert_allclose(found, raw - raw.mean(), atol=1e-6)
    # Behind a termination there is no successor: what is stored there does not matter.
    ends = [
        entropy_modulated(jnp.ones(2), entropies[0], jnp.array([x, 0.5]), jnp.array([True, False]), (1.0, 1.0), 0.5)
        for x in (0.0, 9.0)
    ]
    np.testing.assert_array_equal(*ends)


def test_empg_favours_sure_steps() -> None:
    """Of equal advantages, the sure step's counts more; of equal steps, the one that leads to a sure one."""
    entropy, never = jnp.array([0.1, 1.0, 0.1, 1.0]), jnp.zeros(4, bool)
    surer = entropy_modulated(jnp.array([1.0, 1.0, -1.0, -1.0]), entropy, jnp.ones(4), never, (1.0, 1.0), 0.0)
    assert surer[0] > surer[1] > surer[3] > surer[2]
    ahead = entropy_modulated(jnp.zeros(4), entropy, jnp.array([0.1, 1.0, 0.5, 0.5]), never, (1.0, 1.0), 1.0)
    assert ahead[0] > ahead[2] > ahead[1]


def test_empg_without_modulation_is_ppo() -> None:
    hp = HP.replace(empg_k=0.0, empg_bonus=0.0)
    assert_trees_close(*two_gradients(empg_objective(hp), ppo_objective(hp)), atol=1e-5)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [(1.0, 2.0, 2.0), (1.2, 2.0, 2.2), (1.5, 2.0, 1.75), (0.8, -1.0, -0.9), (1.5, -1.0, -2.125)],
)
def test_spo_surrogate_by_hand(ratio: float, advantage: float, expected: float) -> None:
    assert spo_surrogate(jnp.float32(ratio), jnp.float32(advantage), 0.2) == pytest.approx(expected, abs=1e-6)


def test_spo_is_greatest_at_the_bound_on_the_side_of_the_advantage() -> None:
    slope = jax.vmap(jax.grad(spo_surrogate), (0, 0, None))(jnp.array([1.2, 0.8]), jnp.array([3.0, -3.0]), 0.2)
    np.testing.assert_allclose(slope, 0.0, atol=1e-5)
