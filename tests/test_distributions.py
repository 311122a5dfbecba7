"""Policies against distrax, a library with the same definitions, and against numbers worked out by hand."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl.ops.distributions import (
    Categorical,
    DiagNormal,
    MixtureNormal,
    MultiCategorical,
    TanhMixture,
    TanhNormal,
    num_policy_outputs,
    policy,
    to_environment,
)
from jaxrl.spaces import Box, Discrete, Indexed, MultiDiscrete

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


def squashed(mean: float, std: float, size: float = 1.0) -> TanhNormal:
    """A tanh-Gaussian over [-size, size]."""
    base = DiagNormal(jnp.array([mean]), jnp.log(jnp.array([std])))
    return TanhNormal(base, jnp.array([-size]), jnp.array([size]))


@pytest.mark.parametrize(
    ("u", "mean", "std", "action", "log_prob"),
    [
        (0.0, 0.0, 1.0, 0.0, -0.9189385),
        (0.5, 0.0, 1.0, 0.4621172, -0.8037095),
        (1.2, 0.3, 0.5, 0.8336546, -0.6584134),
        (10.0, 0.0, 1.0, 1.0, -32.3052329),  # where log(1 - a^2 + 1e-6) says -37.1
    ],
)
def test_squashed_densities_by_hand(u: float, mean: float, std: float, action: float, log_prob: float) -> None:
    for size in (1.0, 2.0):  # the wider box spreads the density
        distribution = squashed(mean, std, size)
        point = jnp.array([u])
        assert distribution.to_action(point)[0] == pytest.approx(size * action, abs=1e-6)
        assert distribution.log_prob_base(point) == pytest.approx(log_prob - np.log(size), rel=1e-6, abs=2e-6)
    assert np.isfinite(jax.grad(lambda u: squashed(0.0, 1.0).log_prob_base(u))(jnp.array([50.0]))).all()


GRID = np.linspace(-9.0, 9.0, 4001)  # of u; what lies outside weighs less than 1e-9 below


def density_over_actions(distribution: Any) -> tuple[np.ndarray, np.ndarray]:
    """Actions of one dimension, increasing, and the density there; the measure is the action's, not u's."""
    u = jnp.asarray(GRID, jnp.float32)[:, None]
    primitive = distribution.primitives if isinstance(distribution, TanhMixture) else distribution
    # The action in float64 from its definition, for differences that float32 would lose near the ends.
    low, high = float(primitive.low[0]), float(primitive.high[0])
    actions = low + (np.tanh(GRID) + 1) / 2 * (high - low)
    return actions, np.exp(np.asarray(jax.vmap(distribution.log_prob_base)(u), np.float64))


@pytest.mark.parametrize(("mean", "std", "size"), [(0.0, 1.0, 1.0), (0.7, 0.4, 1.0), (-0.5, 1.5, 2.0)])
def test_squashed_density_integrates_to_one(mean: float, std: float, size: float) -> None:
    actions, density = density_over_actions(squashed(mean, std, size))
    assert np.trapezoid(density, actions) == pytest.approx(1.0, abs=1e-4)


def test_entropy_of_a_squashed_gaussian_by_integration() -> None:
    actions, density = density_over_actions(squashed(0.0, 1.0))
    entropy = -np.trapezoid(density * np.log(np.maximum(density, 1e-300)), actions)
    assert entropy == pytest.approx(0.6698041, abs=1e-4)
    _, log_prob = jax.vmap(squashed(0.0, 1.0).sample_and_log_prob)(jax.random.split(jax.random.key(0), 100_000))
    assert -log_prob.mean() == pytest.approx(0.6698041, abs=0.01)


def test_squashed_density_in_two_dimensions() -> None:
    """The product of the dimensions', each with its own bounds; integrates to one over the box."""
    base = DiagNormal(jnp.array([0.3, -0.2]), jnp.log(jnp.array([0.5, 1.1])))
    both = TanhNormal(base, jnp.array([-2.0, 0.0]), jnp.array([2.0, 10.0]))
    u = np.linspace(-7, 7, 401)
    grid = jnp.asarray(np.stack(np.meshgrid(u, u, indexing="ij"), -1), jnp.float32)
    density = np.exp(np.asarray(both.log_prob_base(grid), np.float64))
    first, second = 2 * np.tanh(u), 5 * (np.tanh(u) + 1)
    assert np.trapezoid(np.trapezoid(density, second, axis=1), first) == pytest.approx(1.0, abs=1e-3)
    action, log_prob = both.sample_and_log_prob(jax.random.key(0))
    assert action.shape == (2,)
    assert log_prob.shape == ()
    np.testing.assert_allclose(both.mode(), [2 * np.tanh(0.3), 5 * (np.tanh(-0.2) + 1)], rtol=1e-6)


