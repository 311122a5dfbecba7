"""The picture of any environment: its observations and rewards against time, with a cursor at the present."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxrl.rendering.canvas import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    OCHRE,
    ORANGE,
    OVERSAMPLE,
    PAPER,
    PURPLE,
    RED,
    RULE,
    SLATE,
    TEAL,
    WIDTH,
    Canvas,
    Colour,
    Scene,
)

_SERIES: tuple[Colour, ...] = (BLUE, ORANGE, GREEN, PURPLE, RED, TEAL, OCHRE, SLATE)
_LEFT, _RIGHT = 46, 296  # of every chart; values are named to the right


def flatten(tree: Any, num_steps: int) -> np.ndarray:
    """Observations or actions of any structure as components, [T, D] float; NaN and infinities as zero."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    columns = [leaf.reshape(num_steps, -1).astype(float) for leaf in leaves if leaf.dtype != object]
    joined = np.concatenate(columns, axis=1) if columns else np.zeros((num_steps, 0))
    return np.nan_to_num(joined, posinf=0.0, neginf=0.0)


def number(value: float) -> str:
    """Three digits that say something, or all of a whole number that is not huge."""
    whole = value == round(value) or abs(value) >= 100
    return f"{value:.0f}" if whole and abs(value) < 1e5 else f"{value:.3g}"


def _x(t: int, num_steps: int) -> float:
    return _LEFT + (_RIGHT - _LEFT) * (t / (num_steps - 1) if num_steps > 1 else 0.5)


def _curves(canvas: Canvas, series: np.ndarray, top: float, bottom: float) -> Callable[[float], float]:
    """Draws the columns of `series` [T, D] on one scale with its extremes named; returns that scale."""
    low, high = float(series.min(initial=0.0)), float(series.max(initial=0.0))
    if high - low < 1e-12:
        high = low + 1.0

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    for level in sorted({low, 0.0, high}):
        canvas.line([(_LEFT, y(level)), (_RIGHT, y(level))], RULE, 1)
        if level in (low, high) or min(y(low) - y(0.0), y(0.0) - y(high)) > 12:
            canvas.text((_LEFT - 6, y(level)), number(level), MUTED, 10, "rm")
    for column in range(series.shape[1]):
        points = [(_x(t, len(series)), y(value)) for t, value in enumerate(series[:, column])]
        colour = _SERIES[column % len(_SERIES)]
        canvas.line(points, colour, 1.5) if len(points) > 1 else canvas.circle(points[0], 2, colour)
    return y


def _heat_map(canvas: Canvas, series: np.ndarray, top: float, bottom: float) -> None:
    """Components as rows, steps as columns: white is zero, blue negative, orange positive."""
    from PIL import Image

    size = np.abs(series).max(axis=0)
    scaled = (series / np.where(size > 0, size, 1.0)).T[..., None]
    ends = np.where(scaled > 0, np.asarray(ORANGE), np.asarray(BLUE))
    pixels = np.round(np.asarray(PAPER) + np.abs(scaled) * (ends - np.asarray(PAPER))).astype(np.uint8)
    shape = (round((_RIGHT - _LEFT) * OVERSAMPLE), round((bottom - top) * OVERSAMPLE))
    few = pixels.shape[0] <= shape[1] and pixels.shape[1] <= shape[0]
    resampling = Image.Resampling.NEAREST if few else Image.Resampling.BOX
    canvas.paste(Image.fromarray(pixels).resize(shape, resampling), _LEFT, top)
    canvas.text((_LEFT - 6, top + 6), "0", MUTED, 10, "rm")
    canvas.text((_LEFT - 6, bottom - 6), str(series.shape[1] - 1), MUTED, 10, "rm")


def _action_text(action: np.ndarray) -> str:
    shown = ", ".join(number(float(a)) for a in action[:6]) + (", ..." if len(action) > 6 else "")
    return f"action  {shown}"


def chart_scene(obs: Any, action: Any, reward: np.ndarray) -> Scene:
    """Charts of whatever was observed, one line per component, or a heat map if there are more than eight."""
    num_steps = len(reward)
    series, rewards = flatten(obs, num_steps), np.nan_to_num(np.asarray(reward, float))[:, None]
    many = series.shape[1] > len(_SERIES)
    page = Canvas(WIDTH, 300)
    y_obs: Callable[[float], float] | None = None
    if many:
        _heat_map(page, series, 22, 188)
    else:
        y_obs = _curves(page, series, 22, 188)
    y_reward = _curves(page, rewards, 220, 266)
    return Scene(_draw_charts(page, series, rewards, y_obs, y_reward, flatten(action, num_steps)), 300, 20)


def _draw_charts(
    page: Canvas,
    series: np.ndarray,
    rewards: np.ndarray,
    y_obs: Callable[[float], float] | None,
    y_reward: Callable[[float], float],
    action: np.ndarray,
) -> Callable[[Canvas, int], None]:
    from PIL import Image

    blank = Image.new("RGB", page.image.size, PAPER)
    faint = Image.blend(page.image, blank, 0.7)  # what is still to come
    frame = page.image.crop((0, 0, _LEFT * OVERSAMPLE, page.image.height))

    def draw(canvas: Canvas, t: int) -> None:
        x = _x(t, len(rewards))
        canvas.paste(faint, 0, 0)
        canvas.paste(page.image.crop((0, 0, round(x * OVERSAMPLE), page.image.height)), 0, 0)
        canvas.paste(frame, 0, 0)
        many = f", {series.shape[1]} components, each to its own scale" if y_obs is None else ""
        canvas.text((_LEFT, 10), f"observation{many}", INK, 11)
        canvas.text((_LEFT, 206), "reward", INK, 11)
        canvas.line([(x, 20), (x, 190)], INK, 1)
        canvas.line([(x, 218), (x, 268)], INK, 1)
        if y_obs is not None:
            for row, value in enumerate(series[t]):
                canvas.circle((x, y_obs(value)), 3, _SERIES[row])
                canvas.text((_RIGHT + 12, 30 + row * 20), f"obs[{row}]  {number(value)}", _SERIES[row], 11)
        canvas.circle((x, y_reward(rewards[t, 0])), 3, BLUE)
        canvas.text((_RIGHT + 12, 243), number(rewards[t, 0]), BLUE, 11)
        canvas.text((_LEFT, 287), _action_text(action[t]), MUTED, 11)

    return draw
