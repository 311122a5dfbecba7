"""Learned drifts: counts, what makes a function a drift, identities with PPO and between LPO and TA-LPO."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_close
from test_objectives import HP, flat, random_rollout

from jaxrl.objectives import lpo_objective, ppo_objective
from jaxrl.objectives.dpo import dpo_drift
from jaxrl.objectives.lpo import LPOConfig, lpo_drift, lpo_features, lpo_init, lpo_surrogate
from jaxrl.objectives.ppo import clipped_surrogate, ppo_drift
from jaxrl.types import Objective, Progress

FRACTIONS = np.array([0.0, 0.3, 0.9])
KINDS = {
    (warm, aware): LPOConfig(warm_start=warm, time_aware=aware) for warm in (False, True) for aware in (False, True)
}


def random_params(config: LPOConfig, seed: int = 0, dtype: Any = np.float64) -> dict[str, np.ndarray]:
    """Weights large enough for the drift to be positive over much of the plane."""
    rng = np.random.default_rng(seed)
    num_inputs = 16 if config.time_aware else 8
    return {
        "hidden": rng.normal(size=(num_inputs, config.width)).astype(dtype),
        "output": rng.normal(size=(config.width, 1)).astype(dtype),
    }


def naive_drift(params: Any, config: LPOConfig, log_ratio: float, advantage: float, fraction: float) -> float:
    """From the definition, one sample and one hidden unit after the other."""
    r = np.exp(log_ratio)
    x = [1 - r, (1 - r) ** 2, log_ratio, log_ratio**2]
    x = x + [advantage * feature for feature in x]
    if config.time_aware:
        x = x + [fraction * feature for feature in x]
    total = 0.0
    for unit in range(config.width):
        total += params["output"][unit, 0] * np.tanh(sum(params["hidden"][i, unit] * x[i] for i in range(len(x))))
    ppo = max(0.0, (r - min(max(r, 0.8), 1.2)) * advantage) if config.warm_start else 0.0
    return max(0.0, ppo + total - 1e-4)


def plane() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-ratios, advantages and n/N, each [N], of a grid."""
    grid = np.meshgrid(np.linspace(-2.0, 2.0, 21), np.array([-2.0, -1.0, 0.0, 0.7, 1.5]), FRACTIONS)
    return tuple(x.ravel() for x in grid)  # type: ignore[return-value]


def test_parameter_counts() -> None:
    for config, count in ((LPOConfig(), 1_152), (LPOConfig(time_aware=True), 2_176)):
        params = lpo_init(jax.random.key(0), config)
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
        assert not any(params["output"])  # where it starts, the network is 0
        assert 0.5 < float(params["hidden"].std()) * np.sqrt(params["hidden"].shape[0]) < 1.5


def test_features_by_hand() -> None:
    found = lpo_features(jnp.log(jnp.array([1.5, 1.0])), jnp.array([-2.0, 3.0]))
    expected = [-0.5, 0.25, 0.405465, 0.164402]
    np.testing.assert_allclose(found[0], [*expected, *(-2.0 * x for x in expected)], atol=1e-6)
    assert not found[1].any()


