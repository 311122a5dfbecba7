"""Fitness over generations: averages of stretches worked out by hand, and what is drawn of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxrl.cli import main
from jaxrl.fitness_plots import fitness_bands, has_fitness, plot_fitness
from jaxrl.results import Results

NAN = np.nan


def evolved(elite: bool = True, cells: int = 1, **changes: Any) -> Results:
    """4 seeds and 6 generations of each cell: seed s of cell c has the best fitness 100 c + 10 s + generation."""
    best = 100.0 * np.arange(cells)[:, None, None] + 10.0 * np.arange(4)[:, None] + np.arange(6.0)
    metrics = {"fitness/best": best, "fitness/median": best - 5.0, "episode/return": best - 1.0}
    if elite:
        metrics["elite/fitness"] = best - 2.0
    hparams = {"sigma": np.arange(1.0, cells + 1)}
    config = {"algorithm": "deep_ga", "env": "CartPole-v1"}
    return Results(hparams, np.arange(4), 100 * np.arange(1, 7), {**metrics, **changes}, config)


def test_stretches_by_hand() -> None:
    """Pairs of generations; of four seeds the interquartile mean is that of the middle two, 10 and 20 more."""
    bands = fitness_bands(evolved(), max_points=3)
    assert list(bands) == ["best", "elite, mean", "median"]
    np.testing.assert_array_equal(bands["best"].generation, [2, 4, 6])
    np.testing.assert_allclose(bands["best"].estimate.point, [15.5, 17.5, 19.5])
    np.testing.assert_allclose(bands["elite, mean"].estimate.point, [13.5, 15.5, 17.5])
    np.testing.assert_allclose(bands["median"].estimate.point, [10.5, 12.5, 14.5])
    assert (bands["best"].estimate.low < bands["best"].estimate.point).all()


def test_cells_of_a_grid() -> None:
    """The best one, or the one that was asked for; generations that only others have are left out."""
    results = evolved(cells=2)
    np.testing.assert_allclose(fitness_bands(results)["best"].estimate.point[0], 115.0)
    np.testing.assert_allclose(fitness_bands(results, cell=0)["best"].estimate.point[0], 15.0)
    metrics = {name: values.copy() for name, values in results.metrics.items()}
    for values in metrics.values():
        values[0, :, ::2] = NAN
    fewer = Results(results.hparams, results.seeds, results.steps, metrics, results.config)
    np.testing.assert_allclose(fitness_bands(fewer, cell=0)["best"].estimate.point, [16.0, 18.0, 20.0])
    np.testing.assert_array_equal(fitness_bands(fewer, cell=0)["best"].generation, [1, 2, 3])


def test_the_figure(tmp_path: Path) -> None:
    figure = plot_fitness(evolved(), tmp_path / "fitness.png")
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines] == ["best", "elite, mean", "median"]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), 15.0 + np.arange(6))
    assert "deep_ga on CartPole-v1" in axes.get_title(loc="left")
    assert (tmp_path / "fitness.png").read_bytes().startswith(b"\x89PNG")
    without = plot_fitness(evolved(elite=False)).axes[0]
    assert [line.get_label() for line in without.lines] == ["best", "median"]


def test_what_does_not_evolve_is_refused() -> None:
    results = Results({}, np.arange(2), np.arange(3), {"episode/return": np.zeros((1, 2, 3))})
    assert not has_fitness(results)
    with pytest.raises(ValueError, match="fitness is drawn of what evolves"):
        plot_fitness(results)


def test_the_command_draws_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evolved().save(tmp_path / "run")
    main(["plot", str(tmp_path / "run")])
    figures = tmp_path / "run" / "figures"
    assert capsys.readouterr().out.split() == [str(figures / "fitness.png"), str(figures / "learning_curves.png")]
    main(["plot", str(tmp_path / "run"), "--out", str(tmp_path / "a.png")])
    assert (tmp_path / "a_fitness.png").exists()
