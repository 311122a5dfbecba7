"""Runs of meta-training end to end, and what they leave: rules of kind lpg, which any actor-critic takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers import TINY, assert_trees_close, assert_trees_equal, interrupted

import jaxrl
from jaxrl import checkpoint, files, rules
from jaxrl.cli import main
from jaxrl.execution import Options
from jaxrl.objectives.lpg import LPGConfig, lpg_init, lpg_objective
from jaxrl.presets import PPOConfig, PPOHparams
from jaxrl.results import Results
from jaxrl.rules import Rule, load_rule, save_rule

pytestmark = pytest.mark.thorough  # one trained fixture serves the whole file

ENV = "jaxrl/grid_debug"
META: dict[str, Any] = {
    "num_lifetimes": 4, "lifetime_batch": 2, "ended_batch": 2, "num_inner": 2, "num_envs": 2, "num_steps": 3,
    "width": 4, "target_width": 3, "embedding_width": 2, "lifetime": 4, "play_ended": True,
}  # fmt: skip
STEPS = 4 * 2 * 3 * (2 + 1)  # of one meta-step
SETTINGS = {**META, "total_steps": 6 * STEPS}
CONFIG = LPGConfig(width=4, target_width=3, embedding_width=2)


def meta_run(path: Path) -> Results:
    return jaxrl.run(
        "lpg", ENV, seeds=[3, 5], settings=SETTINGS, out=path, progress=False, options=Options(3, num_devices=1)
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two meta-seeds; tests only read it."""
    path = tmp_path_factory.mktemp("meta") / "run"
    meta_run(path)
    return path


@pytest.fixture(scope="module")
def rule_file(finished: Path) -> Path:
    file = finished.parent / "rule.npz"
    save_rule(file, jaxrl.load_run(finished).rule(seed=5))
    return file


# ---------------------------------------------------------------------------------------------- what runs leave


def test_a_finished_run_gives_its_rules(finished: Path, rule_file: Path) -> None:
    """Each seed's own, as the last checkpoint has it, with what made it."""
    run = jaxrl.load_run(finished)
    first, second = run.rule(seed=3), run.rule(seed=5)
    assert first.config == second.config == CONFIG
    newest = checkpoint.latest(finished / "program_00")
    assert newest is not None
    kept = [array for name, array in files.read_npz(newest).items() if name.startswith("tree.params")]
    for row, rule in enumerate((first, second)):
        assert sorted(leaf[row].tobytes() for leaf in kept) == sorted(x.tobytes() for x in jax.tree.leaves(rule.params))
    assert np.abs(np.subtract(*(rule.params["params"]["head_policy"]["kernel"] for rule in (first, second)))).max() > 0
    loaded = load_rule(rule_file)
    assert_trees_equal(loaded.params, second.params)
    about = loaded.provenance
    assert (about["seeds"], about["steps"], about["meta_updates"]) == ([5], 6 * STEPS, 6)
    assert about["settings"] == SETTINGS
    assert about["summary"] == f"lpg on {ENV}, {6 * STEPS} environment steps, seed 5"
    assert {"command", "device", "versions", "date"} <= set(about)
    # Lifetimes of 4 updates end at every second meta-step of 2.
    assert about["curve"]["metric"] == "lifetime/return"
    assert [at for at, _ in about["curve"]["points"]] == [STEPS * t for t in (2, 3, 4, 5, 6)]
    rows = run.results.metrics["lifetime/return"][0, 1]
    assert np.isnan(rows[::2]).all()
    np.testing.assert_allclose([value for _, value in about["curve"]["points"]], rows[[1, 1, 3, 3, 5]], rtol=1e-4)


