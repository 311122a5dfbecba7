"""Pictures of classic control and of mazes, from their states; angles and proportions are those of Gymnasium's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxrl.rendering.canvas import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    RED,
    RULE,
    SLATE,
    WIDTH,
    Canvas,
    Point,
    Scene,
    find_attribute,
)


def _torque(canvas: Canvas, centre: Point, torque: float) -> None:
    """An arc of up to half a turn around a joint, counter-clockwise for positive torque in [-1, 1]."""
    if abs(torque) < 0.02:
        return
    angles = np.linspace(0.0, torque * 0.9 * math.pi, 24) + math.pi / 2
    arc = [(centre[0] + 20 * math.cos(a), centre[1] - 20 * math.sin(a)) for a in angles]
    canvas.line(arc, RED, 2.5)
    out, along = angles[-1], angles[-1] + math.copysign(math.pi / 2, torque)
    tip = (arc[-1][0] + 7 * math.cos(along), arc[-1][1] - 7 * math.sin(along))
    wings = [(arc[-1][0] + s * 4.5 * math.cos(out), arc[-1][1] - s * 4.5 * math.sin(out)) for s in (1, -1)]
    canvas.polygon([tip, *wings], RED)


def _cartpole(states: Any, action: np.ndarray, params: Any, env: Any) -> Scene:
    x, theta = np.asarray(states.x, float), np.asarray(states.theta, float)
    limit, length = float(getattr(params, "x_threshold", 2.4)), 2 * float(getattr(params, "length", 0.5))
    scale, ground = WIDTH / (2 * limit + 0.4), 148.0

    def draw(canvas: Canvas, t: int) -> None:
        canvas.line([(0, ground), (WIDTH, ground)], MUTED, 1.5)
        for edge in (-limit, limit):
            canvas.line([(WIDTH / 2 + edge * scale, ground), (WIDTH / 2 + edge * scale, ground + 9)], RED, 2)
        cart = WIDTH / 2 + x[t] * scale
        canvas.box(cart - 21, ground - 24, cart + 21, ground - 5, SLATE)
        for wheel in (-12, 12):
            canvas.circle((cart + wheel, ground - 5), 5, INK)
        push = 1 if action[t] == 1 else -1
        arrow = [(cart + push * 26, ground - 20), (cart + push * 26, ground - 8), (cart + push * 35, ground - 14)]
        canvas.polygon(arrow, RED)
        joint = (cart, ground - 24)
        tip = (cart + length * scale * math.sin(theta[t]), joint[1] - length * scale * math.cos(theta[t]))
        canvas.line([joint, tip], ORANGE, 8, round_ends=True)
        canvas.circle(joint, 3, PAPER)

    return Scene(draw, 180, 1 / float(getattr(params, "tau", 0.02)))


def _acrobot(states: Any, action: np.ndarray, params: Any, env: Any) -> Scene:
    angle1, angle2 = np.asarray(states.joint_angle1, float), np.asarray(states.joint_angle2, float)
    length1, length2 = (float(getattr(params, f"link_length_{i}", 1.0)) for i in (1, 2))
    scale, centre = 130 / (length1 + length2), (WIDTH / 2, 150.0)
    # The episode ends when the tip is more than one link above the hinge.
    goal = centre[1] - length1 * scale

    def draw(canvas: Canvas, t: int) -> None:
        for left in range(60, WIDTH - 60, 14):
            canvas.line([(left, goal), (left + 8, goal)], GREEN, 1.5)
        canvas.text((WIDTH - 56, goal), "goal", GREEN, 11)
        end = np.cumsum([angle1[t], angle2[t]])
        elbow = (
            centre[0] + length1 * scale * math.sin(end[0]),
            centre[1] + length1 * scale * math.cos(end[0]),
        )
        tip = (elbow[0] + length2 * scale * math.sin(end[1]), elbow[1] + length2 * scale * math.cos(end[1]))
        canvas.line([centre, elbow], BLUE, 11, round_ends=True)
        canvas.line([elbow, tip], ORANGE, 11, round_ends=True)
        for joint in (centre, elbow):
            canvas.circle(joint, 3.5, PAPER)
        _torque(canvas, elbow, float(action[t]) - 1.0)

    return Scene(draw, 300, 15)


def _pendulum(states: Any, action: np.ndarray, params: Any, env: Any) -> Scene:
    theta = np.asarray(states.theta, float)
    strongest = float(getattr(params, "max_torque", 2.0))
    torque = np.clip(action.reshape(len(action), -1)[:, 0] / strongest, -1, 1)
    centre, length = (WIDTH / 2, 150.0), 112.0

    def draw(canvas: Canvas, t: int) -> None:
        canvas.circle(centre, length + 14, RULE)
        canvas.circle(centre, length + 13, PAPER)
        canvas.line([(centre[0], centre[1] - length - 14), (centre[0], centre[1] - length - 5)], GREEN, 3)
        tip = (centre[0] - length * math.sin(theta[t]), centre[1] - length * math.cos(theta[t]))
        canvas.line([centre, tip], ORANGE, 16, round_ends=True)
        _torque(canvas, centre, float(torque[t]))
        canvas.circle(centre, 4, INK)

    return Scene(draw, 300, 1 / float(getattr(params, "dt", 0.05)))


def _mountain_car(states: Any, action: np.ndarray, params: Any, env: Any) -> Scene:
    position = np.asarray(states.position, float)
    low, high = float(getattr(params, "min_position", -1.2)), float(getattr(params, "max_position", 0.6))
    goal, scale, floor = float(getattr(params, "goal_position", 0.5)), WIDTH / (high - low), 262.0
    # Three actions: left, none, right; otherwise a force in [-1, 1].
    discrete = np.issubdtype(action.dtype, np.integer)
    push = action.reshape(len(action), -1)[:, 0].astype(float) - (1.0 if discrete else 0.0)

    def at(x: float) -> Point:
        return (x - low) * scale, floor - (0.45 * math.sin(3 * x) + 0.55) * scale

    hill = [at(x) for x in np.linspace(low, high, 160)]

    def draw(canvas: Canvas, t: int) -> None:
        canvas.polygon([*hill, (WIDTH, 290), (0, 290)], (235, 238, 241))
        canvas.line(hill, MUTED, 2)
        foot = at(goal)
        canvas.line([foot, (foot[0], foot[1] - 40)], INK, 1.5)
        canvas.polygon([(foot[0], foot[1] - 40), (foot[0] + 17, foot[1] - 34), (foot[0], foot[1] - 28)], GREEN)
        slope = math.atan(1.35 * math.cos(3 * position[t]))
        contact = at(position[t])

        def on_car(along: float, up: float) -> Point:
            c, s = math.cos(slope), math.sin(slope)
            return contact[0] + along * c - up * s, contact[1] - along * s - up * c

        canvas.polygon([on_car(-19, 6), on_car(19, 6), on_car(19, 14), on_car(10, 20), on_car(-19, 20)], BLUE)
        for wheel in (-11, 11):
            canvas.circle(on_car(wheel, 5), 5.5, INK)
        force = float(np.clip(push[t], -1, 1))
        if abs(force) > 0.02:
            tip = math.copysign(22 + 16 * abs(force), force)
            canvas.line([on_car(math.copysign(22, force), 12), on_car(tip, 12)], RED, 2.5)
            canvas.polygon([on_car(tip, 7), on_car(tip + math.copysign(7, force), 12), on_car(tip, 17)], RED)

    return Scene(draw, 290, 30)


def _maze(states: Any, action: np.ndarray, params: Any, env: Any) -> Scene | None:
    walls = find_attribute(env, "occupied_map")
    if walls is None:
        return None
    wall, position, goal = np.asarray(walls) > 0, np.asarray(states.pos), np.asarray(states.goal)
    cell = min(WIDTH // wall.shape[1], 300 // wall.shape[0])
    left, top = (WIDTH - cell * wall.shape[1]) / 2, (300 - cell * wall.shape[0]) / 2

    def draw(canvas: Canvas, t: int) -> None:
        for row, column in np.ndindex(*wall.shape):
            x, y = left + column * cell, top + row * cell
            canvas.box(x, y, x + cell, y + cell, SLATE if wall[row, column] else RULE)
            if not wall[row, column]:
                canvas.box(x + 0.5, y + 0.5, x + cell - 0.5, y + cell - 0.5, PAPER)
        y, x = goal[t] * cell + (top, left)
        canvas.box(x + 3, y + 3, x + cell - 3, y + cell - 3, GREEN)
        path = [(x, y) for y, x in (position[: t + 1] + 0.5) * cell + (top, left)]
        if len(path) > 1:
            canvas.line(path, BLUE, 2.5, round_ends=True)
        x, y = path[-1]
        canvas.circle((x, y), cell * 0.34, ORANGE)

    return Scene(draw, 300, 10)


# The fields of the state that a picture needs, and how to draw it.
_SCENES: dict[str, tuple[tuple[str, ...], Callable[..., Scene | None]]] = {
    "CartPole-v1": (("x", "theta"), _cartpole),
    "Acrobot-v1": (("joint_angle1", "joint_angle2"), _acrobot),
    "Pendulum-v1": (("theta",), _pendulum),
    "MountainCar-v0": (("position",), _mountain_car),
    "MountainCarContinuous-v0": (("position",), _mountain_car),
    "FourRooms-misc": (("pos", "goal"), _maze),
    "MetaMaze-misc": (("pos", "goal"), _maze),
}


def model_scene(env_name: str, env: Any, env_params: Any, states: Any, action: np.ndarray) -> Scene | None:
    """The picture made for the environment of this name; None if there is none, or `states` lacks what it shows."""
    fields, build = _SCENES.get(env_name, ((), None))
    if build is None or not all(hasattr(states, field) for field in fields):
        return None
    return build(states, action, env_params, env)
