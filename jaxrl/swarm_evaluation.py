"""A trained swarm policy played by any number of agents, with and without what they share (on the host)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.agents.open_loop import OpenLoopState, open_loop
from jaxrl.agents.policy import player
from jaxrl.evaluation import Gather, evaluate, record
from jaxrl.ops.distributions import to_environment
from jaxrl.runtime import quick_compile_options
from jaxrl.settings import check_choice
from jaxrl.types import Agent

MODES = ("central", "decentral_sampled", "open_loop", "central_greedy")
AGENT_MODES = ("decentral_sampled", "decentral_greedy")  # of policies of single agents
_QUICK_BELOW = 1_000_000  # agents times episodes times steps
_MANY = 10_000  # agents, in the place of the limit
SIZES = (2, 4, 6, 8, 10, 20, 30, 40, 50, 100, 200, 500, 1000, 10_000)


@dataclasses.dataclass(frozen=True)
class SwarmReturns:
    """Discounted returns by mode and number of agents.

    Attributes:
      sizes: numbers of agents, K.
      returns: {mode: [K, E]}; episode e has the same noise for the agents that two sizes share, and in all modes.
      limit: {mode: [E]}, in the limit of many agents.
      plan: [T, …], the decision rules of "open_loop"; `None` where agents decide for themselves.
    """

    sizes: tuple[int, ...]
    returns: dict[str, np.ndarray]
    limit: dict[str, np.ndarray]
    plan: np.ndarray | None

    def rows(self) -> list[dict[str, Any]]:
        """One per mode and size, and one of size `None` for the limit: mean, and the ends of mean +- 2 errors."""
        found = []
        for mode, values in self.returns.items():
            for size, row in zip((*self.sizes, None), (*values, self.limit[mode]), strict=True):
                mean, error = float(row.mean()), float(row.std(ddof=1) / np.sqrt(len(row)))
                found.append(
                    {"mode": mode, "num_agents": size, "mean": mean, "low": mean - 2 * error, "high": mean + 2 * error}
                )
        return found

    def gap(self, mode: str, other: str, policy: SwarmReturns | None = None) -> list[dict[str, float]]:
        """By how much `mode` pays more than `other`, episode by episode, for each size; +- 2 errors of the pairs.

        Args:
          mode: of this policy.
          other: the mode that is subtracted.
          policy: of which it is; by default this one. Another must have been played with the same key.
        Raises:
          ValueError: for a policy that was played by other numbers of agents, or in other numbers of episodes.
        """
        ours, theirs = self.returns[mode], (policy or self).returns[other]
        if ours.shape != theirs.shape or self.sizes != (policy or self).sizes:
            raise ValueError(
                f"gap needs the same sizes and episodes: {self.sizes} with {ours.shape[1]} episodes, and "
                f"{(policy or self).sizes} with {theirs.shape[1]}"
            )
        found = []
        for size, difference in zip(self.sizes, ours - theirs, strict=True):
            mean, error = float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))
            found.append({"num_agents": size, "mean": mean, "low": mean - 2 * error, "high": mean + 2 * error})
        return found


def swarm_table(policies: Mapping[str, SwarmReturns]) -> list[dict[str, Any]]:
    """The rows of several policies as one table, each with its "policy"; `swarm_plots.plot_sizes` draws it."""
    return [{"policy": name, **row} for name, found in policies.items() for row in found.rows()]


def decentralized(agent: Agent, num_agents: int) -> Agent:
    """The same policy, from which every agent of a swarm draws a decision rule of its own.

    Returns:
      An `Agent` with actions [B, N, …], where `agent` has [B, …]; its memory is one per agent, leaves [B, N, …].
    """

    def memory(num_envs: int) -> Any:
        kept = agent.memory(num_envs * num_agents)
        return jax.tree.map(lambda leaf: leaf.reshape(num_envs, num_agents, *leaf.shape[1:]), kept)

    def act(key: Any, state: Any, memory: Any, obs: jax.Array, is_first: jax.Array, explore: bool) -> Any:
        def of_one_swarm(key: Any, memory: Any, obs: jax.Array, is_first: jax.Array) -> Any:
            seen, flags = (jnp.broadcast_to(x, (num_agents, *x.shape)) for x in (obs, is_first))
            return agent.act(key, state, memory, seen, flags, explore)[:2]

        # A key for each swarm, so that swarms of two sizes draw the same for the agents that both have.
        action, memory = jax.vmap(of_one_swarm)(jax.random.split(key, len(obs)), memory, obs, is_first)
        return action, memory, {}

    return agent._replace(memory=memory, act=act)


def evaluate_swarm(  # noqa: PLR0913 - whose policy, where, and how much
    key: Any,
    agent: Agent,
    agent_state: Any,
    env: Any,
    sizes: Sequence[int] = SIZES,
    modes: Sequence[str] | None = None,
    *,
    num_episodes: int = 100,
    gamma: float = 1.0,
    limit: Any = None,
    env_params: Any = None,
    max_agents: int = 2_000_000,
    many: int = _MANY,
) -> SwarmReturns:
    """Plays a policy with each number of agents, in each mode, and in the limit.

    A policy of decision rules (`dec_pomfppo` and the like): "central": one decision rule for all, drawn from the
    policy, which sees the population. "decentral_sampled": the same, but every agent draws its own. "open_loop": the
    plan that the policy's mode makes along the limit's population, agents see the clock and nothing else of the swarm.
    "central_greedy": the policy's mode.

    A policy of single agents (`ippo`, `mappo`), each of which sees its own observation: "decentral_sampled": every
    agent draws its action. "decentral_greedy": its policy's mode.

    With the same key both kinds meet the same swarms and the same noise.

    Args:
      key: the noise of all episodes.
      agent, agent_state: the policy.
      env: as of `mean_field`, for decision rules, or as of `swarm_env`, for single agents.
      sizes: numbers of agents, at least 1 each.
      modes: of `MODES`, or for single agents of `AGENT_MODES`; by default the first three, or both.
      num_episodes: for each, at least 2.
      gamma: discount of the returns.
      limit: for decision rules, the environment that stands for many agents, as `env.with_dynamics(exact())`; by
        default `many` agents.
      env_params: the environments' parameters.
      max_agents: of all episodes that are played at once.
      many: agents that stand for the limit where there is no other, or where every agent draws for itself.
    Returns:
      `SwarmReturns`.
    Raises:
      ValueError: for an unknown mode, no size or one below 1, an environment without agents, or single agents with a
        `limit` or a memory.
    Example:
      `evaluate_swarm(jax.random.key(0), agent, state, env, sizes=(7,))` is a trained policy in a swarm of seven.
    """
    stacked = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], agent_state)
    (found,) = evaluate_swarms(
        key, agent, stacked, env, sizes, modes, num_episodes=num_episodes, gamma=gamma, limit=limit,
        env_params=env_params, max_agents=max_agents, many=many,
    )  # fmt: skip
    return found


def evaluate_swarms(  # noqa: PLR0913 - as `evaluate_swarm`
    key: Any,
    agent: Agent,
    agent_states: Any,
    env: Any,
    sizes: Sequence[int] = SIZES,
    modes: Sequence[str] | None = None,
    *,
    num_episodes: int = 100,
    gamma: float = 1.0,
    limit: Any = None,
    env_params: Any = None,
    max_agents: int = 2_000_000,
    many: int = _MANY,
) -> list[SwarmReturns]:
    """`evaluate_swarm` of several states, leaves [S, …], with the same noise: everything is compiled once."""
    modes = _checked_modes(agent, env, modes, limit)
    if not sizes or min(sizes) < 1 or num_episodes < 2:
        raise ValueError(f"sizes = {tuple(sizes)}, num_episodes = {num_episodes}: expected sizes >= 1, episodes >= 2")
    params = env.default_params if env_params is None else env_params
    is_swarm = limit is None
    limit = env.with_agents(many) if limit is None else limit
    work = many if is_swarm else 1
    horizon = int(params.max_steps)
    key_plan, key_play = jax.random.split(key)
    leaves = jax.tree.leaves(agent_states)
    policies = jnp.arange(len(leaves[0]) if leaves else 1)  # a state may be empty

    def for_each(function: Callable[[Any], jax.Array], states: Any, work: int) -> jax.Array:
        program = jax.jit(lambda states: jax.lax.map(lambda pair: function(pair[1]), (policies, states))).lower(states)
        # Small swarms are played in less time than a good program takes to compile.
        options = quick_compile_options() if work * num_episodes * horizon < _QUICK_BELOW else None
        return program.compile(compiler_options=options)(states)

    plans = None
    if not _of_agents(env):
        plans = for_each(
            lambda state: record(key_plan, agent, state, limit, params, horizon)["action"], agent_states, work
        )
    keys = jax.random.split(key_play, num_episodes)
    total = Gather(
        lambda moment: jnp.float32(0.0),
        lambda so_far, moment: so_far + moment.timestep.reward * gamma**moment.time,
    )

    def play(mode: str, where: Any, num_agents: int) -> np.ndarray:
        """[S, E]."""
        cast = _cast(agent, mode, where, num_agents, params)
        batch = max(1, min(num_episodes, max_agents // num_agents))

        def of_one(state: Any) -> jax.Array:
            who, known, place, explore = cast(state)

            def one(key: Any) -> jax.Array:
                return evaluate(key, who, known, place, params, 1, horizon, explore, total).gathered[0]

            return jax.lax.map(one, keys, batch_size=batch)

        return np.asarray(for_each(of_one, plans if mode == "open_loop" else agent_states, num_agents))

    returns = {mode: [play(mode, env.with_agents(n), n) for n in sizes] for mode in modes}

    def end(mode: str) -> np.ndarray:
        # In the limit agents that draw for themselves are a mixture of rules: only a large swarm has it.
        if not is_swarm and mode != "decentral_sampled":
            return play(mode, limit, work)
        if many in sizes:
            return returns[mode][list(sizes).index(many)]
        return play(mode, env.with_agents(many), many)

    ends = {mode: end(mode) for mode in modes}
    return [
        SwarmReturns(
            tuple(sizes),
            {mode: np.stack([values[s] for values in returns[mode]]) for mode in modes},
            {mode: ends[mode][s] for mode in modes},
            None if plans is None else np.asarray(plans[s]),
        )
        for s in range(len(policies))
    ]


def _of_agents(env: Any) -> bool:
    """Whether actions are agents', and not decision rules."""
    return hasattr(env, "governed_by")


