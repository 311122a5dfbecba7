"""Replays: where things must be in the picture, how many frames there are, what a page may refer to."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image, ImageSequence

from jaxrl.adapters import make_env
from jaxrl.rendering import Trajectory, render
from jaxrl.rendering.boards import as_images
from jaxrl.rendering.bodies import rotate
from jaxrl.rendering.canvas import find_attribute
from jaxrl.rendering.replay import film

HEADER = 26
WHITE, ORANGE, BLUE, GREEN, SLATE = (255, 255, 255), (230, 120, 40), (37, 99, 175), (46, 139, 87), (73, 80, 94)


def frames(path: Path) -> list[Image.Image]:
    with Image.open(path) as image:
        return [frame.convert("RGB") for frame in ImageSequence.Iterator(image)]


def trajectory(states: Any = (), obs: Any = None, action: Any = None, length: int = 1) -> Trajectory:
    obs = np.zeros((length, 2), np.float32) if obs is None else obs
    action = np.ones(length, np.int32) if action is None else action
    return Trajectory(states, obs, action, np.ones(length, np.float32), length)


def picture(tmp_path: Path, name: str, record: Trajectory, env: Any = None) -> Any:
    """Pixels of the first frame's scene, by (x, y) in the scene's own coordinates."""
    first = frames(render(name, env, None, record, tmp_path / "replay.gif"))[0]
    return lambda x, y: first.getpixel((round(x), round(y) + HEADER))


CartPoleState = namedtuple("CartPoleState", "x theta")
AcrobotState = namedtuple("AcrobotState", "joint_angle1 joint_angle2")
PendulumState = namedtuple("PendulumState", "theta")
MountainCarState = namedtuple("MountainCarState", "position")
MazeState = namedtuple("MazeState", "pos goal")
CatchState = namedtuple("CatchState", "ball_x ball_y paddle_x paddle_y")
Poses = namedtuple("Poses", "pos rot")
Pipeline = namedtuple("Pipeline", "x")


@pytest.mark.parametrize(("x", "theta"), [(0.0, 0.3), (0.0, -0.3), (1.2, 0.1), (-2.0, 0.0)])
def test_cartpole_leans_to_the_right_when_theta_is_positive(tmp_path: Path, x: float, theta: float) -> None:
    pixel = picture(tmp_path, "CartPole-v1", trajectory(CartPoleState(np.array([x]), np.array([theta]))))
    metre = 400 / 5.2  # from -2.6 to 2.6; the pole is one metre long, its joint 124 pixels below the scene's top
    tip = (200 + metre * (x + math.sin(theta)), 124 - metre * math.cos(theta))
    assert pixel(*tip) == ORANGE
    assert pixel(200 + metre * x, 135) == SLATE
    if theta:
        assert pixel(200 + metre * (x - math.sin(theta)), tip[1]) == WHITE
    beyond = (200 + metre * (x + 1.15 * math.sin(theta)), 124 - 1.15 * metre * math.cos(theta))
    assert pixel(*beyond) == WHITE


@pytest.mark.parametrize(
    ("angles", "elbow", "tip"),
    [
        ((0.0, 0.0), (0, 1), (0, 2)),  # hangs down
        ((math.pi / 2, 0.0), (1, 0), (2, 0)),  # counter-clockwise is positive
        ((math.pi / 2, math.pi / 2), (1, 0), (1, -1)),  # the second angle counts from the first link
        ((math.pi, -math.pi / 2), (0, -1), (1, -1)),
    ],
)
def test_acrobot_angles(tmp_path: Path, angles: Any, elbow: Any, tip: Any) -> None:
    state = AcrobotState(np.array([angles[0]]), np.array([angles[1]]))
    pixel = picture(tmp_path, "Acrobot-v1", trajectory(state))
    link = 65
    middles = [(elbow[0] / 2, elbow[1] / 2), ((elbow[0] + tip[0]) / 2, (elbow[1] + tip[1]) / 2)]
    colours = [pixel(200 + x * link, 150 + y * link) for x, y in middles]
    assert colours == [BLUE, ORANGE]
    assert pixel(200 + tip[0] * link, 150 + tip[1] * link) == ORANGE


@pytest.mark.parametrize(("theta", "tip"), [(0.0, (0, -1)), (math.pi / 2, (-1, 0)), (math.pi, (0, 1))])
def test_pendulum_is_upright_at_zero(tmp_path: Path, theta: float, tip: tuple[int, int]) -> None:
    record = trajectory(PendulumState(np.array([theta])), action=np.zeros((1, 1), np.float32))
    pixel = picture(tmp_path, "Pendulum-v1", record)
    assert pixel(200 + 110 * tip[0], 150 + 110 * tip[1]) == ORANGE
    assert pixel(200 - 110 * tip[0], 150 - 110 * tip[1]) == WHITE


@pytest.mark.parametrize("name", ["MountainCar-v0", "MountainCarContinuous-v0"])
def test_mountain_car_is_on_its_hill(tmp_path: Path, name: str) -> None:
    action = np.zeros((1, 1), np.float32) if "Continuous" in name else np.ones(1, np.int32)
    record = trajectory(MountainCarState(np.array([-math.pi / 6])), action=action)  # the bottom of the valley
    pixel = picture(tmp_path, name, record)
    x, ground = (1.2 - math.pi / 6) * 400 / 1.8, 262 - 0.1 * 400 / 1.8
    assert pixel(x, ground - 12) == BLUE
    assert pixel(x, ground - 40) == WHITE


def test_maze_shows_walls_goal_and_agent(tmp_path: Path) -> None:
    walls = np.ones((5, 5), np.int32)
    walls[1:4, 1:4] = 0
    env = SimpleNamespace(unwrapped_env=SimpleNamespace(gymnax_env=SimpleNamespace(occupied_map=walls)))
    record = trajectory(MazeState(np.array([[1, 3]]), np.array([[3, 2]])))
    pixel = picture(tmp_path, "FourRooms-misc", record, env)
    centre = {(row, column): (50 + 60 * (column + 0.5), 60 * (row + 0.5)) for row in range(5) for column in range(5)}
    assert pixel(*centre[1, 3]) == ORANGE
    assert pixel(*centre[3, 2]) == GREEN
    assert pixel(*centre[0, 0]) == SLATE
    assert pixel(*centre[3, 1]) == WHITE


def test_maze_shows_the_way_so_far(tmp_path: Path) -> None:
    """From (1, 1) right to (1, 3) and down to (3, 3); in the second frame the last part is still to come."""
    env = SimpleNamespace(unwrapped_env=SimpleNamespace(gymnax_env=SimpleNamespace(occupied_map=np.zeros((5, 5)))))
    record = trajectory(MazeState(np.array([[1, 1], [1, 3], [3, 3]]), np.full((3, 2), 4)), length=3)
    shown = frames(render("FourRooms-misc", env, None, record, tmp_path / "replay.gif"))
    between = {(1, 2): [WHITE, BLUE, BLUE], (2, 3): [WHITE, WHITE, BLUE]}
    for (row, column), colours in between.items():
        at = (50 + 60 * column + 30, 60 * row + 30 + HEADER)
        assert [frame.getpixel(at) for frame in shown] == colours


class Counter:
    """Draws how many states there were, in fifties, as the first pixel's red, on a picture of 30 x 20."""

    def image(self, state: Any, params: Any) -> np.ndarray:
        raise AssertionError("the picture with the way is the one to be shown")

    def path_image(self, states: Any, params: Any) -> np.ndarray:
        image = np.full((20, 30, 3), 255, np.uint8)
        image[0, 0] = (50 * len(states), 0, 0)
        return image


