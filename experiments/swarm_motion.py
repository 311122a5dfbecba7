"""Swarms without a known optimum, for `mean_field_control`: who plays beside the trained, what is measured, pictures.

The trained rule is judged beside agents that do nothing, agents that act at random, a rule by hand, and agents that
learnt for themselves (`ippo`, `mappo`), all in swarms of the same size. None of those sees the population while it
plays; the trained rule does without in mode "open loop".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrl
from jaxrl.agents.policy import player
from jaxrl.evaluation import Gather, evaluate, record
from jaxrl.spaces import Box
from jaxrl.swarm_plots import film_strip, plot_over_time, plot_sizes
from jaxrl.types import Agent
from jaxrl_envs.mean_field.agents import SwarmEnv, swarm_env

# What is measured of a swarm at each step, by task, and between which bounds.
MEASURES = {"vicsek": "polarisation", "kuramoto": "order_parameter", "aggregation": "spread"}
BOUNDS = {"polarisation": (0.0, 1.0), "order_parameter": (0.0, 1.0), "spread": None}


def rule_by_hand(task: str, params: Any, seen: jax.Array) -> jax.Array:
    """Actions of agents that see `seen` [..., N, dy]: Vicsek's rule, the sine coupling, and the way to the middle."""
    if task == "vicsek":
        return jnp.arctan2(seen[..., :1], seen[..., 1:2]) / params.turn_rate
    if task == "kuramoto":
        return params.step_size * params.coupling * seen[..., :1] / params.turn_rate
    return -seen / params.speed


def reference_players(task: str, env: SwarmEnv, params: Any) -> dict[str, Agent]:
    """Who has learnt nothing: agents of `env` that rest, act uniformly at random, or by the rule by hand."""
    space = env.agent_action_space(params)
    assert isinstance(space, Box)
    low, high = (jnp.asarray(bound, jnp.float32) for bound in space.bounds())

    def at_random(key: Any, state: Any, memory: Any, obs: jax.Array, is_first: jax.Array, explore: bool) -> Any:
        return jax.random.uniform(key, (*obs.shape[:-1], *space.shape), minval=low, maxval=high), memory, {}

    rest = player(lambda _, obs: jnp.zeros((*obs.shape[:-1], *space.shape)), lambda key: ())
    by_hand = player(lambda _, obs: rule_by_hand(task, params, obs[..., : env.num_own]), lambda key: ())
    return {"uncontrolled": rest, "random": rest._replace(act=at_random), "by hand": by_hand}


