"""Networks of off-policy agents: action values, critics of continuous actions, and plain actors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl.networks import Torso, orthogonal
from jaxrl.types import Key, Params


class ActionValues(nn.Module):
    """K numbers per discrete action, [N, …] encoded observations -> [N, A, K].

    Attributes:
      num_actions: A.
      num_outputs: K: 1 for a value, else atoms or quantiles of its distribution.
      torso: hidden layers.
      dueling: a value and advantages instead of one head, `V + A - mean A`.

    References:
      Wang et al. 2016, arXiv:1511.06581, eq. 9; per atom, as Rainbow, arXiv:1710.02298.
    """

    num_actions: int
    num_outputs: int
    torso: Torso
    dueling: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Q(x, ·)."""
        features = self.torso(x)
        shape = (-1, self.num_actions, self.num_outputs)
        size = self.num_actions * self.num_outputs
        advantage = nn.Dense(size, kernel_init=orthogonal(1.0), name="head_q")(features).reshape(shape)
        if not self.dueling:
            return advantage
        value = nn.Dense(self.num_outputs, kernel_init=orthogonal(1.0), name="head_value")(features)
        return value[:, None] + advantage - advantage.mean(1, keepdims=True)


class StateActionValue(nn.Module):
    """K numbers of a state and a continuous action, [N, …] encoded observations and [N, D] -> [N, K]."""

    num_outputs: int
    torso: Torso
    head_init: Callable[..., jax.Array] = orthogonal(1.0)

    @nn.compact
    def __call__(self, x: jax.Array, action: jax.Array) -> jax.Array:
        """Q(x, action)."""
        both = jnp.concatenate([x.reshape(x.shape[0], -1), action], -1)
        return nn.Dense(self.num_outputs, kernel_init=self.head_init, name="head_q")(self.torso(both))


class Actor(nn.Module):
    """Numbers that describe a policy, [N, …] encoded observations -> [N, num_outputs]; by default nearly 0 at first."""

    num_outputs: int
    torso: Torso
    head_init: Callable[..., jax.Array] = orthogonal(0.01)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Outputs of the head."""
        return nn.Dense(self.num_outputs, kernel_init=self.head_init, name="head_policy")(self.torso(x))


def fold_inputs(params: Params, inputs: jax.Array) -> Params:
    """Parameters of an `Actor` on a vector that is told the last of its inputs once and for all.

    Args:
      params: of the actor that takes them every time.
      inputs: [k], the last k of its n inputs; their share of the first layer moves into its bias.
    Returns:
      Parameters of an actor of n - k inputs and the same layers, whose outputs are the same.
    Raises:
      ValueError: if it has no more than k inputs.
    """
    layers = dict(params["params"])
    torso = layers.get("torso")
    first = layers["head_policy"] if torso is None else torso["Dense_0"]
    num = first["kernel"].shape[0] - inputs.shape[0]
    if num < 1:
        raise ValueError(f"the actor has {first['kernel'].shape[0]} inputs: expected more than the {len(inputs)} given")
    folded = {"kernel": first["kernel"][:num], "bias": first["bias"] + inputs @ first["kernel"][num:]}
    if torso is None:
        return {"params": {**layers, "head_policy": folded}}
    return {"params": {**layers, "torso": {**torso, "Dense_0": folded}}}


def apply_network(network: nn.Module, params: Params, *inputs: Any) -> jax.Array:
    """The output of a network that has one."""
    outputs: Any = network.apply(params, *inputs)
    return outputs


def init_ensemble(key: Key, network: nn.Module, size: int, *inputs: Any) -> Params:
    """Parameters of `size` independent copies, leaves [size, …]."""
    return jax.vmap(lambda k: network.init(k, *inputs))(jax.random.split(key, size))


def apply_ensemble(network: nn.Module, params: Params, *inputs: Any) -> jax.Array:
    """Every copy's answer to the same inputs, [size, N, …]."""
    return jax.vmap(lambda p: apply_network(network, p, *inputs))(params)
