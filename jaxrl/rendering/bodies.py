"""Pictures of Brax bodies without OpenGL: every geometry as a thick line, seen from the side, from above or aslant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxrl.rendering.canvas import (
    BLUE,
    GREEN,
    MUTED,
    ORANGE,
    PURPLE,
    RULE,
    SLATE,
    TEAL,
    WIDTH,
    Canvas,
    Colour,
    Scene,
    find_attribute,
)

_HEIGHT = 300
_LIMBS: tuple[Colour, ...] = (BLUE, ORANGE, GREEN, PURPLE, TEAL)
_PLANE, _SPHERE, _CAPSULE, _CYLINDER = 0, 2, 3, 5  # mujoco.mjtGeom
_DEFAULT_COLOURS = ((0.4, 0.33, 0.26), (0.5, 0.5, 0.5))


class Segments(NamedTuple):
    """Every geometry as a line with a thickness: ends [T, G, 2, 3] in metres, radius [G], link [G] (−1: the world)."""

    ends: np.ndarray
    radius: np.ndarray
    link: np.ndarray
    colour: list[Colour]


class View(NamedTuple):
    """An orthographic camera: unit vectors to the right, upwards and towards the viewer, [3] each."""

    right: np.ndarray
    up: np.ndarray
    near: np.ndarray


def find_poses(states: Any) -> Any | None:
    """Poses of a trajectory's links (`pos` [T, L, 3], `rot` [T, L, 4]) from states that hold a Brax pipeline state."""
    for _ in range(8):
        poses = getattr(states, "x", None)
        if hasattr(poses, "pos") and hasattr(poses, "rot"):
            return poses
        inner = (getattr(states, link, None) for link in ("pipeline_state", "env_state", "state"))
        states = next((s for s in inner if s is not None), None)
    return None


