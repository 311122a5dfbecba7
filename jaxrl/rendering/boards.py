"""Pictures that environments draw of themselves, and of image-like observations: MinAtar games, boards, photographs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxrl.rendering.canvas import BOARD, OVERSAMPLE, WIDTH, Canvas, Colour, Scene, find_attribute

if TYPE_CHECKING:
    from PIL import Image

_HEIGHT = 300
_LINES: Colour = (38, 43, 54)
_WHITE: Colour = (240, 242, 245)
_YELLOW: Colour = (255, 209, 72)
_RED: Colour = (240, 84, 84)
_CYAN: Colour = (74, 201, 227)
_GREEN: Colour = (98, 196, 98)
_ORANGE: Colour = (245, 148, 66)
_VIOLET: Colour = (170, 130, 240)
_PINK: Colour = (240, 130, 190)
_BLUE: Colour = (84, 130, 240)
_GREY: Colour = (110, 118, 132)
_CHANNELS = (_WHITE, _RED, _CYAN, _YELLOW, _GREEN, _ORANGE, _VIOLET, _PINK, _BLUE, _GREY)

# One colour per channel, the player always white; a channel hides those after it.
_GAMES: dict[str, tuple[Colour, ...]] = {
    "Breakout-MinAtar": (_WHITE, _YELLOW, (120, 100, 50), _ORANGE),
    "Asterix-MinAtar": (_WHITE, _RED, _GREY, _YELLOW),
    "Freeway-MinAtar": (_WHITE, _RED, (60, 66, 80), (84, 78, 92), (108, 86, 98), (136, 92, 102), (165, 98, 104)),
    "Seaquest-MinAtar": (_WHITE, _GREY, _YELLOW, (120, 60, 60), _RED, _ORANGE, _VIOLET, _CYAN, _PINK, _GREEN),
    "SpaceInvaders-MinAtar": (_WHITE, _GREEN, _GREEN, _GREEN, _YELLOW, _RED),
}


def as_images(obs: Any) -> np.ndarray | None:
    """Observations [T, …] as [T, H, W, C], if they look like images; else None."""
    if not hasattr(obs, "ndim"):
        return None
    images = np.asarray(obs)
    if images.dtype == object or images.ndim not in (3, 4):
        return None
    images = images[..., None] if images.ndim == 3 else images
    small, channels = min(images.shape[1:3]), images.shape[3]
    return images if small >= 4 and 1 <= channels <= 64 else None


def _is_photo(images: np.ndarray) -> bool:
    """Whether three channels are red, green and blue, not three kinds of things."""
    return images.shape[-1] == 3 and len(np.unique(images[:: max(1, len(images) // 8)])) > 16


def _to_unit(images: np.ndarray, photo: bool) -> np.ndarray:
    """Values scaled to [0, 1]: bytes of light by 255, all else by its range, of each channel unless `photo`."""
    values = np.nan_to_num(images.astype(float), posinf=0.0, neginf=0.0)
    if images.dtype == np.uint8 and images.max() > 16:
        return values / 255.0
    axes = (0, 1, 2, 3) if photo else (0, 1, 2)
    low = np.minimum(values.min(axis=axes), 0.0)
    high = np.maximum(values.max(axis=axes), low)
    return (values - low) / np.where(high > low, high - low, 1.0)


def paint_channels(image: np.ndarray, colours: tuple[Colour, ...]) -> np.ndarray:
    """Channels with values in [0, 1], [H, W, C], over the dark board: [H, W, 3] uint8; the first is on top."""
    painted = np.tile(np.asarray(BOARD, float), (*image.shape[:2], 1))
    for channel in reversed(range(image.shape[-1])):
        cover = image[..., channel, None]
        painted += cover * (np.asarray(colours[channel % len(colours)]) - painted)
    return np.round(painted).astype(np.uint8)


def _catch(obs: np.ndarray, states: Any) -> np.ndarray:
    """Ball and paddle as two channels; the observation has them in one."""
    images = np.zeros((*obs.shape[:3], 2))
    steps = np.arange(len(obs))
    images[steps, np.asarray(states.ball_y), np.asarray(states.ball_x), 1] = 1
    images[steps, np.asarray(states.paddle_y), np.asarray(states.paddle_x), 0] = 1
    return images


def board_scene(env_name: str, states: Any, obs: Any) -> Scene | None:
    """Image-like observations as they are, channels in distinct colours; None for other observations."""
    found = as_images(obs)
    if found is None:
        return None
    colours = _GAMES.get(env_name, _CHANNELS)
    if env_name == "Catch-bsuite" and hasattr(states, "paddle_x"):
        found, colours = _catch(found, states), (_WHITE, _YELLOW)
    photo = _is_photo(found)
    images = _to_unit(found, photo)

    def draw(canvas: Canvas, t: int) -> None:
        pixels = np.round(images[t] * 255).astype(np.uint8) if photo else paint_channels(images[t], colours)
        _blow_up(canvas, pixels)

    return Scene(draw, _HEIGHT, 10)


def image_scene(env: Any, env_params: Any, states: Any) -> Scene | None:
    """What the environment draws of itself, if it has a method `image(state, params) -> [H, W, 3] uint8`; else None.

    With a method `path_image(states, params)` of the states [t + 1, …] so far, the picture of what led there.
    """
    image, path_image = find_attribute(env, "image"), find_attribute(env, "path_image")
    if image is None and path_image is None:
        return None

    def picture(t: int) -> Image.Image:
        from PIL import Image

        if path_image is not None:
            so_far = jax.tree.map(lambda leaf: leaf[: t + 1], states)
            return Image.fromarray(np.asarray(path_image(so_far, env_params)))
        return Image.fromarray(np.asarray(image(jax.tree.map(lambda leaf: leaf[t], states), env_params)))

    def fitted(t: int) -> Image.Image:
        drawn = picture(t)
        return drawn.resize(_fit(drawn), _resampling(drawn))

    def draw(canvas: Canvas, t: int) -> None:
        drawn = picture(t)
        width, height = _fit(drawn)
        large = drawn.resize((width * OVERSAMPLE, height * OVERSAMPLE), _resampling(drawn))
        canvas.paste(large, (WIDTH - width) // 2, (_HEIGHT - height) // 2)

    return Scene(draw, _HEIGHT, 10, fitted)


def _fit(drawn: Image.Image) -> tuple[int, int]:
    """The largest size of a picture that fits the scene."""
    fit = min(WIDTH / drawn.width, _HEIGHT / drawn.height)
    return round(drawn.width * fit), round(drawn.height * fit)


def _resampling(drawn: Image.Image) -> Any:
    """Few pixels stay squares; many are averaged."""
    from PIL import Image

    return Image.Resampling.NEAREST if drawn.height <= _HEIGHT else Image.Resampling.BOX


def _blow_up(canvas: Canvas, pixels: np.ndarray) -> None:
    """Fills the scene with the image: cells of whole pixels, with lines between them if they are large."""
    from PIL import Image

    height, width = pixels.shape[:2]
    fit = min(WIDTH / width, _HEIGHT / height)
    cell = int(fit) if fit >= 1 else fit
    size = (round(width * cell * OVERSAMPLE), round(height * cell * OVERSAMPLE))
    resampling = Image.Resampling.NEAREST if fit >= 1 else Image.Resampling.BOX
    left, top = int((WIDTH - width * cell) / 2), int((_HEIGHT - height * cell) / 2)
    canvas.paste(Image.fromarray(pixels).resize(size, resampling), left, top)
    if cell < 14:
        return
    for x in range(left, left + width * int(cell) + 1, int(cell)):
        canvas.line([(x, top), (x, top + height * cell)], _LINES)
    for y in range(top, top + height * int(cell) + 1, int(cell)):
        canvas.line([(left, y), (left + width * cell, y)], _LINES)