def test_environments_that_draw_their_way_are_told_all_states_so_far() -> None:
    """And without caption and header the picture is all there is, as large as fits 400 x 300."""
    made = film("jaxrl/unknown", Counter(), None, trajectory(np.arange(4), length=4), caption=None)
    assert made.steps == [0, 1, 2, 3]
    assert made.milliseconds == 100
    assert {frame.size for frame in made.frames} == {(400, 267)}
    assert [frame.convert("RGB").getpixel((2, 2)) for frame in made.frames] == [(50 * n, 0, 0) for n in (1, 2, 3, 4)]


def test_bodies_of_tasks_over_brax_are_found() -> None:
    """A task holds its environment as `brax`, which holds Brax's own."""
    task = SimpleNamespace(unwrapped_env=SimpleNamespace(brax=SimpleNamespace(brax_env=SimpleNamespace(sys="system"))))
    assert find_attribute(task, "sys") == "system"
    assert find_attribute(task, "nothing") is None


def test_minatar_channels_have_their_colours_and_the_player_is_on_top(tmp_path: Path) -> None:
    obs = np.zeros((1, 10, 10, 4), np.float32)
    obs[0, 9, 4, 0] = obs[0, 9, 4, 1] = obs[0, 5, 5, 1] = obs[0, 1, :, 3] = 1
    pixel = picture(tmp_path, "Breakout-MinAtar", trajectory(obs=obs))
    assert pixel(50 + 30 * 4.5, 30 * 9.5) == (240, 242, 245)
    assert pixel(50 + 30 * 5.5, 30 * 5.5) == (255, 209, 72)
    assert pixel(50 + 30 * 0.5, 30 * 1.5) == (245, 148, 66)
    assert pixel(50 + 30 * 0.5, 30 * 5.5) == (24, 28, 36)


