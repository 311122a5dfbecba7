"""What swarms of headings share: what an agent sees of its neighbours' directions, and the price of disagreement."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_envs.mean_field.neighbours import Neighbourhood, neighbour_sums
from jaxrl_envs.mean_field.pairs import mean_geodesic
from jaxrl_envs.mean_field.topology import Surface

NORMALISE = ("count", "mf")
PAIRS = ("auto", "sort", "bins")


def mean_direction(  # noqa: PLR0913 - who, where, how far, per what
    hood: Neighbourhood,
    surface: Surface,
    position: jax.Array,
    heading: jax.Array,
    radius: jax.Array | float,
    normalise: str,
) -> jax.Array:
    """[N, 2], mean sine and cosine of the neighbours' headings relative to the agent's own.

    Args:
      hood, surface, position, heading, radius: as in `neighbour_sums`.
      normalise: "count", by the number of neighbours; "mf", by the number of all agents.
    """
    sums = neighbour_sums(hood, surface, position, heading, radius)
    cos, sin = jnp.cos(heading), jnp.sin(heading)
    ahead = jnp.stack([sums[:, 2] * cos - sums[:, 1] * sin, sums[:, 1] * cos + sums[:, 2] * sin], axis=1)
    # Each agent is its own neighbour; a grid may lose some of that to rounding, which also takes means past 1.
    mean = ahead / (jnp.maximum(sums[:, :1], 1.0) if normalise == "count" else heading.shape[0])
    return jnp.clip(mean, -1.0, 1.0)


def disagreement(heading: jax.Array, method: str) -> jax.Array:
    """Mean angle between two headings [N], in [0, pi]; headings as they are, whatever seam lies between."""
    return mean_geodesic(heading, method)


def clip_action(action: jax.Array, num_agents: int) -> jax.Array:
    """Actions [N, 1] or [N] as [N] in [-1, 1]."""
    return jnp.clip(jnp.asarray(action, jnp.float32).reshape(num_agents), -1.0, 1.0)