@pytest.mark.parametrize("config", KINDS.values(), ids=str)
def test_learned_drifts(config: LPOConfig) -> None:
    """Equal to the definition; never negative; 0 and flat at ratio 1 for every A and n/N; the surrogate is its rest."""
    params = random_params(config)
    log_ratio, advantage, fraction = plane()
    with jax.enable_x64(True):
        drift = np.asarray(jax.jit(lambda *x: lpo_drift(params, config, *x))(log_ratio, advantage, fraction))
        gain, held = jax.jit(lambda *x: lpo_surrogate(params, config, *x))(log_ratio, advantage, fraction)
        one = jax.vmap(jax.value_and_grad(lambda x, *rest: lpo_drift(params, config, x, *rest)))
        at_one = one(np.zeros(3), np.array([-1.5, 0.5, 100.0]), FRACTIONS)
        slope_at_one = jax.vmap(jax.grad(lambda x, *rest: lpo_surrogate(params, config, x, *rest)[0]))(
            np.zeros(3), np.array([-1.5, 0.5, 100.0]), FRACTIONS
        )
    expected = [naive_drift(params, config, *sample) for sample in zip(*plane(), strict=True)]
    np.testing.assert_allclose(drift, expected, atol=1e-11)
    assert drift.min() == 0.0
    assert 0.2 < (drift > 0.0).mean() < 0.95
    np.testing.assert_array_equal(held, drift > 0.0)
    np.testing.assert_allclose(gain, np.exp(log_ratio) * advantage - drift, atol=1e-12)
    for value in at_one:
        np.testing.assert_array_equal(value, np.zeros(3))
    np.testing.assert_allclose(slope_at_one, [-1.5, 0.5, 100.0], rtol=1e-12)
    # Around ratio 1, too, it is exactly flat, and time changes it elsewhere if and only if it is aware of time.
    by_time = drift.reshape(5, 21, 3)
    assert (np.ptp(by_time, axis=-1).max() > 1e-3) == config.time_aware


def test_closed_forms_are_flat_at_ratio_one_for_every_advantage() -> None:
    advantage = np.linspace(-3.0, 3.0, 13)
    with jax.enable_x64(True):
        for drift in (lambda x, a: ppo_drift(x, a, 0.2), lambda x, a: dpo_drift(x, a, 2.0, 0.6)):
            value, slope = jax.vmap(jax.value_and_grad(drift))(np.zeros(13), advantage)
            assert not np.any(value)
            assert not np.any(slope)
            assert np.min(drift(*plane()[:2])) == 0.0
            assert np.max(drift(*plane()[:2])) > 1.0


def test_time_aware_at_the_start_is_the_plain_rule_of_its_first_rows() -> None:
    for warm in (False, True):
        aware, plain = KINDS[warm, True], KINDS[warm, False]
        params = random_params(aware)
        rows = {"hidden": params["hidden"][:8], "output": params["output"]}
        log_ratio, advantage, _ = plane()
        with jax.enable_x64(True):
            at_start = lpo_drift(params, aware, log_ratio, advantage, 0.0)
            without = lpo_drift(rows, plain, log_ratio, advantage, 0.0)
            later = lpo_drift(params, aware, log_ratio, advantage, 0.5)
        at_start, without, later = map(np.asarray, (at_start, without, later))
        np.testing.assert_array_equal(at_start, without)
        assert np.abs(later - without).max() > 1e-2


def test_ppo_is_the_ratio_less_its_drift() -> None:
    """min(r A, clip(r) A) = r A - relu((r - clip(r)) A), to 1e-12."""
    rng = np.random.default_rng(0)
    log_ratio, advantage = rng.normal(size=2_000), rng.normal(size=2_000)
    with jax.enable_x64(True):
        rest = np.exp(log_ratio) * advantage - np.asarray(ppo_drift(log_ratio, advantage, 0.2))
        clipped = clipped_surrogate(jnp.exp(log_ratio), advantage, (0.8, 1.2))
        np.testing.assert_allclose(rest, clipped, rtol=0.0, atol=1e-12)
    assert np.abs(rest - np.exp(log_ratio) * advantage).max() > 1.0


def test_float32_stays_finite_and_holds_at_far_ratios() -> None:
    """|log r| to 20 with any advantage: finite gradients; where PPO clips, its gradient is 0 and not rounding noise."""
    log_ratio, advantage = (x.ravel() for x in np.meshgrid(np.linspace(-20, 20, 41), [-1e6, -3.0, 0.0, 1.0, 1e6]))
    for config in KINDS.values():
        params = random_params(config, dtype=np.float32)
        slope = jax.jit(
            jax.vmap(jax.grad(lambda p, *x, c=config: lpo_surrogate(p, c, *x, 0.5)[0], (0, 1)), (None, 0, 0))  # noqa: B023
        )(params, jnp.float32(log_ratio), jnp.float32(advantage))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))
    zeros = jax.tree.map(jnp.zeros_like, params)
    clipped = jax.jit(jax.grad(lambda x: lpo_surrogate(zeros, KINDS[True, True], x, 1.0, 0.5)[0]))
    assert [float(clipped(x)) for x in (2.0, 9.0, 20.0)] == [0.0, 0.0, 0.0]


