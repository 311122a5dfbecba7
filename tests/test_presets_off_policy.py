"""Settings of off-policy runs: what cannot work is refused at once, with what would."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import numpy as np
import pytest

import jaxrl
from jaxrl.plan import make_plan
from jaxrl.presets import PRESETS, SACConfig, TD3Config
from jaxrl.presets.off_policy import OffPolicyConfig
from jaxrl.spaces import Box, Discrete, MultiDiscrete
from jaxrl_envs import probes

OFF_POLICY = [name for name, preset in PRESETS.items() if isinstance(preset.config, OffPolicyConfig)]
SIZES: dict[str, Any] = {"num_envs": 4, "batch_size": 16, "buffer_size": 100, "fill_steps": 32, "total_steps": 400}


def test_there_are_six() -> None:
    assert OFF_POLICY == ["dqn", "sac", "td3", "dsac_t", "mdpo_off", "pmoe"]


@pytest.mark.parametrize("name", OFF_POLICY)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"buffer_size": 40, "batch_size": 64},
            "batch_size = 64; use a buffer_size of at least 64, or a smaller",
        ),
        (
            {"fill_steps": 101},
            "more than buffer_size = 100 holds; use a buffer_size of at least 104, or fewer",
        ),
        ({"num_step_returns": 9}, "num_step_returns [*] num_envs = 36 steps to draw from; use at least"),
        ({"num_step_returns": 30}, "fewer than num_step_returns . num_steps = 31; use at least 128"),
        ({"total_steps": 35}, "ends before the first update: .* use at least 36"),
        ({"total_steps": 10**12}, "expected fewer than 2.31 updates"),
        ({"num_gradient_steps": 0}, "num_gradient_steps = 0: expected an integer >= 1"),
        ({"fill_steps": -1}, "fill_steps = -1: expected an integer >= 0"),
        ({"hidden_sizes": (0,)}, "expected widths >= 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(name: str, changes: dict[str, Any], message: str) -> None:
    settings = {**SIZES, **changes}
    with pytest.raises(ValueError, match=message):
        make_plan(name, "jaxrl/probe_continuous", 1, settings, {}, None)


@pytest.mark.parametrize(
    ("changes", "setting"),
    [({"total_steps": 35}, "total_steps"), ({"num_step_returns": 30, "fill_steps": 120}, "buffer_size")],
)
def test_the_number_that_an_error_names_is_enough(changes: dict[str, Any], setting: str) -> None:
    settings = {**SIZES, **changes}
    with pytest.raises(ValueError, match="use at least") as error:
        SACConfig(**settings)
    number = int(re.findall(r"use at least (\d+)", str(error.value))[0])
    assert SACConfig(**{**settings, setting: number}).num_updates >= 1


def test_steps_are_counted_from_the_first() -> None:
    """22 steps to fill are three whole iterations of 8; of 60 in all, 36 are left for four more."""
    config = TD3Config(**{**SIZES, "num_steps": 2, "fill_steps": 22, "total_steps": 60})
    assert (config.steps_per_update, config.initial_steps, config.num_updates) == (8, 24, 4)


@pytest.mark.parametrize(("preset", "changes", "message"), [
    ("dqn", {"distribution": "c52"}, "distribution = 'c52': expected one of none, c51, qr"),
    ("dqn", {"num_atoms": 1}, "num_atoms = 1: expected an integer >= 2"),
    ("dqn", {"target_period": 0}, "target_period = 0"),
    ("dqn", {"loss": "mae"}, "loss = 'mae': expected one of"),
    ("pmoe", {"routing": "best"}, "routing = 'best': expected one of frequency, score, gumbel"),
    ("pmoe", {"weighting": "none"}, "weighting = 'none': expected one of gate, uniform, best"),
    ("pmoe", {"num_primitives": 0}, "num_primitives = 0"),
    ("sac", {"num_critics": 0}, "num_critics = 0"),
    ("td3", {"policy_delay": 0}, "policy_delay = 0"),
])  # fmt: skip
def test_each_methods_own_settings(preset: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        type(PRESETS[preset].config)(**changes)


@pytest.mark.parametrize("name", OFF_POLICY)
def test_published_settings_are_consistent(name: str) -> None:
    """Of every family of environments; none is refused by its own checks."""
    for family in ("", *PRESETS[name].overrides):
        plan = make_plan(name, f"{family}/x" if family == "brax" else "X-MinAtar" if family else "x", 1, {}, {}, None)
        assert plan.algorithm == name


def test_unsuitable_actions_are_refused_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="dqn takes a Discrete action space, got Box.*use ppo, or for a Box sac"):
        jaxrl.dqn(probes.continuous_probe())
    with pytest.raises(ValueError, match="td3 takes a bounded float Box .*got Discrete.*use dqn"):
        jaxrl.td3(probes.action_probe())


OF_SWARMS = ("mfc_ppo", "ippo", "mappo")
SPACES: dict[str, Any] = {"Discrete": Discrete(3), "MultiDiscrete": MultiDiscrete((2, 3)), "Box": Box(-1.0, 1.0, (2,))}


# Those of quality-diversity ask first what episodes are described by, which a probe does not say.
AGENTS = [name for name, preset in PRESETS.items() if preset.rule is None and "map_elites" not in name]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", AGENTS)
def test_agents_take_the_action_spaces_that_the_list_shows(name: str, space: str) -> None:
    """`jaxrl list agents` and the README's table say it; what is not shown is refused, with what to use."""
    preset = PRESETS[name]
    if name in OF_SWARMS:
        pytest.skip("takes swarms only, and says so: tests/test_swarm_agents.py")
    env = dataclasses.replace(probes.action_probe(), single_action_space=SPACES[space])
    if space in preset.action_spaces.split(", "):
        preset.agent(env, preset.config, preset.hparams)
        return
    with pytest.raises(ValueError, match=r"action.*, got .*; use .*\w"):
        preset.agent(env, preset.config, preset.hparams)


def test_progress_counts_to_the_end() -> None:
    """Iterations times gradient steps: epsilon has come down at the end of its share, and the ratio is kept."""
    config = PRESETS["dqn"].config
    config = type(config)(**{**SIZES, "num_gradient_steps": 3, "hidden_sizes": (4,)})
    hparams = PRESETS["dqn"].hparams.replace(exploration_fraction=0.5, epsilon_end=0.1)
    algorithm = jaxrl.dqn(probes.action_probe(), config, hparams)
    state, metrics = jax.jit(lambda key: jaxrl.train(key, algorithm, config.num_updates))(jax.random.key(0))
    assert config.num_updates == 92
    epsilon = np.asarray(metrics["policy/epsilon"])
    # An iteration's metric is the mean over its three updates.
    np.testing.assert_allclose(epsilon[0], 1 - 0.9 * 2 * (1 / (92 * 3)), rtol=1e-5)
    np.testing.assert_allclose(epsilon[22], 1 - 0.9 * 2 * (67 / (92 * 3)), rtol=1e-5)
    np.testing.assert_allclose(epsilon[46:], 0.1, rtol=1e-5)
    assert state.buffer.size * 4 == 100
    assert metrics["episode/count"].sum() == 92 * 4
