"""Plans: every bad input is an error before anything compiles, with what to do; and how cells become programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from helpers import TINY

import jaxrl
from jaxrl.execution import Options
from jaxrl.plan import Plan, Program, default_numbers, make_plan, programs
from jaxrl.presets import PRESETS, PPOConfig, PPOHparams, ppo
from jaxrl.spaces import Box, Discrete
from jaxrl_envs.probes import truncation_probe

ENV = "jaxrl/probe_truncation"
PARAMS = truncation_probe().default_params


def plan(settings: Any = None, grid: Any = None, seeds: Any = 1, algorithm: str = "ppo", env: str = ENV) -> Plan:
    return make_plan(algorithm, env, seeds, settings or {}, grid or {}, PARAMS)


def parts(settings: Any = None, grid: Any = None) -> list[Program]:
    return programs(plan(settings, grid), PRESETS["ppo"], PARAMS)


# What is asked for, and what the message must say: what was expected, what came, and the fix.
BAD: list[tuple[dict[str, Any], str]] = [
    ({"algorithm": "pppo"}, r"unknown algorithm 'pppo'; did you mean ppo.*\? .*jaxrl list algorithms"),
    ({"algorithm": "PPO"}, r"did you mean ppo\?"),
    ({"algorithm": "zzz"}, r"unknown algorithm 'zzz'; known: a2c, .*dqn"),
    ({"settings": {"learning_rat": 1e-3}}, r"unknown setting 'learning_rat'; did you mean learning_rate.*jaxrl config"),
    ({"settings": {"env.rewrd": 1.0}}, r"unknown setting 'env.rewrd'; did you mean env.reward"),
    ({"grid": {"lerning_rate": [1e-3]}}, r"unknown setting 'lerning_rate'; did you mean learning_rate"),
    ({"settings": {"learning_rate": "fast"}}, r"learning_rate = 'fast': expected a number, got str"),
    ({"settings": {"learning_rate": True}}, r"learning_rate = True: expected a number, got bool"),
    ({"settings": {"learning_rate": None}}, r"learning_rate = None: expected a number, got NoneType"),
    ({"settings": {"learning_rate": [1e-3]}}, r"expected a number, got list"),
    ({"settings": {"learning_rate": 1j}}, r"expected a number, got complex"),
    ({"settings": {"learning_rate": float("nan")}}, r"learning_rate = nan: expected a finite number"),
    ({"settings": {"learning_rate": float("-inf")}}, r"learning_rate = -inf: expected a finite number"),
    ({"settings": {"learning_rate": 1e39}}, r"learning_rate = 1e\+39: expected a finite number of type float32"),
    ({"settings": {"learning_rate": -1e-3}}, r"learning_rate = -0.001: expected a number in \[0, inf\]"),
    ({"settings": {"gamma": 1.5}}, r"gamma = 1.5: expected a number in \[0, 1\]"),
    ({"settings": {"num_envs": 2.5}}, r"num_envs = 2.5: expected an integer, got float"),
    ({"settings": {"num_envs": "4"}}, r"num_envs = '4': expected an integer, got str"),
    ({"settings": {"num_envs": True}}, r"num_envs = True: expected an integer, got bool"),
    ({"settings": {"num_envs": 0}}, r"num_envs = 0: expected an integer >= 1"),
    ({"settings": {"normalize_obs": 1}}, r"normalize_obs = 1: expected true or false, got int"),
    ({"settings": {"hidden_sizes": "64"}}, r"hidden_sizes = '64': expected integers, as in \(64, 64\), got str"),
    ({"settings": {"hidden_sizes": (64, 0)}}, r"hidden_sizes = \(64, 0\): expected widths >= 1"),
    ({"settings": {"reset_pool": "many"}}, r"reset_pool = 'many': expected an integer or none, got str"),
    ({"settings": {"activation": "relus"}}, r"activation = 'relus': expected one of tanh, relu"),
    (
        {"settings": {"objective": "pppo"}},
        r"unknown objective 'pppo'; did you mean ppo.*`jaxrl list objectives` shows all",
    ),
    ({"settings": {"optimizer": "lion"}}, r"optimizer = 'lion': expected one of adam, adam_bounded, rmsprop"),
    ({"settings": {"torso": "lstm"}}, r"torso = 'lstm': expected one of auto, mlp, cnn"),
    ({"settings": {"normalize_advantage": "yes"}}, r"expected one of minibatch, batch, none"),
    (
        {"settings": {"num_envs": 8, "num_steps": 12, "num_minibatches": 5}},
        r"num_envs \* num_steps = 96 is not divisible by num_minibatches = 5; use 4 or 6",
    ),
    ({"grid": {"num_minibatches": [4, 5]}}, r"= 512 is not divisible by num_minibatches = 5; use 2 or 4"),
    ({"settings": {"total_steps": 100}}, r"total_steps = 100 is less than one update.* = 512 steps; use at least 512"),
    ({"settings": {"env.num_steps": 2.5}}, r"env.num_steps = 2.5: expected an integer"),
    ({"settings": {"env.num_steps": 3e9}}, r"env.num_steps = 3000000000: expected an integer in \[-2\^31, 2\^31\)"),
    ({"settings": {"env.reward": float("nan")}}, r"env.reward = nan: expected a finite number"),
    ({"seeds": 0}, r"seeds = 0: expected at least one seed, as in seeds=8"),
    ({"seeds": []}, r"expected at least one seed"),
    ({"seeds": -1}, r"seeds = -1: expected at least one seed"),
    ({"seeds": [3, 3]}, r"seeds = \[3, 3\]: expected different integers"),
    ({"seeds": [0.5]}, r"expected different integers"),
    ({"seeds": [2**32]}, r"expected different integers in \[0, 2\^32\)"),
    ({"seeds": [-1, 0]}, r"expected different integers in \[0, 2\^32\)"),
    ({"seeds": 2.0}, r"seeds = 2.0: expected a count, or a list of integers"),
    ({"seeds": True}, r"seeds = True: expected a count"),
    ({"grid": {"gamma": []}}, r"grid gamma = \[\]: expected a non-empty list of values"),
    ({"grid": {"gamma": np.array(0.9)}}, r"grid gamma = array\(0.9\): expected a non-empty list"),
    ({"grid": {"gamma": 0.9}}, r"grid gamma = 0.9: expected a non-empty list of values, as in \[1e-4, 3e-4\]"),
    ({"grid": {"activation": "tanh"}}, r"grid activation = 'tanh': expected a non-empty list"),
    ({"grid": {"gamma": [0.9, 0.9]}}, r"grid gamma = \[0.9, 0.9\]: a value stands twice"),
    ({"grid": {"hidden_sizes": [8, (8,)]}}, r"a value stands twice"),
    ({"grid": {"gamma": [0.9, np.nan]}}, r"gamma = nan: expected a finite number"),
    ({"grid": {"gamma": [0.9], "learning_rate": ["x"]}}, r"learning_rate = 'x': expected a number"),
    ({"settings": {"gamma": 0.9}, "grid": {"gamma": [0.8, 0.9]}}, r"gamma is both fixed and in the grid"),
]


@pytest.mark.parametrize(("asked", "message"), BAD, ids=[str(asked) for asked, _ in BAD])
def test_bad_input_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(**asked)


@pytest.fixture
def no_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a test in which a program of a sweep is lowered."""

    def refuse(*args: Any) -> Any:
        raise AssertionError("the sweep was compiled")

    monkeypatch.setattr("jaxrl.execution.Execution._compiled_step", refuse)


