"""Pictures of swarms: agents where they are, hues by heading, and figures of episodes."""

from __future__ import annotations

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxrl.rendering import Trajectory, render
from jaxrl.swarm_plots import film_strip, plot_over_time, plot_sizes
from jaxrl_envs.mean_field.aggregation import Aggregation
from jaxrl_envs.mean_field.drawing import heading_colours, swarm_image
from jaxrl_envs.mean_field.kuramoto import Kuramoto
from jaxrl_envs.mean_field.topology import Surface
from jaxrl_envs.mean_field.vicsek import Vicsek


def where(image: np.ndarray, colour: np.ndarray, height: int = 300) -> np.ndarray:
    """Middle of the pixels of a colour, as a place in [-2, 2]^2."""
    row, column = np.nonzero((np.abs(image.astype(int) - colour) < 12).all(-1))
    margin, scale = 0.02 * height, 0.96 * height / 4
    return np.array([(column.mean() + 0.5 - margin) / scale - 2, 2 - (row.mean() + 0.5 - margin) / scale])


@pytest.mark.parametrize("arrows", [False, True])
def test_agents_are_drawn_where_they_are(arrows: bool) -> None:
    position, heading = np.array([[1.0, 1.5], [-1.0, -0.5]]), np.array([0.3, 3.0])
    image = swarm_image(position, heading, 2.0, arrows=arrows)
    assert image.shape == (300, 300, 3)
    assert image.dtype == np.uint8
    for at, colour in zip(position, heading_colours(heading), strict=True):
        np.testing.assert_allclose(where(image, colour), at, atol=0.06)


def test_many_agents_are_a_density() -> None:
    """100,000 agents in two heaps, each of one heading: one hue in each quarter, and floor elsewhere."""
    rng = np.random.default_rng(0)
    right = np.arange(100_000) % 2
    position = rng.normal(0.0, 0.1, (100_000, 2)) + np.where(right, 1.0, -1.0)[:, None]
    heading = np.where(right, 0.5, 2.5)
    began = time.perf_counter()
    image = swarm_image(position, heading, 2.0)
    assert time.perf_counter() - began < 5.0
    for at, colour in zip(([-1, -1], [1, 1]), heading_colours(np.array([2.5, 0.5])), strict=True):
        np.testing.assert_allclose(where(image, colour), at, atol=0.05)
    corner = image[20:60, 20:60].reshape(-1, 3)
    assert len(np.unique(corner, axis=0)) == 1


def test_hues_go_round() -> None:
    """Neighbouring headings have neighbouring hues across the seam, and opposite ones differ."""
    few = heading_colours(np.array([0.01, 2 * np.pi - 0.01, np.pi])).astype(int)
    assert np.abs(few[0] - few[1]).max() < 40
    assert np.abs(few[0] - few[2]).max() > 100


@pytest.mark.parametrize(
    "model",
    [Vicsek(Surface("box"), informed=True, obstacle=True), Kuramoto(), Aggregation(1), Aggregation(2), Aggregation(3)],
)
def test_models_draw_themselves(model: object) -> None:
    params = model.default_params  # type: ignore[attr-defined]
    image = model.image(model.reset(jax.random.key(0), 50, params), params)  # type: ignore[attr-defined]
    assert image.shape == (300, 300, 3)
    assert (np.abs(image.astype(int) - 247) > 40).any(-1).sum() > 500


def test_figures(tmp_path: Path) -> None:
    model = Vicsek()
    params = model.default_params
    swarm = model.reset(jax.random.key(0), 20, params)

    def body(swarm: object, key: jax.Array) -> object:
        after, _, info = model.step(key, swarm, jnp.zeros((20, 1)), params)  # type: ignore[arg-type]
        return after, (swarm, info["polarisation"])

    _, (states, order) = jax.lax.scan(body, swarm, jax.random.split(jax.random.key(1), 11))
    order = np.asarray(order)
    figure = film_strip(model, params, states, tmp_path / "strip.png", num_frames=3, values=order, title="twenty")
    assert [panel.get_title() for panel in figure.axes] == [f"step {t}: {order[t]:.2f}" for t in (0, 5, 10)]
    assert (tmp_path / "strip.png").stat().st_size > 5000
    runs = np.stack([order, order + 0.1])
    figure = plot_over_time({"two": runs, "one": order}, tmp_path / "order.png", name="polarisation")
    lines = figure.axes[0].get_lines()
    np.testing.assert_allclose(lines[0].get_ydata(), order + 0.05, atol=1e-6)
    np.testing.assert_allclose(lines[1].get_ydata(), order, atol=1e-6)
    assert len(figure.axes[0].collections) == 1
    played = Trajectory(jax.tree.map(np.asarray, states), np.zeros((11, 20, 2)), np.zeros((11, 20, 1)), -order, 11)
    path = render("jaxrl/vicsek", model, params, played, tmp_path / "swarm.gif")
    with Image.open(path) as picture:
        assert getattr(picture, "n_frames", 1) == 11
    with pytest.raises(ValueError, match="num_frames >= 2"):
        film_strip(model, params, states, num_frames=1)
    with pytest.raises(ValueError, match=r"expected values \[11\]"):
        film_strip(model, params, states, values=order[:-1])
    with pytest.raises(ValueError, match="1 to 8 curves, got 0"):
        plot_over_time({})
    with pytest.raises(ValueError, match="positions"):
        swarm_image(np.zeros((3, 2)), np.zeros(2), 2.0)


def test_sizes_of_several_policies_are_one_figure(tmp_path: Path) -> None:
    """Means where the sizes are, the interval around them, the limit across; a line for each policy and mode."""
    rows = [
        {"policy": policy, "mode": "open_loop", "num_agents": n, "mean": shift + m, "low": m - 1, "high": m + 1}
        for policy, shift in (("ours", 0.0), ("ippo", 0.5))
        for n, m in ((2, -3.0), (10, -2.0), (None, -1.0))
    ]
    figure = plot_sizes(rows, tmp_path / "sizes.png", title="vicsek")
    (axes,) = figure.axes
    lines = axes.get_lines()
    assert [line.get_label() for line in lines] == ["ours open loop", "ippo open loop"]
    np.testing.assert_array_equal(lines[1].get_xdata(), [2, 10])
    np.testing.assert_array_equal(lines[1].get_ydata(), [-2.5, -1.5])
    assert axes.get_xscale() == "log"
    ends = [patch.get_extents().transformed(axes.transData.inverted()) for patch in axes.patches]
    np.testing.assert_allclose([(end.y0, end.y1) for end in ends], [(-2.0, 0.0)] * 2, atol=1e-9)
    assert (tmp_path / "sizes.png").stat().st_size > 5000
    assert plot_sizes([{k: v for k, v in rows[0].items() if k != "policy"}], axes=axes) is figure
    with pytest.raises(ValueError, match="1 to 8 policies"):
        plot_sizes([])