def test_a_thing_seen_once_keeps_its_colour(tmp_path: Path) -> None:
    obs = np.zeros((40, 10, 10, 6), np.float32)
    obs[17, 5, 5, 5] = 1  # the enemy's bullet, in one frame only
    image = frames(render("SpaceInvaders-MinAtar", None, None, trajectory(obs=obs, length=40), tmp_path / "r.gif"))[17]
    assert image.getpixel((50 + 30 * 5 + 15, HEADER + 30 * 5 + 15)) == (240, 84, 84)


def test_catch_tells_ball_from_paddle(tmp_path: Path) -> None:
    obs = np.zeros((1, 10, 5), np.float32)
    state = CatchState(*(np.array([value]) for value in (3, 2, 1, 9)))
    pixel = picture(tmp_path, "Catch-bsuite", trajectory(state, obs))
    assert pixel(125 + 30 * 3.5, 30 * 2.5) == (255, 209, 72)
    assert pixel(125 + 30 * 1.5, 30 * 9.5) == (240, 242, 245)


def test_photographs_keep_their_colours(tmp_path: Path) -> None:
    assert as_images(np.zeros((7, 3))) is None
    image = np.zeros((1, 60, 80, 3), np.uint8)
    image[..., 0] = np.arange(80) * 3
    image[..., 2] = 200
    pixel = picture(tmp_path, "jaxrl/camera", trajectory(obs=image))
    for column in (0, 40, 79):
        np.testing.assert_allclose(pixel(5 * column + 2, 150), (3 * column, 0, 200), atol=6)


def test_rotation_by_quaternion() -> None:
    quarter = np.array([math.cos(math.pi / 4), 0.0, math.sin(math.pi / 4), 0.0])  # about y: z turns to x
    np.testing.assert_allclose(rotate(np.array([0.0, 0.0, 1.0]), quarter), [1.0, 0.0, 0.0], atol=1e-12)