def test_samples_of_a_squashed_gaussian_have_its_density() -> None:
    distribution = squashed(0.7, 0.6, 2.0)
    drawn = np.asarray(jax.vmap(distribution.sample)(jax.random.split(jax.random.key(2), 50_000)))[:, 0]
    assert_histogram(drawn, *density_over_actions(distribution))


def assert_histogram(drawn: np.ndarray, actions: np.ndarray, density: np.ndarray) -> None:
    """Shares of twelve bins are the density's integrals over them."""
    edges = np.linspace(actions[0], actions[-1], 13)
    steps = np.diff(actions) * (density[1:] + density[:-1]) / 2
    cumulative = np.concatenate([[0], np.cumsum(steps)])
    expected = np.diff(np.interp(edges, actions, cumulative))
    shares = np.histogram(drawn, edges)[0] / len(drawn)
    np.testing.assert_allclose(shares, expected, atol=4 * np.sqrt(0.25 / len(drawn)) + 1e-3)
    assert expected.max() > 0.1


def mixture(weights: list[float], means: list[float], stds: list[float]) -> TanhMixture:
    base = DiagNormal(jnp.array(means)[:, None], jnp.log(jnp.array(stds))[:, None])
    return TanhMixture(Categorical(jnp.log(jnp.array(weights))), TanhNormal(base, jnp.array([-1.0]), jnp.array([1.0])))


def test_mixture_density_by_hand() -> None:
    """Weights .3 and .7, log-densities -.5 and -2 at u = 0: the mixture's is -1.2848435, and the log-det is 0 there."""
    log_stds = [-0.9189385 + 0.5, -0.9189385 + 2.0]  # of Gaussians whose density at their mean is wanted
    both = mixture([0.3, 0.7], [0.0, 0.0], np.exp(log_stds).tolist())
    assert both.log_prob_base(jnp.zeros(1)) == pytest.approx(-1.2848435, abs=1e-6)
    shares = jax.grad(lambda logits: TanhMixture(Categorical(logits), both.primitives).log_prob_base(jnp.zeros(1)))(
        both.gate.logits
    )
    # The gradient over logits is responsibility minus weight.
    np.testing.assert_allclose(shares + jnp.array([0.3, 0.7]), [0.6576191, 0.3423809], atol=1e-6)


def test_mixture_density_and_samples() -> None:
    both = mixture([0.25, 0.75], [-0.9, 0.8], [0.2, 0.4])
    actions, density = density_over_actions(both)
    assert np.trapezoid(density, actions) == pytest.approx(1.0, abs=1e-4)
    drawn, log_prob = jax.vmap(both.sample_and_log_prob)(jax.random.split(jax.random.key(3), 50_000))
    assert_histogram(np.asarray(drawn)[:, 0], actions, density)
    assert np.mean(np.asarray(drawn) < 0) == pytest.approx(0.25, abs=0.03)
    entropy = -np.trapezoid(density * np.log(np.maximum(density, 1e-300)), actions)
    assert -log_prob.mean() == pytest.approx(entropy, abs=0.02)
    np.testing.assert_allclose(both.mode(), [np.tanh(0.8)], rtol=1e-6)


def test_a_batch_of_mixtures_is_each_of_them() -> None:
    rng = np.random.default_rng(0)
    logits, mean = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((5, 3), (5, 3, 2)))
    low, high = jnp.array([-1.0, -3.0]), jnp.array([1.0, 2.0])
    batch = TanhMixture(Categorical(logits), TanhNormal(DiagNormal(mean, mean - 1), low, high))
    u = jnp.asarray(rng.normal(size=(5, 2)), jnp.float32)
    for i in range(5):
        each = [TanhNormal(DiagNormal(mean[i, k], mean[i, k] - 1), low, high).log_prob_base(u[i]) for k in range(3)]
        expected = np.log(np.sum(np.asarray(jax.nn.softmax(logits[i])) * np.exp(np.array(each))))
        assert batch.log_prob_base(u)[i] == pytest.approx(expected, abs=1e-5)
    action, log_prob = batch.sample_and_log_prob(jax.random.key(0))
    assert action.shape == (5, 2)
    assert log_prob.shape == (5,)
    assert np.all((action >= low) & (action <= high))


def mixture_1d() -> MixtureNormal:
    gate = Categorical(jnp.log(jnp.array([0.3, 0.7])))
    return MixtureNormal(gate, DiagNormal(jnp.array([[-1.0], [2.0]]), jnp.log(jnp.array([[0.5], [1.2]]))))


def test_mixture_density_is_that_of_scipy_and_integrates_to_one() -> None:
    grid = np.linspace(-12.0, 14.0, 20_001)
    density = np.exp(np.asarray(mixture_1d().log_prob(jnp.asarray(grid)[:, None])))
    expected = 0.3 * scipy.stats.norm(-1.0, 0.5).pdf(grid) + 0.7 * scipy.stats.norm(2.0, 1.2).pdf(grid)
    np.testing.assert_allclose(density, expected, atol=1e-5)
    np.testing.assert_allclose(np.trapezoid(density, grid), 1.0, atol=1e-4)


