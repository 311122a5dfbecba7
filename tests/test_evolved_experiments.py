"""The experiments that evolve rules: scales, curves and tables by hand, and one whole run of each at scale smoke."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import jaxrl
from experiments import drift, shipped_rules, temporally_aware
from experiments.evolved_training import EvolvedScale, fitness_curve, settings_of
from jaxrl import make_env
from jaxrl.files import read_json
from jaxrl.lifetime_plots import LifetimeTraces
from jaxrl.plan import make_plan, programs
from jaxrl.presets import MetaConfig, find_preset
from jaxrl.results import Results


def planned(scale: EvolvedScale) -> tuple[object, dict[str, np.ndarray]]:
    """Configuration and numbers of its one program, with the presets' settings for the family of environments."""
    params = make_env(scale.env).default_params
    plan = make_plan(scale.preset, scale.env, scale.meta_seeds, scale.all_settings, {}, params)
    (program,) = programs(plan, find_preset(scale.preset), params)
    return program.config, program.numbers


@pytest.mark.parametrize("name", drift.SCALES)
def test_scales_of_drifts(name: str) -> None:
    scale = drift.SCALES[name]
    for preset in drift.LEARNED:
        config, numbers = planned(scale.training.changed(preset))
        assert config.num_updates == scale.training.generations
        assert config.time_aware == (preset == "ta_lpo")
        assert numbers["learning_rate"] == pytest.approx(scale.training.settings["learning_rate"])
    for env, settings in scale.tests.items():
        make_plan("ppo", env, scale.test_seeds, settings, {}, make_env(env).default_params)


@pytest.mark.parametrize("name", temporally_aware.SCALES)
def test_scales_of_lifetimes(name: str) -> None:
    scale = temporally_aware.SCALES[name]
    for _, features in temporally_aware.RULES.values():
        training = scale.training.changed(time_features=features)
        config, _ = planned(training)
        assert config.num_updates == training.generations
        assert config.time_features == features
        agents = settings_of(MetaConfig, training.all_settings, total_steps=10**12, num_inner=1).agent
        assert agents == config.agent
    distribution = make_env(scale.training.env).distribution
    assert distribution.lifetime[1] <= config.lifetime  # none is cut
    assert max(scale.lifetimes) >= config.lifetime


def test_the_paper_scales_are_the_published_ones() -> None:
    aware, _ = planned(temporally_aware.SCALES["paper"].training)
    assert (aware.num_pairs, aware.num_envs, aware.num_steps, aware.lifetime) == (512, 64, 20, 250)
    assert (aware.num_updates, aware.width, aware.target_width) == (2500, 256, 8)
    assert (aware.initial, aware.shaping) == ("zeros", "pair_ranks")
    config, numbers = planned(drift.SCALES["paper"].training)
    assert (config.num_pairs, config.num_updates, config.agent_steps) == (32, 800, 10_000_000)
    assert (config.agent.num_envs, config.agent.num_steps, config.agent.num_minibatches) == (64, 128, 8)
    assert (config.agent.hidden_sizes, config.agent.activation, config.width) == ((64, 64), "relu", 128)
    found = {n: float(numbers[n][0]) for n in ("learning_rate", "sigma", "sigma_decay", "meta_learning_rate")}
    assert found == pytest.approx(
        {"learning_rate": 7e-3, "sigma": 0.03, "sigma_decay": 0.99, "meta_learning_rate": 0.03}
    )


def test_fitness_curve_by_hand() -> None:
    """Two seeds, five generations, two stretches of three and two; a generation in which all failed says nothing."""
    fitness = np.array([[[0.0, np.nan, 4.0, 5.0, 7.0], [1.0, 2.0, 3.0, 9.0, 9.0]]])
    results = Results({}, np.arange(2), np.arange(5), {"fitness/mean": fitness})
    generations, estimate = fitness_curve(results, num_points=2)
    assert generations.tolist() == [3, 5]
    np.testing.assert_allclose(estimate.point, [(2 + 2) / 2, (6 + 9) / 2])


