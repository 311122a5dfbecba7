"""Maps of archives, pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.archive_plots import cell_map, fitness_map, plot_archive
from jaxrl.qd.archive import Archive
from jaxrl.qd.tessellation import grid

INF = np.inf


def test_a_map_shows_the_cell_of_every_pixel(tmp_path: Path) -> None:
    """Cells 0, 2 and 5 of a grid of 3 x 2: the first axis to the right, the second up."""
    cells = grid([-3, 0], [3, 1], [3, 2])
    fitness = jnp.array([1.0, -INF, 2.0, -INF, -INF, 3.0])
    archive = Archive(jnp.zeros(6), fitness, jnp.asarray(cells.centroids), jnp.asarray(cells.centroids))
    shown = fitness_map(archive, cells.low, cells.high, pixels=6)
    nan = np.nan
    lower, upper = [1, 1, 2, 2, nan, nan], [nan, nan, nan, nan, 3, 3]
    np.testing.assert_array_equal(shown, [lower] * 3 + [upper] * 3)
    np.testing.assert_array_equal(fitness_map(archive, cells.low, cells.high, (1, 0), pixels=6), shown.T)
    places = [[0, 0, 2, 2, -1, -1]] * 3 + [[-1, -1, -1, -1, 5, 5]] * 3
    np.testing.assert_array_equal(cell_map(archive, cells.low, cells.high, pixels=6), places)
    figure = plot_archive(archive, cells.low, cells.high, tmp_path / "map.png", ("x", "y"), "three of six")
    assert (tmp_path / "map.png").stat().st_size > 5000
    assert "3 of 6 cells, best 3" in figure.get_suptitle()
    assert [axes.get_xlabel() for axes in figure.axes][0] == "x"


def test_more_dimensions_are_projected_and_the_best_is_seen() -> None:
    """Four individuals in four dimensions: squares of a half, and of two in one square the better."""
    descriptors = jnp.array([[0.1, 0.1, 0.9, 0.9], [0.2, 0.3, 0.9, 0.1], [0.9, 0.1, 0.1, 0.1], [0.5, 1.0, 0.0, 0.0]])
    archive = Archive(jnp.zeros(4), jnp.array([1.0, 5.0, -2.0, -INF]), descriptors, jnp.zeros((4, 4)))
    shown = fitness_map(archive, np.zeros(4), np.ones(4), (0, 1), pixels=2)
    np.testing.assert_array_equal(shown, [[5.0, -2.0], [np.nan, np.nan]])
    np.testing.assert_array_equal(cell_map(archive, np.zeros(4), np.ones(4), pixels=2), [[1, 2], [-1, -1]])
    shown = fitness_map(archive, np.zeros(4), np.ones(4), (2, 3), pixels=2)
    np.testing.assert_array_equal(shown, [[-2.0, 5.0], [np.nan, 1.0]])
    assert len(plot_archive(archive, np.zeros(4), np.ones(4)).axes) == 3  # two panels and the colours


def test_bad_input_is_named() -> None:
    archive = Archive(jnp.zeros(1), jnp.zeros(1), jnp.zeros((1, 2)))
    with pytest.raises(ValueError, match="two different ones"):
        fitness_map(archive, [0, 0], [1, 1], (0, 2))
    with pytest.raises(ValueError, match="have no map"):
        plot_archive(archive, [0], [1])