def test_mixture_entropy_is_an_upper_bound_and_exact_at_both_ends() -> None:
    grid = np.linspace(-12.0, 14.0, 20_001)
    log_density = np.asarray(mixture_1d().log_prob(jnp.asarray(grid)[:, None]), np.float64)
    entropy = -np.trapezoid(np.exp(log_density) * log_density, grid)
    assert entropy <= mixture_1d().entropy() <= entropy + 0.1
    base = DiagNormal(jnp.array([0.5, -0.2]), jnp.array([0.1, -0.3]))
    alike = DiagNormal(jnp.stack([base.mean] * 3), jnp.stack([base.log_std] * 3))
    gate = Categorical(jnp.array([0.2, -0.1, 0.4]))
    np.testing.assert_allclose(MixtureNormal(gate, alike).entropy(), base.entropy(), rtol=1e-5)
    apart = DiagNormal(alike.mean + 1e3 * jnp.arange(3.0)[:, None], alike.log_std)
    np.testing.assert_allclose(MixtureNormal(gate, apart).entropy(), base.entropy() + gate.entropy(), rtol=1e-5)


def test_mixture_kl_is_zero_on_itself_and_that_of_the_gaussian_for_one_primitive() -> None:
    np.testing.assert_allclose(mixture_1d().kl(mixture_1d()), 0.0, atol=1e-6)
    one = Categorical(jnp.zeros(1))
    p, q = (
        DiagNormal(jnp.zeros((1, 1)), jnp.zeros((1, 1))),
        DiagNormal(jnp.full((1, 1), 0.5), jnp.log(jnp.full((1, 1), 1.2))),
    )
    np.testing.assert_allclose(MixtureNormal(one, p).kl(MixtureNormal(one, q)), 0.1163493, atol=1e-6)


def test_mixture_samples_follow_the_density() -> None:
    x = np.asarray(jax.vmap(mixture_1d().sample)(jax.random.split(jax.random.key(0), 20_000)))[:, 0]
    cdf = lambda v: 0.3 * scipy.stats.norm(-1.0, 0.5).cdf(v) + 0.7 * scipy.stats.norm(2.0, 1.2).cdf(v)  # noqa: E731
    assert scipy.stats.kstest(x, cdf).pvalue > 1e-3


def test_a_mixture_policy_needs_a_box_and_begins_with_its_means_apart() -> None:
    box = Box(-1.0, 1.0, (2,))
    assert num_policy_outputs(box, 4) == 12
    mixture = policy(box, jnp.zeros((5, 12)), jnp.zeros(8), 4)
    assert isinstance(mixture, MixtureNormal)
    np.testing.assert_allclose(mixture.primitives.mean[0, :, 1], [-1.0, -1 / 3, 1 / 3, 1.0], atol=1e-6)
    assert mixture.sample(jax.random.key(0)).shape == (5, 2)
    with pytest.raises(ValueError, match="num_primitives = 4 needs a Box"):
        num_policy_outputs(Discrete(3), 4)


def test_indices_are_observations_and_no_actions() -> None:
    with pytest.raises(ValueError, match="policies take Discrete, MultiDiscrete or a float Box"):
        num_policy_outputs(Indexed(3, 1))


def test_mixture_kl_is_a_penalty_and_a_bound() -> None:
    """Never below the divergence by quadrature, and flat at equality: as a penalty it moves nothing by itself."""
    rng = np.random.default_rng(0)
    grid = jnp.asarray(np.linspace(-12.0, 12.0, 4001, dtype=np.float32)[:, None])

    def mixture(numbers: Any) -> MixtureNormal:
        logits, mean, log_std = numbers
        return MixtureNormal(Categorical(logits), DiagNormal(mean[:, None], 0.5 * log_std[:, None]))

    pairs = jnp.asarray(rng.normal(size=(2, 20, 3, 4)), jnp.float32)

    def bound_and_truth(p: Any, q: Any) -> tuple[Any, Any]:
        log_p, log_q = mixture(p).log_prob(grid), mixture(q).log_prob(grid)
        return mixture(p).kl(mixture(q)), jnp.trapezoid(jnp.exp(log_p) * (log_p - log_q), grid[:, 0])

    bound, truth = jax.jit(jax.vmap(bound_and_truth))(*pairs)
    assert (np.asarray(truth) > 1e-3).all()
    assert (np.asarray(bound) >= np.asarray(truth) - 1e-4).all()
    for order in (lambda p, q: mixture(p).kl(mixture(q)), lambda p, q: mixture(q).kl(mixture(p))):
        slope = jax.vmap(jax.grad(order))(pairs[0], pairs[0])
        np.testing.assert_allclose(slope, 0.0, atol=1e-6)
