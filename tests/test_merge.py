"""Metrics of programs of different shapes on one axis of environment steps."""

from __future__ import annotations

import numpy as np

from jaxrl.plan import Plan, Program
from jaxrl.presets import PPOConfig
from jaxrl.runner import merge, missing


def plan_of(values: tuple[int, ...]) -> Plan:
    return Plan("ppo", "env", (0,), {}, {"num_steps": values})


def program(num_steps: int, total_steps: int, cell: int) -> Program:
    return Program(PPOConfig(num_envs=1, num_steps=num_steps, total_steps=total_steps, num_minibatches=1), (cell,), {})


def test_each_row_stands_at_its_own_number_of_steps() -> None:
    """As many updates, of unequal size: rows must not share labels."""
    parts = [
        (program(400, 1000, 0), {"m": np.array([[[1.0, 2.0]]])}),
        (program(500, 1000, 1), {"m": np.array([[[3.0, 4.0]]])}),
    ]
    steps, merged = merge(plan_of((400, 500)), parts)
    np.testing.assert_array_equal(steps, [400, 500, 800, 1000])
    np.testing.assert_array_equal(merged["m"][0, 0], [1.0, np.nan, 2.0, np.nan])
    np.testing.assert_array_equal(merged["m"][1, 0], [np.nan, 3.0, np.nan, 4.0])


def test_metrics_of_one_program_only_are_named_missing_elsewhere() -> None:
    parts = [
        (program(10, 20, 0), {"m": np.zeros((1, 1, 2)), "loss/kl": np.ones((1, 1, 2))}),
        (program(20, 20, 1), {"m": np.zeros((1, 1, 1))}),
    ]
    assert missing(plan_of((10, 20)), parts) == {"loss/kl": [1]}
    assert np.isnan(merge(plan_of((10, 20)), parts)[1]["loss/kl"][1]).all()
