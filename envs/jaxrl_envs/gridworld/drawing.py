"""Pictures of levels, of states and of trajectories, with a legend of the objects; on the host. Pillow when drawing."""

from __future__ import annotations

import itertools
import string
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxrl_envs.gridworld.environment import GridState
    from jaxrl_envs.gridworld.level import Level

_Colour = tuple[int, int, int]
_PAPER: _Colour = (255, 255, 255)
_FLOOR: _Colour = (246, 247, 249)
_LINE: _Colour = (221, 225, 230)
_WALL: _Colour = (73, 80, 94)
_INK: _Colour = (33, 37, 41)
_MUTED: _Colour = (120, 128, 136)
_AGENT: _Colour = (37, 99, 175)
_GOOD: _Colour = (46, 139, 87)
_BAD: _Colour = (205, 60, 60)
_PALE: _Colour = (196, 216, 240)
_SMOOTH = 3  # drawn so much larger and averaged down: smooth edges


def level_image(
    level: Level, state: GridState | None = None, height: int = 300, cells: Sequence[int] = ()
) -> np.ndarray:
    """A level, or one state of it.

    Walls are dark, objects that earn are green circles and those that cost are red diamonds, larger for more. Each kind
    has a letter, and beside the board its reward, probability to end the episode and probability per step to come
    back. The agent is a blue disc; absent objects are outlines.

    Args:
      level: concrete.
      state: concrete; the level's first if None.
      height: pixels, the width being 4/3 of it.
      cells: flat cells on the way to this state, joined by a line.
    Returns:
      [height, width, 3] uint8.
    """
    picture = _Picture(level, state, height)
    picture.objects()
    for before, after in itertools.pairwise(picture.centre(cell) for cell in cells):
        picture.segment(before, after, _PALE)
    agent = level.start if state is None else int(state.row) * int(level.side) + int(state.column)
    picture.disc(picture.centre(int(agent)), 0.3, _AGENT)
    return picture.finish()


def trajectory_image(level: Level, cells: Any, height: int = 300) -> np.ndarray:
    """The way that an agent took through a level.

    The line darkens with time and moves across each cell with it, so that ways back do not hide ways out; a ring is at
    the first cell, a disc at the last.

    Args:
      level: concrete.
      cells: [T] flat cells, `row * side + column` of the states of an episode.
      height: pixels, the width being 4/3 of it.
    Returns:
      [height, width, 3] uint8.
    Raises:
      ValueError: if there is no cell.
    """
    cells = np.asarray(cells, int).ravel()
    if not len(cells):
        raise ValueError("expected at least one cell of a trajectory, got none")
    picture = _Picture(level, None, height)
    picture.objects()
    share = np.linspace(0.0, 1.0, len(cells))
    points = [picture.centre(cell, 0.3 * (s - 0.5)) for cell, s in zip(cells, share, strict=True)]
    for before, after, s in zip(points[:-1], points[1:], share[1:], strict=True):
        colour = tuple(round(a + s * (b - a)) for a, b in zip(_PALE, _AGENT, strict=True))
        picture.segment(before, after, colour)
    picture.disc(points[0], 0.2, _PALE)
    picture.disc(points[0], 0.1, _PAPER)
    picture.disc(points[-1], 0.24, _AGENT)
    return picture.finish()


