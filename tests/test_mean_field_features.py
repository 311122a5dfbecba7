"""Features and decision rules against numbers worked out by hand and naive NumPy loops (oracle O5)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.spaces import Box, Discrete
from jaxrl_envs.mean_field.features import (
    Features,
    HistogramBasis,
    KernelBasis,
    MomentFeatures,
    OneHotBasis,
    histogram_basis,
    kernel_basis,
)
from jaxrl_envs.mean_field.rules import AffineRule, FiniteRule, GaussianRule, decision_rule

THREE = np.array([-1.0, 0.0, 1.0])
PARTICLES = jnp.array([[-0.9], [-0.1], [0.4], [1.2]])
SQUARE = Box(-1.0, 1.0, (2,))
ONE = np.array([1.0], np.float32)


def test_kernel_weights_by_hand() -> None:
    basis = KernelBasis((THREE,), (0.5,), (None,))
    weights = basis.weights(jnp.array([[0.3]]))[0]
    np.testing.assert_allclose(weights, [0.02735551, 0.67109988, 0.30154461], atol=1e-7)
    np.testing.assert_allclose(basis.mean(PARTICLES), [0.25096329, 0.39696886, 0.35206784], atol=1e-7)
    plain = KernelBasis((THREE,), (0.5,), (None,), normalise=False)
    np.testing.assert_allclose(plain.mean(PARTICLES), [0.29950025, 0.49009529, 0.37488051], atol=1e-7)


def test_histogram_by_hand() -> None:
    basis = histogram_basis(Box(-2.0, 2.0, (1,)), 4)
    np.testing.assert_allclose(basis.axes[0], [-1.5, -0.5, 0.5, 1.5])
    np.testing.assert_allclose(basis.mean(PARTICLES), [0.0, 0.5, 0.25, 0.25])
    assert basis.counts(PARTICLES).dtype == jnp.int32
    outside = jnp.array([[-7.0], [9.0]])
    np.testing.assert_allclose(basis.mean(outside), [0.5, 0.0, 0.0, 0.5])


@pytest.mark.parametrize("periodic", [(False, False), (True, False)])
@pytest.mark.parametrize("normalise", [True, False])
def test_kernels_in_two_dimensions_are_a_naive_loop(periodic: tuple[bool, ...], normalise: bool) -> None:
    space = Box((-1.0, 0.0), (1.0, 6.0), (2,))
    basis = kernel_basis(space, (4, 3), periodic=periodic, normalise=normalise)
    assert isinstance(basis, KernelBasis)
    x = np.random.default_rng(0).uniform((-1.0, 0.0), (1.0, 6.0), (7, 2))
    rows = []
    for point in x:
        row = []
        for centre in basis.centres:
            total = 0.0
            for d in range(2):
                difference = point[d] - centre[d]
                if periodic[d]:  # 2 long
                    both = [np.array([np.cos(np.pi * v), np.sin(np.pi * v)]) / np.pi for v in (point[d], centre[d])]
                    difference = np.linalg.norm(both[0] - both[1])
                total += (difference / basis.bandwidth[d]) ** 2
            row.append(np.exp(-0.5 * total))
        rows.append(np.array(row) / (sum(row) if normalise else 1.0))
    np.testing.assert_allclose(basis.weights(jnp.asarray(x)), rows, atol=1e-6)
    np.testing.assert_allclose(basis.mean(jnp.asarray(x)), np.mean(rows, 0), atol=1e-6)
    mass = np.random.default_rng(1).dirichlet(np.ones(7))
    np.testing.assert_allclose(basis.mean(jnp.asarray(x), jnp.asarray(mass)), mass @ np.array(rows), atol=1e-6)


@pytest.mark.parametrize("make", [kernel_basis, histogram_basis])
def test_periodic_features_are_continuous_at_the_seam(make: Any) -> None:
    """A step over the seam changes them no more than the same step elsewhere; without a period it would."""
    basis = make(Box(0.0, 2 * np.pi, (1,)), 4, periodic=(True,))
    before, after = basis.weights(jnp.array([[2 * np.pi - 1e-4]])), basis.weights(jnp.array([[1e-4]]))
    if isinstance(basis, KernelBasis):
        np.testing.assert_allclose(before, after, atol=1e-3)
        flat = kernel_basis(Box(0.0, 2 * np.pi, (1,)), 4)
        jump = flat.weights(jnp.array([[2 * np.pi - 1e-4]])) - flat.weights(jnp.array([[1e-4]]))
        assert float(jnp.abs(jump).max()) > 0.5
    np.testing.assert_allclose(
        basis.weights(jnp.array([[2 * np.pi + 0.3]])), basis.weights(jnp.array([[0.3]])), atol=1e-5
    )


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("size", [1, 2])
def test_a_uniform_population_gives_ones(size: int, normalise: bool) -> None:
    space = Box(-2.0, 2.0, (size,))
    line = -2.0 + 4.0 * (np.arange(60) + 0.5) / 60
    x = jnp.asarray(np.stack([g.ravel() for g in np.meshgrid(*[line] * size)], -1))
    np.testing.assert_allclose(
        Features(kernel_basis(space, 5, normalise=normalise))(x), 1.0, atol=1.011**size - 1
    )  # 1 % per coordinate
    np.testing.assert_allclose(Features(histogram_basis(space, 5))(x), 1.0, atol=1e-5)
    np.testing.assert_allclose(Features(OneHotBasis(3))(jnp.arange(3)), 1.0, atol=1e-6)


def test_features_of_a_million_agents_are_exact() -> None:
    """O12: counts are whole numbers, shares sum to one; float32 sums of ones would have lost some."""
    x = jax.random.uniform(jax.random.key(0), (1_000_000, 2), minval=-1.0)
    basis = histogram_basis(SQUARE, 7)
    assert isinstance(basis, HistogramBasis)
    counts = jax.jit(basis.counts)(x)
    assert int(counts.sum()) == 1_000_000
    index = np.floor((np.asarray(x) + 1.0) / 2.0 * 7).astype(int).clip(0, 6)
    expected = np.bincount(index[:, 0] * 7 + index[:, 1], minlength=49)
    assert np.abs(np.asarray(counts) - expected).max() <= 3  # points on an edge, by rounding
    raw = jax.jit(Features(kernel_basis(SQUARE, 5)).raw)(x)
    assert abs(float(raw.sum()) - 1.0) < 1e-5


def test_order_of_agents_does_not_matter() -> None:
    x = jax.random.normal(jax.random.key(0), (50, 2))
    shuffled = jax.random.permutation(jax.random.key(1), x)
    for features in (Features(kernel_basis(SQUARE)), Features(histogram_basis(SQUARE)), MomentFeatures(2)):
        np.testing.assert_allclose(features(x), features(shuffled), rtol=1e-5, atol=1e-6)


def test_moments() -> None:
    x = jnp.array([[1.0, 0.0], [3.0, 0.0]])
    np.testing.assert_allclose(MomentFeatures(2)(x), [2.0, 0.0, 1.0, 0.0])
    assert np.isfinite(jax.grad(lambda x: MomentFeatures(2)(x).sum())(x)).all()


# Rules


def test_equal_parameters_are_a_constant_rule_and_weights_mix() -> None:
    rule = GaussianRule(KernelBasis((THREE,), (0.5,), (None,)), -ONE, ONE)
    y = jnp.array([[0.3], [-4.0]])
    same = jnp.tile(jnp.array([0.4, -0.2]), 3)
    mean, std = rule.moments(same, y)
    np.testing.assert_allclose(mean, np.tanh(0.4), rtol=1e-6)
    np.testing.assert_allclose(std, (np.tanh(-0.2) + 1.0) / 4.0, rtol=1e-6)
    xi = jnp.array([0.5, 0.0, -0.3, 0.1, 0.9, 2.0])
    mean, std = rule.moments(xi, y[:1])
    weights = np.array([0.02735551, 0.67109988, 0.30154461])
    np.testing.assert_allclose(mean[0, 0], weights @ np.tanh([0.5, -0.3, 0.9]), rtol=1e-5)
    np.testing.assert_allclose(std[0, 0], weights @ (np.tanh([0.0, 0.1, 2.0]) + 1.0) / 4.0, rtol=1e-5)


def test_small_bandwidths_are_bins_and_large_ones_the_average() -> None:
    space, xi = Box(-1.5, 1.5, (1,)), jax.random.normal(jax.random.key(0), (6,))
    y = jnp.array([[-1.2], [-0.4], [0.3], [1.4]])
    bins = GaussianRule(histogram_basis(space, 3), -ONE, ONE)
    narrow = GaussianRule(kernel_basis(space, 3, bandwidth=1e-2), -ONE, ONE)
    wide = GaussianRule(kernel_basis(space, 3, bandwidth=1e3), -ONE, ONE)
    for sharp, hard in zip(narrow.moments(xi, y), bins.moments(xi, y), strict=True):
        np.testing.assert_allclose(sharp, hard, atol=1e-6)
    for flat, table in zip(wide.moments(xi, y), wide.decode(xi), strict=True):
        np.testing.assert_allclose(flat, jnp.broadcast_to(table.mean(0), flat.shape), atol=1e-5)


def test_decoding_scales_to_the_box_and_the_reference_squashes_twice() -> None:
    low, high = np.array([-1.0, 0.0], np.float32), np.array([1.0, 10.0], np.float32)
    basis = OneHotBasis(1)
    xi = jnp.array([100.0, -100.0, 100.0, -100.0])  # two means, two deviations
    mean, std = GaussianRule(basis, low, high).decode(xi)
    np.testing.assert_allclose(mean[0], [1.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(std[0], [0.5, 0.0], atol=1e-6)
    mean, std = GaussianRule(basis, low, high, squash="m3fc_reference").decode(xi)
    np.testing.assert_allclose(mean[0], [0.7616, 5.0 * (1.0 - 0.7616)], atol=1e-4)
    np.testing.assert_allclose(std[0] / (0.5 * (high - low)), [0.4404, 0.0596], atol=1e-4)


def test_size_of_the_reference_rule() -> None:
    """7 x 7 bins, two dimensions of actions: 196 numbers."""
    rule = decision_rule(histogram_basis(SQUARE, 7), SQUARE)
    assert rule.num_params == 196


@pytest.mark.parametrize("reading", ["interpolate", "mixture"])
def test_samples_have_the_moments_that_branches_say(reading: str) -> None:
    wide = 50.0 * ONE  # so that nothing is clipped
    rule = GaussianRule(KernelBasis((THREE,), (0.5,), (None,)), -wide, wide, reading)
    xi = jnp.array([0.1, -2.0, -0.1, -2.5, 0.05, -2.0])
    y = jnp.full((200_000, 1), 0.3)
    drawn = np.asarray(jax.jit(rule.sample)(jax.random.key(0), xi, y))[:, 0]
    actions, probabilities = rule.branches(xi, y[:1])
    np.testing.assert_allclose(probabilities.sum(0), 1.0, rtol=1e-5)
    mean = float((probabilities * actions[..., 0]).sum())
    variance = float((probabilities * actions[..., 0] ** 2).sum()) - mean**2
    assert abs(drawn.mean() - mean) < 4 * np.sqrt(variance / 2e5)
    assert abs(drawn.var() / variance - 1.0) < 0.02


def test_finite_rules_mix_probabilities() -> None:
    rule = decision_rule(KernelBasis((THREE,), (0.5,), (None,)), Discrete(2))
    assert isinstance(rule, FiniteRule)
    xi = jnp.log(jnp.array([0.2, 0.8, 0.5, 0.5, 0.9, 0.1]))
    expected = np.array([0.02735551, 0.67109988, 0.30154461]) @ np.array([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]])
    y = jnp.full((100_000, 1), 0.3)
    np.testing.assert_allclose(rule.probabilities(xi, y[:1])[0], expected, rtol=1e-5)
    drawn = rule.sample(jax.random.key(0), xi, y)
    assert abs(float((drawn == 1).mean()) - expected[1]) < 4 * np.sqrt(0.25 / 1e5)


@pytest.mark.parametrize("kind", ["interpolate", "mixture", "finite", "affine"])
def test_one_rule_each_is_the_shared_rule_if_all_are_equal(kind: str) -> None:
    basis = KernelBasis((THREE,), (0.5,), (None,))
    rules: dict[str, Any] = {"finite": FiniteRule(basis, 3), "affine": AffineRule(1, 2)}
    rule = rules.get(kind) or GaussianRule(basis, -ONE, ONE, kind)
    xi, y = jax.random.normal(jax.random.key(0), (rule.num_params,)), PARTICLES
    shared = rule.sample(jax.random.key(1), xi, y)
    each = rule.sample(jax.random.key(1), jnp.tile(xi, (len(y), 1)), y)
    np.testing.assert_allclose(each, shared, atol=1e-6)
    other = rule.sample(jax.random.key(1), jnp.stack([xi, -3 * xi, xi, xi]), y)
    np.testing.assert_allclose(np.asarray(other)[[0, 2, 3]], np.asarray(shared)[[0, 2, 3]], atol=1e-6)


def test_swarms_of_two_sizes_share_noise() -> None:
    rule = GaussianRule(KernelBasis((THREE,), (0.5,), (None,)), -ONE, ONE)
    y = jnp.linspace(-1.0, 1.0, 40)[:, None]
    xi = jax.random.normal(jax.random.key(0), (rule.num_params,))
    np.testing.assert_array_equal(rule.sample(jax.random.key(1), xi, y)[:7], rule.sample(jax.random.key(1), xi, y[:7]))


def test_lipschitz_bound_by_hand_and_never_exceeded() -> None:
    axis = np.linspace(-1.0, 1.0, 5)
    basis = KernelBasis((axis, axis), (0.5, 0.5), (None, None))
    rule = GaussianRule(basis, -ONE, ONE)
    extreme = jnp.where(jnp.arange(rule.num_params) % 4 == 0, -20.0, 20.0)  # means of -1 and 1
    np.testing.assert_allclose(rule.lipschitz_bound(extreme), 5.65685, rtol=1e-4)
    slopes = jax.jit(
        jax.vmap(jax.vmap(jax.grad(lambda y, xi: rule.moments(xi, y[None])[0][0, 0]), (0, None)), (None, 0))
    )
    y = jax.random.uniform(jax.random.key(0), (300, 2), minval=-1.0)
    xi = 3.0 * jax.random.normal(jax.random.key(1), (50, rule.num_params))
    found = jnp.linalg.norm(slopes(y, xi), axis=-1).max(1)
    assert (found <= jax.vmap(rule.lipschitz_bound)(xi)).all()
    assert 0.5 < float(found.max()) < 5.657


@pytest.mark.parametrize("periodic", [True, False])
def test_lipschitz_bound_of_unequal_and_periodic_kernels(periodic: bool) -> None:
    basis = kernel_basis(Box((0.0, -1.0), (6.0, 1.0), (2,)), (4, 3), periodic=(periodic, False), bandwidth=(0.4, 0.8))
    rule = FiniteRule(basis, 2)

    def slope(y: jax.Array, xi: jax.Array) -> jax.Array:
        return jnp.linalg.norm(jax.grad(lambda y: rule.probabilities(xi, y[None])[0, 0])(y))

    y = jax.random.uniform(jax.random.key(0), (300, 2)) * jnp.array([6.0, 2.0]) - jnp.array([0.0, 1.0])
    xi = 5.0 * jax.random.normal(jax.random.key(1), (40, rule.num_params))
    found = jax.jit(jax.vmap(jax.vmap(slope, (0, None)), (None, 0)))(y, xi).max(1)
    bounds = jax.vmap(rule.lipschitz_bound)(xi)
    assert (found <= bounds).all()
    assert float((found / bounds).max()) > 0.1  # not an empty statement


def test_lipschitz_bounds_of_other_rules() -> None:
    assert jnp.isinf(GaussianRule(histogram_basis(SQUARE), -ONE, ONE).lipschitz_bound(jnp.arange(98.0)))
    assert GaussianRule(histogram_basis(SQUARE), -ONE, ONE).lipschitz_bound(jnp.zeros(98)) == 0.0
    np.testing.assert_allclose(AffineRule().lipschitz_bound(jnp.array([-3.0, 7.0])), 3.0)
    np.testing.assert_allclose(FiniteRule(OneHotBasis(2), 2).lipschitz_bound(jnp.array([9.0, -9.0, -9.0, 9.0])), 1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KernelBasis((THREE,), (0.0,), (None,)), "bandwidth = 0.0: expected a number > 0"),
        (lambda: kernel_basis(SQUARE, bandwidth=-1.0), "expected a number > 0"),
        (lambda: kernel_basis(SQUARE, bandwidth=(0.1,)), "one for each of 2"),
        (lambda: kernel_basis(SQUARE, bounds=(-2.0, 1.0)), "outside of the space"),
        (lambda: kernel_basis(Box(-np.inf, np.inf, (1,))), "bounds="),
        (lambda: kernel_basis(SQUARE, (3,)), "for each of 2 coordinates"),
        (lambda: kernel_basis(SQUARE, placement="middle"), "cells, ends"),
        (lambda: histogram_basis(Box(0, 1, (2, 2))), "Box of one axis"),
        (lambda: GaussianRule(OneHotBasis(2), -ONE, ONE, "mean"), "interpolate, mixture"),
        (lambda: GaussianRule(OneHotBasis(2), -ONE, np.inf * ONE), "bounded box"),
    ],
)
def test_mistakes_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_bandwidths_may_be_traced() -> None:
    def first_feature(bandwidth: jax.Array) -> jax.Array:
        return Features(kernel_basis(Box(-1.0, 1.0, (1,)), 3, bandwidth=bandwidth))(PARTICLES)[0]

    slope = jax.jit(jax.grad(first_feature))(0.5)
    step = 1e-2
    expected = (first_feature(jnp.float32(0.5 + step)) - first_feature(jnp.float32(0.5 - step))) / (2 * step)
    np.testing.assert_allclose(slope, expected, rtol=1e-2)