@pytest.mark.parametrize("lean", [0.3, -0.3])
def test_bodies_are_seen_from_the_side(tmp_path: Path, lean: float) -> None:
    mujoco = pytest.importorskip("mujoco")
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody><geom type="plane" size="1 1 1"/>
        <body name="cart"><joint type="slide"/><geom type="sphere" size=".1" rgba=".5 .5 .5 1"/>
        <body name="pole"><joint/><geom type="capsule" fromto="0 0 0 0 0 1" size=".05" rgba=".5 .5 .5 1"/>
        </body></body></worldbody></mujoco>"""
    )
    turn = np.array([math.cos(lean / 2), 0.0, math.sin(lean / 2), 0.0])  # about y: positive leans to +x
    poses = Poses(np.zeros((2, 2, 3)), np.tile([1.0, 0.0, 0.0, 0.0], (2, 2, 1)))
    poses.rot[1, 1] = turn
    env = SimpleNamespace(brax_env=SimpleNamespace(sys=SimpleNamespace(mj_model=model), dt=0.05))
    path = render("brax/pole", env, None, trajectory(Pipeline(poses), length=2), tmp_path / "body.gif")
    upright, leaning = frames(path)
    columns = [np.argwhere(np.all(np.asarray(image) == BLUE, axis=-1)).mean(axis=0)[1] for image in (upright, leaning)]
    assert (columns[1] - columns[0]) * lean > 2
    assert SLATE in {upright.getpixel((x, y)) for x in range(400) for y in range(100, 320)}


def test_one_frame_per_step_and_the_last_one_stays(tmp_path: Path) -> None:
    states = CartPoleState(np.zeros(10), np.linspace(0, 0.2, 10))
    path = render("CartPole-v1", None, None, trajectory(states, length=10), tmp_path / "replay.gif", caption="ppo")
    with Image.open(path) as image:
        shown = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
        assert image.size == (400, 26 + 180 + 24)
    assert shown == [20] * 9 + [1500]  # CartPole's own 50 steps per second
    again = render("CartPole-v1", None, None, trajectory(states, length=10), tmp_path / "again.gif", caption="ppo")
    assert again.read_bytes() == path.read_bytes()


def test_long_episodes_are_thinned_and_keep_their_end_and_speed(tmp_path: Path) -> None:
    record = trajectory(CartPoleState(np.zeros(11), np.linspace(-0.5, 0.5, 11)), length=10)
    path = render("CartPole-v1", None, None, record, tmp_path / "replay.gif", max_frames=4, fps=25)
    images = frames(path)
    assert len(images) == 4
    whole = frames(render("CartPole-v1", None, None, record, tmp_path / "whole.gif"))
    assert len(whole) == 10  # the eleventh step is not part of the episode
    difference = np.asarray(images[-1], float) - np.asarray(whole[-1], float)
    assert np.abs(difference).mean() < 0.1  # their palettes differ a little
    with Image.open(path) as image:
        assert image.info["duration"] == 120


def test_page_is_self_contained(tmp_path: Path) -> None:
    record = trajectory(CartPoleState(np.zeros(7), np.zeros(7)), length=7)
    path = render("CartPole-v1", None, None, record, tmp_path / "new" / "replay.html", caption="a <b> & c")
    page = path.read_text()
    assert page.count('"iVBORw0KGgo') == 7  # PNG
    for reference in ("http:", "https:", "src=", "href=", "@import", "url("):
        assert reference not in page, reference
    assert "a &lt;b&gt; &amp; c" in page
    assert "<b>" not in page


@pytest.mark.parametrize(
    "obs",
    [
        np.linspace(-1, 1, 12).reshape(6, 2),
        np.full((6, 3), np.nan),
        np.random.default_rng(0).normal(size=(6, 40)),
        np.arange(6),
        {"position": np.zeros((6, 2)), "goal": np.ones(6, bool)},
        np.zeros((6, 0)),
    ],
    ids=["few", "nan", "many", "scalar", "dict", "empty"],
)
def test_any_environment_has_charts(tmp_path: Path, obs: Any) -> None:
    for length in (6, 1):
        record = Trajectory((), obs, np.zeros((6, 9), np.float32), np.array([0, 1, -1, np.nan, 2, 2.5]), length)
        assert len(frames(render("jaxrl/unknown", None, None, record, tmp_path / "replay.gif"))) == length


def test_charts_have_a_moving_cursor(tmp_path: Path) -> None:
    images = frames(render("jaxrl/unknown", None, None, trajectory(length=5), tmp_path / "replay.gif"))
    where = [int(np.argmin(np.asarray(image.convert("L"))[HEADER + 60, 30:300])) for image in images]
    steps = np.diff(where)
    assert np.all(steps > 50)
    assert np.ptp(steps) <= 1


def test_states_without_what_a_picture_needs_fall_back_to_charts(tmp_path: Path) -> None:
    record = trajectory((), length=3)
    assert len(frames(render("CartPole-v1", None, None, record, tmp_path / "a.gif"))) == 3
    assert len(frames(render("FourRooms-misc", None, None, record, tmp_path / "b.gif"))) == 3


@pytest.mark.parametrize(
    ("name", "height"),
    [
        ("CartPole-v1", 180),
        ("Acrobot-v1", 300),
        ("MountainCar-v0", 290),
        ("Catch-bsuite", 300),
        ("FourRooms-misc", 300),
    ],
)
def test_pictures_know_the_states_of_gymnax(tmp_path: Path, name: str, height: int) -> None:
    env = make_env(name)
    states, obs = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(0), 2), env.default_params)
    record = Trajectory(states, obs, np.ones(2, np.int32), np.zeros(2), 2)
    image = frames(render(name, env, env.default_params, record, tmp_path / "replay.gif"))[0]
    assert image.size == (400, HEADER + height)
    coloured = {"Catch-bsuite": (255, 209, 72), "MountainCar-v0": BLUE}.get(name, ORANGE)
    assert (np.asarray(image) == coloured).all(axis=-1).sum() > 50


def test_brax_page_holds_the_viewer_and_our_own_frames(tmp_path: Path) -> None:
    env = make_env("brax/inverted_pendulum")
    poses = Poses(np.zeros((3, 2, 3)), np.tile([1.0, 0.0, 0.0, 0.0], (3, 2, 1)))
    page = render("brax/inverted_pendulum", env, None, trajectory(Pipeline(poses), length=3), tmp_path / "b.html")
    text = page.read_text()
    assert "brax-viewer" in text
    assert text.count('"iVBORw0KGgo') == 3
    assert text.count("</body>") == 1


def test_mistakes_are_named(tmp_path: Path) -> None:
    record = trajectory(length=2)
    with pytest.raises(ValueError, match=r"\.gif or an \.html file, got 'replay\.mp4'; rename it to replay\.gif"):
        render("CartPole-v1", None, None, record, tmp_path / "replay.mp4")
    with pytest.raises(ValueError, match="length = 0, expected 1 to 2"):
        render("CartPole-v1", None, None, record._replace(length=0), tmp_path / "replay.gif")
    with pytest.raises(ValueError, match="max_frames = 0"):
        render("CartPole-v1", None, None, record, tmp_path / "replay.gif", max_frames=0)
    assert not list(tmp_path.iterdir())


def test_importing_it_imports_nothing_that_draws() -> None:
    code = "import sys, jaxrl.rendering; print(*{'PIL', 'matplotlib', 'brax', 'gymnax', 'mujoco'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
