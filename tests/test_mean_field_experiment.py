"""The experiment on mean-field control: rules by hand, what is measured, and one whole run at scale smoke."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import swarm_motion
from experiments.mean_field_control import SCALES, Config, main
from jaxrl import list_envs, make_env
from jaxrl.files import read_json
from jaxrl.plan import make_plan, programs
from jaxrl.presets import find_preset
from jaxrl.swarm_evaluation import AGENT_MODES
from jaxrl_envs.mean_field.collective import make_agents


@pytest.mark.parametrize("scale", SCALES)
def test_scales_can_be_planned(scale: str) -> None:
    for task in SCALES[scale].tasks.values():
        assert task.env in list_envs()
        params = make_env(task.env).default_params
        plan = make_plan(task.preset, task.env, SCALES[scale].seeds, task.all_settings, {}, params)
        (program,) = programs(plan, find_preset(task.preset), params)
        assert program.config.num_updates >= 2


def test_agents_learn_for_as_many_steps_as_rules() -> None:
    for tasks in (SCALES["cpu"].tasks, SCALES["gpu"].tasks):
        for name in swarm_motion.MEASURES:
            steps = {tasks[n].total_steps for n in (name, f"{name}_ippo", f"{name}_mappo")}
            assert len(steps) == 1
            turns = {str({k: v for k, v in tasks[n].settings.items() if "env." in k}) for n in (name, f"{name}_ippo")}
            assert len(turns) == 1  # the same task


def test_rules_by_hand() -> None:
    """Seen (S, C) = (sin a, cos a) is a neighbour that heads a to the left: the turn is a in units of the largest."""
    params = make_agents("vicsek", 2).default_params
    seen = jnp.array([[np.sin(0.1), np.cos(0.1)], [-0.5, 0.0]])
    found = swarm_motion.rule_by_hand("vicsek", params, seen)
    np.testing.assert_allclose(found, [[0.5], [-0.5 * np.pi / 0.2]], rtol=1e-5)
    params = make_agents("kuramoto", 2).default_params
    np.testing.assert_allclose(swarm_motion.rule_by_hand("kuramoto", params, seen)[1], -2.5, rtol=1e-6)
    params = make_agents("aggregation", 2).default_params
    np.testing.assert_allclose(swarm_motion.rule_by_hand("aggregation", params, seen)[1], [2.5, 0.0], atol=1e-6)


@pytest.mark.parametrize("task", swarm_motion.MEASURES)
def test_the_rule_by_hand_orders_and_rest_does_not(task: str) -> None:
    env = make_agents(task, 30)
    changes = {"max_steps": 40} | ({} if task == "aggregation" else {"radius": 1.5})
    params = env.default_params.replace(**changes)
    measure = swarm_motion.MEASURES[task]
    players = swarm_motion.reference_players(task, env, params)
    played = {name: swarm_motion.play(one, (), env, params, measure, 4) for name, one in players.items()}
    for returns, measured in played.values():
        assert returns.shape == (1, 4)
        assert measured.shape == (1, 4, 40)
    ends = {name: measured[..., -4:].mean() for name, (_, measured) in played.items()}
    starts = {name: measured[..., 0].mean() for name, (_, measured) in played.items()}
    assert len({round(float(start), 5) for start in starts.values()}) == 1  # the same swarms
    better = -1 if task == "aggregation" else 1
    assert better * (ends["by hand"] - ends["uncontrolled"]) > 0.3
    assert played["by hand"][0].mean() > played["uncontrolled"][0].mean()
    assert np.abs(played["random"][1] - played["uncontrolled"][1]).max() > 1e-3


@pytest.mark.thorough
def test_smoke(tmp_path: Path) -> None:
    config = Config("smoke", runs=tmp_path / "runs", out=tmp_path / "out")
    arrays = main(config)
    found = read_json(tmp_path / "out" / "smoke.json")
    rows = found["tasks"]
    assert set(rows) == set(SCALES["smoke"].tasks)
    assert arrays["vicsek/open_loop"].shape == (2, 2, 4)
    row = rows["vicsek"]
    assert row["sizes"]["num_agents"] == [2, 5, None]
    assert {"trained", "uncontrolled", "random", "by hand", "measure", "num_agents"} == set(row["compared"])
    assert 0.0 <= row["compared"]["trained"]["measured"] <= 1.0
    assert rows["vicsek_ippo"]["compared"]["num_agents"] == row["compared"]["num_agents"] == 200
    assert rows["vicsek_ippo"]["num_agents"] == 50
    assert set(rows["vicsek_ippo"]["sizes"]) == {"num_agents", *AGENT_MODES}
    assert arrays["vicsek_ippo/decentral_greedy"].shape == (2, 2, 4)
    pictures = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert pictures == ["smoke_sizes.png", "smoke_swarms.png", "smoke_vicsek_film.png", "smoke_vicsek_time.png"]
    before = row
    main(Config("smoke", ("two_room",), tmp_path / "runs", tmp_path / "out"))
    assert read_json(tmp_path / "out" / "smoke.json")["tasks"]["vicsek"] == before
    with pytest.raises(ValueError, match="unknown tasks"):
        main(Config("smoke", ("boids",), tmp_path / "runs", tmp_path / "out"))


def test_the_rows_of_rules_and_of_single_agents_are_one_figure(tmp_path: Path) -> None:
    """Also those of files from before single agents were in the sweep: one curve, "agents", without a limit."""
    curve = {"mean": [-1.0, -0.5], "low": [-1.2, -0.7], "high": [-0.8, -0.3]}
    rows = {
        "vicsek": {
            "sizes": {"num_agents": [2, None], "central": curve},
            "compared": {"num_agents": 200, "by hand": {"return": -0.4}, "uncontrolled": {"return": -1.5}},
        },
        "vicsek_ippo": {"sizes": {"num_agents": [2, 5], "agents": curve}},
        "vicsek_mappo": {"sizes": {"num_agents": [2, None], "decentral_greedy": curve}},
    }
    found = [row for name in rows for row in swarm_motion.size_rows(rows[name], name)]
    assert [(row["policy"], row["mode"], row["num_agents"], row["mean"]) for row in found] == [
        ("vicsek", "central", 2, -1.0),
        ("vicsek", "central", None, -0.5),
        ("vicsek_ippo", "agents", 2, -1.0),
        ("vicsek_ippo", "agents", 5, -0.5),
        ("vicsek_mappo", "decentral_greedy", 2, -1.0),
        ("vicsek_mappo", "decentral_greedy", None, -0.5),
    ]
    swarm_motion.draw_sizes(rows, tmp_path / "swarms.png")
    assert (tmp_path / "swarms.png").stat().st_size > 5000


def test_agents_play_in_swarms_of_any_size() -> None:
    """The agent of 3 plays as 5."""
    preset = find_preset("ippo")
    env = make_agents("aggregation", 3)
    agent = preset.agent(env, preset.config, preset.hparams, None)
    state = agent.init(jax.random.key(0), env.observation_space(None), env.action_space(None))
    larger = env.with_agents(5)
    _, obs = larger.reset(jax.random.key(1), larger.default_params)
    action, _, _ = agent.act(jax.random.key(2), state, (), obs[None], jnp.zeros(1, bool), False)
    few, _, _ = agent.act(jax.random.key(2), state, (), obs[None, :3], jnp.zeros(1, bool), False)
    np.testing.assert_allclose(action[:, :3], few, rtol=1e-5, atol=1e-6)
