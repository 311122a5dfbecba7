"""The bookkeeping of the meta-training experiments and of their benchmark: scales, curves and time limits by hand."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import lpg, meta_training
from experiments.benchmarks import meta
from experiments.meta_training import SCALES, OutOfTime, agents_of, learning_curve, report, survival, time_limit
from jaxrl import make_env
from jaxrl.meta_testing import LevelReturns
from jaxrl.plan import make_plan, programs
from jaxrl.presets import MetaConfig, find_preset
from jaxrl.results import Results


@pytest.mark.parametrize("scale", SCALES)
def test_scales_can_be_planned_for_both_presets(scale: str) -> None:
    asked = SCALES[scale]
    for preset in ("lpg", "groove"):
        params = make_env(asked.env).default_params
        plan = make_plan(preset, asked.env, asked.meta_seeds, asked.all_settings, {}, params)
        (program,) = programs(plan, find_preset(preset), params)
        assert program.config.num_updates == asked.meta_updates
        assert program.config.num_levels >= 2 * program.config.num_lifetimes
    config, hp = agents_of(asked)
    assert config.agent == program.config.agent
    assert hp.meta_learning_rate == asked.settings.get("meta_learning_rate", 1e-4)


def test_the_paper_scale_is_the_published_one() -> None:
    config = MetaConfig()
    assert SCALES["paper"].settings == {}
    assert (config.num_lifetimes, config.num_envs, config.num_steps, config.num_inner) == (512, 64, 20, 5)
    assert SCALES["paper"].all_settings["total_steps"] == 5000 * 512 * 64 * 20 * 6


def test_learning_curve_by_hand() -> None:
    """Two seeds; lifetimes end at the second, fourth and fifth point. Sums of returns over sums of optimal ones."""
    nan = np.nan
    metrics = {
        "lifetime/count": [[0, 2, 0, 1, 3], [0, 1, 0, 1, 1]],
        "lifetime/return": [[nan, 1.0, nan, 2.0, 3.0], [nan, -1.0, nan, 0.0, 4.0]],
        "lifetime/optimal_return": [[nan, 2.0, nan, 4.0, 4.0], [nan, 2.0, nan, 3.0, 5.0]],
    }
    results = Results({}, np.arange(2), np.arange(5), {n: np.asarray(v, float)[None] for n, v in metrics.items()})
    updates, estimate = learning_curve(results, num_points=2)
    assert updates.tolist() == [4, 5]
    np.testing.assert_allclose(estimate.point, [(4 / 8 - 1 / 5) / 2, (9 / 12 + 4 / 5) / 2])
    updates, estimate = learning_curve(results)
    assert updates.tolist() == [2, 4, 5]
    np.testing.assert_allclose(estimate.point[0], (2 / 4 - 1 / 2) / 2)


def test_report_and_survival_by_hand() -> None:
    returns = LevelReturns(
        rule=np.array([[1.0, 2.0, 5.0]]), random_rule=np.array([[0.0, 1.0, 5.0]]), a2c=np.array([2.0, 2.0, 0.0]),
        random_policy=np.zeros(3), optimal=np.full(3, 4.0),
    )  # fmt: skip
    found = report(returns)
    assert (found["levels"], found["levels_kept"]) == (3, 2)
    assert found["normalized_return"]["mean"] == pytest.approx(0.75)
    assert found["normalized_return_above_random_rules"]["mean"] == pytest.approx(0.5)
    assert found["return_above_random_rules"]["mean"] == pytest.approx(2 / 3)
    assert found["return_above_a2c"]["mean"] == pytest.approx((-1 + 0 + 5) / 3)
    assert found["share_below_three_quarters_of_a2c"]["mean"] == pytest.approx(0.5)
    assert found["mean_return_optimal"] == 4.0
    shares = survival(returns)
    at = {round(float(t), 3): i for i, t in enumerate(meta_training.THRESHOLDS)}
    assert [shares["rule"].point[at[t]] for t in (0.0, 0.5, 0.75, 1.0)] == [1.0, 0.5, 0.5, 0.0]


def test_time_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One second at least; what was before is put back; the experiment says how it goes on."""
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(OutOfTime), time_limit(0.001):
        time.sleep(5)
    with time_limit(1.0), time_limit(None):
        pass
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.alarm(0) == 0

    def slow(*args: Any) -> Any:
        raise OutOfTime

    monkeypatch.setattr(lpg, "trained", slow)
    assert lpg.main(lpg.Config(minutes=3.0, out=tmp_path, runs=tmp_path)) == {}
    assert capsys.readouterr().out == "3 minutes are over; the same command goes on\n"


def test_the_benchmark_asks_for_what_exists() -> None:
    for settings in (meta.SMALL, meta.FEW, {}):
        params = make_env(meta.ENV).default_params
        (program,) = programs(make_plan("groove", meta.ENV, 1, settings, {}, params), find_preset("groove"), params)
        assert program.config.score == "alg_regret"
    assert meta.LONGEST * program.config.num_inner == 250
    assert set(meta.LIMITS) == {"groove_over_lpg_step_ratio", "lpg_compile_seconds", "meta_gradient_temp_bytes"}
