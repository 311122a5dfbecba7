"""Rules as files: what is written comes back, what does not fit is refused, and any run takes one as its objective."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers import TINY, assert_trees_equal, interrupted
from test_lpo import learn, random_params
from test_objectives import HP

import jaxrl
from jaxrl import checkpoint, files, rules
from jaxrl.cli import main
from jaxrl.execution import Options
from jaxrl.objectives import OBJECTIVES, lpo_objective
from jaxrl.objectives.lpg import LPGConfig, lpg_init
from jaxrl.objectives.lpo import LPOConfig, lpo_drift, lpo_init
from jaxrl.plan import make_plan
from jaxrl.presets import PPOConfig, on_policy, on_policy_agent
from jaxrl.rules import KINDS, Rule, check_objective, describe_rule, load_rule, rule_sha256, save_rule
from jaxrl.runner import executions

ENV = "jaxrl/probe_termination"
CONFIG = LPOConfig(width=4, time_aware=True, xi=1e-3)
PROVENANCE = {"summary": "hand-made,\n for tests", "seeds": [0, 1], "device": {"kind": "cpu"}}


def a_rule(seed: int = 0, config: LPOConfig = CONFIG) -> Rule:
    return Rule("lpo", config, random_params(config, seed, np.float32), PROVENANCE)


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of the package's, with two rules."""
    folder = tmp_path / "pretrained"
    monkeypatch.setattr(rules, "PRETRAINED", folder)
    save_rule(folder / "ta_lpo.npz", a_rule())
    save_rule(folder / "small_lpo.npz", a_rule(1, LPOConfig(width=3)))
    return folder


# ---------------------------------------------------------------------------------------------------- files


def test_a_rule_comes_back_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "new" / "mine.npz"
    save_rule(file, a_rule())
    for path in (file, str(file)):
        rule = load_rule(path)
        assert (rule.kind, rule.config, rule.provenance) == ("lpo", CONFIG, PROVENANCE)
        assert_trees_equal(rule.params, a_rule().params)
    # Arrays and JSON only, and equal contents have equal checksums.
    assert {a.dtype.kind for a in files.read_npz(file).values()} <= {"f", "u"}
    save_rule(tmp_path / "again.npz", rule)
    save_rule(tmp_path / "other.npz", a_rule(1))
    again, other = (rule_sha256(str(tmp_path / f"{name}.npz")) for name in ("again", "other"))
    assert rule_sha256(str(file)) == again != other
    assert rule_sha256("ppo") is rule_sha256(None) is None


