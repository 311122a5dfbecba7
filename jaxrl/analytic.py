"""Policy gradients by differentiating through the environment: for deterministic, differentiable dynamics."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.algorithm import Algorithm
from jaxrl.env import Environment
from jaxrl.evaluation import evaluate_transitions
from jaxrl.ops.minibatch import clip_by_norm, descend, direction, init_optimizer
from jaxrl.types import Agent, Key, Metrics, Params, Progress, Step


@struct.dataclass
class AnalyticState:
    """State of `analytic_gradient`: the agent's, whose `params` are learnt, and the optimiser's."""

    agent: Any
    opt_state: Any


def analytic_gradient(agent: Agent, env: Environment, env_params: Any, config: Any, hp: Any) -> Algorithm:
    """Climbs the gradient of the discounted return of whole episodes, backwards through rewards and dynamics.

    Where actions, rewards or states do not depend differentiably on one another, nothing flows: chance that is drawn
    from keys is a constant of the gradient. Episodes that are cut at `num_steps` are worth what they earned.

    Args:
      agent: whose state has `params`; its mode is played, and `update` is not asked.
      env: of one instance.
      env_params: may be traced.
      config: has `num_envs` episodes of up to `num_steps` steps per update, `num_updates`, `optimizer` and
        `anneal_learning_rate`.
      hp: has `learning_rate`, `gamma`, `max_grad_norm`; may be traced.
    Returns:
      An `Algorithm`, state `AnalyticState`.
    """
    tx = optax.chain(clip_by_norm(hp.max_grad_norm), direction(config.optimizer))

    def init(key: Key) -> AnalyticState:
        state = agent.init(key, env.observation_space(env_params), env.action_space(env_params))
        return AnalyticState(state, init_optimizer(tx, state.params))

    def step(key: Key, state: AnalyticState, t: Step) -> tuple[AnalyticState, Metrics]:
        def loss(params: Params, batch: Any) -> tuple[jax.Array, Metrics]:
            del batch
            playing = state.agent.replace(params=params)
            sizes = (config.num_envs, config.num_steps)
            episodes, rows, played = evaluate_transitions(key, agent, playing, env, env_params, *sizes)
            earned = jnp.where(played, rows.reward, 0.0)
            discounts = hp.gamma ** jnp.arange(config.num_steps)
            objective = (discounts @ earned).mean()
            return -objective, {
                "episode/return": episodes.returns.mean(),
                "episode/discounted_return": objective,
                "episode/length": episodes.lengths.mean(),
                "episode/count": jnp.float32(config.num_envs),
            }

        progress = Progress(t, config.num_updates)
        remaining = 1.0 - progress.fraction if config.anneal_learning_rate else 1.0
        once = jnp.zeros((1, 1))  # episodes are played anew for each step, so one update is one step
        params, opt_state, metrics = descend(
            loss, tx, state.agent.params, state.opt_state, once, hp.learning_rate * remaining
        )
        return AnalyticState(state.agent.replace(params=params), opt_state), metrics

    return Algorithm(init, step)