def test_table_of_drifts_by_hand() -> None:
    """The middle three of five; gains are of the same seeds."""
    returns = {
        label: drift.Returns(np.array([values]), np.arange(1), np.zeros((5, 1)))
        for label, values in (("PPO", [1.0, 2.0, 3.0, 4.0, 100.0]), ("LPO", [2.0, 4.0, 3.0, 6.0, 100.0]))
    }
    rows = drift._table(returns)
    assert (rows["PPO"]["iqm"], rows["PPO"]["above_ppo"]) == (3.0, 0.0)
    assert rows["LPO"]["iqm"] == pytest.approx(13 / 3)
    assert rows["LPO"]["above_ppo"] == pytest.approx((0 + 1 + 2) / 3)
    assert rows["LPO"]["above_ppo_interval_95"][0] >= 0.0


def traces(returns: list[list[list[float]]]) -> LifetimeTraces:
    """Two rules that lived for 1 and 2 updates."""
    sizes = np.array([[[1.0, np.nan], [2.0, 4.0]], [[3.0, np.nan], [4.0, 8.0]]])
    return LifetimeTraces(np.array([1, 2]), sizes, 2 * sizes, np.array(returns))


def test_table_of_lifetimes_by_hand() -> None:
    """[rule, lifetime, level]."""
    aware = traces([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
    plain = traces([[[0.0, 2.0], [3.0, 3.0]], [[5.0, 5.0], [6.0, 7.0]]])
    rows = temporally_aware.table({"TA-LPG": aware, "LPG": plain})
    assert [rows[n]["TA-LPG"]["mean"] for n in ("1", "2")] == [3.5, 5.5]
    assert [rows[n]["gain"]["mean"] for n in ("1", "2")] == [0.5, 0.75]
    together = temporally_aware.pooled(aware)
    np.testing.assert_array_equal(together.returns, [[1, 2, 5, 6], [3, 4, 7, 8]])
    np.testing.assert_array_equal(together.target_size, [[2, np.nan], [3, 6]])
    np.testing.assert_array_equal(together.entropy, 2 * together.target_size)


@pytest.mark.thorough
def test_whole_experiments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scale smoke: what is written, that the second takes the first one's TA-LPO, and that nothing is done twice."""
    out, runs = tmp_path / "out", tmp_path / "runs"
    first = drift.main(drift.Config(out=out / "drift", runs=runs))
    written = {path: path.stat().st_mtime_ns for path in runs.rglob("results.npz")}
    assert len(written) == 2 + 4
    second = temporally_aware.main(temporally_aware.Config(out=out / "aware", runs=runs))
    again = drift.main(drift.Config(out=out / "drift", runs=runs))
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert set(first) == set(again)
    assert set(second) >= {"TA-LPG/returns", "LPG/returns", "LPG/evolution/point"}
    shown = {path.name for path in out.rglob("*.png")}
    assert shown == {
        "smoke_evolution.png", "smoke_drifts.png", "smoke_returns_jaxrl_probe_contextual.png", "smoke_slopes.png",
        "smoke_schedules.png", "smoke_horizons.png",
    }  # fmt: skip
    row = read_json(out / "drift" / "smoke.json")["envs"]["jaxrl/probe_contextual"]["TA-LPO"]
    assert np.shape(row["returns"]) == (1, 2)
    assert jaxrl.load_rule(runs / "ta_lpg" / "smoke" / "rules" / "seed_0.npz").config.time_features == "paper"
    assert "lifetime    4: TA-LPG" in capsys.readouterr().out
    with pytest.raises(ValueError, match="holds a run of other settings or seeds"):
        drift.main(drift.Config(out=out / "drift", runs=runs, seeds=2))


def test_table_of_shipped_rules_by_hand() -> None:
    """Two seeds, ten points; the first counts 3 episodes of the one and 1 of the other."""
    returns = np.full((1, 2, 10), 5.0)
    returns[0, :, 0], returns[0, :, 9] = [1.0, 9.0], [4.0, 6.0]
    counts = np.ones_like(returns)
    counts[0, 0, 0] = 3
    metrics = {"episode/return": returns, "episode/count": counts}
    (row,) = shipped_rules.table(Results({}, np.arange(2), np.arange(10), metrics))
    assert (row["iqm"], row["returns"], row["first_tenth"]) == (5.0, [4.0, 6.0], 3.0)
    assert row["learns"]
