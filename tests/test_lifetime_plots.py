"""What a rule does over lifetimes: a rule whose targets are known, and what the figures show."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from test_rules import a_rule as a_drift

from jaxrl.lifetime_plots import LifetimeTraces, lifetime_traces, plot_horizons, plot_schedules
from jaxrl.objectives.lpg import LPGConfig, lpg_init
from jaxrl.presets import MetaConfig, MetaHparams
from jaxrl.rules import Rule
from jaxrl_envs.gridworld import LevelDistribution, grid_random

CONFIG = LPGConfig(width=3, target_width=3, embedding_width=2)
AGENTS = MetaConfig(total_steps=10**8, num_lifetimes=2, lifetime_batch=2, num_envs=3, num_steps=4)
LEVELS = LevelDistribution((2, 3), (3, 6), (1, 1), 0, (4, 4))


def constant_rule(size: float) -> Rule:
    """π̂ = -size at every step, whatever happened: every parameter is 0 but one bias."""
    params = jax.tree.map(jnp.zeros_like, jax.jit(lambda key: lpg_init(key, CONFIG))(jax.random.key(0)))
    params["params"]["head_policy"]["bias"] = jnp.full(1, -size)
    return Rule("lpg", CONFIG, params, {})


@pytest.mark.thorough
def test_traces_of_a_known_rule() -> None:
    """|π̂| is the bias, whatever N; entropies are those of five actions, and change while agents learn."""
    hp = MetaHparams(learning_rate=5.0, prediction_coef=0.0, max_grad_norm=1e6)
    found = lifetime_traces(constant_rule(0.75), grid_random(LEVELS), AGENTS, hp, (2, 6), num_levels=4)
    assert found.lifetime.tolist() == [2, 6]
    np.testing.assert_allclose(found.target_size, [[0.75] * 2 + [np.nan] * 4, [0.75] * 6])
    np.testing.assert_array_equal(np.isnan(found.entropy), np.isnan(found.target_size))
    lived = found.entropy[~np.isnan(found.entropy)]
    assert np.all((lived > 0.0) & (lived <= np.log(5.0)))
    # The same agents on the same levels: as far as both live, they are the same.
    np.testing.assert_array_equal(found.entropy[0, :2], found.entropy[1, :2])
    assert np.ptp(found.entropy[1]) > 0.05
    assert found.returns.shape == (2, 4)


def test_figures(tmp_path: Path) -> None:
    rows = np.array([[0.3, 0.1, np.nan, np.nan], [0.4, 0.3, 0.2, 0.1]])
    traces = LifetimeTraces(np.array([2, 4]), rows, 2 * rows, np.array([[1.0, 2.0], [3.0, 5.0]]))
    left, right = plot_schedules(traces, tmp_path / "new" / "schedules.png", "a title").axes
    for axes, values in ((left, rows), (right, 2 * rows)):
        drawn = {line.get_label(): line for line in axes.lines}
        np.testing.assert_allclose(drawn["N = 2"].get_xydata(), np.stack([[0.0, 0.5], values[0, :2]], 1))
        np.testing.assert_allclose(drawn["N = 4"].get_ydata(), values[1])
    (axes,) = plot_horizons({"aware": traces, "plain": traces}, tmp_path / "horizons.png").axes
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[2.0, 1.5], [4.0, 4.0]])
    for name in ("new/schedules.png", "horizons.png"):
        with Image.open(tmp_path / name) as image:
            assert len(image.convert("RGB").getcolors(2**20) or []) > 50


def test_bad_requests() -> None:
    env = grid_random(LEVELS)
    with pytest.raises(ValueError, match="a rule of kind 'lpo' has no targets of a policy"):
        lifetime_traces(a_drift(), env, AGENTS)
    for lifetimes in ((), (0, 3)):
        with pytest.raises(ValueError, match="expected one or more integers >= 1"):
            lifetime_traces(constant_rule(1.0), env, AGENTS, lifetimes=lifetimes)