@pytest.mark.parametrize("aware", [False, True])
def test_init_fits_its_own_config(tmp_path: Path, aware: bool) -> None:
    config = LPOConfig(time_aware=aware)
    save_rule(tmp_path / "new.npz", Rule("lpo", config, lpo_init(jax.random.key(0), config), {}))
    assert load_rule(tmp_path / "new.npz").params["hidden"].shape == (16 if aware else 8, 128)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "lpoo"}, "unknown kind of rule 'lpoo'; did you mean lpo"),
        ({"config": {"width": 4}}, "the config of a rule of kind 'lpo' is a LPOConfig, got a dict"),
        (
            {"config": LPOConfig(width=5, time_aware=True)},
            r"do not fit .*'hidden'.*float32\[16, 5\], got float32\[16, 4\]",
        ),
        ({"params": {"hidden": np.zeros((16, 4), np.float32)}}, r"'output'.*expected float32\[4, 1\], got None"),
        ({"params": random_params(CONFIG)}, r"expected float32\[16, 4\], got float64"),
        ({"params": jax.tree.map(lambda x: x * np.nan, a_rule().params)}, "hold NaN or infinity"),
        ({"provenance": {"f": print}}, "must be JSON"),
    ],
)
def test_rules_that_do_not_fit_are_not_written(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        save_rule(tmp_path / "bad.npz", a_rule()._replace(**changes))
    assert not (tmp_path / "bad.npz").exists()


def test_a_rule_of_another_target_width_is_refused(tmp_path: Path) -> None:
    """Written with a configuration that it does not fit, or read with one: which array, and what was expected."""
    config, other = LPGConfig(width=3, target_width=4, embedding_width=2), LPGConfig(width=3, target_width=5)
    params = jax.tree.map(np.asarray, lpg_init(jax.random.key(0), config))
    with pytest.raises(ValueError, match=r"do not fit LPGConfig\(.*target_width=5.*; they are those of another config"):
        save_rule(tmp_path / "bad.npz", Rule("lpg", other, params, {}))
    about = {"version": 1, "kind": "lpg", "config": {"width": 3, "embedding_width": 2}, "provenance": {}}
    checkpoint.save(tmp_path / "odd.npz", params, {"rule": about})
    with pytest.raises(ValueError, match=r"odd\.npz cannot be used.*does not fit: .*shape \[4, 2\].*\[8, 2\]"):
        load_rule(tmp_path / "odd.npz")


@pytest.mark.parametrize("env", ["Pendulum-v1", "jaxrl/probe_continuous"])
def test_a_rule_of_lpg_on_other_actions_is_refused_before_anything_runs(tmp_path: Path, env: str) -> None:
    """The rule itself fits any number of actions, as it reads probabilities; but they must be discrete."""
    config = LPGConfig(width=3, target_width=4, embedding_width=2)
    file = tmp_path / "mine.npz"
    save_rule(file, Rule("lpg", config, jax.tree.map(np.asarray, lpg_init(jax.random.key(0), config)), {}))
    with pytest.raises(ValueError, match=r"LPG reads the probability of a discrete action, got .*use an env"):
        jaxrl.run("ppo", env, settings={**TINY, "objective": str(file)}, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "results.npz").exists()


def test_names_of_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mine\.pkl: the name of a rule file ends in \.npz"):
        save_rule(tmp_path / "mine.pkl", a_rule())
    with pytest.raises(ValueError, match=r"there is no rule file nowhere/mine\.npz \(looked for from .*save_rule"):
        load_rule("nowhere/mine.npz")


def test_unknown_names_offer_the_nearest(shipped: Path) -> None:
    with pytest.raises(ValueError, match="unknown rule 'ta_lpoo'; did you mean ta_lpo"):
        load_rule("ta_lpoo")
    with pytest.raises(ValueError, match=r"unknown objective 'ta-lpo'; did you mean ta_lpo.*ends in \.npz"):
        PPOConfig(objective="ta-lpo")
    with pytest.raises(ValueError, match="unknown objective 'doo'; did you mean dpo"):
        PPOConfig(objective="doo")
    with pytest.raises(ValueError, match=r"there is no rule file nowhere\.npz"):
        PPOConfig(objective="nowhere.npz")


def described(about: Any, params: Any = None) -> tuple[Any, dict[str, Any]]:
    return (a_rule().params if params is None else params), {"rule": about}


ABOUT = {"version": 1, "kind": "lpo", "config": {"width": 4, "time_aware": True}, "provenance": {}}
FOREIGN = [
    ((a_rule().params, {"updates": 3}), "it is a checkpoint and no rule; rules are written by `jaxrl.save_rule`"),
    (described({**ABOUT, "version": 2}), "rule format 2, this jaxrl reads 1; update jaxrl"),
    (described({**ABOUT, "kind": "lpoo"}), "unknown kind of rule 'lpoo'; did you mean lpo"),
    (described({**ABOUT, "config": {"depth": 2}}), "LPOConfig has no depth; a newer jaxrl wrote it: update jaxrl"),
    (described({**ABOUT, "config": {"width": 0}}), "width = 0: expected an integer >= 1"),
    (described({**ABOUT, "config": {"width": 10**9}}), r"does not fit: .*shape \[16, 4\].*expected \[8, 1000000000\]"),
    (described({"version": 1, "kind": "lpo", "config": ABOUT["config"]}), "'provenance' is missing"),
    (described(ABOUT, {"hidden": a_rule().params["hidden"]}), r"\['output'\] is missing from the file"),
    (described(ABOUT, jax.tree.map(lambda x: x * np.inf, a_rule().params)), "hold NaN or infinity"),
    (described("lpo"), "cannot be used"),
]


@pytest.mark.parametrize(("content", "message"), FOREIGN, ids=[message[:30] for _, message in FOREIGN])
def test_files_that_are_not_rules_of_ours(tmp_path: Path, content: Any, message: str) -> None:
    checkpoint.save(tmp_path / "odd.npz", *content)
    with pytest.raises(ValueError, match=rf"(?s)rule file .*odd\.npz.*{message}"):
        load_rule(tmp_path / "odd.npz")


def test_defaults_stand_in_for_fields_that_a_file_does_not_know(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "old.npz", *described(ABOUT))
    assert load_rule(tmp_path / "old.npz").config == LPOConfig(width=4, time_aware=True)


def test_damage_is_refused_by_name(tmp_path: Path) -> None:
    """Altered, cut short, a parameter exchanged, of a newer checkpoint format, no npz at all, pickled."""
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    save_rule(good, a_rule())
    whole = good.read_bytes()
    middle = len(whole) // 2
    arrays = files.read_npz(good)
    name = next(name for name in arrays if "hidden" in name)

    def refused(message: str) -> None:
        for use in (load_rule, lambda path: rule_sha256(str(path))):
            with pytest.raises(ValueError, match=rf"bad\.npz.*{message}"):
                use(bad)

    for damaged in (whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :], whole[:-100], b"", b"rule"):
        bad.write_bytes(damaged)
        refused("restore it from a copy")
    files.write_npz(bad, arrays | {name: arrays[name] + 1.0})
    refused("was altered: its contents do not match its sha256")
    manifest = json.loads(arrays["__manifest__"].tobytes())
    manifest["version"] = 9
    files.write_npz(bad, arrays | {"__manifest__": np.frombuffer(json.dumps(manifest).encode(), np.uint8)})
    refused("format version 9.*install the version that wrote it, or a newer one")
    np.savez(bad, **arrays, extra=np.array([print], object))
    refused("is damaged")


