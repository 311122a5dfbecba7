"""Who is near: sums of (1, cos, sin) over the agents around each agent, in the frame of the one who looks.

A disc of fixed size in a square of fixed size holds a fixed share of the swarm, so visiting the pairs costs N^2:
`exact` (and `cells`, where the square grows with N) are for small swarms, `grid` for large ones.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.mean_field.checks import require_choice, require_positive
from jaxrl_envs.mean_field.neighbour_cells import cell_sums, num_without_room
from jaxrl_envs.mean_field.neighbour_grid import grid_sums
from jaxrl_envs.mean_field.topology import Surface

MODES = ("auto", "exact", "cells", "hybrid", "grid", "all")
_PAIRS_UP_TO = 2000  # agents, in mode "auto"


@dataclasses.dataclass(frozen=True)
class Neighbourhood:
    """How neighbours are found, and how they are weighted. The agent itself is among them.

    Args:
      mode: "auto": "exact" for up to 2,000 agents, "grid" for more. "exact": every pair, `block` observers at a time.
        "cells": pairs in the cells up to `reach` away. "hybrid": the same, but cells that lie wholly in the disc are
        summed, and pairs are visited in those that its rim cuts; as exact as the pairs. "grid": agents are counted in
        cells, and the counts convolved with the disc: O(N + G^2 log G). "all": everybody is everybody's neighbour, at
        any distance.
      num_cells: G, cells along each side of the square.
      capacity: agents that a cell can hold ("cells", "hybrid"); those without room are missing from the sums, and
        `num_missing` says how many they are.
      reach: cells; the radius may be at most `reach` times a cell's side ("cells", "hybrid").
      smooth: weight neighbours by exp(-d^2 / (2 (radius / 2)^2)) instead of a disc ("auto", "exact", "grid"), for
        which the grid converges at second order.
      block: observers whose pairs are in memory at once ("exact", "cells", "hybrid").
    Raises:
      ValueError: for an unknown mode, a size below 1, or a smooth weight in a mode that has none.
    """

    mode: str = "exact"
    num_cells: int = 256
    capacity: int = 64
    reach: int = 1
    smooth: bool = False
    block: int = 512

    def __post_init__(self) -> None:
        require_choice("mode", self.mode, MODES)
        require_positive(num_cells=self.num_cells, capacity=self.capacity, reach=self.reach, block=self.block)
        if self.smooth and self.mode not in ("auto", "exact", "grid"):
            raise ValueError(f"a smooth weight needs mode 'exact' or 'grid', got {self.mode!r}")
        if self.mode in ("auto", "grid") and self.num_cells < 4:
            raise ValueError(f"mode {self.mode!r} needs num_cells >= 4, got {self.num_cells}")
        if self.mode in ("cells", "hybrid") and self.reach > self.num_cells:
            raise ValueError(f"reach = {self.reach} cells, more than num_cells = {self.num_cells} of the whole square")


def neighbour_sums(
    hood: Neighbourhood, surface: Surface, position: jax.Array, heading: jax.Array, radius: jax.Array | float
) -> jax.Array:
    """Number of neighbours, and the sums of the cosines and sines of their headings as each agent sees them.

    A neighbour is seen in its nearest image; past an edge that reverses, its heading is the reflected one. Where an
    agent has several images (see `Surface`), a smooth weight counts them all.

    Args:
      hood: how.
      surface: where.
      position: [N, 2] in the square.
      heading: [N] radians.
      radius: of the disc; at most half_width in mode "grid".
    Returns:
      [N, 3]; the first is at least 1 (of a smooth weight, up to the error of its grid).
    Raises:
      ValueError: if the radius is known and does not fit.
    """
    values = jnp.stack([jnp.ones_like(heading), jnp.cos(heading), jnp.sin(heading)], axis=1)
    if hood.mode == "auto":
        hood = dataclasses.replace(hood, mode="exact" if len(heading) <= _PAIRS_UP_TO else "grid")
    if hood.mode == "all":
        return jnp.broadcast_to(values.sum(0), values.shape)
    _check_radius(hood, surface, radius)
    if hood.mode == "grid":
        return grid_sums(surface, position, values, radius, hood.num_cells, hood.smooth)
    if hood.mode == "exact":
        return _exact_sums(hood, surface, position, values, radius)
    sizes = (hood.num_cells, hood.capacity, hood.reach)
    return cell_sums(surface, position, values, radius, sizes, hood.mode == "hybrid", hood.block)


def num_missing(hood: Neighbourhood, surface: Surface, position: jax.Array, radius: jax.Array | float) -> jax.Array:
    """How many agents are missing from `neighbour_sums`, int32: 0 unless cells overflow.

    All are, if `radius` is larger than the cells reach.
    """
    if hood.mode not in ("cells", "hybrid"):
        return jnp.int32(0)
    too_far = radius > _longest(hood, surface)
    missing = num_without_room(surface, position, hood.num_cells, hood.capacity)
    return jnp.where(too_far, position.shape[0], missing).astype(jnp.int32)


def _longest(hood: Neighbourhood, surface: Surface) -> float:
    """The largest radius that the mode can serve; a little more, for rounding."""
    if hood.mode == "grid":
        return surface.half_width * (1 + 1e-6)
    return hood.reach * 2 * surface.half_width / hood.num_cells * (1 + 1e-6)


def _check_radius(hood: Neighbourhood, surface: Surface, radius: jax.Array | float) -> None:
    require_positive(radius=radius)
    if hood.mode == "exact" or isinstance(radius, jax.core.Tracer):
        return
    longest = _longest(hood, surface)
    if np.any(np.asarray(radius) > longest):
        remedy = "use mode 'all'" if hood.mode == "grid" else "use fewer cells, or more reach"
        raise ValueError(f"radius = {radius} is more than mode {hood.mode!r} serves, {longest:.4g}; {remedy}")


def _exact_sums(
    hood: Neighbourhood, surface: Surface, position: jax.Array, values: jax.Array, radius: jax.Array | float
) -> jax.Array:
    """All pairs, `block` observers at a time."""

    def of_one(at: jax.Array) -> jax.Array:
        images = surface.squared_distances(at, position)
        nearest = images[0][0]
        for square, _, _ in images[1:]:
            nearest = jnp.minimum(nearest, square)
        total = jnp.zeros(3, values.dtype)
        for square, sign_x, sign_y in images:
            if hood.smooth:
                weight = jnp.exp(-2 * square / radius**2)
            else:
                weight = ((square <= radius**2) & (square == nearest)).astype(values.dtype)
            total += np.array([1, sign_x, sign_y], np.float32) * (weight @ values)
        return total

    if position.shape[0] <= hood.block:
        return jax.vmap(of_one)(position)
    return jax.lax.map(of_one, position, batch_size=hood.block)
