"""Pictures of the hard maze: one state, the path of an episode, where a population ended up. Pillow when drawing."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxrl_envs.hard_maze import EXTENT, GOAL, RADIUS, START, WALLS

_PAPER, _WALL, _ROBOT, _GOAL = (255, 255, 255), (73, 80, 94), (37, 99, 175), (46, 139, 87)
_EARLY, _LATE, _DOT = (196, 216, 240), (37, 99, 175), (230, 120, 40)
_SMOOTH = 3  # drawn so much larger and averaged down: smooth edges


def maze_image(
    position: Any = None, heading: float = 0.0, path: Any = None, ends: Any = None, height: int = 300
) -> np.ndarray:
    """The maze from above: the goal green, the start a ring.

    Args:
      position: [2], the robot, drawn with its heading if given.
      heading: in degrees.
      path: [T, 2], positions one after the other; the line darkens with time.
      ends: [N, 2], points; drawn below the path, small.
      height: pixels, the width being the same.
    Returns:
      [height, height, 3] uint8.
    """
    from PIL import Image, ImageDraw

    unit = height * _SMOOTH / EXTENT
    picture = Image.new("RGB", (height * _SMOOTH, height * _SMOOTH), _PAPER)
    draw = ImageDraw.Draw(picture)

    def at(point: Any) -> tuple[float, float]:
        return float(point[0]) * unit, float(point[1]) * unit

    def disc(point: Any, radius: float, fill: Any, outline: Any = None) -> None:
        (x, y), r = at(point), radius * unit
        draw.ellipse((x - r, y - r, x + r, y + r), fill, outline, width=round(unit))

    disc(GOAL, RADIUS, _GOAL)
    disc(START, RADIUS, None, _WALL)
    for x1, y1, x2, y2 in WALLS:
        draw.line([at((x1, y1)), at((x2, y2))], _WALL, round(1.6 * unit))
        for end in ((x1, y1), (x2, y2)):
            disc(end, 0.8, _WALL)
    for end in [] if ends is None else np.asarray(ends, float):
        disc(end, 1.0, _DOT)
    points: Any = [] if path is None else np.asarray(path, float)
    for i in range(1, len(points)):
        share = i / (len(points) - 1)
        colour = tuple(round(a + share * (b - a)) for a, b in zip(_EARLY, _LATE, strict=True))
        draw.line([at(points[i - 1]), at(points[i])], colour, round(1.4 * unit))
    if position is not None:
        angle = np.deg2rad(heading)
        nose = np.asarray(position, float) + RADIUS * np.array([np.cos(angle), np.sin(angle)])
        disc(position, RADIUS, _ROBOT)
        draw.line([at(position), at(nose)], _PAPER, round(1.6 * unit))
    return np.asarray(picture.reduce(_SMOOTH))
