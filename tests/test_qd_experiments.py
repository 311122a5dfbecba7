"""The bookkeeping of the quality-diversity experiment and of its benchmark: budgets, tests and figures by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import qd_figures
from experiments.benchmarks import qd
from experiments.dcg_map_elites import LABELS, SCALES, Config, asked, compared, gate, main, operators
from jaxrl.files import read_json
from jaxrl.presets import find_preset
from jaxrl.qd.archive import elites
from jaxrl.qd.tessellation import grid


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("map_elites", {"num_ga": 256}),
        ("pga_map_elites", {"num_ga": 128, "num_pg": 127, "num_injected": 1}),
        ("dcg_map_elites", {"num_ga": 128, "num_pg": 128, "num_probes": 64}),
        ("dcrl_map_elites", {"num_ga": 128, "num_pg": 64, "num_injected": 64}),
    ],
)
def test_operators_are_the_published_ones(preset: str, expected: dict[str, int]) -> None:
    assert operators(preset, 256) == expected
    default = find_preset(preset).config
    assert {name: getattr(default, name) for name in expected} == expected


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("preset", LABELS)
def test_budgets_count_every_episode(scale: str, preset: str) -> None:
    for env, size in SCALES[scale].items():
        settings = asked(preset, env, size).all_settings
        config = dataclasses.replace(find_preset(preset).config, **settings)
        spent = config.num_initial + config.num_updates * config.num_evaluations
        assert size.evaluations - config.num_evaluations < spent <= size.evaluations
        if env == "jaxrl/point_mass" and scale == "cpu":
            assert spent == 1984
            assert (config.episode_steps, config.grid_shape, config.hidden_sizes) == (50, (16, 16), (64, 64))
            if preset != "map_elites":  # nothing is forgotten
                assert config.buffer_size >= (spent + 64) * 50


def test_the_paper_scale_is_the_published_one() -> None:
    assert len(SCALES["paper"]) == 7
    for env, scale in SCALES["paper"].items():
        assert (scale.evaluations, scale.offspring, scale.seeds, scale.again, scale.settings) == (
            10**6,
            256,
            20,
            512,
            {},
        )
        config = dataclasses.replace(
            find_preset("dcrl_map_elites").config, **asked("dcrl_map_elites", env, scale).all_settings
        )
        assert config.episode_steps == (250 if env in ("brax/ant_omni", "brax/anttrap_omni") else 1000)
        assert (config.num_agent_updates, config.num_pg_steps, config.batch_size) == (3000, 150, 100)
        assert (config.num_cells, config.buffer_size, config.hidden_sizes) == (1024, 10**6, (128, 128))


def test_ranks_are_compared_and_corrected_by_hand() -> None:
    """Of 4 and 4 values that do not overlap the exact p is 2 / 70; Holm multiplies the least of six by 6."""
    low, high, higher = np.arange(4.0), np.arange(4.0) + 10, np.arange(4.0) + 20
    same = np.array([0.5, 1.5, 2.5, 3.5])
    names = list(LABELS)
    found = compared(dict(zip(names, (low, same, high, higher), strict=True)))
    assert len(found) == 6
    apart = 2 / 70
    assert found["ME / DCRL-ME"]["p"] == pytest.approx(apart)
    assert found["ME / DCRL-ME"]["p_holm"] == pytest.approx(6 * apart)
    assert found["ME / PGA-ME"]["p"] > 0.5
    assert found["ME / PGA-ME"]["p_holm"] == found["ME / PGA-ME"]["p"]  # the largest is left as it is


def test_the_gate_asks_for_intervals_that_do_not_meet() -> None:
    def row(low: float, high: float) -> dict[str, Any]:
        return {name: {"interval_95": [low, high]} for name in ("coverage", "qd_score")}

    rows = {"map_elites": row(0, 1), "pga_map_elites": row(2, 3), "dcrl_map_elites": row(4, 5)}
    assert gate(rows) == {"coverage": True, "qd_score": True}
    rows["pga_map_elites"]["qd_score"]["interval_95"] = [2, 4]
    assert gate(rows) == {"coverage": True, "qd_score": False}


def test_unknown_tasks_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tasks = \['moon'\]: scale smoke has jaxrl/point_mass"):
        main(Config(scale="smoke", tasks=("moon",), out=tmp_path, runs=tmp_path))


def test_unknown_algorithms_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"algorithms = \['cma'\]: expected map_elites, pga_map_elites, dcg"):
        main(Config(scale="smoke", algorithms=("cma",), out=tmp_path, runs=tmp_path))


def test_a_tenth_of_a_scale_keeps_its_checkpoints_as_far_apart() -> None:
    whole = SCALES["gpu"]["brax/ant_omni"]
    assert Config().of(whole) == whole
    tenth = Config(evaluations=10_000, again=0).of(whole)
    assert (tenth.evaluations, tenth.again, tenth.chunks) == (10_000, 0, 2)
    assert tenth.seeds == whole.seeds


@pytest.mark.thorough
def test_some_algorithms_and_fewer_episodes_have_a_file_of_their_own(tmp_path: Path) -> None:
    """Archives can be drawn if there is a checkpoint; without any there are figures and no picture."""
    config = Config(
        scale="smoke", algorithms=("map_elites",), evaluations=48, again=0, seeds=2, out=tmp_path, runs=tmp_path
    )
    main(config)
    row = read_json(tmp_path / "smoke_point_mass_48.json")
    assert (row["episodes"], row["episodes_of_the_scale"], row["gate"]) == (48, 96, {})
    assert list(row["algorithms"]) == ["map_elites"]
    assert row["algorithms"]["map_elites"]["provenance"]["device"]["platform"] == "cpu"
    picture = tmp_path / "smoke_point_mass_48_archives.png"
    picture.unlink()
    for checkpoint in tmp_path.rglob("checkpoint_*.npz"):
        checkpoint.unlink()
    main(config)
    assert not picture.exists()


def test_figures_are_drawn(tmp_path: Path) -> None:
    curve = {"evaluations": np.arange(5), **{n: np.random.default_rng(0).random((3, 5)) for n in qd_figures.PANELS}}
    qd_figures.draw_curves({"ME": curve, "DCRL-ME": curve}, tmp_path / "curves.png", "title")
    container = elites(grid([0.0, 0.0], [1.0, 1.0], [3, 3]))
    rows = jnp.zeros((1, 2))
    archive, _ = container.insert(container.init(rows, 2), rows, jnp.ones(1), jnp.full((1, 2), 0.5))
    qd_figures.draw_archives({"ME": archive, "DCRL-ME": archive}, [0, 0], [1, 1], tmp_path / "maps.png", "title")
    assert {path.name for path in tmp_path.iterdir()} == {"curves.png", "maps.png"}


def test_the_benchmark_asks_for_what_exists() -> None:
    config = find_preset("dcrl_map_elites").config
    assert all(hasattr(config, name) for name in qd.SIZES)


def test_missing_figures_have_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three cases: qdax runs as released, only with a stand-in, or not at all."""
    ours, row = {"compile_seconds": 10.0, "iteration_seconds": [3.0, 2.0]}, {"compile_seconds": 40.0}
    sides: dict[str, Any] = {}

    def measured(python: str, script: Any, **work: Any) -> dict[str, Any]:
        if script == qd.OURS:
            return ours
        if "error" in sides:
            raise RuntimeError("failed:\nImportError: no")
        return sides

    monkeypatch.setattr(qd, "measure", measured)
    monkeypatch.setattr(qd, "peer_python", lambda name: name)
    sides = {"reason": None, **row, "iteration_seconds": [5.0]}
    found = qd.iteration(qd.Config())
    assert (found["dcrl_compile_ratio_qdax"], found["dcrl_qdax_reason"]) == (0.25, None)
    assert (found["dcrl_iteration_seconds_ours"], found["dcrl_iteration_seconds_qdax"]) == (2.0, 5.0)
    sides = {"reason": "does not import", **row, "iteration_seconds": [5.0]}
    found = qd.iteration(qd.Config())
    assert (found["dcrl_compile_ratio_qdax"], found["dcrl_qdax_reason"]) == (None, "does not import")
    assert found["dcrl_compile_ratio_qdax_mended"] == 0.25
    sides = {"error": True}
    found = qd.iteration(qd.Config())
    assert found["dcrl_compile_ratio_qdax"] is None
    assert found["dcrl_compile_ratio_qdax_mended"] is None
    assert found["dcrl_qdax_reason"] == "ImportError: no"