# ---------------------------------------------------------------------------------------------------- use


def test_a_rule_is_its_kinds_objective() -> None:
    """With the run's settings; parameters may be traced, and a file's are constants under jit."""
    config = PPOConfig(normalize_advantage="none", clip_value=True)
    rule = a_rule()
    expected = learn(lpo_objective(rule.params, CONFIG, HP, "none", True))[0]
    assert learn(rule.objective(config, HP))[0] == pytest.approx(float(expected), abs=1e-6)
    traced = jax.jit(lambda params: learn(rule._replace(params=params).objective(config, HP))[0])(rule.params)
    assert float(traced) == pytest.approx(float(expected), abs=1e-5)
    assert abs(float(learn(rule.objective(PPOConfig(), HP))[0] - expected)) > 1e-3
    np.testing.assert_array_equal(rule.drift()(0.5, 1.0, 0.3), lpo_drift(rule.params, CONFIG, 0.5, 1.0, 0.3))


def test_kinds_that_are_no_drift_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "other", KINDS["lpo"]._replace(drift=None))
    with pytest.raises(ValueError, match="a rule of kind 'other' is no drift; expected one of lpo"):
        a_rule()._replace(kind="other").drift()


def test_shipped_rules_load_and_take_no_built_in_name(shipped: Path) -> None:
    assert jaxrl.list_rules() == ["small_lpo", "ta_lpo"]
    assert load_rule("ta_lpo").config == CONFIG
    assert describe_rule("ta_lpo") == "rule of kind lpo: hand-made, for tests"
    for name in ("ta_lpo", str(shipped / "ta_lpo.npz"), "ppo"):
        check_objective(name)


def test_what_is_shipped_is_sound() -> None:
    """Every file in the package loads, says where it comes from, and hides no objective; all are small."""
    for name in jaxrl.list_rules():
        assert name not in OBJECTIVES
        assert {"summary", "command"} <= set(load_rule(name).provenance)
    folder = Path(jaxrl.__file__).parent / "pretrained"
    assert folder == rules.PRETRAINED
    assert sum(file.stat().st_size for file in folder.iterdir()) < 3 * 2**20


