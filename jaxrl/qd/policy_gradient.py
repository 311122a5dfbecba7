"""The policy-gradient emitter: an agent and its buffer make offspring that climb a critic.

PGA-MAP-Elites, DCG-MAP-Elites, DCRL-MAP-Elites and their ablations are settings of it: how many individuals come from
which operator, whether agent and critic are told a descriptor, and which one is written beside what was experienced.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

from jaxrl.buffers import Buffer, replay
from jaxrl.qd.archive import Archive, Insertion, select
from jaxrl.qd.conditioning import PolicyGradientNumbers, PolicyGradientSizes, followed_by, labelled, scaled, told
from jaxrl.qd.emitters import Emitter, Operator
from jaxrl.spaces import Space
from jaxrl.types import Agent, Evaluation, Key, Metrics, Params, Progress, Transition


class Learner(NamedTuple):
    """What learns, and how policies of the archive relate to it. "Told" is followed by a command [N, K].

    Attributes:
      agent: acts on observations that are told.
      obs_space, action_space: of told observations, and of actions.
      policy: `(genotype, obs [N, …]) -> action [N, A]`, of an individual, which is told nothing.
      value: `(agent_state, told [N, …], action [N, A]) -> [N]`, which individuals climb.
      inject: `(agent_state, command [K]) -> genotype`: the agent's actor as an individual.
    """

    agent: Agent
    obs_space: Space
    action_space: Space
    policy: Callable[[Params, jax.Array], jax.Array]
    value: Callable[[Any, jax.Array, jax.Array], jax.Array]
    inject: Callable[[Any, jax.Array], Params]


@struct.dataclass
class PolicyGradientState:
    """State of `policy_gradient`: the agent's, and what it remembers."""

    agent: Any
    buffer: Any


def policy_gradient(
    learner: Learner,
    others: Emitter,
    sizes: PolicyGradientSizes,
    hp: PolicyGradientNumbers,
    low: Any,
    high: Any,
) -> Emitter:
    """Offspring that climb a critic, the critic's own actor, and those of another emitter, all of which it learns from.

    Individuals stand in the order pg, ai, the others', probes. Evaluations must have `Evaluation.gathered = (…,
    Experience)` (`episodes(…, keep_transitions=True)`). Each transition is remembered with the scaled descriptor that
    its episode achieved, d, and one that it was to achieve, d'; the agent is told d' and learns from the reward times
    `similarity(d, d')`, so that it comes to know what to do for which descriptor. d' is the parent's descriptor for
    pg, the command for ai and probes, and d for all others and for the first population.

    An episode that ends early fills its share of the buffer by being repeated from its start, as it would be played
    again from the same first state.

    Args:
      learner: who learns.
      others: another source of offspring, without a state: `iso_line(…)`.
      sizes: static settings.
      hp: numbers; may be traced.
      low, high: [D], bounds of descriptors.
    Returns:
      An `Emitter`; its metrics are the agent's, averaged over its updates.
    Raises:
      ValueError: if one iteration's transitions do not fit into the buffer.
    References:
      Nilsson and Cully 2021 (PGA); Faldor et al. 2023, arXiv:2303.03832 (DCG); Faldor et al. 2025, arXiv:2401.08632
      (DCRL). Differs: probes are drawn from the archive before the iteration's insertion instead of after it, so that
      they are evaluated with the offspring.
    """
    buffer = replay(sizes.buffer_size, 1, 1, sizes.batch_size, hp.gamma)
    parts = (Operator("pg", sizes.num_pg), Operator("ai", sizes.num_injected), *others.operators)
    parts = tuple(part for part in (*parts, Operator("probe", sizes.num_probes, enters=False)) if part.num)
    # Whose command is what they did.
    counts = (sizes.num_pg, sizes.num_injected, others.num, sizes.num_probes)
    own = np.repeat([sizes.pg_command == "own", False, True, False], counts)[:, None]

    def command_of(descriptors: jax.Array) -> jax.Array:
        command = scaled(descriptors, low, high)
        return command if sizes.conditioned else command[..., :0]

    def rows_of(evaluation: Evaluation, command: jax.Array) -> Transition:
        return labelled(evaluation, command_of(evaluation.descriptor), command, sizes)

    def init(key: Key, archive: Archive, genotypes: Any, evaluation: Evaluation) -> PolicyGradientState:
        agent = learner.agent.init(key, learner.obs_space, learner.action_space)
        rows = rows_of(evaluation, command_of(evaluation.descriptor))
        empty = buffer.init(jax.tree.map(lambda leaf: leaf[0, 0], rows))
        return PolicyGradientState(agent, buffer.add(empty, rows))

    def emit(key: Key, state: PolicyGradientState, archive: Archive) -> tuple[Any, jax.Array]:
        key_pg, key_climb, key_ai, key_others, key_probe, key_noise = jax.random.split(key, 6)
        parents, _, descriptors = select(key_pg, archive, max(sizes.num_pg, 1))
        climbs = command_of(descriptors)

        def draw(key: Key) -> jax.Array:
            return buffer.sample(key, state.buffer).obs["obs"]

        loss, steps = minus_value(learner, state.agent), (sizes.num_pg_steps, hp.learning_rate)
        injected = command_of(select(key_ai, archive, max(sizes.num_injected, 1))[2])
        probes = command_of(select(key_probe, archive, max(sizes.num_probes, 1))[2])
        probes = probes + hp.probe_sigma * jax.random.normal(key_noise, probes.shape)
        unknown = jnp.zeros((others.num, injected.shape[1]))
        inject = jax.vmap(functools.partial(learner.inject, state.agent))
        made = (
            (sizes.num_pg, climbs, lambda: climb(key_climb, loss, draw, parents, climbs, *steps)),
            (sizes.num_injected, injected, lambda: inject(injected)),
            (others.num, unknown, lambda: others.emit(key_others, (), archive)[0]),
            (sizes.num_probes, probes, lambda: inject(probes)),
        )
        genotypes = [make() for num, _, make in made if num]
        for other in genotypes:
            _check_injectable(other, archive)
        commands = jnp.concatenate([command for num, command, _ in made if num])
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *genotypes), commands

    def update(
        key: Key, state: PolicyGradientState, archive: Archive, genotypes: Any, info: jax.Array, evaluation: Evaluation,
        insertion: Insertion,
    ) -> tuple[PolicyGradientState, Metrics]:  # fmt: skip
        command = jnp.where(own, command_of(evaluation.descriptor), info)
        remembered = buffer.add(state.buffer, rows_of(evaluation, command))
        agent_state, metrics = _learned(key, learner.agent, state.agent, buffer, remembered, (sizes, hp))
        return PolicyGradientState(agent_state, remembered), metrics

    return Emitter(parts, init, emit, update)