def sweep(**changes: Any) -> Callable[[], Any]:
    asked: dict[str, Any] = {"algorithm": "ppo", "env": ENV, "seeds": 1, "settings": TINY, "progress": False}
    asked |= changes
    return lambda: jaxrl.run_sweep(asked.pop("algorithm"), asked.pop("env"), **asked)


@pytest.mark.usefixtures("no_compiling")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            sweep(env="jaxrl/probe_truncatio"),
            r"unknown environment 'jaxrl/probe_truncatio'; did you mean .*probe_trunc",
        ),
        (sweep(env="cartpole-v1"), r"did you mean CartPole-v1\?"),
        (sweep(algorithm="ppq"), r"unknown algorithm 'ppq'"),
        (sweep(settings={**TINY, "torso": "cnn"}), r"torso = 'cnn' needs observations \[height, width, channels\]"),
        (sweep(settings={**TINY, "reset_pool": 0}), r"pool >= 1"),
        (sweep(settings={**TINY, "nmu_envs": 4}), r"unknown setting 'nmu_envs'; did you mean num_envs"),
        (sweep(grid={"torso": ["mlp", "cnn"]}), r"torso = 'cnn' needs observations"),
        (sweep(seeds=0), r"at least one seed"),
        (lambda: Options(num_chunks=0), r"num_chunks = 0: expected an integer >= 1"),
        (lambda: Options(num_chunks=2.5), r"num_chunks = 2.5: expected an integer >= 1"),  # type: ignore[arg-type]
        (lambda: Options(evaluations=-1), r"evaluations = -1: expected an integer >= 0"),
        (lambda: Options(batch=-1), r"batch = -1: expected an integer >= 0"),
        (lambda: Options(num_devices=0), r"num_devices = 0: expected an integer >= 1"),
        (lambda: sweep(options=Options(num_devices=3))(), r"num_devices = 3: expected a number in \[1, 2\]"),
    ],
)
def test_run_sweep_refuses_before_compiling(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.usefixtures("no_compiling")
def test_directories_in_use_are_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    with pytest.raises(ValueError, match=r"run holds another run; `jaxrl resume .*run` continues it"):
        sweep(out=run)()
    (tmp_path / "notes.txt").write_text("precious")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(ValueError, match="exists and is no run; choose an empty or a new directory"):
            sweep(out=path)()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt", "run"]


@pytest.mark.usefixtures("no_compiling")
def test_a_refused_sweep_leaves_no_directory(tmp_path: Path) -> None:
    for changes in ({"settings": {**TINY, "torso": "cnn"}}, {"grid": {"gama": [0.9]}}, {"env": "nowhere"}):
        with pytest.raises(ValueError, match=r"torso|gama|nowhere"):
            sweep(out=tmp_path / "run", **changes)()
    assert not (tmp_path / "run").exists()


class OddActions:
    """The truncation probe with another action space."""

    def __init__(self, space: Any) -> None:
        self._probe, self._space = truncation_probe(), space

    def __getattr__(self, name: str) -> Any:
        return getattr(self._probe, name)

    def action_space(self, params: Any) -> Any:
        return self._space


@pytest.mark.usefixtures("no_compiling")
@pytest.mark.parametrize("space", [Box(-1.0, 1.0, (2, 2)), Box(0, 3, (2,), jnp.int32), Box(-1.0, 1.0, ())])
@pytest.mark.parametrize(
    "algorithm",
    # The last two take swarms, and say so first.
    sorted(n for n, p in PRESETS.items() if isinstance(p.config, PPOConfig) and n not in ("ippo", "mappo")),
)
def test_action_spaces_without_a_policy(algorithm: str, space: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="Discrete, MultiDiscrete or a float Box of one axis"):
        PRESETS[algorithm].make(OddActions(space))
    monkeypatch.setattr("jaxrl.runs.make_env", lambda name: OddActions(space))
    with pytest.raises(ValueError, match="Discrete, MultiDiscrete or a float Box of one axis"):
        sweep(algorithm=algorithm, settings={})()


def test_constructors_check_static_facts() -> None:
    """The functions of the library refuse as the command line does."""
    with pytest.raises(ValueError, match="not divisible by num_minibatches = 3; use 2 or 4"):
        PPOConfig(**{**TINY, "num_minibatches": 3})
    with pytest.raises(ValueError, match="num_epochs = 0"):
        PPOConfig(num_epochs=0)
    with pytest.raises(ValueError, match="use 'mlp'"):
        ppo(truncation_probe(), PPOConfig(torso="cnn"))
    with pytest.raises(ValueError, match="needs n >= 1"):
        Discrete(0)


def test_numbers_share_a_program_and_shapes_do_not() -> None:
    """3 learning rates x 2 widths x 2 clip ranges: two programs of six cells, in the order of the cells."""
    grid = {"learning_rate": [1e-4, 1e-3, 1e-2], "hidden_sizes": [(8,), (8, 8)], "clip_eps": [0.1, 0.2]}
    found = parts(grid=grid)
    assert [part.config.hidden_sizes for part in found] == [(8,), (8, 8)]
    cells = plan(grid=grid).cells
    assert len(cells) == 12
    assert cells[1] == {"learning_rate": 1e-4, "hidden_sizes": (8,), "clip_eps": 0.2}  # the last varies fastest
    assert [part.cells for part in found] == [(0, 1, 4, 5, 8, 9), (2, 3, 6, 7, 10, 11)]
    for part in found:
        for name in ("learning_rate", "clip_eps"):
            expected = np.array([cells[i][name] for i in part.cells], np.float32)
            np.testing.assert_array_equal(part.numbers[name], expected)
            assert part.numbers[name].dtype == np.float32
        np.testing.assert_array_equal(part.numbers["gamma"], np.full(6, 0.99, np.float32))


@pytest.mark.parametrize(
    ("grid", "num_programs"),
    [
        ({"learning_rate": [1e-3, 1e-4], "gamma": [0.9, 0.99], "env.reward": [1.0, 2.0]}, 1),
        ({"num_envs": [4, 8], "num_steps": [128, 64]}, 4),
        ({"num_envs": [4, 8], "activation": ["tanh", "relu"], "gamma": [0.9, 0.99]}, 4),
        ({"objective": ["ppo", "vtrace"]}, 2),
        ({"total_steps": [512, 1024.0]}, 2),
    ],
)
def test_as_few_programs_as_shapes_allow(grid: dict[str, Any], num_programs: int) -> None:
    found = parts(grid=grid)
    assert len(found) == num_programs
    assert sorted(cell for part in found for cell in part.cells) == list(range(len(plan(grid=grid).cells)))


def test_settings_of_the_environment() -> None:
    """`env.` names are traced numbers of their own type; what nobody names stays a constant."""
    (part,) = parts({"env.num_steps": 3.0}, {"env.reward": [1, 2.5]})
    np.testing.assert_array_equal(part.numbers["env.reward"], np.array([1, 2.5], np.float32))
    np.testing.assert_array_equal(part.numbers["env.num_steps"], np.array([3, 3], np.int32))
    assert part.numbers["env.num_steps"].dtype == np.int32
    assert "env.target" not in part.numbers


def test_switches_of_the_environment() -> None:
    @struct.dataclass
    class Params:
        windy: bool = False
        table: Any = struct.field(default_factory=lambda: np.zeros(3))  # not a number: not a setting

    def ask(value: Any) -> Plan:
        return make_plan("ppo", ENV, 1, {"env.windy": value}, {}, Params())

    (part,) = programs(ask(True), PRESETS["ppo"], Params())
    assert part.numbers["env.windy"].tolist() == [True]
    assert part.numbers["env.windy"].dtype == np.bool_
    with pytest.raises(ValueError, match="env.windy = 0.5: expected true or false"):
        ask(0.5)
    assert "env.table" not in default_numbers(PRESETS["ppo"], Params())


def test_families_have_published_settings_which_users_override() -> None:
    published = plan(env="Breakout-MinAtar").settings
    assert published == PRESETS["ppo"].overrides["minatar"]
    assert plan(env="Breakout-MinAtar", settings={"num_envs": 16}).settings == {**published, "num_envs": 16}
    grid = {"num_envs": [16, 32]}
    found = programs(plan(env="Breakout-MinAtar", grid=grid), PRESETS["ppo"], PARAMS)
    assert [part.config.num_envs for part in found] == [16, 32]
    assert {part.config.hidden_sizes for part in found} == {(128,)}
    brax = programs(plan(env="brax/ant"), PRESETS["ppo"], PARAMS)[0]
    assert brax.config.normalize_obs
    np.testing.assert_array_equal(brax.numbers["learning_rate"], np.float32([3e-4]))
    assert plan().settings == {}


def test_values_take_the_type_of_their_setting() -> None:
    settings = plan({"total_steps": 1e5, "hidden_sizes": [32, 16.0], "gamma": 1, "reset_pool": None}).settings
    assert settings == {"total_steps": 100_000, "hidden_sizes": (32, 16), "gamma": 1.0, "reset_pool": None}
    assert isinstance(settings["total_steps"], int)
    assert isinstance(settings["gamma"], float)
    assert plan({"hidden_sizes": 32}).settings["hidden_sizes"] == (32,)
    assert plan({"num_envs": np.int64(8)}).settings == {"num_envs": 8}
    rates = plan({"bandit_learning_rates": [20, 40.5]}, algorithm="lpg", env="jaxrl/grid_debug").settings
    assert rates == {"bandit_learning_rates": (20.0, 40.5)}
    assert plan(seeds=3).seeds == (0, 1, 2)
    assert plan(seeds=np.array([5, 7])).seeds == (5, 7)
    assert plan(grid={"gamma": np.array([0.5, 0.75])}).grid == {"gamma": (0.5, 0.75)}


def test_plans_survive_json() -> None:
    before = plan({"hidden_sizes": (8, 8), "reset_pool": None}, {"gamma": [0.9, 0.5], "num_envs": [4, 8]}, [3, 1])
    after = Plan.from_json(json.loads(json.dumps(before.to_json())))
    assert after == before
    assert after.cells == before.cells
    tuples = plan(grid={"hidden_sizes": [(8,), (8, 8)]})
    assert Plan.from_json(json.loads(json.dumps(tuples.to_json()))) == tuples


def test_traced_hyperparameters_are_left_alone() -> None:
    """Checks of numbers belong to the host: under tracing a constructor must not look at values."""

    def init(learning_rate: Any) -> Any:
        return ppo(truncation_probe(), PPOConfig(**TINY), PPOHparams(learning_rate=learning_rate)).init(
            jax.random.key(0)
        )

    traced = jax.eval_shape(init, jnp.float32(-1.0))
    assert traced == jax.eval_shape(lambda: init(1e-3))


@pytest.mark.parametrize(
    ("algorithm", "settings", "message"),
    [
        ("dqn", {"distribution": "c51", "v_min": 1.0, "v_max": 1.0}, "v_min = 1 and v_max = 1: expected v_min < v_max"),
        ("ppo", {"objective": "risk_ppo", "risk_low": 0.9, "risk_high": 0.1}, "expected risk_low <= risk_high"),
        ("ppo", {"objective": "bapo", "bapo_low": 0.95}, "bapo_low = 0.95 and bapo_low_max = 0.9"),
        ("ppo", {"num_minibatches": 512}, "leaves one step in each, whose standardised advantage is 0"),
        ("ppo", {"objective": "a2c"}, "one step per rollout, not num_epochs \\* num_minibatches = 16; set both to 1"),
        ("ppo", {"objective": "bnpo"}, "num_envs = 4 with group_size = 0 is one; set group_size to a divisor, as in 2"),
        ("ppo", {"objective": "lite_ppo", "group_size": 4}, "compares groups of environments"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(algorithm: str, settings: Any, message: str) -> None:
    env = "CartPole-v1"
    with pytest.raises(ValueError, match=message):
        make_plan(algorithm, env, 1, settings, {}, jaxrl.make_env(env).default_params)


def test_every_cell_of_a_grid_is_checked() -> None:
    with pytest.raises(ValueError, match="v_min = 60 and v_max = 50"):
        make_plan("dqn", "CartPole-v1", 1, {"distribution": "c51", "v_max": 50.0}, {"v_min": [0.0, 60.0]}, None)
    make_plan("dqn", "CartPole-v1", 1, {"v_max": 50.0}, {"v_min": [0.0, 60.0]}, None)  # nobody reads them
