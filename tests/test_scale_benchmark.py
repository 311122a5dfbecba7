"""The benchmark of scale: the peer in a single file does the work that it says, and learns; and work is counted."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from helpers import assert_trees_close

from experiments.benchmarks import ours, scale, single_file


@pytest.mark.parametrize("shape", [(4, 64), (64, 64), (64, 2)])
def test_the_single_file_begins_with_orthogonal_layers(shape: tuple[int, int]) -> None:
    layer = np.asarray(single_file.orthogonal(1.5)(jax.random.key(0), shape), np.float64)
    assert layer.shape == shape
    squares = layer @ layer.T if shape[0] <= shape[1] else layer.T @ layer
    np.testing.assert_allclose(squares, 2.25 * np.eye(min(shape)), atol=1e-5)


@pytest.mark.thorough
def test_the_single_file_counts_its_work() -> None:
    """Two updates of 64 steps, 2 epochs of 4 minibatches each; under vmap every seed is itself."""
    settings = {"total_steps": 128, "num_steps": 16, "num_epochs": 2}
    train = single_file.make_train(settings)
    keys = jax.random.split(jax.random.key(0), 2)
    found = jax.jit(jax.vmap(train))(keys)
    np.testing.assert_array_equal(found["env_steps"], 128)
    np.testing.assert_array_equal(found["train_state"].step, 16)
    assert found["returns"].shape == (2, 2)
    alone = jax.jit(train)(keys[1])
    assert_trees_close(
        jax.tree.map(lambda leaf: leaf[1], found["train_state"].params), alone["train_state"].params, atol=1e-5
    )
    start = single_file.make_train({**settings, "total_steps": 64, "learning_rate": 0.0})
    first = jax.jit(start)(keys[1])["train_state"].params
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), first, alone["train_state"].params)
    assert 1e-5 < max(jax.tree.leaves(moved)) < 16 * 2.5e-4 * 1.5  # Adam moves a parameter by the learning rate a step


@pytest.mark.thorough
def test_the_single_file_learns_as_ours_does() -> None:
    """CartPole in 102,400 steps with a learning rate of 3e-3."""
    config = {"total_steps": 102_400, "learning_rate": 3e-3}
    found = jax.jit(jax.vmap(single_file.make_train(config)))(jax.random.split(jax.random.key(0), 3))
    assert np.nanmean(np.asarray(found["returns"])[:, -20:]) > 400.0


@pytest.mark.thorough
def test_both_sides_do_the_same_work() -> None:
    work: dict[str, Any] = {"seeds": 2, "total_steps": 1024, "chunks": 1}
    settings = {**scale.SETTINGS, "clip_value": True}
    rows = {
        "ours": [ours.main(algorithm="ppo", env="CartPole-v1", settings=settings, **work)],
        "single_file": [single_file.main(settings=scale.SETTINGS, **work)],
    }
    scale.check_work(1024, rows)
    for row in (rows["ours"][0], rows["single_file"][0]):
        assert row["steps_per_second"] > 0
    with pytest.raises(RuntimeError, match="ours did"):
        scale.check_work(2048, rows)


def test_figures_are_medians_and_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three processes of each side in turns; and what is left of a comparison that a machine cannot hold."""
    asked: list[tuple[str, int]] = []

    def pretend(python: str, script: list[str], seeds: int, total_steps: int, **given: Any) -> dict[str, Any]:
        mine = script == scale.OURS
        asked.append(("ours" if mine else "single", seeds))
        if seeds == 4096 and not mine:
            raise RuntimeError("out of memory")
        base = {"steps_per_second": 300.0 + len(asked), "compile_seconds": 2.0, "peak_megabytes": 100.0}
        return {n: v if mine else 2 * v for n, v in base.items()} | {
            "env_steps": total_steps, "updates": 16 * total_steps // 512,
        }  # fmt: skip

    monkeypatch.setattr(scale, "measure", pretend)
    figures = scale.beside_single_file(scale.Config(seeds=(1, 4096)))
    assert [side for side, seeds in asked if seeds == 1] == ["ours", "single"] * 3
    assert figures["steps_per_second_single_file_ours_1"] == 303.0
    assert figures["speed_ratio_single_file_1"] == pytest.approx(303.0 / 608.0)
    assert figures["compile_ratio_single_file_1"] == figures["memory_ratio_single_file_1"] == 0.5
    assert figures["single_file_failed_at_seeds"] == 4096
    assert not [name for name in figures if name.endswith("_4096")]
    with pytest.raises(SystemExit, match="parts: starts, many, single_file"):
        scale.main(scale.Config(parts=("ends",)))
