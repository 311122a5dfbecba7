"""Tabular mean-field games: each agent for itself against the flow of all. Fictitious play and online mirror descent.

Axes: T decisions, X states, U actions. Policies are [T, X, U], of agents that see their state. All is pure: numbers of
the game and learning rates may be swept by `vmap`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_envs.mean_field.tabular import TabularModel


class Flow(NamedTuple):
    """What a population goes through: mean fields [T, X], rewards [T, X, U] and moves [T, X, U, X]."""

    mu: jax.Array
    reward: jax.Array
    transition: jax.Array


class Solution(NamedTuple):
    """A policy [T, X, U], and the exploitability [K] after each iteration."""

    policy: jax.Array
    exploitability: jax.Array


def uniform_policy(model: TabularModel, num_steps: int) -> jax.Array:
    """[T, X, U]."""
    num_states, _, num_actions = model.sizes
    return jnp.full((num_steps, num_states, num_actions), 1.0 / num_actions)


def flow(model: TabularModel, policy: jax.Array, params: Any) -> Flow:
    """The mean fields that arise if all follow `policy`.

    Raises:
      ValueError: if the task has no reward of an agent's own.
    """
    if model.individual_reward is None:
        raise ValueError(f"{model!r} has no individual_reward: it is a task of one team, and no game")
    individual = model.individual_reward

    def step(mu: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, Flow]:
        time, decision = inputs
        joint = mu[:, None] * decision
        moves = model.transition(time, mu, params)
        return jnp.einsum("xu,xuz->z", joint, moves), Flow(mu, individual(time, mu, joint, params), moves)

    return jax.lax.scan(step, model.initial(params), (jnp.arange(len(policy)), policy))[1]


def best_values(seen: Flow) -> jax.Array:
    """[T, X, U], what one agent gains from each action against a flow, if it plays best from then on."""
    return _backward(seen, lambda q, _: q.max(-1), jnp.zeros_like(seen.reward))


def policy_values(seen: Flow, policy: jax.Array) -> jax.Array:
    """[T, X, U], the same if it follows `policy` from then on."""
    return _backward(seen, lambda q, decision: (q * decision).sum(-1), policy)


def greedy(q: jax.Array) -> jax.Array:
    """The first of the best actions, with certainty: [T, X, U].

    Values that differ by rounding alone are equal: games on rings are full of ties, and what fictitious play makes of
    them in a few iterations differs in the first digit.
    """
    best = q.max(-1, keepdims=True)
    slack = 256.0 * jnp.finfo(q.dtype).eps * (1.0 + jnp.abs(best))
    return jax.nn.one_hot((q >= best - slack).argmax(-1), q.shape[-1])


def exploitability(model: TabularModel, policy: jax.Array, params: Any) -> jax.Array:
    """Scalar >= 0: what one agent would gain by playing best against the flow of all others; 0 at an equilibrium."""
    seen = flow(model, policy, params)
    start = seen.mu[0]
    best = start @ best_values(seen)[0].max(-1)
    return best - start @ (policy_values(seen, policy)[0] * policy[0]).sum(-1)


def fictitious_play(model: TabularModel, num_steps: int, num_iterations: int, params: Any) -> Solution:
    """Averages best responses, each state's decision weighted by how many agents are there.

    Args:
      model: a game.
      num_steps, num_iterations: T and K, static.
      params: numbers of the game; may be traced.
    References:
      Perrin et al. 2020, arXiv:2007.03458, discrete time: the k-th best response has weight 1 / (k + 1).
    """

    def iterate(policy: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array]:
        seen = flow(model, policy, params)
        response = greedy(best_values(seen))
        weight = 1.0 / (k + 2.0)
        old = (1.0 - weight) * seen.mu[..., None]
        new = weight * flow(model, response, params).mu[..., None]
        total = old + new
        mixed = (old * policy + new * response) / jnp.where(total > 0.0, total, 1.0)
        policy = jnp.where(total > 0.0, mixed, 1.0 / policy.shape[-1])
        return policy, exploitability(model, policy, params)

    return Solution(*jax.lax.scan(iterate, uniform_policy(model, num_steps), jnp.arange(num_iterations)))


def fixed_point(
    model: TabularModel, num_steps: int, num_iterations: int, params: Any, temperature: Any = 0.0
) -> Solution:
    """All play best against the last flow, over and over; need not converge.

    Args:
      model, num_steps, num_iterations, params: as in `fictitious_play`.
      temperature: above 0, a softmax of the values over it in the place of the best action; may be traced.
    """

    def iterate(policy: jax.Array, _: jax.Array) -> tuple[jax.Array, jax.Array]:
        q = best_values(flow(model, policy, params))
        soft = jax.nn.softmax(q / jnp.where(temperature > 0.0, temperature, 1.0))
        policy = jnp.where(temperature > 0.0, soft, greedy(q))
        return policy, exploitability(model, policy, params)

    return Solution(*jax.lax.scan(iterate, uniform_policy(model, num_steps), jnp.arange(num_iterations)))


def mirror_descent(
    model: TabularModel, num_steps: int, num_iterations: int, params: Any, learning_rate: Any = 0.01
) -> Solution:
    """Online mirror descent: the softmax of the sum of all values so far, times the learning rate.

    Args:
      model, num_steps, num_iterations, params: as in `fictitious_play`.
      learning_rate: may be traced.
    References:
      Perolat et al. 2021, arXiv:2103.00623.
    """

    def iterate(total: jax.Array, _: jax.Array) -> tuple[jax.Array, jax.Array]:
        policy = jax.nn.softmax(total)
        total = total + learning_rate * policy_values(flow(model, policy, params), policy)
        return total, exploitability(model, jax.nn.softmax(total), params)

    start = jnp.zeros_like(uniform_policy(model, num_steps))
    total, gaps = jax.lax.scan(iterate, start, jnp.arange(num_iterations))
    return Solution(jax.nn.softmax(total), gaps)


def _backward(seen: Flow, value_of: Any, decisions: jax.Array) -> jax.Array:
    def step(value: jax.Array, inputs: Any) -> tuple[jax.Array, jax.Array]:
        reward, moves, decision = inputs
        q = reward + moves @ value
        return value_of(q, decision), q

    end = jnp.zeros(seen.mu.shape[-1], seen.reward.dtype)
    return jax.lax.scan(step, end, (seen.reward, seen.transition, decisions), reverse=True)[1]