def _learned(
    key: Key, agent: Agent, agent_state: Any, buffer: Buffer, remembered: Any,
    settings: tuple[PolicyGradientSizes, PolicyGradientNumbers],
) -> tuple[Any, Metrics]:  # fmt: skip
    """The agent after one iteration's updates, and its metrics, averaged."""
    sizes, hp = settings

    def one(agent_state: Any, inputs: tuple[Key, jax.Array]) -> tuple[Any, Metrics]:
        key_sample, key_update = jax.random.split(inputs[0])
        sample = told(buffer.sample(key_sample, remembered), sizes, hp)
        # Counted from 0 in every iteration: delays begin with an update of the actor, whatever came before.
        agent_state, metrics = agent.update(
            key_update, agent_state, sample, Progress(inputs[1], sizes.num_agent_updates)
        )
        return agent_state, {name: value for name, value in metrics.items() if name != "priority"}

    inputs = (jax.random.split(key, sizes.num_agent_updates), jnp.arange(sizes.num_agent_updates))
    agent_state, metrics = jax.lax.scan(one, agent_state, inputs)
    # NaN where an update did not concern the actor; a broken loss stays visible.
    return agent_state, {n: v.mean() if n.startswith("loss/") else jnp.nanmean(v) for n, v in metrics.items()}


def minus_value(learner: Learner, agent_state: Any) -> Callable[[Params, jax.Array, jax.Array], jax.Array]:
    """The loss of `climb`: `-mean Q(s, pi(s) | command)`, the critic at rest."""

    def loss(genotype: Params, command: jax.Array, obs: jax.Array) -> jax.Array:
        seen = followed_by(obs, jnp.broadcast_to(command, (obs.shape[0], *command.shape)))
        return -learner.value(agent_state, seen, learner.policy(genotype, obs)).mean()

    return loss


def climb(
    key: Key,
    loss: Callable[[Params, jax.Array, jax.Array], jax.Array],
    draw: Callable[[Key], jax.Array],
    parents: Any,
    commands: jax.Array,
    num_steps: int,
    learning_rate: jax.Array | float,
) -> Any:
    """Policy-gradient variation: each parent takes Adam's steps down its loss, all on the same batches.

    Args:
      key: consumed.
      loss: `(genotype, command [K], obs [N, …]) -> scalar`.
      draw: `(key) -> obs [N, …]`, a batch; there is one copy of it for all parents.
      parents: leaves [P, …].
      commands: [P, K], one for each parent.
      num_steps: static.
      learning_rate: may be traced.
    Returns:
      Genotypes, leaves [P, …].
    """
    unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], parents))[1]
    vectors = jax.vmap(lambda parent: ravel_pytree(parent)[0])(parents)
    tx = optax.scale_by_adam()  # element by element, so that one state serves all
    gradient = jax.vmap(jax.grad(lambda vector, command, obs: loss(unravel(vector), command, obs)), (0, 0, None))

    def one(carry: tuple[jax.Array, Any], key: Key) -> tuple[tuple[jax.Array, Any], None]:
        vectors, opt_state = carry
        direction, opt_state = tx.update(gradient(vectors, commands, draw(key)), opt_state)
        return (vectors - learning_rate * direction, opt_state), None

    (vectors, _), _ = jax.lax.scan(one, (vectors, tx.init(vectors)), jax.random.split(key, num_steps))
    return jax.vmap(unravel)(vectors)


def _check_injectable(genotypes: Any, archive: Archive) -> None:
    """Raises ValueError unless genotypes have the structure and shapes of those in the archive."""

    def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
        return {jax.tree_util.keystr(path): leaf.shape[1:] for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}

    given, kept = shapes(genotypes), shapes(archive.genotypes)
    if given != kept:
        different = sorted(name for name in given.keys() | kept.keys() if given.get(name) != kept.get(name))[0]
        raise ValueError(
            f"the actor cannot be injected: {different} has shape {given.get(different)}, and in the archive "
            f"{kept.get(different)}; actor and policies need the same hidden layers"
        )
