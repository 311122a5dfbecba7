"""Policies against distrax, a library with the same definitions, and against numbers worked out by hand."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.ops.distributions import (
    Categorical,
    DiagNormal,
    MultiCategorical,
    num_policy_outputs,
    policy,
    to_environment,
)
from jaxrl.spaces import Box, Discrete, MultiDiscrete

RNG = np.random.default_rng(0)
LOGITS, OTHER_LOGITS = (jnp.asarray(RNG.normal(0, 3, (6, 5)), jnp.float32) for _ in range(2))
ACTIONS = jnp.asarray(RNG.integers(0, 5, 6))
MEAN, OTHER_MEAN, LOG_STD, OTHER_LOG_STD, POINT = (jnp.asarray(RNG.normal(0, 1, (6, 3)), jnp.float32) for _ in range(5))
NVEC = (3, 1, 4)


@pytest.fixture(scope="module")
def distrax() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what TensorFlow Probability says of its own imports
        return pytest.importorskip("distrax")


def values_and_gradients(function: Any, *arguments: jax.Array) -> list[Any]:
    """The function's values [N], and the gradients of their weighted sum, so that no row hides behind another."""
    weights = jnp.arange(1.0, len(arguments[0]) + 1)

    def weighted(*arguments: jax.Array) -> Any:
        values = function(*arguments)
        return (weights * values).sum(), values

    gradients, values = jax.jit(jax.grad(weighted, tuple(range(len(arguments))), has_aux=True))(*arguments)
    return [values, *gradients]


def assert_agree(ours: Any, theirs: Any, *arguments: jax.Array, atol: float = 2e-5) -> None:
    for a, b in zip(values_and_gradients(ours, *arguments), values_and_gradients(theirs, *arguments), strict=True):
        np.testing.assert_allclose(a, b, atol=atol, rtol=2e-5)


def test_categorical_is_distraxs(distrax: Any) -> None:
    assert_agree(lambda x: Categorical(x).log_prob(ACTIONS), lambda x: distrax.Categorical(x).log_prob(ACTIONS), LOGITS)
    assert_agree(lambda x: Categorical(x).entropy(), lambda x: distrax.Categorical(x).entropy(), LOGITS)
    assert_agree(
        lambda x, y: Categorical(x).kl(Categorical(y)),
        lambda x, y: distrax.Categorical(x).kl_divergence(distrax.Categorical(y)),
        LOGITS,
        OTHER_LOGITS,
    )
    np.testing.assert_array_equal(Categorical(LOGITS).mode(), distrax.Categorical(LOGITS).mode())


def test_diag_normal_is_distraxs(distrax: Any) -> None:
    def theirs(mean: jax.Array, log_std: jax.Array) -> Any:
        return distrax.MultivariateNormalDiag(mean, jnp.exp(log_std))

    assert_agree(
        lambda m, s: DiagNormal(m, s).log_prob(POINT), lambda m, s: theirs(m, s).log_prob(POINT), MEAN, LOG_STD,
        atol=1e-3,
    )  # fmt: skip
    assert_agree(lambda m, s: DiagNormal(m, s).entropy(), lambda m, s: theirs(m, s).entropy(), MEAN, LOG_STD)
    assert_agree(
        lambda a, b, c, d: DiagNormal(a, b).kl(DiagNormal(c, d)),
        lambda a, b, c, d: theirs(a, b).kl_divergence(theirs(c, d)),
        MEAN,
        LOG_STD,
        OTHER_MEAN,
        OTHER_LOG_STD,
        atol=1e-3,
    )


def test_multi_categorical_is_independent_distrax_categoricals(distrax: Any) -> None:
    width = sum(NVEC)
    x, y = (jnp.asarray(RNG.normal(0, 2, (6, width)), jnp.float32) for _ in range(2))
    action = jnp.stack([jnp.asarray(RNG.integers(0, n, 6)) for n in NVEC], -1)
    bounds = np.concatenate([[0], np.cumsum(NVEC)])

    def parts(logits: jax.Array) -> list[Any]:
        return [distrax.Categorical(logits[:, a:b]) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]

    def log_prob(logits: jax.Array) -> Any:
        return sum(p.log_prob(action[:, i]) for i, p in enumerate(parts(logits)))

    assert_agree(lambda x: MultiCategorical(x, NVEC).log_prob(action), log_prob, x)
    assert_agree(lambda x: MultiCategorical(x, NVEC).entropy(), lambda x: sum(p.entropy() for p in parts(x)), x)
    assert_agree(
        lambda x, y: MultiCategorical(x, NVEC).kl(MultiCategorical(y, NVEC)),
        lambda x, y: sum(p.kl_divergence(q) for p, q in zip(parts(x), parts(y), strict=True)),
        x,
        y,
    )
    np.testing.assert_array_equal(MultiCategorical(x, NVEC).mode(), jnp.stack([p.mode() for p in parts(x)], -1))


