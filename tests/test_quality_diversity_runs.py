"""Archives from the command line: progress, what runs are judged by, a kill in between, the best individual played."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_trees_equal, interrupted

import jaxrl
from jaxrl.execution import Options
from jaxrl.progress import _score

TINY: dict[str, Any] = {
    "total_steps": 4 * 8 * 10, "episode_steps": 10, "num_initial": 8, "num_ga": 4, "num_pg": 2, "num_injected": 2,
    "num_agent_updates": 3, "num_pg_steps": 2, "batch_size": 8, "buffer_size": 200, "hidden_sizes": (8,),
    "critic_hidden_sizes": (8,), "grid_shape": (40, 40),
}  # fmt: skip


def test_progress_shows_archives() -> None:
    rows = {
        "episode/return": np.ones((2, 3)),
        "episode/count": np.ones((2, 3)),
        "archive/coverage": np.array([[0.0, 0.1, 0.2], [0.1, 0.2, 0.3]]),
        "archive/qd_score": np.array([[0.0, 0.0, 1000.0], [0.0, 0.0, 3000.0]]),
        "archive/max_fitness": np.array([[0.0, 0.0, 5.0], [0.0, 0.0, 6.0]]),
    }
    assert _score(rows, ["a", "b"]) == "coverage 25.0 %, QD score 2,000, max fitness 5.5"


@pytest.mark.thorough
def test_a_killed_run_ends_as_if_nothing_had_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Archive, agent and buffer bit for bit; and its fittest individual can be played and drawn."""
    ask = {"seeds": 2, "settings": TINY, "options": Options(num_chunks=2), "progress": False}
    whole = jaxrl.run("dcrl_map_elites", "point_mass", out=tmp_path / "whole", **ask)
    with interrupted(monkeypatch):
        jaxrl.run("dcrl_map_elites", "point_mass", out=tmp_path / "cut", **ask)
    rest = jaxrl.resume(tmp_path / "cut", progress=False)
    assert_trees_equal(dict(rest.metrics), dict(whole.metrics))
    one, other = (jaxrl.load_run(tmp_path / name) for name in ("whole", "cut"))
    assert_trees_equal(other._parts[0].restore(0), one._parts[0].restore(0))
    assert whole.judged_by == "archive/qd_score"
    summary = whole.summary()
    assert summary["metric"] == "archive/qd_score"
    assert summary["env"] == "jaxrl/point_mass"
    assert summary["best"]["iqm"] == pytest.approx(whole.metrics["archive/qd_score"][0, :, -1].mean(), rel=1e-6)
    assert whole.steps[0] == (8 + 8) * 10
    played = one.evaluate(4, seed=1)
    best = whole.metrics["archive/max_fitness"][0, 1, -1]
    # Of another start, and in episodes of the environment's own length.
    assert (played.returns / played.lengths).max() == pytest.approx(best / TINY["episode_steps"], rel=0.1)