def rotate(vector: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
    """Vectors [..., 3] turned by unit quaternions [..., 4], scalar first."""
    w, axis = quaternion[..., :1], quaternion[..., 1:]
    twist = 2.0 * np.cross(axis, vector)
    return vector + w * twist + np.cross(axis, twist)


def _segments(model: Any, position: np.ndarray, rotation: np.ndarray) -> Segments:
    kept = [g for g in range(model.ngeom) if model.geom_type[g] != _PLANE and model.geom_rgba[g][3] > 0]
    ends, radius, colour = [], [], []
    link = np.asarray(model.geom_bodyid, int)[kept] - 1
    for g, owner in zip(kept, link, strict=True):
        size, kind = np.asarray(model.geom_size[g], float), model.geom_type[g]
        if kind in (_CAPSULE, _CYLINDER):
            half, thick = np.array([0.0, 0.0, size[1]]), size[0]
        elif kind == _SPHERE:
            half, thick = np.zeros(3), size[0]
        else:  # a box or the like: its longest axis
            longest = int(np.argmax(size))
            thick = float(np.delete(size, longest).mean())
            half = np.eye(3)[longest] * max(size[longest] - thick, 0.0)
        local = np.asarray(model.geom_pos[g], float) + rotate(
            np.stack([-half, half]), np.asarray(model.geom_quat[g], float)
        )
        if owner >= 0:
            ends.append(position[:, owner, None] + rotate(local, rotation[:, owner, None]))
        else:
            ends.append(np.broadcast_to(local, (len(position), 2, 3)))
        radius.append(thick)
        colour.append(_colour(model, g, int(owner)))
    return Segments(np.stack(ends, axis=1), np.array(radius), link, colour)


def _colour(model: Any, geom: int, link: int) -> Colour:
    """The model's own, or where it has only defaults: the trunk grey, limbs in turn, whatever is loose green."""
    rgb = np.asarray(model.geom_rgba[geom][:3], float)
    if link < 0:
        return RULE
    if not any(np.allclose(rgb, default, atol=0.02) for default in _DEFAULT_COLOURS) and rgb.min() < 0.95:
        red, green, blue = np.round(rgb * 255).astype(int)
        return int(red), int(green), int(blue)
    trail = [link + 1]
    while trail[-1] > 0:
        trail.append(int(model.body_parentid[trail[-1]]))
    root = trail[-2]
    if root != 1:
        return GREEN
    limbs = [body for body in range(1, model.nbody) if model.body_parentid[body] == root]
    return _LIMBS[limbs.index(trail[-3]) % len(_LIMBS)] if len(trail) > 2 else SLATE


def _choose_view(moving: np.ndarray) -> View:
    """From the side if nothing moves sideways, from above if nothing moves up or down, else aslant."""
    x, y, z = np.eye(3)
    extent = np.ptp(moving.reshape(-1, 3), axis=0).max() + 1e-9
    changes = np.ptp(moving, axis=0).max(axis=(0, 1)) / extent
    spread = np.ptp(moving.reshape(-1, 3), axis=0) / extent
    if spread[1] < 0.02 and spread[2] > 0.02:
        return View(x, z, -y)
    if changes[2] < 0.01:
        return View(x, y, z)
    azimuth, elevation = np.radians(-60.0), np.radians(22.0)
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    near = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    return View(right, np.cross(near, right), near)


def _focus(moving: np.ndarray, view: View) -> np.ndarray:
    """What the camera looks at, [T, 3]: fixed, or with the body if it travels further than it is large."""
    body = moving.mean(axis=(1, 2))
    flat = moving @ np.stack([view.right, view.up]).T
    reach = np.ptp(flat.reshape(-1, 2), axis=0).max()
    size = np.ptp(flat, axis=(1, 2)).max()
    if reach < 2.5 * size:
        lowest, highest = moving.min(axis=(0, 1, 2)), moving.max(axis=(0, 1, 2))
        return np.broadcast_to((lowest + highest) / 2, body.shape)
    width = min(15, len(body))
    padded = np.pad(body, ((width // 2, width - 1 - width // 2), (0, 0)), mode="reflect", reflect_type="odd")
    smooth = np.stack([np.convolve(padded[:, axis], np.ones(width) / width, "valid") for axis in range(3)], axis=1)
    if view.up[2] > 0.5:
        smooth[:, 2] = np.median(body[:, 2])  # the ground stays where it is
    return smooth


class Body(NamedTuple):
    """A body that moves, and from where it is best seen.

    Attributes:
      segments: of all geometries, moving or not.
      view: where the camera stands.
      focus: [T, 3], what it looks at.
      level: height of the ground; `None` where there is none.
      fps: steps per second.
    """

    segments: Segments
    view: View
    focus: np.ndarray
    level: float | None
    fps: float


def find_body(env: Any, states: Any) -> Body | None:
    """A Brax body from consecutive states [T, …]; None if they hold no poses or the environment no model."""
    poses, system = find_poses(states), find_attribute(env, "sys")
    model = getattr(system, "mj_model", None)
    if poses is None or model is None:
        return None
    position, rotation = (np.nan_to_num(np.asarray(leaf, float)) for leaf in (poses.pos, poses.rot))
    if position.shape[1] != model.nbody - 1:
        return None
    segments = _segments(model, position, rotation)
    moving = segments.ends[:, segments.link >= 0]
    view = _choose_view(moving)
    ground = [g for g in range(model.ngeom) if model.geom_type[g] == _PLANE]
    level = float(model.geom_pos[ground[0]][2]) if ground else None
    return Body(segments, view, _focus(moving, view), level, 1.0 / float(find_attribute(env, "dt") or 0.05))


def body_scene(env: Any, states: Any) -> Scene | None:
    """A Brax body on its ground; None if the states hold no poses or the environment no model."""
    body = find_body(env, states)
    if body is None:
        return None
    segments, view, focus, level, fps = body
    axes = np.stack([view.right, view.up, view.near], axis=1)
    flat = (segments.ends - focus[:, None, None]) @ axes
    own = flat[:, segments.link >= 0]
    reach = np.abs(own[..., :2]).max(axis=(0, 1, 2)) + segments.radius.max()
    scale = float(min(0.46 * WIDTH / max(reach[0], 1e-3), 0.44 * _HEIGHT / max(reach[1], 1e-3)))
    return Scene(_draw_bodies(segments, flat, focus @ axes, axes, scale, level), _HEIGHT, fps)


def _draw_bodies(
    segments: Segments, flat: np.ndarray, focus: np.ndarray, axes: np.ndarray, scale: float, level: float | None
) -> Callable[[Canvas, int], None]:
    def at(point: np.ndarray) -> tuple[float, float]:
        return WIDTH / 2 + float(point[0]) * scale, _HEIGHT / 2 - float(point[1]) * scale

    def draw(canvas: Canvas, t: int) -> None:
        if level is not None:
            _draw_ground(canvas, axes, focus[t], scale, level)
        depth = flat[t, :, :, 2].mean(axis=1) - 1e6 * (segments.link < 0)
        for g in np.argsort(depth, kind="stable"):
            first, last = at(flat[t, g, 0]), at(flat[t, g, 1])
            width = max(2 * segments.radius[g] * scale, 3.0)
            red, green, blue = segments.colour[g]
            edge = (red * 2 // 3, green * 2 // 3, blue * 2 // 3)
            canvas.line([first, last], edge, width, round_ends=True)
            canvas.line([first, last], segments.colour[g], max(width - 2.4, 1.5), round_ends=True)

    return draw


def _draw_ground(canvas: Canvas, axes: np.ndarray, focus: np.ndarray, scale: float, level: float) -> None:
    """A grid of whole metres on the ground, or seen from the side a line with a mark at every metre."""
    reach = 0.75 * WIDTH / scale
    spacing = 10.0 ** np.ceil(np.log10(reach / 6))
    centre = axes @ focus  # back from the view's coordinates to the world's
    steps = np.arange(np.ceil(-2.5 * reach / spacing), np.floor(2.5 * reach / spacing) + 1) * spacing
    base = np.round(centre[:2] / spacing) * spacing

    def at(x: float, y: float) -> tuple[float, float]:
        point = np.array([x, y, level]) @ axes - focus
        return WIDTH / 2 + float(point[0]) * scale, _HEIGHT / 2 - float(point[1]) * scale

    edge_on = abs(axes[2, 2]) < 1e-6
    if edge_on:
        height = at(0.0, 0.0)[1]
        canvas.line([(0, height), (WIDTH, height)], MUTED, 1.5)
    for step in steps:
        x, y = base + step
        if edge_on:
            mark = at(x, 0.0)
            canvas.line([mark, (mark[0], mark[1] + 7)], MUTED, 1.5)
            if 12 < mark[0] < WIDTH - 12:
                canvas.text((mark[0], mark[1] + 15), f"{x:g}", MUTED, 10, "mm")
        else:
            canvas.line([at(x, base[1] + steps[0]), at(x, base[1] + steps[-1])], RULE, 1)
            canvas.line([at(base[0] + steps[0], y), at(base[0] + steps[-1], y)], RULE, 1)
