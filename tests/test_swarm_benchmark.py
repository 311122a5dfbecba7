"""The benchmark of swarms: what it measures, on a small swarm."""

from __future__ import annotations

import pytest

from experiments.benchmarks.mean_field import grid_error, speed, training


@pytest.mark.parametrize("task", ["vicsek", "kuramoto"])
def test_speed(task: str) -> None:
    found = speed(task, 2000, 2)
    assert set(found) == {"seconds", "peak_mb", "temporary_mb"}
    assert 0 < found["seconds"] < 60
    # Counts over 65,536 cells, of which several copies live at a time, and not 2,000 x 2,000 pairs.
    assert 0.7 < found["temporary_mb"] < 16


@pytest.mark.thorough
def test_grid_error() -> None:
    """As the specification's table has it, G = 128, 256 and 512: at most .0306, .0205 and .0146 of about .1."""
    found = grid_error(4096)
    assert 0.08 < found["rms_4096"] < 0.12
    for num_cells, most in ((128, 0.0306), (256, 0.0205), (512, 0.0146)):
        assert 0 < found[f"grid_rms_4096_g{num_cells}"] < most


@pytest.mark.thorough
def test_memory_of_training_does_not_grow_with_agents_times_steps() -> None:
    """56 further steps of 20,000 agents would be 13 MB, if what they did were kept: less than one swarm is."""
    short, long = (training(20_000, steps, run=False)["program_mb"] for steps in (8, 64))
    assert abs(long - short) < 20_000 * 3 * 4 / 1e6
    assert long > 20_000 * 3 * 4 / 1e6
