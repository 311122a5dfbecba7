"""Surfaces made from the square [-L, L]^2 by joining its edges, and how headings are carried across them.

An axis "wraps" (opposite edges are joined), "flips" (joined, the other coordinate and the heading reversed) or
"reflects" (walls). What lies past an edge is drawn as images of the square, one in each of the tiles around it.
"""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.mean_field.checks import require_choice

_SURFACES = {
    "torus": ("wrap", "wrap"),
    "box": ("reflect", "reflect"),
    "moebius": ("flip", "reflect"),
    "klein": ("flip", "wrap"),
    "projective": ("flip", "flip"),
}
TOPOLOGIES = tuple(_SURFACES)


@dataclasses.dataclass(frozen=True)
class Image:
    """The square as it is seen in a tile: `(sign_x * x + 2 L column, sign_y * y + 2 L row)`, headings alike."""

    column: int
    row: int
    sign_x: int
    sign_y: int


@dataclasses.dataclass(frozen=True)
class Surface:
    """A square with joined edges.

    Args:
      name: one of `TOPOLOGIES`. Crossing the x edge of "moebius", "klein" and "projective" takes (y, theta) to
        (-y, -theta), crossing the y edge of "projective" takes (x, theta) to (-x, pi - theta); the Möbius strip has
        walls at the ends of y, the box everywhere.
      half_width: L.
    Raises:
      ValueError: for an unknown name, or a square without area.
    """

    name: str = "torus"
    half_width: float = 2.0

    def __post_init__(self) -> None:
        require_choice("topology", self.name, TOPOLOGIES)
        if not self.half_width > 0:
            raise ValueError(f"expected half_width > 0, got {self.half_width}")

    @property
    def edges(self) -> tuple[str, str]:
        """What the x and the y axis do: "wrap", "flip" or "reflect"."""
        return _SURFACES[self.name]

    @property
    def has_cone_points(self) -> bool:
        """Are there points around which one turns by half a circle only? Near them an agent has two images."""
        return self.name == "projective"

    @property
    def images(self) -> tuple[Image, ...]:
        """The square itself first, then its images in the tiles around it: 8, or 2 for the strip, or none."""
        x, y = self.edges
        columns, rows = ((0,) if edge == "reflect" else (0, -1, 1) for edge in (x, y))
        return tuple(
            Image(a, b, -1 if y == "flip" and b else 1, -1 if x == "flip" and a else 1) for a in columns for b in rows
        )

    def move(self, position: jax.Array, heading: jax.Array, displacement: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Positions in the square and headings in [0, 2 pi) after straight moves of any length.

        Args:
          position: [N, 2] in the square.
          heading: [N] radians, already that of the move.
          displacement: [N, 2].
        """
        x, y = (position[:, i] + displacement[:, i] for i in (0, 1))
        # A change of sign of x turns the heading theta to pi - theta, one of y to -theta.
        x, y, turned_x = self._cross(x, y, self.edges[0])
        y, x, turned_y = self._cross(y, x, self.edges[1])
        by_x = turned_x if self.edges[0] == "reflect" else jnp.zeros_like(turned_x)
        by_y = turned_y if self.edges[1] == "reflect" else jnp.zeros_like(turned_y)
        by_x = by_x ^ turned_y if self.edges[1] == "flip" else by_x
        by_y = by_y ^ turned_x if self.edges[0] == "flip" else by_y
        heading = jnp.where(by_x, np.pi - heading, heading)
        heading = jnp.where(by_y, -heading, heading)
        return jnp.stack([x, y], axis=1), jnp.mod(heading, 2 * np.pi)

    def image(self, image: Image, position: jax.Array) -> jax.Array:
        """Positions [..., 2] as seen in a tile."""
        sign = np.array([image.sign_x, image.sign_y], np.float32)
        tile = 2 * self.half_width * np.array([image.column, image.row], np.float32)
        return position * sign + tile

    def distance(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """Distance [...] from positions a [..., 2] to the nearest images of b [..., 2]."""
        squares = [square for square, _, _ in self.squared_distances(a, b)]
        return jnp.sqrt(jnp.stack(squares).min(0))

    def squared_distances(self, a: jax.Array, b: jax.Array) -> list[tuple[jax.Array, int, int]]:
        """For each way in which b may be reflected: the squared distance [...] to its nearest such image.

        1 of them on plain surfaces, 2 with an axis that flips, 4 with two.

        Returns:
          [(squared distance, sign_x, sign_y)], the signs being those of the image's coordinates and of its direction.
        """
        side, found = 2 * self.half_width, []
        # Images in odd tiles of a flipping axis are reflected, the others as they are.
        odd_x, odd_y = ((False, True) if edge == "flip" else (False,) for edge in self.edges)
        for odd in itertools.product(odd_x, odd_y):
            signs = -1 if odd[1] else 1, -1 if odd[0] else 1
            square = jnp.zeros((), a.dtype)
            for axis in (0, 1):
                apart = jnp.abs(signs[axis] * b[..., axis] - a[..., axis])
                if odd[axis]:
                    apart = jnp.abs(side - apart)
                elif self.edges[axis] == "wrap":
                    apart = jnp.minimum(apart, jnp.abs(side - apart))
                square = square + jnp.square(apart)
            found.append((square, *signs))
        return found

    def _cross(self, along: jax.Array, across: jax.Array, edge: str) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Both coordinates after crossing the edges of one, and whether that was an odd number of times."""
        num = jnp.floor((along + self.half_width) / (2 * self.half_width))
        odd = jnp.mod(num, 2) == 1
        along = jnp.clip(along - 2 * self.half_width * num, -self.half_width, self.half_width)
        if edge == "reflect":
            along = jnp.where(odd, -along, along)
        elif edge == "flip":
            across = jnp.where(odd, -across, across)
        return along, across, odd
