"""Measurements that compile together and run one after the other, in small processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.benchmarks import gpu, scale
from experiments.benchmarks.harness import measure_together
from experiments.benchmarks.mean_field import speed
from experiments.benchmarks.qd import evaluations

# Argument {"name", "folder", "prepare"}: prepares, waits for its turn, and notes when it began and ended.
SIDE = """
import json, pathlib, sys, time
from experiments.benchmarks.harness import my_turn
asked = json.loads(sys.argv[1])
time.sleep(asked["prepare"])
ready = time.time()
my_turn()
began = time.time()
time.sleep(0.2)
if asked["name"] == "fails": raise SystemExit("no memory")
print("not JSON" if asked["name"] == "talks" else json.dumps({"ready": ready, "began": began, "ended": time.time()}))
"""


def test_each_has_its_turn_when_all_are_ready(capsys: pytest.CaptureFixture[str]) -> None:
    prepare = {"quick": 0.0, "slow": 1.0, "middle": 0.3, "fails": 0.1, "talks": 0.1}
    works = {name: (["-c", SIDE], {"name": name, "prepare": seconds}) for name, seconds in prepare.items()}
    found = measure_together(works)
    assert list(found) == list(works)
    assert found["fails"] is None
    assert found["talks"] is None
    rows = sorted((row for row in found.values() if row), key=lambda row: row["began"])
    assert len(rows) == 3
    assert min(row["began"] for row in rows) >= max(row["ready"] for row in rows)
    assert all(one["ended"] <= other["began"] for one, other in zip(rows, rows[1:], strict=False))
    assert "fails: " in capsys.readouterr().err


def test_what_failed_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"1e3": {"seconds": 0.5, "temporary_mb": 1.0}}
    found = {"swarms vicsek_1e3": rows["1e3"], "swarms kuramoto_1e3": None, "swarms grid": {"rms_400": 0.1}}
    monkeypatch.setattr(gpu, "measure_together", lambda works: {name: found[name] for name in works})
    with pytest.raises(SystemExit, match="some measurements failed"):
        gpu.main(gpu.Config(quick=True, parts=("swarms",), out=tmp_path))
    assert not list(tmp_path.iterdir())
    found["swarms kuramoto_1e3"] = rows["1e3"]
    gpu.main(gpu.Config(quick=True, parts=("swarms",), out=tmp_path))
    assert '"agent_steps_per_second_vicsek_1e3": 2000.0' in (tmp_path / "benchmark_mean_field_gpu.json").read_text()
    with pytest.raises(SystemExit, match="parts: swarms, meta, qd, sweep; got nothing"):
        gpu.main(gpu.Config(parts=("nothing",)))
    with pytest.raises(SystemExit, match="agents: a multiple of 100; got 150"):
        scale.main(scale.Config(agents=150))


def test_seconds_are_those_of_one_step() -> None:
    """In one program of several steps, too; the clock of a busy machine allows no more than a factor."""
    one, many = speed("vicsek", 20_000, 4), speed("vicsek", 20_000, 2, per_call=4)
    assert 0.2 < many["seconds"] / one["seconds"] < 5


@pytest.mark.thorough
def test_evaluations_per_second() -> None:
    assert evaluations("jaxrl/point_mass", 4, 1, 5)["evaluations_per_second"] > 1
