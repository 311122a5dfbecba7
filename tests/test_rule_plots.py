"""The analysis of drifts: slopes against closed forms and finite differences, and a figure that says what it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_lpo import naive_drift, random_params

from jaxrl.objectives.dpo import dpo_drift
from jaxrl.objectives.lpo import LPOConfig
from jaxrl.objectives.ppo import ppo_drift
from jaxrl.rule_plots import plot_ratio_slopes, ratio_slopes
from jaxrl.rules import Rule

CONFIG = LPOConfig(width=4, warm_start=True, time_aware=True)
RULE = Rule("lpo", CONFIG, random_params(CONFIG, dtype=np.float32), {})


def test_slopes_of_closed_forms() -> None:
    """PPO: A within the clip or when going back, else 0. DPO: sech^2((r-1)/2) above 1, -1 - (1 - sech^2)/r below."""
    ratio = np.array([0.5, 0.75, 0.85, 1.0, 1.15, 1.25, 1.8])
    ppo = ratio_slopes(lambda x, advantage, fraction: ppo_drift(x, advantage, 0.2), ratio, [0.0, 0.5])
    assert ppo.slope.shape == (2, 2, 7)
    for at in range(2):
        np.testing.assert_allclose(ppo.slope[0, at], [1, 1, 1, 1, 1, 0, 0], atol=1e-6)
        np.testing.assert_allclose(ppo.slope[1, at], [0, 0, -1, -1, -1, -1, -1], atol=1e-6)
    dpo = ratio_slopes(lambda x, advantage, fraction: dpo_drift(x, advantage, 2.0, 0.6), ratio, [0.0])
    other = ratio_slopes(lambda x, advantage, fraction: ppo_drift(x, advantage, 0.2), ratio, [0.0], [-2.0, 0.5, 3.0])
    np.testing.assert_allclose(other.slope[:, 0, 3], [-2.0, 0.5, 3.0], atol=1e-6)
    np.testing.assert_allclose(other.slope[2, 0], [3, 3, 3, 3, 3, 0, 0], atol=1e-5)
    held = 1.0 / np.cosh(np.maximum(ratio - 1.0, 0.0) / 2.0) ** 2
    np.testing.assert_allclose(dpo.slope[0, 0], held, atol=1e-6)
    below = np.minimum(np.log(ratio), 0.0)
    np.testing.assert_allclose(dpo.slope[1, 0], -1.0 + np.tanh(below / 0.6) ** 2 / ratio, atol=1e-6)


def test_slopes_of_a_time_aware_rule() -> None:
    """Finite differences of the definition in float64, over the whole grid; at ratio 1 the advantage at all times."""
    ratio, fraction = np.array([0.4, 0.7, 0.93, 1.0, 1.11, 1.6]), np.array([0.0, 0.4, 1.0])
    found = ratio_slopes(RULE.drift(), ratio, fraction)
    for i, j, k in np.ndindex(*found.slope.shape):
        advantage = found.advantage[i]

        def gain(r: float, advantage: float = advantage, at: float = fraction[j]) -> float:
            return r * advantage - naive_drift(RULE.params, CONFIG, np.log(r), advantage, at)

        expected = (gain(ratio[k] + 1e-6) - gain(ratio[k] - 1e-6)) / 2e-6
        assert found.slope[i, j, k] == pytest.approx(expected, abs=1e-4)
    np.testing.assert_array_equal(found.slope[:, :, 3], [[1.0] * 3, [-1.0] * 3])
    assert np.ptp(found.slope, axis=1).max() > 0.1  # n/N matters


def test_the_figure(tmp_path: Path) -> None:
    slopes = ratio_slopes(RULE.drift(), fraction=np.linspace(0.0, 1.0, 5))
    assert 1.0 in slopes.ratio
    figure = plot_ratio_slopes(slopes, tmp_path / "new" / "slopes.png", "a title")
    maps, lines = figure.axes[:2], figure.axes[2:4]
    assert [axes.get_title("left") for axes in maps] == ["A = +1: good actions", "A = -1: bad actions"]
    for row in range(2):
        np.testing.assert_array_equal(maps[row].collections[0].get_array(), slopes.slope[row])
        drawn = {line.get_label(): line.get_ydata() for line in lines[row].lines}
        np.testing.assert_array_equal(drawn["n/N = 0.75"], slopes.slope[row, 3])
    with Image.open(tmp_path / "new" / "slopes.png") as image:
        assert image.size == (1440, 960)
        assert len(image.convert("RGB").getcolors(2**20) or []) > 50


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"ratio": []}, r"ratio = \[\]: expected numbers in \[0, inf\]"),
        ({"ratio": [0.0, 1.0]}, "ratio holds 0: expected numbers above 0"),
        ({"fraction": [0.5, 1.5]}, r"fraction = \[0.5, 1.5\]: expected numbers in \[0, 1\]"),
        ({"fraction": 0.5}, "expected numbers in"),
    ],
)
def test_bad_grids(grid: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ratio_slopes(RULE.drift(), **grid)