# --- On the host ---


def learn(objective: Objective, update: int = 3, discrete: bool = True) -> tuple[jax.Array, Any, Any]:
    """Loss, metrics and gradient at another policy than the one that collected."""
    now, after, rollout = random_rollout(discrete)

    def differentiate(later: Any, update: jax.Array) -> Any:
        targets, state = objective.prepare(objective.init(), now, after, rollout, Progress(update, 10))
        return jax.value_and_grad(lambda o: objective.loss(state, o, flat(targets)), has_aux=True)(later)

    later = flat(random_rollout(discrete, seed=1)[0])
    (total, metrics), gradient = jax.jit(differentiate)(later, jnp.int32(update))
    return total, metrics, gradient


@pytest.mark.parametrize("discrete", [True, False])
def test_a_network_of_zeros_on_a_warm_start_is_ppo(discrete: bool) -> None:
    """|objective - PPO's| <= xi = 1e-4, for discrete and continuous actions; and the same gradient."""
    for aware in (False, True):
        config = KINDS[True, aware]
        params = lpo_init(jax.random.key(0), config)
        learned = learn(lpo_objective(params, config, HP), discrete=discrete)
        ppo = learn(ppo_objective(HP), discrete=discrete)
        difference = float(ppo[0] - learned[0])
        assert 1e-6 < difference <= 1e-4 + 1e-6  # xi comes back wherever PPO clips
        clipped = float(learned[1]["policy/drift_fraction"])
        assert 0.0 < clipped < 1.0
        assert difference == pytest.approx(1e-4 * clipped, abs=1e-6)
        assert_trees_close(learned[2], ppo[2], atol=1e-6)


def test_the_loss_is_the_mean_of_the_surrogate_at_this_time() -> None:
    config = KINDS[False, True]
    params = random_params(config, dtype=np.float32)
    now, _, rollout = random_rollout()
    later = random_rollout(seed=1)[0]
    objective = lpo_objective(params, config, HP, "none")
    for update in (0, 7):
        _, metrics, _ = learn(objective, update)
        log_ratio = later["policy"].log_prob(rollout.action) - now["policy"].log_prob(rollout.action)
        targets, state = objective.prepare(
            objective.init(), now, random_rollout()[1], rollout, Progress(jnp.int32(update), 10)
        )
        assert float(state) == pytest.approx(update / 10)
        samples = zip(np.ravel(log_ratio), np.ravel(targets.advantage), strict=True)
        expected = [np.exp(x) * a - naive_drift(params, config, x, a, update / 10) for x, a in samples]
        assert float(metrics["loss/policy"]) == pytest.approx(-np.mean(expected), abs=1e-4)


def test_parameters_may_be_traced() -> None:
    """A population under `vmap` and jit is its members one by one, and the loss has a gradient by the parameters."""
    config = LPOConfig(width=8, time_aware=True)
    members = [random_params(config, seed, np.float32) for seed in range(3)]
    population = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)

    def loss(params: Any) -> jax.Array:
        return learn(lpo_objective(params, config, HP))[0]

    together, gradient = jax.jit(jax.vmap(jax.value_and_grad(loss)))(population)
    np.testing.assert_allclose(together, [loss(member) for member in members], rtol=1e-5)
    assert float(jnp.std(together)) > 1e-3
    assert all(jnp.abs(leaf).max() > 1e-6 for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "width = 0: expected an integer >= 1"),
        ({"time_aware": 1}, "time_aware = 1: expected true or false"),
        ({"xi": 0.0}, "xi = 0.0: expected a finite number above 0"),
        ({"clip_eps": float("nan")}, "clip_eps = nan: expected a finite number above 0"),
    ],
)
def test_bad_configurations(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LPOConfig(**settings)
