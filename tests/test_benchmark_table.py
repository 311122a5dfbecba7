"""The README's table of benchmarks: it is what the generator makes, every key in it exists, and verdicts by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from experiments.benchmarks import gpu, mean_field, neuroevolution, qd, scale, table
from experiments.benchmarks.figures import AREAS, Bound, Figure
from jaxrl.files import read_json, write_json

ROOT = Path(__file__).resolve().parents[1]
ORIGIN: dict[str, Any] = {
    "versions": {"python": "3.11", "jaxrl": "0.1.0", "jax": "0.10.2"},
    "device": {"platform": "cpu", "kind": "cpu", "count": 1},
    "command": "python -m experiments.benchmarks.qd --quick --json /somewhere/else.json",
    "date": "2026-11-21T19:29:06+00:00",
}
GPU = {**ORIGIN, "device": {"platform": "gpu", "kind": "NVIDIA H200", "count": 1}}


def test_the_readme_holds_the_table_of_the_committed_results() -> None:
    """By hand it cannot be edited: `python -m experiments.benchmarks.table --write README.md` makes it again."""
    text = (ROOT / "README.md").read_text()
    assert table.written(text, ROOT / table.RESULTS) == text
    assert text.count("| ppo | PPO, CartPole-v1") >= 12


def test_rows_by_hand() -> None:
    found = {
        **ORIGIN,
        "insert_ms_grid_4096_10000": 0.4049,
        "insert_ms_grid_4096_10000_qdax": 2281.2,
        "insert_ratio_qdax": 5635.4,
        "vmap8_over_8runs": 1.02,
        "dcrl_compile_ratio_qdax": None,
        "dcrl_compile_ratio_qdax_mended": None,
        "arm_coverage_ours": 0.26,
    }
    where, command = "CPU, jaxrl 0.1.0, jax 0.10.2, 2026-11-21", "`python -m experiments.benchmarks.qd --quick`"
    assert [row[2:] for row in table.rows_of("qd", found)] == [
        ("0.405 ms", "", "", "≤ 2 ms: met", where, command),
        ("0.405 ms", "qdax 0.5.0: 2,281 ms", "5,635", "≥ 100: met", where, command),
        ("", "8 runs of ours", "1.02", "≤ 1: **missed**", where, command),
    ]


def test_bounds_depend_on_the_device_and_on_the_case() -> None:
    key = "agent_steps_per_second_vicsek_1e6"
    (cpu,), (gpu,) = (list(table.rows_of("mean_field", {key: 2.5e6, **about})) for about in (ORIGIN, GPU))
    assert cpu[2:] == ("2.5M/s", "", "", "≥ 2M/s: met", *table.origin(ORIGIN))
    assert gpu[2:7] == ("2.5M/s", "", "", "≥ 3G/s: **missed**", "NVIDIA H200, jaxrl 0.1.0, jax 0.10.2, 2026-11-21")
    found = {f"speed_ratio_rejax_{seeds}_4x128": 1.3 for seeds in (1, 16, 32)}
    verdicts = [row[5] for row in table.rows_of("ppo", {**ORIGIN, **found})]
    assert verdicts == ["≥ 1.2: met", "≥ 1.5: **missed**", ""]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (2992.2, "/s", "2,992/s"),
        (13144.0, "/s", "13.1k/s"),
        (347166.9, "/s", "347k/s"),
        (3.2e9, "/s", "3.2G/s"),
        (1.2e6, "", "1.2M"),
        (0.01709, "", "0.0171"),
        (8.2609, "s", "8.26 s"),
        (573.4, "MB", "573 MB"),
        (1111375312, "B", "1.04 GiB"),
    ],
)
def test_numbers_by_hand(value: float, unit: str, text: str) -> None:
    assert table.shown(value, unit) == text


def test_what_is_learnt_is_judged_by_runs_of_the_right_length() -> None:
    def row(agent: str, iqm: float, reached: bool | None, **reference: Any) -> dict[str, Any]:
        about = {"env": "Breakout", "agent": agent, "final_return_iqm": iqm, "reached": reached, "seeds": [1, 2]}
        return {**ORIGIN, **about, "reference": {"goal": 40.0, "goal_steps": 10_000_000, **reference}}

    short = {"a": row("ppo", 50.0, None), "b": row("pqn", 10.0, None)}
    (found,) = table.learned_rows({"rows": short})
    assert found[1] == "Breakout: IQM return over 2 seeds, the best of 2 agents, `ppo`"
    assert found[2] == "50.0"
    assert found[5] == "≥ 40, of runs of 10,000,000 steps: not run"
    (found,) = table.learned_rows({"rows": {**short, "c": row("dqn", 60.0, True), "d": row("sac", 30.0, False)}})
    assert (found[2], found[5]) == ("60.0", "≥ 40: 1 of 2 agents")


def test_files_are_read_where_they_are_there(tmp_path: Path) -> None:
    """Two files of one area, another area, and what is not a benchmark; then written between the markers only."""
    figures = {"help_seconds": 0.45, "import_over_jax_seconds": 1.5, **ORIGIN}
    write_json(tmp_path / "benchmark_scale.json", figures)
    write_json(tmp_path / "benchmark_scale_gpu.json", {**figures, "help_seconds": 0.6, **GPU})
    write_json(tmp_path / "benchmark_meta.json", {"es_env_steps_per_second": 5.0, **ORIGIN})
    write_json(tmp_path / "other.json", {"help_seconds": 1.0})
    found = table.rows(tmp_path)
    assert [(row[0], row[2], row[5]) for row in found] == [
        ("meta", "5/s", ""),
        ("scale", "0.45 s", "≤ 0.5 s: met"),
        ("scale", "1.5 s", "≤ 1 s: **missed**"),
        ("scale", "0.6 s", "≤ 0.5 s: **missed**"),
        ("scale", "1.5 s", "≤ 1 s: **missed**"),
    ]
    begin, end = table.MARKERS
    file = tmp_path / "README.md"
    file.write_text(f"before\n{begin}\nby hand\n{end}\nafter\n")
    table.main(table.Config(tmp_path, file))
    once = file.read_text()
    assert once.startswith(f"before\n{begin}\n\n| area |")
    assert once.endswith(f" |\n\n{end}\nafter\n")
    assert "by hand" not in once
    assert once.count("\n| ") == len(found) + 2
    table.main(table.Config(tmp_path, file))
    assert file.read_text() == once
    for text in ("nothing", f"{end}\n{begin}", f"{begin}\n{end}\n{begin}"):
        with pytest.raises(ValueError, match="each once and in this order"):
            table.written(text, tmp_path)


# ------------------------------------------------------------------------- that keys are those which benchmarks write


def pretend(python: str, script: Any, what: str = "", **given: Any) -> dict[str, Any]:
    """What a process of a benchmark might have answered."""
    sides = ("ours", "evosax", "one_core", "same_evaluation", "again")
    return {
        "speed": {"seconds": 0.5, "peak_mb": 1.0, "temporary_mb": 1.0}
        | {f"{pair}_{side}": {"seconds": 0.5, "longest": 9.0} for pair in ("ga", "es") for side in sides},
        "grid_error": {"grid_rms_4096_g256": 0.02},
        "training": {"peak_mb": 1.0, "program_mb": 1.0},
        "memory": {"peak_mb": 1.0, "temporary_mb": 1.0},
        "reconstruction": {"reconstruct_ms": 1.0},
        "insertion": {"seconds": [0.5]},
        "many": {"seconds_1": 1.0, "seconds_8": 6.0, "compile_seconds_1": 1.0, "compile_seconds_8": 1.0},
        "laid_out": {"seconds_8": 4.0},
        "walker": {"compile_seconds": 1.0, "iteration_seconds": [2.0]},
        "dcrl": {"compile_seconds": 1.0, "iteration_seconds": [2.0], "reason": None},
    }.get(what, {}) | (
        {"rates": [1.0], "metrics": {"coverage": 0.5}, "compile_seconds": 1.0} if what in ("arm", "") else {}
    )  # fmt: skip


def scaled(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The figures of the benchmark of scale, on a machine that is not big enough for 4,096 seeds."""

    def measure(python: str, script: Any, seeds: int, total_steps: int, **given: Any) -> dict[str, Any]:
        if seeds == 4096:
            raise RuntimeError("out of memory")
        work = {"env_steps": total_steps, "updates": 16 * total_steps // 512}
        return {"steps_per_second": 1.0, "compile_seconds": 1.0, "peak_megabytes": 1.0, **work}

    monkeypatch.setattr(scale, "measure", measure)
    monkeypatch.setattr(scale, "timed", lambda *command, **variables: 2.0)
    monkeypatch.setattr(scale, "read_json", lambda file: {"steps_per_second": 1.0})
    return scale.main(scale.Config())


@pytest.mark.parametrize("area", AREAS)
def test_every_figure_of_the_table_is_one_that_its_benchmark_writes(area: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pattern finds a key, and each key that stands beside it is there, too."""
    modules: dict[str, Any] = {"qd": qd, "neuroevolution": neuroevolution, "mean_field": mean_field}
    if area in modules:
        module = modules[area]
        monkeypatch.setattr(module, "measure", pretend)
        monkeypatch.setattr(qd, "peer_python", lambda name: name)
        found = module.main(dataclasses.replace(module.Config(), quick=True))
        if area == "qd":
            found |= gpu.evaluation_figures({"256": {"evaluations_per_second": 2.0}})
    elif area == "scale":
        found = scaled(monkeypatch)
    else:
        file = {"agents": "benchmark_agents_rejax"}.get(area, f"benchmark_{area}")
        found = read_json(ROOT / table.RESULTS / f"{file}.json")
    rows = list(table.rows_of(area, {**ORIGIN, **found}))
    for figure in AREAS[area]:
        mine = list(rows_of_figure(figure, {**ORIGIN, **found}, monkeypatch))
        assert mine, figure
        for row in mine:
            shown = (row[2], row[3].rpartition(": ")[2] if figure.peer else "", row[4])
            for key, cell in zip((figure.ours, figure.peer, figure.ratio), shown, strict=True):
                assert bool(key) == bool(cell), (figure, row)
    assert len(rows) >= len(AREAS[area])


def rows_of_figure(figure: Figure, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    with monkeypatch.context() as patch:
        patch.setitem(AREAS, "alone", (figure,))
        return list(table.rows_of("alone", found))


def test_a_bound_is_met_at_its_number() -> None:
    assert table.verdict(Bound(True, 1.5), 1.5, "cpu", "") == "≥ 1.5: met"
    assert table.verdict(Bound(False, 1.5), 1.5, "gpu", "s") == "≤ 1.5 s: met"
