"""What a learned rule does over agents' lifetimes, as arrays and as figures. Matplotlib is imported when first used."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.algorithm import train
from jaxrl.evaluation import evaluate
from jaxrl.loops.on_policy import on_policy
from jaxrl.meta.gradient import frozen_after
from jaxrl.plotting import COLOURS, STYLES
from jaxrl.presets.meta import MetaConfig, MetaHparams, meta_agent
from jaxrl.reporting import bootstrap
from jaxrl.rules import Rule
from jaxrl.types import Key, Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE, _ENTROPY = "target/policy_size", "policy/entropy"


class LifetimeTraces(NamedTuple):
    """Lifetimes of several lengths under one rule, on the same M levels.

    Attributes:
      lifetime: [K] int, N: updates of an agent.
      target_size: [K, max N], mean |π̂| of each update, over levels; NaN beyond the lifetime.
      entropy: [K, max N], of the policies that collected, in nats; NaN beyond.
      returns: [K, M], mean return after the lifetime, on each level.
    """

    lifetime: np.ndarray
    target_size: np.ndarray
    entropy: np.ndarray
    returns: np.ndarray


def lifetime_traces(
    rule: Rule,
    env: Any,
    config: MetaConfig,
    hp: MetaHparams = MetaHparams(),
    lifetimes: Sequence[int] = (10, 50, 250),
    num_levels: int = 32,
    key: int = 0,
) -> LifetimeTraces:
    """Trains agents with a rule for lifetimes of several lengths, from the same parameters on the same levels.

    Args:
      rule: of kind "lpg", with time features or without.
      env: with `sample_params(key)`, or else its default parameters are the level.
      config, hp: of the agents, as in meta-training.
      lifetimes: N, in updates; all play in one program, as long as the longest.
      num_levels: M.
      key: of levels and agents.
    Raises:
      ValueError: for a rule of another kind, or lifetimes below 1.
    """
    if rule.kind != "lpg":
        raise ValueError(f"a rule of kind {rule.kind!r} has no targets of a policy; expected one of kind 'lpg'")
    if not lifetimes or min(lifetimes) < 1:
        raise ValueError(f"lifetimes = {tuple(lifetimes)}: expected one or more integers >= 1, as in (10, 50, 250)")
    longest = max(lifetimes)
    draw = getattr(env, "sample_params", None)

    def one(key: Key, num_updates: Any) -> tuple[Metrics, jax.Array]:
        key_level, key_train, key_play = jax.random.split(key, 3)
        level = jax.tree.map(jnp.asarray, draw(key_level) if draw else env.default_params)
        agent = meta_agent(env, config, hp, level, rule.objective(config.agent, hp)).agent
        loop = on_policy(
            agent, env, level, num_envs=config.num_envs, num_steps=config.num_steps, num_updates=num_updates
        )
        state, rows = train(key_train, frozen_after(loop, num_updates), longest)
        played = evaluate(
            key_play, agent, state.agent, env, level, config.num_envs, config.max_episode_steps, explore=True
        )
        return {name: rows[name] for name in (_SIZE, _ENTROPY)}, played.returns.mean()

    play = jax.jit(jax.vmap(one, (0, None)))
    keys = jax.random.split(jax.random.key(key), num_levels)
    parts = [jax.tree.map(np.asarray, play(keys, jnp.int32(number))) for number in lifetimes]
    lived = np.arange(longest) < np.asarray(lifetimes)[:, None]
    means = {n: np.where(lived, [rows[n].mean(0) for rows, _ in parts], np.nan) for n in (_SIZE, _ENTROPY)}
    returns = np.stack([after for _, after in parts])
    return LifetimeTraces(np.asarray(lifetimes), means[_SIZE], means[_ENTROPY], returns)


def plot_schedules(
    traces: LifetimeTraces, path: str | os.PathLike[str] | None = None, title: str = "learned schedule"
) -> Figure:
    """Mean |π̂| and the policies' entropy against n/N, a line for each N.

    Args:
      traces: of one rule.
      path: image to write, in the format of its suffix.
      title: of the figure.
    Returns:
      The matplotlib Figure.
    """
    figure, (left, right) = _figure(2, title)
    for rank, number in enumerate(traces.lifetime):
        place = np.arange(number) / number
        for axes, rows in ((left, traces.target_size), (right, traces.entropy)):
            colour, style = COLOURS[rank % len(COLOURS)], STYLES[rank % len(STYLES)]
            axes.plot(place, rows[rank, :number], label=f"N = {number}", linewidth=1.6, color=colour, linestyle=style)
    left.set(xlabel="n/N: lifetime over", ylabel="mean |π̂|")
    right.set(xlabel="n/N: lifetime over", ylabel="entropy of the policy (nats)")
    return _save(figure, left, path)


def plot_horizons(
    traces: Mapping[str, LifetimeTraces],
    path: str | os.PathLike[str] | None = None,
    title: str = "return after the lifetime",
) -> Figure:
    """Mean return after the lifetime against N, a line for each rule; bands are bootstrap intervals over levels.

    Args:
      traces: {label: of one rule}, on the same levels.
      path, title: as of `plot_schedules`.
    Returns:
      The matplotlib Figure.
    """
    figure, (axes,) = _figure(1, title)
    for rank, (label, trace) in enumerate(traces.items()):
        order = np.argsort(trace.lifetime)
        estimate = bootstrap(trace.returns[order].T, np.mean)
        colour, style = COLOURS[rank % len(COLOURS)], STYLES[rank % len(STYLES)]
        axes.fill_between(trace.lifetime[order], estimate.low, estimate.high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(trace.lifetime[order], estimate.point, color=colour, linestyle=style, marker="o", label=label)
    axes.set_xscale("log")
    numbers = sorted({int(number) for trace in traces.values() for number in trace.lifetime})
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.minorticks_off()
    axes.set(xlabel="N: updates of an agent", ylabel="mean return after the lifetime")
    return _save(figure, axes, path)


def _figure(columns: int, title: str) -> tuple[Figure, Sequence[Axes]]:
    # Without pyplot no window system is touched and no figure is kept alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.0 + 4.0 * columns, 3.8), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, columns, squeeze=False)[0]
    for axes in grid:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#E4E4E4", linewidth=0.7)
        axes.set_axisbelow(True)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure, grid


def _save(figure: Figure, axes: Axes, path: str | os.PathLike[str] | None) -> Figure:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    return figure