class _Picture:
    """A board with a legend, drawn `_SMOOTH` times as large as it comes out."""

    def __init__(self, level: Level, state: GridState | None, height: int) -> None:
        from PIL import Image, ImageDraw

        self.level, self.side, self.unit = level, int(level.side), height * _SMOOTH / 300
        size = height * _SMOOTH
        self.image = Image.new("RGB", (size * 4 // 3, size), _PAPER)
        self.pen = ImageDraw.Draw(self.image)
        self.cell = (size - 20 * self.unit) / self.side
        self.margin = 10 * self.unit
        moved = state is not None and not isinstance(state.cell, tuple)
        self.places = np.asarray(state.cell if state is not None and moved else level.cell)
        self.exists = np.asarray(level.present if state is None else state.exists)
        self._board()

    def centre(self, cell: int, shift: float = 0.0) -> tuple[float, float]:
        """Middle of a cell; `shift` is towards the lower right, in cells."""
        row, column = divmod(int(cell), self.side)
        return (
            self.margin + (column + 0.5 + shift) * self.cell,
            self.margin + (row + 0.5 + shift) * self.cell,
        )

    def disc(self, at: tuple[float, float], radius: float, colour: Any) -> None:
        """Filled; the radius in cells."""
        r = radius * self.cell
        self.pen.ellipse((at[0] - r, at[1] - r, at[0] + r, at[1] + r), colour)

    def segment(self, start: tuple[float, float], end: tuple[float, float], colour: Any) -> None:
        """A line with round ends."""
        width = max(2, round(0.1 * self.cell))
        self.pen.line([start, end], colour, width)
        for point in (start, end):
            self.disc(point, width / self.cell / 2, colour)

    def objects(self) -> None:
        """All of the level's, in their cells and in the legend."""
        level = self.level
        kinds: dict[tuple[float, ...], list[int]] = {}
        for i in np.flatnonzero(np.asarray(level.present)).tolist():
            kinds.setdefault(tuple(float(v[i]) for v in (level.reward, level.p_term, level.p_respawn)), []).append(i)
        for letter, (kind, members) in zip(string.ascii_uppercase, kinds.items(), strict=False):
            for i in members:
                at = self.centre(self.places[i])
                self._object(kind[0], at, self.cell * self._radius(kind[0]), letter, bool(self.exists[i]))
        self._legend(kinds)

    def finish(self) -> np.ndarray:
        """At its final size."""
        return np.asarray(self.image.reduce(_SMOOTH))

    def _board(self) -> None:
        walls = np.asarray(self.level.walls)[: self.side**2].reshape(self.side, self.side)
        edges = [self.margin + i * self.cell for i in range(self.side + 1)]
        self.pen.rectangle((edges[0], edges[0], edges[-1], edges[-1]), _FLOOR)
        width = max(1, round(self.unit))
        for edge in edges:
            self.pen.line([(edges[0], edge), (edges[-1], edge)], _LINE, width)
            self.pen.line([(edge, edges[0]), (edge, edges[-1])], _LINE, width)
        for row, column in np.argwhere(walls):
            self.pen.rectangle((edges[column], edges[row], edges[column + 1], edges[row + 1]), _WALL)
        self.pen.rectangle((edges[0], edges[0], edges[-1], edges[-1]), outline=_WALL, width=2 * width)

    def _radius(self, reward: float) -> float:
        """In cells; the area grows with the size of the reward."""
        largest = max(1.0, float(np.abs(np.asarray(self.level.reward)).max()))
        return 0.24 + 0.16 * float(np.sqrt(abs(reward) / largest))

    def _object(self, reward: float, at: tuple[float, float], radius: float, letter: str, exists: bool = True) -> None:
        colour = _GOOD if reward >= 0 else _BAD
        fill, width = (colour if exists else None), max(2, round(1.5 * self.unit))
        x, y = at
        if reward >= 0:
            self.pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill, colour, width)
        else:
            radius *= 1.15  # of the area of a disc, more nearly
            corners = [(x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y)]
            self.pen.polygon(corners, fill)
            self.pen.line([*corners, corners[0], corners[1]], colour, width, joint="curve")
        self._text(at, letter, _PAPER if exists else colour, 1.05 * radius / self.unit, "mm")

    def _text(self, at: tuple[float, float], text: str, colour: _Colour, size: float, anchor: str = "lm") -> None:
        from PIL import ImageFont

        self.pen.text(at, text, colour, ImageFont.load_default(max(1, round(size * self.unit))), anchor)

    def _legend(self, kinds: dict[tuple[float, ...], list[int]]) -> None:
        left, unit = self.image.height + 6 * self.unit, self.unit
        step = min(56.0, 284.0 / max(1, len(kinds))) * unit
        for place, ((reward, p_term, p_respawn), members) in enumerate(kinds.items()):
            top = self.margin + place * step
            self._object(reward, (left + 8 * unit, top + 9 * unit), 8 * unit, string.ascii_uppercase[place % 26])
            count = f"  x {len(members)}" if len(members) > 1 else ""
            self._text((left + 23 * unit, top + 8 * unit), f"{reward:+.3g}{count}", _INK, 13)
            self._text((left + 23 * unit, top + 22 * unit), f"ends {_percent(p_term)}", _MUTED, 10)
            self._text((left + 23 * unit, top + 34 * unit), f"returns {_percent(p_respawn)}", _MUTED, 10)


def _percent(p: float) -> str:
    return f"{100 * p:.2g}%" if p < 0.995 else "100%"
