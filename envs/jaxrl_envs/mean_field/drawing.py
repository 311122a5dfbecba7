"""Pictures of swarms on the host: agents in their square, coloured by heading. Pillow when drawing."""

from __future__ import annotations

import colorsys
import functools

import numpy as np

_PAPER, _FLOOR, _EDGE, _OBSTACLE = (255, 255, 255), (247, 248, 250), (120, 128, 136), (190, 196, 204)
_AGENT, _MARK = (37, 99, 175), (20, 20, 20)
_SMOOTH = 3  # drawn so much larger and averaged down: smooth edges
_NUM_HUES = 48
_MOST_DRAWN = 20_000  # agents that are drawn one by one; of more, each pixel shows the mean colour of those in it


def swarm_image(  # noqa: PLR0913 - what is drawn, and how
    position: np.ndarray,
    heading: np.ndarray | None,
    half_width: float,
    *,
    marked: np.ndarray | None = None,
    obstacle: float = 0.0,
    arrows: bool = True,
    height: int = 300,
) -> np.ndarray:
    """A swarm in [-half_width, half_width]^2, y upwards; the more agents, the smaller.

    Args:
      position: [N, 2].
      heading: [N] radians, hue and (with `arrows`) direction of each agent; None for one colour.
      half_width: of the square.
      marked: [N] bool, agents with a dark core.
      obstacle: radius of a disc in the middle.
      arrows: darts along the headings; discs otherwise.
      height: pixels, the width being the same.
    Returns:
      [height, height, 3] uint8.
    Raises:
      ValueError: for shapes that do not belong together.
    """
    position = np.asarray(position, float)
    heading = None if heading is None else np.asarray(heading, float)
    if position.ndim != 2 or position.shape[1] != 2 or (heading is not None and heading.shape != position.shape[:1]):
        shapes = position.shape, None if heading is None else heading.shape
        raise ValueError(f"expected positions [N, 2] and headings [N], got {shapes[0]} and {shapes[1]}")
    colours = np.full((len(position), 3), _AGENT) if heading is None else heading_colours(heading)
    margin = height * 0.02
    scale = (height - 2 * margin) / (2 * half_width)
    pixels = np.stack([position[:, 0] + half_width, half_width - position[:, 1]], axis=1) * scale + margin
    if len(position) > _MOST_DRAWN:
        nobody = np.zeros((0, 2))
        return _density(pixels, colours, _draw(nobody, None, nobody, None, obstacle * scale, height))
    return _draw(pixels, heading if arrows else None, colours, marked, obstacle * scale, height)


def heading_colours(heading: np.ndarray) -> np.ndarray:
    """[N, 3] uint8, hues around the circle of headings [N]."""
    turn = np.mod(np.asarray(heading, float), 2 * np.pi) / (2 * np.pi)
    return _hues()[np.minimum((turn * _NUM_HUES).astype(int), _NUM_HUES - 1)]


@functools.cache
def _hues() -> np.ndarray:
    hues = [colorsys.hsv_to_rgb(k / _NUM_HUES, 0.85, 0.82) for k in range(_NUM_HUES)]
    return (255 * np.array(hues)).round().astype(np.uint8)


def _draw(  # noqa: PLR0913 - private, one call
    pixels: np.ndarray,
    heading: np.ndarray | None,
    colours: np.ndarray,
    marked: np.ndarray | None,
    obstacle: float,
    height: int,
) -> np.ndarray:
    from PIL import Image, ImageDraw

    size = height * _SMOOTH
    picture = Image.new("RGB", (size, size), _PAPER)
    draw = ImageDraw.Draw(picture)
    low, high = 0.02 * size, 0.98 * size
    draw.rectangle((low, low, high, high), _FLOOR, _EDGE, width=_SMOOTH)
    if obstacle:
        r, middle = obstacle * _SMOOTH, size / 2
        draw.ellipse((middle - r, middle - r, middle + r, middle + r), _OBSTACLE)
    length = float(np.clip(0.6 * height / np.sqrt(max(len(pixels), 1)), 1.6, 9.0)) * _SMOOTH
    at = pixels * _SMOOTH
    fills = [tuple(colour) for colour in colours.tolist()]
    if heading is None:
        r = 0.4 * length
        boxes = np.concatenate([at - r, at + r], axis=1).tolist()
        for box, fill in zip(boxes, fills, strict=True):
            draw.ellipse(box, fill)
    else:
        ahead = np.stack([np.cos(heading), -np.sin(heading)], axis=1) * length
        side = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1) * 0.35
        darts = np.concatenate([at + ahead, at - 0.7 * ahead + side, at - 0.7 * ahead - side], axis=1).tolist()
        for dart, fill in zip(darts, fills, strict=True):
            draw.polygon(dart, fill)
    if marked is not None:
        r = 0.3 * length
        for x, y in at[np.asarray(marked, bool)]:
            draw.ellipse((x - r, y - r, x + r, y + r), _MARK)
    return np.asarray(picture.reduce(_SMOOTH))


def _density(pixels: np.ndarray, colours: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """Mean colour of the agents in each pixel, paler where there are few."""
    height = len(ground)
    column, row = np.clip(pixels.astype(int), 0, height - 1).T
    flat, num = row * height + column, height**2
    count = np.bincount(flat, minlength=num)
    mean = np.stack([np.bincount(flat, colours[:, i], num) for i in range(3)], axis=1) / np.maximum(count, 1)[:, None]
    cover = np.minimum(count / max(np.quantile(count[count > 0], 0.5), 1.0), 1.0)[:, None]
    image = cover * mean + (1 - cover) * ground.reshape(-1, 3)
    return image.round().astype(np.uint8).reshape(height, height, 3)
