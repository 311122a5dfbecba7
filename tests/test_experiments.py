"""The benchmarks' bookkeeping: tables from made-up measurements, what is run again, scores and profiles by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import benchmark_agents, benchmark_figures, benchmark_suite
from experiments.benchmark_agents import Config, chosen, is_done, judged, main
from experiments.benchmark_figures import LOOKS, aggregate, draw, group_scores, markdown, normalized, profiles
from experiments.benchmark_suite import AGENTS, GROUPS, REFERENCES, Entry, entry, suite
from experiments.benchmarks import agents, ours
from jaxrl import make_env
from jaxrl.files import read_json
from jaxrl.plan import make_plan

LOW, HIGH = REFERENCES["CartPole-v1"][:2]


def measured(speed: float, compiled: float, env_steps: int = 5_000, updates: int = 2_500) -> dict[str, Any]:
    return {"steps_per_second": speed, "compile_seconds": compiled, "env_steps": env_steps, "updates": updates}


# Ours and a peer


def test_ratios_are_ours_over_theirs_of_medians() -> None:
    rows = [measured(30.0, 4.0), measured(10.0, 9.0), measured(20.0, 5.0)]
    peers = [measured(5.0, 10.0), measured(80.0, 10.0), measured(8.0, 20.0)]
    figures = agents.figures_of("dqn", 16, rows, peers)
    assert figures == {
        "speed_ratio_rejax_dqn_16": 2.5,
        "steps_per_second_ours_dqn_16": 20.0,
        "steps_per_second_rejax_dqn_16": 8.0,
        "compile_ratio_rejax_dqn_16": 0.5,
        "compile_seconds_ours_dqn_16": 5.0,
        "compile_seconds_rejax_dqn_16": 10.0,
    }
    assert agents.cells("dqn", 16, rows, peers) == [
        "dqn", "CartPole-v1", "16", "0.5", "20 (10–30)", "8 (5–80)", "5.0/10.0", "2.50", "0.50",
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", [{"env_steps": 5_010}, {"updates": 2_499}])
@pytest.mark.parametrize("side", ["ours", "rejax"])
def test_sides_that_did_different_work_are_not_compared(side: str, wrong: dict[str, int]) -> None:
    good, bad = measured(1.0, 1.0), measured(1.0, 1.0, **wrong)
    agents.check("dqn", 5_000, [good], [good])
    with pytest.raises(RuntimeError, match=f"dqn: {side} did"):
        agents.check("dqn", 5_000, [bad if side == "ours" else good], [bad if side == "rejax" else good])


@pytest.mark.parametrize("agent", agents.PAIRS)
def test_pairs_are_whole_iterations_of_the_same_sizes(agent: str) -> None:
    """Our side, from our configuration: the iterations that are timed take and learn what the pair says."""
    pair = agents.PAIRS[agent]
    settings: dict[str, Any] = pair.ours
    env = make_env(pair.env)
    for steps in pair.steps.values():
        total = steps + settings.get("fill_steps", 0)
        plan = make_plan(agent, pair.env, 1, {**settings, "total_steps": total}, {}, env.default_params)
        [program] = benchmark_programs(plan, env)
        config = program.config
        assert config.num_updates * config.steps_per_update == steps
        per_iteration = (
            config.num_gradient_steps
            if hasattr(config, "num_gradient_steps")
            else config.num_epochs * config.num_minibatches
        )
        assert config.num_updates * per_iteration == steps * pair.updates_per_step
        if "fill_steps" in settings:
            assert total <= config.buffer_size  # what the buffer holds is what was done
    same = {"num_envs": "num_envs", "num_steps": "num_steps", "num_minibatches": "num_minibatches"}
    same |= {"batch_size": "batch_size", "buffer_size": "buffer_size", "fill_steps": "fill_buffer"}
    for name, theirs in same.items():
        assert (name in settings) == (theirs in pair.rejax)
        assert settings.get(name) == pair.rejax.get(theirs)


def benchmark_programs(plan: Any, env: Any) -> list[Any]:
    from jaxrl.plan import programs
    from jaxrl.presets import find_preset

    return programs(plan, find_preset(plan.algorithm), env.default_params)


SMALL = {"hidden_sizes": (4,), "num_envs": 3}


@pytest.mark.parametrize(
    ("algorithm", "settings", "steps", "updates"),
    [
        ("ppo", {"num_steps": 8, "num_epochs": 2, "num_minibatches": 4}, 72, 24),
        ("dqn", {"num_gradient_steps": 2, "batch_size": 4, "buffer_size": 300, "fill_steps": 30}, 90, 60),
    ],
)
def test_what_ours_counts(algorithm: str, settings: dict[str, Any], steps: int, updates: int) -> None:
    row = ours.main(algorithm, "jaxrl/probe_truncation", 1, steps, 1, {**SMALL, **settings})
    assert (row["env_steps"], row["updates"]) == (steps, updates)


# The suite


@pytest.mark.parametrize("scale", ["smoke", "cpu", "gpu"])
def test_every_entry_of_the_suite_can_be_planned(scale: Any) -> None:
    entries = suite(scale)
    assert len({item.key for item in entries}) == len(entries)
    assert {item.agent for item in entries} <= set(AGENTS) == set(LOOKS)
    assert {item.env for item in entries} <= set(REFERENCES) == {env for group in GROUPS.values() for env in group}
    for item in entries:
        params = None if item.env.startswith("brax/") else make_env(item.env).default_params
        make_plan(item.preset, item.env, 1, item.settings, {}, params)


def test_continuous_agents_within_their_budget() -> None:
    budgets = {item.agent: item.settings["total_steps"] for item in suite("cpu") if item.env == "Pendulum-v1"}
    assert all(budgets[agent] <= 50_000 for agent in ("sac", "td3", "dsac_t"))


def test_choice_of_entries() -> None:
    picked = chosen(Config("cpu", agents=("pqn",), envs=("Acrobot-v1", "Breakout-MinAtar")))
    assert [item.key for item in picked] == ["Acrobot-v1/pqn", "Breakout-MinAtar/pqn"]
    with pytest.raises(ValueError, match="unknown agent 'pq'; scale smoke has ppo, "):
        chosen(Config(agents=("pq",)))
    with pytest.raises(ValueError, match="unknown environment 'Acrobot-v1'; scale smoke has CartPole-v1"):
        chosen(Config(envs=("Acrobot-v1",)))


# What is run again


def fake_row(item: Entry, num_seeds: int, returns: list[float] | None = None) -> dict[str, Any]:
    final = [100.0] * num_seeds if returns is None else returns
    facts = {"env": item.env, "agent": item.agent, "final_returns": final, "final_return_iqm": 100.0}
    facts |= {"num_env_steps": 100, "reached": False, "source": item.source}
    return {**facts, "interval_95": [90.0, 110.0], **benchmark_agents.asked(item, num_seeds)}


def fake_curves(item: Entry, num_seeds: int) -> dict[str, np.ndarray]:
    returns = np.arange(num_seeds * 4.0).reshape(num_seeds, 4)
    return {f"{item.key}/steps": np.arange(1, 5) * 100, f"{item.key}/returns": returns}


def test_a_row_is_done_when_settings_and_seeds_are_the_same(tmp_path: Path) -> None:
    item = entry("CartPole-v1", "dqn_c51", {"hidden_sizes": (8, 8), "learning_rate": 1e-3})
    row = fake_row(item, 3)
    assert is_done(row, item, 3)
    assert not is_done(None, item, 3)
    assert not is_done(row, item, 4)
    assert not is_done(row, item._replace(settings={**item.settings, "learning_rate": 2e-3}), 3)
    assert not is_done(row, item._replace(settings={"learning_rate": 1e-3}), 3)
    assert is_done(row, item._replace(source="elsewhere"), 3)


def test_an_interrupted_benchmark_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    broken = {"CartPole-v1/pqn"}

    def pretend(item: Entry, num_seeds: int) -> Any:
        if item.key == "Pendulum-v1/ppo":
            raise KeyboardInterrupt
        if item.key in broken:
            raise ValueError("out of luck")
        ran.append(item.key)
        return fake_row(item, num_seeds), fake_curves(item, num_seeds)

    monkeypatch.setattr(benchmark_agents, "measure", pretend)
    monkeypatch.setattr(benchmark_agents, "draw", lambda *args: [])
    config = Config("smoke", out=tmp_path, seeds=2)
    with pytest.raises(KeyboardInterrupt):
        main(config)
    first = ["CartPole-v1/ppo", "CartPole-v1/a2c", "CartPole-v1/dqn"]
    assert ran == first
    table = read_json(tmp_path / "smoke.json")
    assert list(table["rows"]) == first

    ran.clear()
    broken.clear()
    with pytest.raises(KeyboardInterrupt):
        main(config)
    assert ran == ["CartPole-v1/pqn"]

    ran.clear()
    arrays = main(Config("smoke", out=tmp_path, seeds=2, envs=("CartPole-v1",)))
    assert ran == []
    assert {name.rpartition("/")[0] for name in arrays} == {*first, "CartPole-v1/pqn"}

    main(Config("smoke", out=tmp_path, seeds=3, agents=("ppo",), envs=("CartPole-v1",)))
    assert ran == ["CartPole-v1/ppo"]
    assert len(read_json(tmp_path / "smoke.json")["rows"]["CartPole-v1/ppo"]["seeds"]) == 3


def test_failures_are_told_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pretend(item: Entry, num_seeds: int) -> Any:
        if item.agent == "a2c":
            raise ValueError("out of luck")
        return fake_row(item, num_seeds), fake_curves(item, num_seeds)

    monkeypatch.setattr(benchmark_agents, "measure", pretend)
    with pytest.raises(SystemExit, match="failed: CartPole-v1/a2c"):
        main(Config("smoke", out=tmp_path))
    assert len(read_json(tmp_path / "smoke.json")["rows"]) == len(suite("smoke")) - 1
    figures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert figures == ["smoke_CartPole-v1.png", "smoke_Pendulum-v1.png", "smoke_iqm.png", "smoke_profiles.png"]


# Scores by hand


def returns_of(*scores: float) -> list[float]:
    """CartPole returns with these scores."""
    return [LOW + score * (HIGH - LOW) for score in scores]


def rows_of(**columns: list[float]) -> dict[str, Any]:
    """Rows of CartPole; `Acrobot_x` is one of Acrobot."""
    rows = {}
    for name, values in columns.items():
        env = "Acrobot-v1" if name.startswith("Acrobot_") else "CartPole-v1"
        item = entry(env, name.removeprefix("Acrobot_"), {})
        rows[item.key] = fake_row(item, len(values), values)
    return rows


def test_references_are_scored_zero_and_one() -> None:
    np.testing.assert_allclose(normalized("CartPole-v1", [LOW, HIGH, (LOW + HIGH) / 2]), [0.0, 1.0, 0.5])
    np.testing.assert_allclose(normalized("Acrobot-v1", [-100.0, -498.7]), [1.0, 0.0])
    assert np.isnan(normalized("CartPole-v1", [None, 1.0])[0])


def test_only_agents_with_all_environments_are_compared() -> None:
    rows = rows_of(ppo=[22.1] * 3, Acrobot_ppo=[-100.0] * 2, dqn=[475.0] * 3)
    [(group, scores)] = group_scores(rows).items()
    assert group == "classic, discrete"
    assert list(scores) == ["ppo"]
    np.testing.assert_allclose(scores["ppo"], [[0.0, 1.0], [0.0, 1.0]], atol=1e-12)


def test_aggregate_by_hand() -> None:
    """The middle three of five scores; an agent whose seeds agree has no spread."""
    result = aggregate(rows_of(ppo=returns_of(0.0, 0.2, 0.4, 0.6, 9.0), dqn=returns_of(0.5, 0.5)))["classic, discrete"]
    assert result["envs"] == ["CartPole-v1"]
    assert result["ppo"]["iqm"] == pytest.approx(0.4)
    assert result["dqn"]["iqm"] == pytest.approx(0.5)
    assert result["dqn"]["interval_95"] == pytest.approx([0.5, 0.5])


def test_page_by_hand() -> None:
    rows = rows_of(ppo=returns_of(0.4, 0.6), dqn=returns_of(0.5, 0.5))
    for row, iqm in zip(rows.values(), (480.0, 490.0), strict=True):
        row |= {"final_return_iqm": iqm, "num_env_steps": 1000, "reached": True, "source": "ours"}
    lines = markdown(rows, "python -m this").splitlines()
    assert lines[0].startswith("Made by `python -m this`:")
    assert lines[-2:] == [
        "| CartPole-v1 | `dqn` | 1,000 | 490.00 | 90.00 to 110.00 | 2 | 475: met | ours |",
        "| CartPole-v1 | `ppo` | 1,000 | 480.00 | 90.00 to 110.00 | 2 | 475: met | ours |",
    ]


def test_the_page_says_why_a_goal_was_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_figures, "SHORTFALLS", {"CartPole-v1/ppo": "too short.", "CartPole-v1/dqn": "no."})
    rows = rows_of(ppo=returns_of(0.4), dqn=returns_of(0.5), a2c=returns_of(0.1))
    for row, iqm in zip(rows.values(), (474.996, 490.0, None), strict=True):
        row |= {"final_return_iqm": iqm, "num_env_steps": 1000, "source": "ours"}
    page = markdown({key: judged(row) for key, row in rows.items()}, "python -m this")
    assert "| CartPole-v1 | `ppo` | 1,000 | 475.00 | 90.00 to 110.00 | 1 | 475: not met | ours |" in page
    assert "| `a2c` | 1,000 | nan |" in page
    assert page.endswith("Where a goal was not met:\n\n- `CartPole-v1/ppo`: too short.\n")


@pytest.mark.parametrize(
    ("env", "steps", "iqm", "reached"),
    [
        ("CartPole-v1", 100, 475.0, True),
        ("CartPole-v1", 100, 474.9, False),
        ("CartPole-v1", 100, float("nan"), False),
        ("Breakout-MinAtar", 999_424, 50.0, None),  # the goal is for ten times as many steps
        ("Breakout-MinAtar", 9_994_240, 50.0, True),  # whole updates of a run of 1e7
        ("Breakout-MinAtar", 9_994_240, 30.0, False),
        ("brax/ant", 10**8, 9000.0, None),
    ],
)
def test_goals_are_for_runs_of_their_length(env: str, steps: int, iqm: float, reached: bool | None) -> None:
    assert REFERENCES[env].reached(iqm, steps) is reached


def test_shortfalls_are_of_entries_with_a_goal() -> None:
    keys = {item.key for scale in ("cpu", "gpu") for item in suite(scale)}  # type: ignore[arg-type]
    assert set(benchmark_suite.SHORTFALLS) <= keys
    assert all(REFERENCES[key.rpartition("/")[0]].goal is not None for key in benchmark_suite.SHORTFALLS)


def test_profile_by_hand() -> None:
    """Scores 0.1, 0.5, 0.5, 1.1: strictly above the threshold counts, a missing return is above nothing."""
    thresholds = np.asarray([0.0, 0.3, 0.5001, 1.0, 1.2])
    rows = rows_of(ppo=returns_of(0.1, 0.5, 0.5, 1.1), dqn=[*returns_of(2.0), None])  # type: ignore[list-item]
    found = profiles(rows, thresholds)["classic, discrete"]
    np.testing.assert_allclose(found["ppo"].point, [1.0, 0.75, 0.25, 0.25, 0.0])
    np.testing.assert_allclose(found["dqn"].point, 0.5)
    assert np.all(found["ppo"].low <= found["ppo"].point)
    assert np.all(found["ppo"].high >= found["ppo"].point)


def test_figures_of_the_whole_suite_stay_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows, arrays = {}, {}
    for item in (item for item in suite("cpu") if item.env in ("CartPole-v1", "Acrobot-v1", "brax/reacher")):
        reference = REFERENCES[item.env]
        final = reference.low + (reference.high - reference.low) * rng.random(5)
        rows[item.key] = fake_row(item, 5, final.tolist())
        steps = np.linspace(0, item.settings["total_steps"], 101)[1:]
        arrays[f"{item.key}/steps"] = steps
        arrays[f"{item.key}/returns"] = reference.low + (final - reference.low)[:, None] * (steps / steps[-1]) ** 0.3
    written = draw(rows, arrays, tmp_path, "cpu")
    assert sorted(path.name for path in written) == [
        "cpu_Acrobot-v1.png", "cpu_CartPole-v1.png", "cpu_brax_reacher.png", "cpu_iqm.png", "cpu_profiles.png",
    ]  # fmt: skip
    assert all(10_000 < path.stat().st_size < 300_000 for path in written)
