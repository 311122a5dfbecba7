"""The action values of Disco103: transforms and targets against tables and naive loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_disco import SMALL, B, T, small_trajectory

from jaxrl.objectives.disco import Predictions, disco_loss, disco_losses, disco_targets, init_disco, init_disco_state
from jaxrl.objectives.disco.values import (
    bins,
    compress,
    disco_values,
    expand,
    expected_value,
    of_action,
    retrace,
    two_hot,
)


def test_the_transform_and_its_inverse() -> None:
    x = jnp.array([0.0, 3.0, -3.0, 99.0, 9999.0])
    np.testing.assert_allclose(compress(x), [0.0, 1.003, -1.003, 9.099, 108.999], rtol=1e-6)
    many = jnp.concatenate([-jnp.logspace(-3, 5, 100), jnp.logspace(-3, 5, 100)])
    np.testing.assert_allclose(expand(compress(many)), many, rtol=2e-5, atol=1e-6)


def test_two_hot_table() -> None:
    table = two_hot(jnp.array([-2.0, -0.5, 0.75, 1.0, 7.0, -7.0]), jnp.array([-2.0, -1.0, 0.0, 1.0, 2.0]))
    expected = [[1, 0, 0, 0, 0], [0, 0.5, 0.5, 0, 0], [0, 0, 0.25, 0.75, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
    np.testing.assert_allclose(table, [*expected, [1, 0, 0, 0, 0]], atol=1e-6)


def test_a_two_hot_distribution_has_its_value() -> None:
    values = jnp.array([-4.0, 0.0, 0.3, 17.0, 250.0])
    logits = jnp.log(two_hot(compress(values), bins(SMALL)))
    np.testing.assert_allclose(expected_value(logits, SMALL), values, rtol=1e-4, atol=1e-4)


def test_of_action_picks() -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(of_action(jnp.asarray(x), jnp.array([2, 0])), [x[0, 2], x[1, 0]])
    pairs = of_action(jnp.asarray(x), jnp.array([[3, 2, 1], [0, 1, 2]]))
    np.testing.assert_array_equal(pairs, [[3, 6, 9], [12, 17, 22]])


def test_retrace_is_its_recursion() -> None:
    """A loop over steps, with episodes that terminate, are truncated and go on."""
    seen, rng = small_trajectory(5), np.random.default_rng(1)
    q, value = rng.normal(size=(2, T, B))
    pi, mu = (np.asarray(jax.nn.softmax(x)) for x in (seen.online.pi, seen.behaviour))
    action, reward = np.asarray(seen.action), np.asarray(seen.reward)
    expected = np.zeros((T, B))
    for b in range(B):
        for t in reversed(range(T)):
            future = value[t, b]
            if t + 1 < T and not (seen.terminated[t, b] or seen.truncated[t, b]):
                a = action[t + 1, b]
                trace = SMALL.trace_lambda * min(1.0, pi[t + 1, b, a] / mu[t + 1, b, a])
                future += trace * (expected[t + 1, b] - q[t + 1, b])
            expected[t, b] = reward[t, b] + SMALL.gamma * (0.0 if seen.terminated[t, b] else future)
    actual = retrace(seen, jnp.asarray(q), jnp.asarray(value), SMALL)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_advantages_are_normalised_by_their_moving_moments() -> None:
    """After one update, by those of its own; after two, by the weighted mean of both, 99 to 100."""
    state = init_disco_state(SMALL)
    batches, normalized = [], []
    update = jax.jit(lambda state, seen: disco_values(state, seen, SMALL))
    for seed in (0, 1):
        values, state = update(state, small_trajectory(seed))
        batches.append(np.asarray(values.advantage, np.float64))
        normalized.append(np.asarray(values.normalized_advantage))
    first, both = batches[0], np.stack(batches)
    np.testing.assert_allclose(normalized[0], (first - first.mean()) / first.std(), rtol=1e-3, atol=1e-4)
    weights = np.array([0.99, 1.0]) / 1.99
    mean, square = (float((weights * m.mean((1, 2))).sum()) for m in (both, both**2))
    expected = (batches[1] - mean) / np.sqrt(square - mean**2)
    np.testing.assert_allclose(normalized[1], expected, rtol=1e-3, atol=1e-4)


def test_no_loss_and_no_gradient_where_predictions_are_the_targets() -> None:
    """Four divergences vanish with their gradients; behind a termination the next policy is not asked for."""
    seen = small_trajectory(2)
    random = jax.jit(lambda key: disco_targets(init_disco(key, SMALL), init_disco_state(SMALL), seen, SMALL)[0])
    targets = random(jax.random.key(0))
    shape = seen.online.z.shape

    def reached(online: Predictions) -> Predictions:
        aux_pi = jnp.broadcast_to(targets.next_pi[:, :, None], seen.online.aux_pi.shape)
        return online._replace(
            pi=targets.pi, y=targets.y, z=jnp.broadcast_to(targets.z[:, :, None], shape), aux_pi=aux_pi
        )

    losses_of = jax.jit(lambda online: disco_losses(online, targets, SMALL))
    losses = losses_of(reached(seen.online))
    for name in ("pi", "y", "z", "aux_pi"):
        np.testing.assert_allclose(losses[name], 0.0, atol=1e-6)
    loss = jax.jit(jax.grad(lambda online: disco_loss(online, targets, SMALL), has_aux=True))
    grad, _ = loss(reached(seen.online))
    for name in ("pi", "y", "z", "aux_pi"):
        np.testing.assert_allclose(getattr(grad, name), 0.0, atol=1e-7)
    losses = losses_of(seen.online)
    assert float(losses["aux_pi"][2, 0]) == 0.0
    assert np.delete(np.asarray(losses["aux_pi"]).ravel(), 2 * B).min() > 1e-3
    _, metrics = loss(seen.online)
    weighted = sum((0.2 if name == "q" else 1.0) * float(part.mean()) for name, part in losses.items())
    assert float(metrics["loss/total"]) == pytest.approx(weighted, rel=1e-5)