def play(
    agent: Agent, states: Any, env: Any, params: Any, measure: str, num_episodes: int, explore: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Returns [S, E] of states with leaves [S, …], and what is measured at each step [S, E, T]."""
    horizon = int(params.max_steps)
    gather = Gather(
        lambda moment: jnp.zeros(horizon),
        lambda so_far, moment: so_far.at[moment.time].set(moment.timestep.info[measure]),
    )

    def one(state: Any) -> Any:
        key = jax.random.key(2_000)
        found = evaluate(key, agent, state, env, params, num_episodes, horizon, explore, gather)
        return found.returns, found.gathered

    leaves = jax.tree.leaves(states)
    rows = jnp.arange(len(leaves[0]) if leaves else 1)  # a state may be empty
    returns, measured = jax.jit(lambda states: jax.lax.map(lambda pair: one(pair[1]), (rows, states)))(states)
    return np.asarray(returns), np.asarray(measured)


def policies(run: jaxrl.Run) -> tuple[Agent, Any, Any]:
    """The agent, all seeds' states with leaves [S, …], and the environment's parameters."""
    found = [run.policy(seed=seed) for seed in run.plan.seeds]
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(state for _, state, _ in found))
    return found[0][0], states, found[0][2]


def compared(
    task: str, run: jaxrl.Run, num_episodes: int, num_agents: int | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What was trained beside who has learnt nothing, in swarms of one size.

    Args:
      task, run: the swarm, and what learnt.
      num_episodes: of each seed.
      num_agents: by default as many as in training.
    Returns:
      By name the return, its standard error over seeds (over episodes of who learnt nothing), and what is measured in
      the last tenth of an episode; and that at each step, {name: [E, T]}, of trained ones the mean over seeds.
    """
    agent, states, params = policies(run)
    measure = MEASURES[task]
    if num_agents is None:
        num_agents = run.env.num_agents if isinstance(run.env, SwarmEnv) else run.env.dynamics.num_agents
    agents = swarm_env(run.env.model, num_agents, run.env.features)
    played = {"trained": play(agent, states, run.env.with_agents(num_agents), params, measure, num_episodes)}
    for name, one in reference_players(task, agents, params).items():
        played[name] = play(one, (), agents, params, measure, num_episodes)
    rows = {name: _summary(*found) for name, found in played.items()}
    return {"num_agents": num_agents, "measure": measure, **rows}, {name: m.mean(0) for name, (_, m) in played.items()}


def _summary(returns: np.ndarray, measured: np.ndarray) -> dict[str, Any]:
    late = measured[..., -max(measured.shape[-1] // 10, 1) :].mean(-1)
    independent = returns.mean(1) if len(returns) > 1 else returns[0]  # a seed's episodes have its policy in common
    return {
        "return": float(returns.mean()),
        "standard_error": float(independent.std(ddof=1) / np.sqrt(len(independent))),
        "by_seed": returns.mean(1).round(4),
        "measured": float(late.mean()),
        "measured_by_seed": late.mean(1).round(4),
    }


def film(task: str, run: jaxrl.Run, path: Path) -> None:
    """A film strip of the first seed's swarm."""
    agent, states, params = policies(run)
    first = jax.tree.map(lambda leaf: leaf[0], states)
    horizon, measure = int(params.max_steps), MEASURES[task]
    watched = jax.jit(lambda state: record(jax.random.key(3_000), agent, state, run.env, params, horizon)["states"])
    seen = jax.device_get(watched(first))
    values = np.asarray(jax.vmap(lambda x: _measured(task, x))(seen.field.x))
    film_strip(run.env, params, seen, path, values=values, title=f"{task}: {measure.replace('_', ' ')}")


def _measured(task: str, x: jax.Array) -> jax.Array:
    if MEASURES[task] == "spread":
        return jnp.abs(x - x.mean(0)).sum(1).mean()
    return jnp.abs(jnp.exp(1j * x[:, 2]).mean())


def draw_over_time(task: str, curves: Mapping[str, np.ndarray], path: Path) -> None:
    """What is measured, step by step, of the trained and of the others."""
    measure = MEASURES[task]
    plot_over_time(curves, path, name=measure.replace("_", " "), title=task, bounds=BOUNDS[measure])


def draw_sizes(rows: Mapping[str, Any], path: Path) -> None:
    """Return against the number of agents: all modes, the limit as a band, and agents that learnt for themselves."""
    import matplotlib.pyplot as plt

    tasks = [name for name in MEASURES if name in rows]
    if not tasks:
        return
    figure, panels = plt.subplots(1, len(tasks), figsize=(4.6 * len(tasks), 4.8), layout="constrained", squeeze=False)
    for axis, name in zip(panels[0], tasks, strict=True):
        others = {preset: rows[f"{name}_{preset}"] for preset in ("ippo", "mappo") if f"{name}_{preset}" in rows}
        table = [row for policy, of in {"": rows[name], **others}.items() for row in size_rows(of, policy)]
        plot_sizes(table, title=name, axes=axis)
        beside = rows[name]["compared"]
        for style, other in ((":", "by hand"), ("-.", "uncontrolled")):
            label = f"{other}, {beside['num_agents']} agents"
            axis.axhline(beside[other]["return"], color="black", linestyle=style, linewidth=1, label=label)
        axis.get_legend().remove()
    known = {text: line for axis in panels[0] for line, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(known.values(), known.keys(), loc="outside lower center", ncols=5, fontsize=9, frameon=False)
    figure.suptitle("return, by the swarm's size; bands: 95 % over seeds, which play the same episodes", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def size_rows(row: Mapping[str, Any], policy: str = "") -> list[dict[str, Any]]:
    """The sweep over sizes in a task's row of the results file, as `plot_sizes` takes it."""
    sizes = row["sizes"]
    return [
        {"policy": policy, "mode": mode, "num_agents": n}
        | {part: sizes[mode][part][i] for part in ("mean", "low", "high")}
        for mode in sizes
        if mode != "num_agents"
        for i, n in enumerate(sizes["num_agents"])
    ]
