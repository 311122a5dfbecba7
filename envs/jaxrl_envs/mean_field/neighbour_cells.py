"""Neighbours by lists of who is in which cell: pairs in the cells nearby, or in those that the disc's rim cuts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.mean_field.topology import Surface


def cell_index(surface: Surface, position: jax.Array, num_cells: int) -> jax.Array:
    """[N, 2] int32, column and row of each agent's cell."""
    scale = num_cells / (2 * surface.half_width)
    place = ((position + surface.half_width) * scale).astype(jnp.int32)
    return jnp.clip(jax.lax.stop_gradient(place), 0, num_cells - 1)


def num_without_room(surface: Surface, position: jax.Array, num_cells: int, capacity: int) -> jax.Array:
    """How many agents exceed the capacity of their cells."""
    count = _count(_flat(surface, position, num_cells), num_cells)
    return jnp.maximum(count - capacity, 0).sum()


def cell_sums(  # noqa: PLR0913 - two ways through one set of cells
    surface: Surface,
    position: jax.Array,
    values: jax.Array,
    radius: jax.Array | float,
    sizes: tuple[int, int, int],
    sum_interior: bool,
    block: int,
) -> jax.Array:
    """Sums of what neighbours hold, over pairs.

    Args:
      surface: where.
      position: [N, 2].
      values: [N, 3], 1 and a direction (cos, sin).
      radius: at most `reach` cells.
      sizes: (num_cells, capacity, reach).
      sum_interior: cells wholly in the disc are summed and only the others' agents visited ("hybrid").
      block: observers at once.
    Returns:
      [N, 3]; agents without room in their cell see, but are not seen.
    """
    num_cells, capacity, reach = sizes
    flat = _flat(surface, position, num_cells)
    members = _members(flat, num_cells, capacity)
    # One more agent, far away, is who fills the empty places.
    places = jnp.concatenate([position, jnp.full((1, 2), 1e9, position.dtype)])
    held = jnp.concatenate([values, jnp.zeros((1, 3), values.dtype)])
    moments = jnp.zeros((num_cells**2, 3), values.dtype).at[flat].add(values) if sum_interior else None
    offsets = _offsets(reach)
    num_cut = len(offsets) if surface.has_cone_points else min(len(offsets), 8 * reach + 4)

    def of_one(at: jax.Array, cell: jax.Array) -> jax.Array:
        where, shift, sign, middle, exists = _look(surface, cell + offsets, num_cells)
        total = jnp.zeros(3, values.dtype)
        if moments is not None:
            inside, cut = _classify(surface, at, middle, radius, num_cells)
            signs = jnp.concatenate([jnp.ones((len(offsets), 1), sign.dtype), sign], axis=1)
            total = jnp.sum(jnp.where((inside & exists)[:, None], signs * moments[where], 0.0), axis=0)
            chosen = jnp.nonzero(cut & exists, size=num_cut, fill_value=len(offsets))[0]
            exists = chosen < len(offsets)
            where, shift, sign = (leaf[jnp.minimum(chosen, len(offsets) - 1)] for leaf in (where, shift, sign))
        who = jnp.where(exists[:, None], members[where], position.shape[0])  # [K, capacity]
        seen = places[who] * sign[:, None] + shift[:, None]
        square = jnp.sum(jnp.square(seen - at), axis=-1)
        counts = square <= radius**2
        if surface.has_cone_points:
            counts &= square <= jnp.square(surface.distance(at, places[who])) * (1 + 1e-5)
        found = jnp.where(counts[..., None], held[who], 0.0).sum(1)
        return total + jnp.sum(jnp.concatenate([jnp.ones((len(who), 1), sign.dtype), sign], axis=1) * found, axis=0)

    cell = cell_index(surface, position, num_cells)
    if position.shape[0] <= block:
        return jax.vmap(of_one)(position, cell)
    return jax.lax.map(lambda one: of_one(*one), (position, cell), batch_size=block)


def _flat(surface: Surface, position: jax.Array, num_cells: int) -> jax.Array:
    cell = cell_index(surface, position, num_cells)
    return cell[:, 0] * num_cells + cell[:, 1]


def _count(flat: jax.Array, num_cells: int) -> jax.Array:
    return jnp.zeros(num_cells**2, jnp.int32).at[flat].add(1)


def _members(flat: jax.Array, num_cells: int, capacity: int) -> jax.Array:
    """[cells, capacity] int32, the agents in each cell; N where a place is empty."""
    num = flat.shape[0]
    order = jnp.argsort(flat)
    cell = flat[order]
    count = _count(flat, num_cells)
    rank = jnp.arange(num) - (jnp.cumsum(count) - count)[cell]
    empty = jnp.full((num_cells**2, capacity), num, jnp.int32)
    return empty.at[cell, rank].set(order.astype(jnp.int32), mode="drop")


def _offsets(reach: int) -> np.ndarray:
    """[K, 2] int32, the cells that a disc of this radius around a point of the middle cell can touch."""
    axis = np.arange(-reach, reach + 1)
    offsets = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    gap = np.maximum(np.abs(offsets) - 1, 0)
    return offsets[(gap**2).sum(1) <= reach**2].astype(np.int32)


def _look(
    surface: Surface, cell: jax.Array, num_cells: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """What is at cells [K, 2] of the plane.

    Flat cells of the square, shift and sign [K, 2] that take an agent from there to its image here, middles [K, 2] in
    the plane, and whether there is anything.
    """
    tile = jnp.floor_divide(cell, num_cells)
    odd = tile % 2 != 0
    flips = [edge == "flip" for edge in surface.edges]
    # Crossing x reverses y, and the other way round.
    sign = jnp.where(odd[:, ::-1] & np.array([flips[1], flips[0]]), -1, 1)
    within = cell - tile * num_cells
    there = jnp.where(sign > 0, within, num_cells - 1 - within)
    exists = jnp.ones(tile.shape[0], bool)
    for axis, edge in enumerate(surface.edges):
        exists &= (tile[:, axis] == 0) if edge == "reflect" else (jnp.abs(tile[:, axis]) <= 1)
    side = 2 * surface.half_width
    middle = (cell + 0.5) * (side / num_cells) - surface.half_width
    shift, signs = tile * jnp.float32(side), sign.astype(jnp.float32)
    return there[:, 0] * num_cells + there[:, 1], shift, signs, middle, exists


def _classify(
    surface: Surface, at: jax.Array, middle: jax.Array, radius: jax.Array | float, num_cells: int
) -> tuple[jax.Array, jax.Array]:
    """[K] bool each: cells wholly in the disc, whose agents are all seen; and cells that hold some of it otherwise."""
    half = surface.half_width / num_cells
    apart = jnp.abs(middle - at)
    farthest = jnp.sum(jnp.square(apart + half), axis=1)
    nearest = jnp.sum(jnp.square(jnp.maximum(apart - half, 0.0)), axis=1)
    # A hair's breadth of doubt is for the pairs to settle.
    inside = farthest <= radius**2 * (1 - 1e-5)
    if surface.has_cone_points:
        corner = jnp.abs(jnp.abs(middle) - surface.half_width) - half
        # Two images can both be in the disc only within its radius of a corner.
        inside &= jnp.sum(jnp.square(jnp.maximum(corner, 0.0)), axis=1) > radius**2
    return inside, ~inside & (nearest <= radius**2 * (1 + 1e-5))
