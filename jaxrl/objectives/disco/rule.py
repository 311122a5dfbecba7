"""Disco103 as a rule: targets and state, the loss towards them, and both as an objective of an actor-critic."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.objectives.common import unchanged
from jaxrl.objectives.disco.config import DiscoConfig, DiscoState, DiscoTargets, Predictions, Trajectory
from jaxrl.objectives.disco.network import meta_network
from jaxrl.objectives.disco.values import bins, compress, disco_values, init_moments, of_action, two_hot
from jaxrl.ops.distributions import Categorical
from jaxrl.spaces import Discrete
from jaxrl.types import Metrics, Objective, Params, Progress, Rollout


def init_disco_state(config: DiscoConfig = DiscoConfig()) -> DiscoState:
    """The state of the rule at the beginning of an agent's life."""
    nothing = jnp.zeros(config.lifetime_size)
    return DiscoState(nothing, nothing, init_moments(), init_moments())


def disco_targets(
    params: Params, state: DiscoState, seen: Trajectory, config: DiscoConfig = DiscoConfig()
) -> tuple[DiscoTargets, DiscoState]:
    """What the rule wants of the agent, at every step of a trajectory.

    Args:
      params: of the meta-network, from `load_disco103` or `init_disco`; may be traced.
      state: from `init_disco_state`, or of the update before.
      seen: leaves [T, B, …].
      config: static.
    Returns:
      Targets [T, B, …], and the state for the next update.
    References:
      Oh et al. 2025, doi:10.1038/s41586-025-09761-x. Differs: the step from an episode's end to the next beginning is
      no part of a trajectory here, and truncation bootstraps.
    """
    values, state = disco_values(state, seen, config)
    meta = meta_network(params, state.hidden, state.cell, seen, values)
    targets = DiscoTargets(
        action=seen.action,
        pi=meta.pi,
        y=meta.y,
        z=meta.z,
        next_pi=seen.next_online.pi,
        continues=1.0 - seen.terminated,
        q=values.q,
        normalized_td=values.normalized_td,
    )
    return targets, dataclasses.replace(state, hidden=meta.hidden, cell=meta.cell)


def disco_losses(
    online: Predictions, targets: DiscoTargets, config: DiscoConfig = DiscoConfig()
) -> dict[str, jax.Array]:
    """The five losses of each sample, before their weights.

    Args:
      online: predictions, leaves [N, …].
      targets: leaves [N, …].
      config: static.
    Returns:
      {"pi", "y", "z", "aux_pi", "q"}, each [N]: four divergences KL(target || prediction), and a cross-entropy.
    """

    def divergence(target: jax.Array, prediction: jax.Array) -> jax.Array:
        return Categorical(target).kl(Categorical(prediction))

    z, aux_pi, q = (of_action(x, targets.action) for x in (online.z, online.aux_pi, online.q))
    goal = two_hot(compress(targets.q), bins(config))
    return {
        "pi": divergence(targets.pi, online.pi),
        "y": divergence(targets.y, online.y),
        "z": divergence(targets.z, z),
        "aux_pi": divergence(targets.next_pi, aux_pi) * targets.continues,
        "q": -jnp.sum(goal * jax.nn.log_softmax(q), -1),
    }


def disco_loss(
    online: Predictions, targets: DiscoTargets, config: DiscoConfig = DiscoConfig()
) -> tuple[jax.Array, Metrics]:
    """The weighted sum of the five losses, and its parts; the mean over samples.

    Args and references as in `disco_losses` and `disco_targets`.
    """
    losses = {name: loss.mean() for name, loss in disco_losses(online, targets, config).items()}
    total = sum((getattr(config, f"{name}_coef") * loss for name, loss in losses.items()), jnp.float32(0.0))
    metrics = {f"loss/{name}": loss for name, loss in losses.items()} | {
        "loss/total": total,
        "policy/entropy": Categorical(online.pi).entropy().mean(),
        "value/normalized_td": targets.normalized_td.mean(),
    }
    return total, metrics


def disco_objective(params: Params, config: DiscoConfig = DiscoConfig()) -> Objective:
    """Disco103 for an actor-critic on the on-policy loop: one epoch of one minibatch per rollout.

    Args:
      params: of the meta-network, from `load_disco103` or `init_disco`; may be traced.
      config: static.
    Returns:
      An objective with heads per action and a target network, for discrete actions.
    References:
      Oh et al. 2025, doi:10.1038/s41586-025-09761-x.
    """

    def heads(action_space: Any) -> dict[str, int]:
        return {"y": config.prediction_size}

    def action_heads(action_space: Any) -> dict[str, int]:
        if not isinstance(action_space, Discrete):
            raise ValueError(
                f"Disco103 predicts values of each action and needs a Discrete action space, got {action_space}; "
                "use an environment with discrete actions, or another objective"
            )
        return {"z": config.prediction_size, "aux_pi": action_space.n, "q": config.num_bins}

    def prepare(
        state: DiscoState,
        outputs: dict[str, Any],
        next_outputs: dict[str, Any],
        rollout: Rollout,
        progress: Progress,
    ) -> tuple[DiscoTargets, DiscoState]:
        seen = Trajectory(
            online=Predictions.of(outputs),
            next_online=Predictions.of(next_outputs),
            target=Predictions.of(outputs["target"]),
            next_target=Predictions.of(next_outputs["target"]),
            behaviour=outputs["policy"].logits,
            action=rollout.action,
            reward=rollout.reward,
            terminated=rollout.terminated,
            truncated=rollout.truncated,
        )
        return disco_targets(params, state, seen, config)

    def loss(state: DiscoState, outputs: dict[str, Any], targets: DiscoTargets) -> tuple[jax.Array, Metrics]:
        return disco_loss(Predictions.of(outputs), targets, config)

    return Objective(
        heads=heads,
        init=lambda: init_disco_state(config),
        prepare=prepare,
        loss=loss,
        finish=unchanged,
        action_heads=action_heads,
        target_decay=config.target_decay,
    )