def test_forbidden_actions_have_no_probability_and_finite_gradients() -> None:
    """A logit of -inf: the others behave as if it were not there, and no gradient is NaN."""
    masked = LOGITS.at[:, 2].set(-jnp.inf)
    other = OTHER_LOGITS.at[:, 2].set(-jnp.inf)
    action = jnp.where(ACTIONS == 2, 0, ACTIONS)
    rest = jnp.array([0, 1, 3, 4])
    index = jnp.searchsorted(rest, action)
    pairs = [
        (lambda x, y: Categorical(x).log_prob(action), lambda x, y: Categorical(x).log_prob(index)),
        (lambda x, y: Categorical(x).entropy(), lambda x, y: Categorical(x).entropy()),
        (lambda x, y: Categorical(x).kl(Categorical(y)), lambda x, y: Categorical(x).kl(Categorical(y))),
    ]
    for full, reduced in pairs:
        value, *gradients = values_and_gradients(full, masked, other)
        expected, *expected_gradients = values_and_gradients(reduced, LOGITS[:, rest], OTHER_LOGITS[:, rest])
        np.testing.assert_allclose(value, expected, atol=1e-5)
        for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
            assert np.isfinite(gradient).all()
            np.testing.assert_allclose(gradient[:, rest], expected_gradient, atol=1e-5)
            np.testing.assert_array_equal(gradient[:, 2], 0.0)
    assert not np.any(np.asarray(jax.vmap(Categorical(masked).sample)(jax.random.split(jax.random.key(0), 200))) == 2)


def test_kl_to_a_policy_that_forbids_a_possible_action_is_infinite() -> None:
    p, q = Categorical(jnp.zeros(3)), Categorical(jnp.array([0.0, 0.0, -jnp.inf]))
    assert p.kl(q) == jnp.inf
    assert q.kl(p) == pytest.approx(np.log(1.5), abs=1e-6)


def test_numbers_by_hand() -> None:
    normal = DiagNormal(jnp.zeros(1), jnp.zeros(1))
    wider = DiagNormal(jnp.array([0.5]), jnp.log(jnp.array([1.2])))
    assert normal.kl(wider) == pytest.approx(0.1163493, abs=1e-6)
    assert normal.entropy() == pytest.approx(1.4189385, abs=1e-6)
    assert normal.log_prob(jnp.zeros(1)) == pytest.approx(-0.9189385, abs=1e-6)
    uniform = Categorical(jnp.full(4, 7.0))
    assert uniform.entropy() == pytest.approx(np.log(4), abs=1e-6)
    assert uniform.log_prob(jnp.int32(3)) == pytest.approx(-np.log(4), abs=1e-6)


def test_samples_have_the_stated_distribution() -> None:
    keys = jax.random.split(jax.random.key(1), 20_000)
    probabilities = jnp.array([0.1, 0.2, 0.7])
    drawn = np.asarray(jax.vmap(Categorical(jnp.log(probabilities)).sample)(keys))
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 20_000, probabilities, atol=0.015)
    both = MultiCategorical(jnp.log(jnp.array([0.1, 0.2, 0.7, 0.1, 0.2, 0.7])), (3, 3))
    pairs = np.asarray(jax.vmap(both.sample)(keys))
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 0.03  # elements are drawn independently
    np.testing.assert_allclose(np.bincount(pairs[:, 1], minlength=3) / 20_000, probabilities, atol=0.015)
    normal = np.asarray(jax.vmap(DiagNormal(jnp.array([1.0, -2.0]), jnp.log(jnp.array([0.5, 2.0]))).sample)(keys))
    np.testing.assert_allclose(normal.mean(0), [1.0, -2.0], atol=0.05)
    np.testing.assert_allclose(normal.std(0), [0.5, 2.0], rtol=0.03)


def test_policies_fit_their_spaces() -> None:
    box = Box(-1.0, 2.0, (2,))
    assert num_policy_outputs(Discrete(4)) == 4
    assert num_policy_outputs(MultiDiscrete(NVEC)) == 8
    assert num_policy_outputs(box) == 2
    assert isinstance(policy(Discrete(4), jnp.zeros((3, 4))), Categorical)
    assert policy(MultiDiscrete(NVEC), jnp.zeros((5, 8))).sample(jax.random.key(0)).shape == (5, 3)
    normal = policy(box, jnp.zeros((5, 2)), jnp.array([0.0, 1.0]))
    assert normal.log_prob(jnp.zeros((5, 2))).shape == (5,)
    np.testing.assert_array_equal(to_environment(box, jnp.array([[-3.0, 3.0]])), [[-1.0, 2.0]])
    np.testing.assert_array_equal(to_environment(Discrete(9), jnp.array([7])), [7])


@pytest.mark.parametrize("space", [Box(-1.0, 1.0, (2, 3)), Box(-1.0, 1.0, ()), Box(0, 5, (2,), jnp.int32)])
def test_spaces_without_a_policy_are_refused(space: Box) -> None:
    with pytest.raises(ValueError, match="float Box of one axis"):
        num_policy_outputs(space)


def test_a_box_needs_log_std() -> None:
    with pytest.raises(ValueError, match="needs log_std"):
        policy(Box(-1.0, 1.0, (2,)), jnp.zeros((1, 2)))


def test_policies_pass_through_jit_vmap_and_scan() -> None:
    stacked = jax.vmap(lambda x: MultiCategorical(x, (2, 3)))(jnp.zeros((4, 5)))
    assert stacked.nvec == (2, 3)
    np.testing.assert_allclose(jax.jit(jax.vmap(lambda p: p.entropy()))(stacked), np.full(4, np.log(6)), rtol=1e-6)
