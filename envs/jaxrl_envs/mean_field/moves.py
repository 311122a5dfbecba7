"""Moves of agents that have a largest speed."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def limited(u: jax.Array) -> jax.Array:
    """Vectors [..., d], those longer than 1 shortened to 1, after clipping each number to [-1, 1]."""
    u = jnp.clip(u, -1.0, 1.0)
    return u / jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(u), axis=-1, keepdims=True), 1.0))


def split_votes(action: jax.Array, num_agents: int, dimension: int) -> tuple[jax.Array, jax.Array]:
    """Actions [N, 2 d] as the agents' own moves [N, d] and the leader's [d], the mean of the votes behind them."""
    action = jnp.clip(jnp.asarray(action, jnp.float32).reshape(num_agents, 2 * dimension), -1.0, 1.0)
    return limited(action[:, :dimension]), limited(action[:, dimension:].mean(0))