def _checked_modes(agent: Agent, env: Any, modes: Sequence[str] | None, limit: Any) -> Sequence[str]:
    if not hasattr(env, "with_agents"):
        raise ValueError(
            f"evaluate_swarm needs an environment with agents, as of mean_field(...) or swarm_env(...), got {env!r}"
        )
    known = AGENT_MODES if _of_agents(env) else MODES
    if _of_agents(env) and limit is not None:
        raise ValueError("limit: single agents have none but a large swarm; leave it out, and set `many`")
    if _of_agents(env) and jax.tree.leaves(agent.memory(1)):
        raise ValueError("evaluate_swarm plays single agents without memory, and this policy has one")
    for mode in modes or ():
        check_choice("mode", mode, known)
    return known[:3] if modes is None else modes


def _cast(agent: Agent, mode: str, where: Any, num_agents: int, params: Any) -> Callable[[Any], Any]:
    """Who plays, with which state, where, and exploring or not, `(state) -> …`, of an upper level in any case."""
    explore = mode in ("central", "decentral_sampled")
    if mode == "open_loop":
        planned = open_loop(where.action_space(params), int(params.max_steps))
        return lambda plan: (planned, OpenLoopState(plan), where, False)
    if not _of_agents(where):
        who = decentralized(agent, num_agents) if mode == "decentral_sampled" else agent
        return lambda state: (who, state, where, explore)

    def of_agents(state: Any) -> Any:
        def act(key: Any, rows: jax.Array) -> jax.Array:
            action, _, _ = agent.act(key, state, agent.memory(1), rows[None], jnp.zeros(1, bool), explore)
            return to_environment(where.action_space(params), action[0])

        return player(lambda _, obs: obs, lambda key: ()), (), where.governed_by(act), False

    return of_agents
