"""The DQN family: double, dueling, n-step, prioritised, and distributional by atoms or quantiles, in any mixture."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.agents.common import Normalizers, epsilon_at, epsilon_greedy, init_normalizers, normalized, observe
from jaxrl.agents.off_policy import every, polyak
from jaxrl.networks import Torso, resolve_torso
from jaxrl.ops.minibatch import gradient_step, init_optimizer
from jaxrl.ops.value_distributions import huber, project_categorical, quantile_huber_loss
from jaxrl.spaces import Discrete, Space
from jaxrl.types import Agent, Key, Metrics, Params, Progress, Sample
from jaxrl.value_networks import ActionValues, apply_network


@struct.dataclass
class DQNState:
    """State of `dqn`.

    Attributes:
      params, target_params: of the network.
      opt_state: over the parameters as one vector.
      epsilon: share of random actions, scalar.
      normalizers: of observations and rewards.
    """

    params: Params
    target_params: Params
    opt_state: Any
    epsilon: jax.Array
    normalizers: Normalizers


# Huber's loss leans to the median: it forgets rare but large errors, such as the end of long episodes in CartPole.
LOSSES: dict[str, Callable[[jax.Array], jax.Array]] = {"mse": lambda error: 0.5 * jnp.square(error), "huber": huber}


class Head(NamedTuple):
    """What a network's K outputs per action mean.

    Attributes:
      num_outputs: K.
      mean: `(outputs [..., K]) -> values [...]`.
      loss: `(outputs [N, K], next_outputs [N, K], reward [N], discount [N]) -> [N]`.
    """

    num_outputs: int
    mean: Callable[[jax.Array], jax.Array]
    loss: Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


def value_head(penalty: Callable[[jax.Array], jax.Array]) -> Head:
    """One number: the expected return. `penalty` of errors is elementwise (`LOSSES`)."""

    def loss(outputs: jax.Array, next_outputs: jax.Array, reward: jax.Array, discount: jax.Array) -> jax.Array:
        return penalty(reward + discount * next_outputs[:, 0] - outputs[:, 0])

    return Head(1, lambda outputs: outputs[..., 0], loss)


def categorical_head(num_atoms: int, v_min: jax.Array | float, v_max: jax.Array | float) -> Head:
    """Logits of fixed returns between v_min and v_max (C51).

    References:
      Bellemare et al. 2017, arXiv:1707.06887.
    """
    atoms = v_min + (v_max - v_min) * jnp.arange(num_atoms) / (num_atoms - 1)

    def loss(outputs: jax.Array, next_outputs: jax.Array, reward: jax.Array, discount: jax.Array) -> jax.Array:
        target = project_categorical(atoms, jax.nn.softmax(next_outputs), reward, discount)
        return -jnp.sum(target * jax.nn.log_softmax(outputs), -1)

    return Head(num_atoms, lambda outputs: jax.nn.softmax(outputs) @ atoms, loss)


def quantile_head(num_quantiles: int) -> Head:
    """Returns at fixed quantiles (QR-DQN).

    References:
      Dabney et al. 2018, arXiv:1710.10044.
    """

    def loss(outputs: jax.Array, next_outputs: jax.Array, reward: jax.Array, discount: jax.Array) -> jax.Array:
        return quantile_huber_loss(outputs, reward[:, None] + discount[:, None] * next_outputs)

    return Head(num_quantiles, lambda outputs: outputs.mean(-1), loss)


def dqn(obs_space: Space, action_space: Space, config: Any, hp: Any) -> Agent:
    """Deep Q-learning.

    Args:
      obs_space, action_space: of the environment; actions Discrete.
      config: `DQNConfig`.
      hp: `DQNHparams`; may be traced.
    Returns:
      An `Agent` whose `update` takes a Sample [N].
    Raises:
      ValueError: for any other action space.
    References:
      Mnih et al. 2015; van Hasselt et al. 2016, arXiv:1509.06461. Differs: truncation bootstraps.
    """
    if not isinstance(action_space, Discrete):
        raise ValueError(f"dqn takes a Discrete action space, got {action_space}; use ppo, or for a Box sac or td3")
    heads = {
        "none": lambda: value_head(LOSSES[config.loss]),
        "c51": lambda: categorical_head(config.num_atoms, hp.v_min, hp.v_max),
        "qr": lambda: quantile_head(config.num_atoms),
    }
    head = heads[config.distribution]()
    torso = Torso(config.hidden_sizes, config.activation, resolve_torso(config.torso, obs_space))
    network = ActionValues(action_space.n, head.num_outputs, torso, config.dueling)
    tx = optax.chain(optax.clip_by_global_norm(hp.max_grad_norm), optax.scale_by_adam())

    def init(key: Key, obs_space: Space, action_space: Space) -> DQNState:
        normalizers = init_normalizers(config, obs_space)
        blank = jnp.zeros((1, *obs_space.shape), obs_space.dtype)
        params = network.init(key, normalized(normalizers, obs_space, blank))
        # A copy: a donated state must not hold one buffer twice.
        target_params = jax.tree.map(jnp.copy, params)
        epsilon = epsilon_at(0.0, hp)
        return DQNState(params, target_params, init_optimizer(tx, params), epsilon, normalizers)

    def act(
        key: Key, state: DQNState, memory: Any, obs: jax.Array, is_first: jax.Array, explore: bool
    ) -> tuple[jax.Array, Any, tuple[()]]:
        x = normalized(state.normalizers, obs_space, obs)
        values = head.mean(apply_network(network, state.params, x))
        return epsilon_greedy(key, values, state.epsilon if explore else 0.0), memory, ()

    def update(key: Key, state: DQNState, sample: Sample, progress: Progress) -> tuple[DQNState, Metrics]:
        obs = normalized(state.normalizers, obs_space, sample.obs)
        final_obs = normalized(state.normalizers, obs_space, sample.final_obs)
        reward = state.normalizers.scale_reward(sample.reward)
        next_outputs = apply_network(network, state.target_params, final_obs)
        chooser = apply_network(network, state.params, final_obs) if config.double else next_outputs
        next_chosen = _of_action(next_outputs, jnp.argmax(head.mean(chooser), -1))
        beta = 1.0 - (1.0 - hp.priority_beta) * (1.0 - progress.fraction)
        weight = importance_weights(sample.probability, beta) if config.prioritized else 1.0

        def loss(params: Params, batch: Any) -> Any:
            outputs = _of_action(apply_network(network, params, obs), sample.action)
            losses = head.loss(outputs, next_chosen, reward, sample.discount)
            error = reward + sample.discount * head.mean(next_chosen) - head.mean(outputs)
            priority = jnp.abs(error) if config.distribution == "none" else losses
            total = (weight * losses).mean()
            return total, {"loss/q": total, "value/q": head.mean(outputs).mean(), "priority": priority}

        params, opt_state, metrics = gradient_step(loss, tx, state.params, state.opt_state, (), hp.learning_rate)

        def move_target(state: DQNState) -> tuple[DQNState, Metrics]:
            return dataclasses.replace(state, target_params=polyak(state.target_params, state.params, hp.tau)), {}

        epsilon = epsilon_at(progress.fraction, hp)
        state = dataclasses.replace(state, params=params, opt_state=opt_state, epsilon=epsilon)
        # After the last of a period's updates, so that a run does not begin with a copy of one update's parameters.
        state, _ = every(config.target_period, progress.update + 1, move_target, state)
        return state, metrics | {"policy/epsilon": epsilon}

    def observed(state: DQNState, experience: Any) -> DQNState:
        return dataclasses.replace(state, normalizers=observe(state.normalizers, experience, hp.gamma))

    return Agent(init, lambda num_envs: (), act, update, observed)


def importance_weights(probability: jax.Array, beta: jax.Array | float) -> jax.Array:
    """`probability^-beta`, at most 1: what undoes prioritised sampling.

    Args:
      probability: [N], relative to uniform sampling.
      beta: scalar in [0, 1]; 1 undoes it fully.
    References:
      Schaul et al. 2016, arXiv:1511.05952, sec. 3.4.
    """
    weight = probability**-beta
    return weight / weight.max()


def _of_action(outputs: jax.Array, action: jax.Array) -> jax.Array:
    """[N, A, K] at action [N] -> [N, K]; by comparison, since a gather's gradient is a slow scatter."""
    chosen = action[:, None] == jnp.arange(outputs.shape[1])
    return jnp.sum(jnp.where(chosen[..., None], outputs, 0.0), 1)