def test_the_preset_reads_the_rule_that_its_config_names(
    shipped: Path, probe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights under another name are the same objective; others are another."""
    shutil.copy(shipped / "ta_lpo.npz", shipped.parent / "copy.npz")
    losses = []
    for objective in ("ta_lpo", str(shipped.parent / "copy.npz"), "small_lpo"):
        config = PPOConfig(**TINY, objective=objective)
        seen = []
        monkeypatch.setattr(on_policy, "actor_critic", lambda chosen, *args: seen.append(chosen))  # noqa: B023
        on_policy_agent(probe, config, HP)
        losses.append(float(learn(seen[0])[0]))
    assert losses[0] == losses[1]
    assert abs(losses[0] - losses[2]) > 1e-3


def run(out: Path, objective: Any, **changes: Any) -> Any:
    settings = {**TINY, "total_steps": 64, "num_epochs": 1}
    asked = {"seeds": 1, "settings": settings, "options": Options(num_chunks=2, num_devices=1), "progress": False}
    return jaxrl.run_sweep("ppo", ENV, grid={"objective": objective}, out=out, **{**asked, **changes})


@pytest.mark.thorough
def test_a_sweep_over_objectives_and_rules(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the grid to the files; a run whose rule has changed is refused by name, and goes on when it is back."""
    path, file = tmp_path / "run", tmp_path / "mine.npz"
    save_rule(file, a_rule(2))

    with interrupted(monkeypatch):
        run(path, ["ppo", file])
    written = json.loads((path / "run.json").read_text())["programs"]
    assert [program["config"]["objective"] for program in written] == ["ppo", str(file)]
    assert [program.get("rule_sha256") for program in written] == [None, rule_sha256(str(file))]
    good = file.read_bytes()
    save_rule(file, a_rule(3))
    for use in (jaxrl.resume, jaxrl.load_run):
        with pytest.raises(ValueError, match=rf"run\.json was made with another rule '{file}': .*put that file back"):
            use(path)
    file.unlink()
    with pytest.raises(ValueError, match=rf"there is no rule file {file}"):
        jaxrl.resume(path)
    file.write_bytes(good)
    results = jaxrl.resume(path, progress=False)
    assert list(results.hparams["objective"]) == ["ppo", str(file)]
    assert np.isfinite(results.metrics["loss/policy"]).all()
    held = results.metrics["policy/drift_fraction"]  # a metric of the learned drift, which PPO has not
    assert np.isnan(held[0]).all()
    assert (held[1] > 0.0).any()
    main(["list", "objectives"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[: len(OBJECTIVES)] == sorted(OBJECTIVES)
    assert [" ".join(line.split()) for line in lines[len(OBJECTIVES) :]] == [
        f"{name} rule of kind lpo: hand-made, for tests" for name in ("small_lpo", "ta_lpo")
    ]


def test_a_rule_that_changes_before_its_program_is_compiled(tmp_path: Path) -> None:
    file = tmp_path / "mine.npz"
    save_rule(file, a_rule())
    env = jaxrl.make_env(ENV)
    plan = make_plan("ppo", ENV, 1, {**TINY, "objective": str(file)}, {}, env.default_params)
    (part,) = executions(plan, env, Options(num_devices=1), None)
    save_rule(file, a_rule(1))
    with pytest.raises(ValueError, match="the rule file changed during the run; put it back"):
        part.run(lambda *args: None)


def test_paths_in_settings(tmp_path: Path) -> None:
    file = tmp_path / "mine.npz"
    save_rule(file, a_rule())
    env = jaxrl.make_env(ENV)
    plan = make_plan("ppo", ENV, 1, {"objective": file}, {}, env.default_params)
    assert plan.settings == {"objective": os.fspath(file)}


WEIGHTS = Path(os.environ.get("JAXRL_DISCO103", Path(__file__).parents[2] / "shared" / "data" / "disco_103.npz"))


@pytest.mark.skipif(not WEIGHTS.exists(), reason="disco_103.npz is not here; name it in JAXRL_DISCO103")
def test_the_published_file_of_disco103_is_a_rule(tmp_path: Path) -> None:
    """As it was downloaded; saved again it is one of our files, of the same parameters."""
    rule = jaxrl.load_rule(WEIGHTS)
    assert rule.kind == "disco103"
    assert sum(leaf.size for leaf in jax.tree.leaves(rule.params)) == 754_778
    save_rule(tmp_path / "mine.npz", rule)
    assert_trees_equal(jaxrl.load_rule(tmp_path / "mine.npz").params, jax.tree.map(np.asarray, rule.params))
    assert rule_sha256(str(WEIGHTS)) == hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
