"""Neighbours by counting: agents go to cells, the counts are convolved with the disc, and each agent reads its cell."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.mean_field.neighbour_cells import cell_index
from jaxrl_envs.mean_field.topology import Surface

# The rim's width in cells. Two points of known cells are apart by a little more or less than the cells are; a weight
# that falls over this width is close to the probability that the disc holds both.
_RIM = 1.2


def grid_sums(  # noqa: PLR0913 - where, what, how far, how fine
    surface: Surface,
    position: jax.Array,
    values: jax.Array,
    radius: jax.Array | float,
    num_cells: int,
    smooth: bool,
) -> jax.Array:
    """Sums of what neighbours hold, approximately; O(N + G^2 log G), without pairs.

    The disc: an agent counts in its cell, with a weight that falls from 1 to 0 over the width of a cell around the
    rim. Its error falls with the square root of the cells' size. Around a corner of the projective plane a neighbour
    may have two images in the disc, and both count. The smooth weight: agents are spread over four cells and read four,
    linearly, and the error falls with the square of the cells' size.

    Args:
      surface: where.
      position: [N, 2].
      values: [N, 3], 1 and a direction (cos, sin).
      radius: at most half the square.
      num_cells: G.
      smooth: a Gaussian of width radius / 2.
    Returns:
      [N, 3]; in a disc each agent counts itself fully.
    """
    spread = _corners if smooth else _own_cell
    cells, weights = spread(surface, position, num_cells)  # [M, N, 2] in the square with a ring of cells around, [M, N]
    wide = num_cells + 2
    counted = jnp.zeros((wide * wide, 3), values.dtype)
    for cell, weight in zip(cells, weights, strict=True):
        # All three at once: one scatter of rows takes half the time of three of numbers.
        counted = counted.at[cell[:, 0] * wide + cell[:, 1]].add(weight[:, None] * values)
    margin = 0 if surface.name == "torus" else num_cells // 2
    plane = _unfold(surface, counted.T.reshape(3, wide, wide), num_cells, margin)
    kernel = _kernel(plane.shape[-1], 2 * surface.half_width / num_cells, radius, smooth)
    summed = jnp.fft.irfft2(jnp.fft.rfft2(plane) * jnp.fft.rfft2(kernel).real, plane.shape[-2:])
    found = jnp.zeros_like(values)
    for cell, weight in zip(cells, weights, strict=True):
        at = jnp.mod(cell - 1 + margin, plane.shape[-1])
        found += weight[:, None] * summed[:, at[:, 0], at[:, 1]].T
    return found if smooth else found + (1 - kernel[0, 0]) * values


def _own_cell(surface: Surface, position: jax.Array, num_cells: int) -> tuple[list[jax.Array], list[jax.Array]]:
    return [cell_index(surface, position, num_cells) + 1], [jnp.ones(position.shape[0], position.dtype)]


def _corners(surface: Surface, position: jax.Array, num_cells: int) -> tuple[list[jax.Array], list[jax.Array]]:
    """The four cells whose middles surround an agent, and their linear weights."""
    place = (position + surface.half_width) * (num_cells / (2 * surface.half_width)) + 0.5
    lower = jnp.clip(jax.lax.stop_gradient(place).astype(jnp.int32), 0, num_cells)
    part = place - lower
    cells, weights = [], []
    for corner in np.ndindex(2, 2):
        cells.append(lower + np.array(corner, np.int32))
        weight = jnp.where(np.array(corner, bool), part, 1 - part)
        weights.append(weight[:, 0] * weight[:, 1])
    return cells, weights


def _unfold(surface: Surface, counted: jax.Array, num_cells: int, margin: int) -> jax.Array:
    """The plane around the square, [3, G + 2 margin, G + 2 margin]: what was counted, in every tile that it reaches.

    `counted` is [3, G + 2, G + 2]: what fell past a joined edge lands in the neighbouring image where it belongs.
    """
    size, wide = num_cells + 2 * margin, num_cells + 2
    plane = jnp.zeros((3, size, size), counted.dtype)
    for image in surface.images:
        axes = [axis for axis, sign in ((1, image.sign_x), (2, image.sign_y)) if sign < 0]
        seen = jnp.flip(counted, axes) if axes else counted
        seen = seen * np.array([1, image.sign_x, image.sign_y], np.float32)[:, None, None]
        first = [margin - 1 + tile * num_cells for tile in (image.column, image.row)]
        into = [slice(max(f, 0), min(f + wide, size)) for f in first]
        if all(part.start < part.stop for part in into):
            out = [slice(part.start - f, part.stop - f) for part, f in zip(into, first, strict=True)]
            plane = plane.at[:, into[0], into[1]].add(seen[:, out[0], out[1]])
    return plane


def _kernel(size: int, cell: float, radius: jax.Array | float, smooth: bool) -> jax.Array:
    """[size, size], weights by distance on a ring of cells; the first is that of the own cell."""
    step = np.minimum(np.arange(size), size - np.arange(size)).astype(np.float32) * cell
    square = step[:, None] ** 2 + step**2
    if smooth:
        return jnp.exp(-2 * square / radius**2)
    return jnp.clip((radius - np.sqrt(square)) / (_RIM * cell) + 0.5, 0.0, 1.0)