@pytest.mark.thorough
def test_an_interrupted_run_goes_on_bit_for_bit_and_shows_its_newest_rule(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with interrupted(monkeypatch):
        meta_run(tmp_path / "run")
    early = jaxrl.load_run(tmp_path / "run").rule()
    assert (early.provenance["meta_updates"], early.provenance["seeds"]) == (2, [3])
    assert "curve" not in early.provenance
    resumed, whole = jaxrl.resume(tmp_path / "run", progress=False), jaxrl.load_run(finished).results
    assert_trees_equal(dict(resumed.metrics), dict(whole.metrics))
    for seed in (3, 5):
        assert_trees_equal(*(jaxrl.load_run(path).rule(seed=seed).params for path in (tmp_path / "run", finished)))


def test_a_run_of_meta_training_has_no_policy(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for args in (["evaluate", str(finished)], ["render", str(finished)]):
        with pytest.raises(SystemExit) as end:
            main(args)
        assert end.value.code == 2
        assert "leaves a rule and no policy: save the rule, `jaxrl rule RUN --out RULE.npz`" in capsys.readouterr().err


def test_the_verb_that_writes_a_rule(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["rule", str(finished), "--out", str(tmp_path / "mine.npz"), "--seed", "5"])
    assert capsys.readouterr().out == f"{tmp_path}/mine.npz: lpg on {ENV}, {6 * STEPS} environment steps, seed 5\n"
    assert load_rule(tmp_path / "mine.npz").provenance["seeds"] == [5]


def test_lifetimes_are_weighted_by_how_many_ended() -> None:
    """By hand: 1 from one lifetime and 4 from three; a row where none ended counts nothing."""
    metrics = {"lifetime/return": np.array([[[1.0, np.nan, 4.0]]]), "lifetime/count": np.array([[[1.0, 0.0, 3.0]]])}
    results = Results({}, np.array([0]), np.arange(1, 4), metrics)
    assert results.final("lifetime/return", window=1.0)[0, 0] == pytest.approx(13.0 / 4.0)


# ---------------------------------------------------------------------------------------------- rules in use


def test_the_published_network_as_a_file(tmp_path: Path) -> None:
    params = jax.jit(lambda key: lpg_init(key, LPGConfig()))(jax.random.key(0))
    save_rule(tmp_path / "big.npz", Rule("lpg", LPGConfig(), params, {}))
    rule = load_rule(tmp_path / "big.npz")
    assert sum(leaf.size for leaf in jax.tree.leaves(rule.params)) == 203_946
    with pytest.raises(ValueError, match="a rule of kind 'lpg' is no drift; expected one of lpo"):
        rule.drift()


def test_rules_of_another_width_are_refused(tmp_path: Path) -> None:
    params = jax.jit(lambda key: lpg_init(key, CONFIG))(jax.random.key(0))
    for wrong in (LPGConfig(width=4, target_width=8, embedding_width=2), LPGConfig(width=5, target_width=3)):
        with pytest.raises(ValueError, match="do not fit .*they are those of another config"):
            save_rule(tmp_path / "bad.npz", Rule("lpg", wrong, params, {}))


def test_a_rule_is_the_objective_with_the_runs_numbers(rule_file: Path) -> None:
    """One update with the weight that the run's settings give the prediction's loss, beside the objective itself."""
    from jaxrl.agents.actor_critic import actor_critic
    from jaxrl.spaces import Box, Discrete
    from jaxrl.types import Progress as Lifetime
    from jaxrl.types import Rollout

    rule, config = load_rule(rule_file), PPOConfig(num_epochs=1, num_minibatches=1, hidden_sizes=(4,))
    spaces = Box(-1.0, 1.0, (2,)), Discrete(3)
    obs = jax.random.normal(jax.random.key(1), (5, 2, 2))

    def learnt(make: Any, weight: Any) -> Any:
        hp = PPOHparams(prediction_coef=weight, learning_rate=0.1)
        agent = actor_critic(make(hp), *spaces, config, hp)
        state = agent.init(jax.random.key(2), *spaces)
        act = jax.vmap(lambda o: agent.act(jax.random.key(3), state, (), o, np.zeros(2, bool), True))
        (action, _, extras), no = act(obs), np.zeros((5, 2), bool)
        rollout = Rollout(obs, action, obs[..., 0], no, no, no, extras, extras, ())
        return agent.update(jax.random.key(4), state, rollout, Lifetime(0, 10))[0].params

    def both(weight: Any) -> Any:
        own = learnt(lambda hp: rule.objective(config, hp), weight)
        return own, learnt(lambda hp: lpg_objective(rule.params, CONFIG, hp), weight)

    found, expected = jax.jit(jax.vmap(both))(np.array([0.7, 0.0], np.float32))
    assert_trees_close(found, expected, atol=1e-6)
    assert max(np.abs(leaf[0] - leaf[1]).max() for leaf in jax.tree.leaves(found)) > 1e-4


@pytest.mark.thorough
def test_training_with_a_learned_rule(rule_file: Path, tmp_path: Path) -> None:
    """From the command line, with PPO's several epochs; the run learns no rule itself, and Box actions are refused."""
    settings = [f"--set={name}={'8' if name == 'hidden_sizes' else value}" for name, value in TINY.items()]
    out = tmp_path / "run"
    main(["train", "ppo", "jaxrl/probe_action", *settings, "--objective", str(rule_file), "--out", str(out)])
    run = jaxrl.load_run(out)
    assert np.isfinite(run.results.metrics["loss/prediction"]).all()
    assert run.evaluate(2).returns.shape == (2,)
    with pytest.raises(ValueError, match="is a run of ppo, which learns no rule; lpg, lpg2020, groove"):
        run.rule()
    with pytest.raises(ValueError, match="LPG reads the probability of a discrete action"):
        jaxrl.run("ppo", "Pendulum-v1", settings={**TINY, "objective": rule_file})


def test_every_preset_that_learns_a_rule_names_a_kind() -> None:
    from jaxrl.presets import PRESETS

    assert {"lpg", "groove"} <= {name for name, preset in PRESETS.items() if preset.rule}
    assert set(rules.KINDS) >= {"lpo", "lpg"}
