"""What every picture is made of: a canvas on pillow, colours, and `Scene`, a picture as a function of the step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from PIL import Image

Colour = tuple[int, int, int]
Point = tuple[float, float]

PAPER: Colour = (255, 255, 255)
INK: Colour = (33, 37, 41)
MUTED: Colour = (120, 128, 136)
RULE: Colour = (215, 219, 224)
SLATE: Colour = (73, 80, 94)
BLUE: Colour = (37, 99, 175)
ORANGE: Colour = (230, 120, 40)
GREEN: Colour = (46, 139, 87)
RED: Colour = (205, 60, 60)
PURPLE: Colour = (126, 87, 194)
TEAL: Colour = (20, 150, 160)
OCHRE: Colour = (190, 150, 40)
BOARD: Colour = (24, 28, 36)

WIDTH = 400
OVERSAMPLE = 3  # drawn three times as large and averaged down: smooth edges


@functools.lru_cache(maxsize=32)
def _font(size: int) -> Any:
    from PIL import ImageFont

    # Pillow's own font: the same pixels on every machine.
    return ImageFont.load_default(size)


class Canvas:
    """A picture in units of its final pixels, y downwards; `top` moves the origin below a header."""

    def __init__(self, width: int, height: int, top: int = 0) -> None:
        from PIL import Image, ImageDraw

        self.image = Image.new("RGB", (width * OVERSAMPLE, height * OVERSAMPLE), PAPER)
        self.top = top
        self._draw = ImageDraw.Draw(self.image)

    def _at(self, point: Point) -> Point:
        return float(point[0]) * OVERSAMPLE, (float(point[1]) + self.top) * OVERSAMPLE

    def line(self, points: Sequence[Point], colour: Colour, width: float = 1.0, round_ends: bool = False) -> None:
        """A polyline."""
        self._draw.line([self._at(p) for p in points], colour, round(width * OVERSAMPLE), joint="curve")
        for point in (points[0], points[-1]) if round_ends else ():
            self.circle(point, width / 2, colour)

    def circle(self, centre: Point, radius: float, colour: Colour) -> None:
        """A disc."""
        x, y = self._at(centre)
        r = radius * OVERSAMPLE
        self._draw.ellipse((x - r, y - r, x + r, y + r), colour)

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """A filled polygon."""
        self._draw.polygon([self._at(p) for p in points], colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """A filled rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def text(self, at: Point, text: str, colour: Colour = INK, size: int = 12, anchor: str = "lm") -> None:
        """A line of text; `anchor` as in pillow, by default the middle of the left end."""
        self._draw.text(self._at(at), text, colour, _font(size * OVERSAMPLE), anchor)

    def text_width(self, text: str, size: int = 12) -> float:
        """Width that `text` takes."""
        return _font(size * OVERSAMPLE).getlength(text) / OVERSAMPLE

    def paste(self, image: Image.Image, left: float, top: float) -> None:
        """Copies an oversampled picture."""
        x, y = self._at((left, top))
        self.image.paste(image, (round(x), round(y)))

    def finish(self) -> Image.Image:
        """The picture at its final size."""
        return self.image.reduce(OVERSAMPLE)


class Scene(NamedTuple):
    """How an environment is drawn.

    Attributes:
      draw: `(canvas, t)`, paints the state before step `t`.
      height: pixels; the width is always `WIDTH`.
      fps: steps per second at which it is best watched; real time where the environment has one.
      picture: the same as an image of any size, where nothing need be drawn.
    """

    draw: Callable[[Canvas, int], None]
    height: int
    fps: float
    picture: Callable[[int], Image.Image] | None = None


def find_attribute(env: Any, name: str) -> Any:
    """`env.name`, looked for inside wrappers and adapters too; None where there is none."""
    for _ in range(8):
        value = getattr(env, name, None)
        if value is not None:
            return value
        inner = (getattr(env, link, None) for link in ("unwrapped_env", "gymnax_env", "brax_env", "brax", "env"))
        env = next((e for e in inner if e is not None), None)
    return None
