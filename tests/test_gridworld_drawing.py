"""Pictures of grid-worlds: where walls, objects and the agent are; replays of them."""

import jax
import numpy as np
import pytest
from PIL import Image

from jaxrl.rendering import Trajectory, render
from jaxrl_envs.gridworld import GridState, GridWorld, level_from_drawing, level_image, trajectory_image

WALL, AGENT, GOOD, BAD, FLOOR = (73, 80, 94), (37, 99, 175), (46, 139, 87), (205, 60, 60), (246, 247, 249)
PATH = (196, 216, 240)
LEVEL = level_from_drawing("S..# .... 0.1. ....", [(1.0, 0.0, 0.1), (-1.0, 0.5, 0.0)], limit=9)
CELL = 280 / 4


def pixel(image, row, column, down=0.0, right=0.0):
    """The colour in a cell, off its middle by parts of a cell; the board begins at 10, 10."""
    y, x = 10 + (row + 0.5 + down) * CELL, 10 + (column + 0.5 + right) * CELL
    return tuple(image[round(y), round(x)].tolist())


def test_a_level_shows_what_is_where():
    image = level_image(LEVEL)
    assert (image.shape, image.dtype) == ((300, 400, 3), np.uint8)
    assert pixel(image, 0, 3) == WALL
    assert pixel(image, 0, 0) == AGENT
    assert pixel(image, 2, 0, down=0.3) == GOOD
    assert pixel(image, 2, 2, down=0.3) == BAD
    assert pixel(image, 2, 0, 0.33, 0.33) == FLOOR  # a disc: its corners are free
    assert pixel(image, 3, 3) == FLOOR
    legend = image[:, 310:].reshape(-1, 3)
    for colour in (GOOD, BAD):
        assert (legend == colour).all(-1).sum() > 50
    assert level_image(LEVEL, height=600).shape == (600, 800, 3)


def test_a_state_shows_the_agent_and_what_is_gone():
    state = GridState(np.int32(3), np.int32(1), np.array([False, True]), np.int32(4), ())
    image = level_image(LEVEL, state)
    assert pixel(image, 3, 1) == AGENT
    assert pixel(image, 0, 0) == FLOOR
    assert pixel(image, 2, 0, down=0.3) == FLOOR
    assert pixel(image, 2, 2, down=0.3) == BAD
    moved = level_image(LEVEL, state.replace(cell=np.array([4, 15])))
    assert pixel(moved, 3, 3, down=0.3) == BAD
    assert pixel(moved, 2, 2) == FLOOR


def test_a_trajectory_is_a_line_that_darkens():
    image = trajectory_image(LEVEL, [0, 1, 2, 6, 7])
    assert pixel(image, 1, 3, 0.15, 0.15) == AGENT  # the last cell, lower right of its middle
    early, late = pixel(image, 0, 0, -0.13, 0.4), pixel(image, 1, 2, 0.1, 0.5)
    assert early != FLOOR
    assert sum(late) < sum(early)  # darker
    assert pixel(image, 3, 3) == FLOOR
    with pytest.raises(ValueError, match="at least one cell"):
        trajectory_image(LEVEL, [])


def test_replays_show_each_state(tmp_path):
    env = GridWorld(4, 2, 2, level=LEVEL)
    rows = np.array([0, 1, 2], np.int32)
    states = GridState(rows, np.full(3, 3, np.int32), np.ones((3, 2), bool), rows, ())
    record = Trajectory(states, np.zeros((3, 2), np.float32), np.ones(3, np.int32), np.zeros(3, np.float32), 3)
    path = render("jaxrl/grid", env, jax.tree.map(np.asarray, LEVEL), record, tmp_path / "replay.gif")
    with Image.open(path) as replay:
        assert (replay.n_frames, replay.size) == (3, (400, 326))
        for t in range(1, 3):
            replay.seek(t)
            scene = np.asarray(replay.convert("RGB"))[26:]
            assert pixel(scene, t, 3) == AGENT
            before = pixel(scene, t - 1, 3)  # the start is a wall, which the way that it took crosses, too
            assert before == PATH
