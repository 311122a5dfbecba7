"""Oracle 4: coupled oscillators against the theory of infinitely many, and swarms of a million (oracle 12)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_envs.mean_field.kuramoto import Kuramoto
from jaxrl_envs.mean_field.model import Swarm
from jaxrl_envs.mean_field.neighbours import Neighbourhood
from jaxrl_envs.mean_field.vicsek import Vicsek

EVERYBODY = Neighbourhood("all")


def late_order(model: Kuramoto, params: Any, couplings: list[float], num: int, steps: int, start: float) -> np.ndarray:
    """Order parameter for each coupling, the mean over the second half; phases start in [0, start)."""

    @jax.jit
    @jax.vmap
    def run(coupling: jax.Array) -> jax.Array:
        numbers = params.replace(coupling=coupling)
        swarm = model.reset(jax.random.key(1), num, numbers)
        swarm = swarm.replace(x=swarm.x.at[:, 2].multiply(start / (2 * np.pi)))

        def body(swarm: Swarm, key: jax.Array) -> tuple[Swarm, jax.Array]:
            swarm, _, info = model.step(key, swarm, jnp.zeros((num, 1)), numbers)
            return swarm, info["order_parameter"]

        return jax.lax.scan(body, swarm, jax.random.split(jax.random.key(2), steps))[1][steps // 2 :].mean()

    return np.asarray(run(jnp.array(couplings)))


@pytest.mark.thorough
def test_identical_oscillators_with_noise() -> None:
    """r = I1(K r / D) / I0(K r / D) above K = 2 D, and nothing below; Euler steps of 0.02, D = 0.5."""
    diffusion, step = 0.5, 0.02
    model = Kuramoto(hood=EVERYBODY, sine=True)
    params = model.default_params.replace(step_size=step, noise=np.sqrt(2 * diffusion * step))
    found = late_order(model, params, [diffusion * k for k in (3, 4, 10)], 8000, 1500, 3.0)
    np.testing.assert_allclose(found, [0.72415872, 0.83146202, 0.94554219], atol=0.01)
    assert late_order(model, params, [diffusion * 1.5], 8000, 500, 2 * np.pi)[0] < 0.03


def test_lorentzian_frequencies() -> None:
    """r = sqrt(1 - 2 g / K) above K = 2 g, all-to-all; 10,000 drawn frequencies miss it by their own spread."""
    width = 0.5
    model = Kuramoto(hood=EVERYBODY, frequencies="lorentz", sine=True)
    params = model.default_params.replace(step_size=0.05, noise=0.0, frequency_scale=width)
    found = late_order(model, params, [width * k for k in (3, 4, 8)], 10_000, 500, 1.0)
    np.testing.assert_allclose(found, [0.57735027, 0.70710678, 0.86602540], atol=0.02)
    assert late_order(model, params, [width * 1.2], 10_000, 200, 2 * np.pi)[0] < 0.05


@pytest.mark.thorough
def test_natural_frequencies() -> None:
    """They are drawn as said, kept, and drive the phases."""
    for name, spread in (("normal", 0.6745), ("lorentz", 1.0)):
        model = Kuramoto(frequencies=name)
        params = model.default_params.replace(noise=0.0, step_size=0.5, frequency_scale=0.2)
        swarm = model.reset(jax.random.key(0), 20_000, params)
        omega = np.asarray(swarm.x[:, 3])
        np.testing.assert_allclose(np.median(np.abs(omega)), spread, rtol=0.03)  # quartiles
        assert np.abs(omega).max() <= 10
        few = swarm.replace(x=swarm.x[:50])
        after, *_ = model.step(jax.random.key(1), few, jnp.full((50, 1), 0.5), params)
        turned = np.asarray(after.x[:, 2] - few.x[:, 2])
        np.testing.assert_allclose(np.exp(1j * turned), np.exp(1j * (0.1 + 0.1 * omega[:50])), atol=1e-5)
        np.testing.assert_array_equal(after.x[:, [0, 1, 3]], few.x[:, [0, 1, 3]])


@pytest.mark.parametrize("model", [Vicsek(hood=Neighbourhood("grid", 256)), Kuramoto(hood=Neighbourhood("grid", 256))])
def test_a_million_agents(model: Any) -> None:
    """Oracle 12 in float32: against sums in float64, and nobody is lost."""
    num, params = 1_000_000, model.default_params

    @jax.jit
    def play(key: jax.Array) -> Any:
        swarm = model.reset(key, num, params)
        obs = model.observe(key, swarm, params)
        return swarm, obs, *model.step(key, swarm, jnp.sign(obs[:, :1]), params)

    swarm, obs, after, reward, info = play(jax.random.key(0))
    theta = np.asarray(swarm.x[:, 2], np.float64)
    order = info["polarisation" if isinstance(model, Vicsek) else "order_parameter"]
    np.testing.assert_allclose(order, np.abs(np.exp(1j * theta).mean()), atol=1e-6)
    assert np.isfinite(np.asarray(obs)).all()
    assert np.isfinite(np.asarray(after.x)).all()
    ordered = np.sort(theta)
    ahead = np.searchsorted(ordered, ordered + np.pi, side="right")
    total = np.concatenate([[0.0], np.cumsum(ordered)])
    rank = np.arange(num)
    near = total[ahead] - total[rank + 1] - (ahead - rank - 1) * ordered
    far = (num - ahead) * (2 * np.pi + ordered) - (total[num] - total[ahead])
    np.testing.assert_allclose(-reward, 2 * (near + far).sum() / num**2, atol=2e-6)
    # Neighbours of a few agents by counting; a disc holds 12,272 of them, so that their mean direction is small.
    x = np.asarray(swarm.x, np.float64)
    for i in range(5):
        apart = x[:, :2] - x[i, :2]
        near_i = ((apart - 4 * np.round(apart / 4)) ** 2).sum(1) <= 0.25**2
        mean = np.exp(1j * (theta[near_i] - theta[i])).mean()
        np.testing.assert_allclose(obs[i], [mean.imag, mean.real], atol=4e-3)
