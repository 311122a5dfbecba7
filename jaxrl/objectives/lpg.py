"""The learned policy gradient: a network reads a rollout backwards and says where policy and prediction shall go."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl.networks import GRU, LSTM
from jaxrl.objectives.common import no_state, unchanged
from jaxrl.spaces import Discrete
from jaxrl.types import Key, Metrics, Objective, Params, Progress, Rollout

CORES = ("gru", "lstm")
TIME_FEATURES = ("none", "paper", "raw")


@dataclasses.dataclass(frozen=True)
class LPGConfig:
    """What fixes the shapes of the meta-network.

    Attributes:
      core: "gru" or "lstm".
      width: of the core.
      target_width: m, bins of the prediction y and of its target.
      embedding_width: of the hidden layer of φ, which turns a prediction into a number.
      include_gamma: the discount factor is one of the inputs.
      time_features: "none"; "paper": the share n/N of the lifetime that is over and log N, in environment
        interactions; "raw": updates done and updates in all, as the GROOVE release passes them.
    """

    core: str = "gru"
    width: int = 256
    target_width: int = 8
    embedding_width: int = 16
    include_gamma: bool = False
    time_features: str = "none"

    def __post_init__(self) -> None:
        for name, choices in (("core", CORES), ("time_features", TIME_FEATURES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} = {getattr(self, name)!r}: expected one of {', '.join(choices)}")
        for name, least in (("width", 1), ("target_width", 2), ("embedding_width", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} = {value!r}: expected an integer >= {least}")

    @property
    def num_inputs(self) -> int:
        """Numbers per step that the core reads: reward, end, probability, φ(y), φ(y'), and what is switched on."""
        return 5 + self.include_gamma + 2 * (self.time_features != "none")


class LPGInputs(NamedTuple):
    """What the meta-network reads; [T, B, …], save `progress`.

    Attributes:
      reward: float; terminated, truncated: bool.
      probability: of the action taken, under the policy that took it.
      prediction, next_prediction: [T, B, m] probabilities y at `obs` and at the true successor.
    """

    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    probability: jax.Array
    prediction: jax.Array
    next_prediction: jax.Array


class LPGTargets(NamedTuple):
    """Targets of one sample or many, leaves [...].

    Attributes:
      action: as sampled.
      policy: π̂; the loss ascends `π̂ log π(action)`.
      log_prediction: [..., m], log ŷ.
    """

    action: jax.Array
    policy: jax.Array
    log_prediction: jax.Array


class LPGNetwork(nn.Module):
    """The meta-network U: [T, B] experience -> π̂ [T, B] and log ŷ [T, B, m], by a scan from the last step to the first.

    The memory is cleared at a step that ends an episode, before that step is read: nothing of the following episode
    reaches it. Where the episode was truncated the successor's prediction is still shown, as at the rollout's end;
    where it terminated it is replaced by φ = 0.
    """

    config: LPGConfig

    @nn.compact
    def __call__(
        self, inputs: LPGInputs, gamma: jax.Array | float, time: tuple[jax.Array, ...]
    ) -> tuple[jax.Array, jax.Array]:
        """Targets of every step; `time` holds the scalars that time-aware rules read, else it is empty."""
        config = self.config
        hidden = nn.Dense(config.embedding_width, name="embed_hidden")
        number = nn.Dense(1, name="embed_out")

        def embed(prediction: jax.Array) -> jax.Array:
            return number(nn.relu(hidden(prediction)))[..., 0]

        next_embedding = jnp.where(inputs.terminated, 0.0, embed(inputs.next_prediction))
        ends = inputs.terminated.astype(inputs.reward.dtype)
        columns = [inputs.reward, ends, inputs.probability, embed(inputs.prediction), next_embedding]
        if config.include_gamma:
            columns.append(jnp.broadcast_to(gamma, inputs.reward.shape).astype(inputs.reward.dtype))
        columns += [jnp.broadcast_to(feature, inputs.reward.shape).astype(inputs.reward.dtype) for feature in time]
        x = jnp.stack(columns, -1)
        core = (GRU if config.core == "gru" else LSTM)(config.width, name="core")
        memory_size = config.width * (1 if config.core == "gru" else 2)
        memory = jnp.zeros((x.shape[1], memory_size), x.dtype)
        cut = (inputs.terminated | inputs.truncated)[::-1]
        features = nn.relu(core(memory, x[::-1], cut)[1][::-1])
        policy = nn.Dense(1, name="head_policy")(features)[..., 0]
        return policy, jax.nn.log_softmax(nn.Dense(config.target_width, name="head_prediction")(features))


def lpg_init(key: Key, config: LPGConfig) -> Params:
    """Random meta-parameters η: kernels by fan-in, the core's recurrent ones orthogonal, biases 0."""
    one = jnp.zeros((1, 1))
    prediction = jnp.zeros((1, 1, config.target_width))
    inputs = LPGInputs(one, one > 0, one > 0, one, prediction, prediction)
    time = (jnp.float32(0.0),) * (0 if config.time_features == "none" else 2)
    return LPGNetwork(config).init(key, inputs, 0.0, time)


def lpg_targets(
    params: Params,
    config: LPGConfig,
    inputs: LPGInputs,
    gamma: jax.Array | float,
    progress: Progress,
) -> tuple[jax.Array, jax.Array]:
    """π̂ and log ŷ of a rollout.

    Args:
      params: η.
      config: of the network.
      inputs: leaves [T, B, …].
      gamma: the agent's discount factor; read only with `include_gamma`.
      progress: updates done and in all; read only with time features.
    Returns:
      π̂ [T, B], and log ŷ [T, B, m].
    References:
      Oh et al. 2020, arXiv:2007.08794, sec. 3.2; Jackson et al. 2024, arXiv:2402.05828, for the time features.
    """
    targets: Any = LPGNetwork(config).apply(params, inputs, gamma, _time(config, inputs, progress))
    return targets


def lpg_objective(params: Params, config: LPGConfig, hp: Any) -> Objective:
    """What an agent of LPG optimises: `mean(π̂ log π(a)) - prediction_coef mean KL(y || ŷ)`, ascended.

    What the meta-network reads is a constant: a meta-gradient reaches an agent through its targets alone.

    Args:
      params: η; may be traced: differentiated, or evolved.
      config: of the network.
      hp: has `prediction_coef` (α_y), and `gamma`; numbers, may be traced.
    Returns:
      An `Objective` whose extra head is "prediction", logits [..., m]; "value" is not used.
    References:
      Oh et al. 2020, arXiv:2007.08794; Jackson et al. 2023, arXiv:2310.02782, eq. 2.
    """

    def heads(action_space: Any) -> dict[str, int]:
        if not isinstance(action_space, Discrete):
            raise ValueError(
                f"LPG reads the probability of a discrete action, got {action_space}; use an environment with a "
                "Discrete action space, or the rules lpo and ta_lpo, which take any"
            )
        return {"prediction": config.target_width}

    def prepare(
        state: Any, outputs: dict[str, Any], next_outputs: dict[str, Any], rollout: Rollout, progress: Progress
    ) -> tuple[LPGTargets, Any]:
        # Else the meta-gradient would also flow through what the rule sees of the agent, not only through what it
        # tells it (Oh et al. do the same).
        outputs, next_outputs = jax.lax.stop_gradient((outputs, next_outputs))
        inputs = LPGInputs(
            rollout.reward,
            rollout.terminated,
            rollout.truncated,
            jnp.exp(outputs["policy"].log_prob(rollout.action)),
            jax.nn.softmax(outputs["prediction"]),
            jax.nn.softmax(next_outputs["prediction"]),
        )
        policy, log_prediction = lpg_targets(params, config, inputs, hp.gamma, progress)
        return LPGTargets(rollout.action, policy, log_prediction), state

    def loss(state: Any, outputs: dict[str, Any], targets: LPGTargets) -> tuple[jax.Array, Metrics]:
        policy, log_y = outputs["policy"], jax.nn.log_softmax(outputs["prediction"])
        policy_loss = -jnp.mean(targets.policy * policy.log_prob(targets.action))
        y, log_target = jnp.exp(log_y), targets.log_prediction
        divergence = jnp.mean(jnp.sum(y * (log_y - log_target), -1))
        metrics = {
            "loss/policy": policy_loss,
            "loss/prediction": divergence,
            "policy/entropy": policy.entropy().mean(),
            "prediction/entropy": -jnp.mean(jnp.sum(y * log_y, -1)),
            "target/policy_square": jnp.mean(targets.policy**2),
            "target/policy_size": jnp.mean(jnp.abs(targets.policy)),
            "target/prediction_square": jnp.mean(jnp.sum(jnp.exp(2.0 * log_target), -1)),
        }
        return policy_loss + hp.prediction_coef * divergence, metrics

    return Objective(heads, no_state, prepare, loss, unchanged)


def _time(config: LPGConfig, inputs: LPGInputs, progress: Progress) -> tuple[jax.Array, ...]:
    if config.time_features == "none":
        return ()
    if config.time_features == "raw":
        return jnp.asarray(progress.update), jnp.asarray(progress.num_updates)
    interactions = jnp.asarray(progress.num_updates, jnp.float32) * inputs.reward.size  # an update takes T * B of them
    return jnp.asarray(progress.fraction), jnp.log(interactions)
