"""A network that is a policy and nothing else, for individuals that are evaluated and not differentiated."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl.networks import ACTIVATIONS, GRU, PatchConv, orthogonal, resolve_torso
from jaxrl.spaces import Space

# name -> (features, kernel size, stride) of each convolution with SAME padding.
_CONVOLUTIONS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "dqn": ((32, 8, 4), (64, 4, 2), (64, 3, 1)),
    "dqn_small": ((16, 8, 4), (32, 4, 2)),
}
POLICY_TORSOS = ("auto", "mlp", "cnn", *_CONVOLUTIONS)
_PHOTO = 36  # side of an image from which on "auto" takes DQN's convolutions instead of MinAtar's
_NORM_EPSILON = 1e-3


def resolve_policy_torso(torso: str, space: Space) -> str:
    """ "auto" is an MLP for vectors, MinAtar's CNN for small images and DQN's for those of 36 x 36 and more.

    Raises:
      ValueError: for an unknown torso, or a CNN on observations that are no images.
    """
    if torso not in POLICY_TORSOS:
        raise ValueError(f"torso = {torso!r}: expected one of {', '.join(POLICY_TORSOS)}")
    kind = resolve_torso("auto" if torso in _CONVOLUTIONS else torso, space)
    if torso in _CONVOLUTIONS:
        if kind != "cnn":
            raise ValueError(f"torso = {torso!r} needs observations [height, width, channels], got {space}; use 'mlp'")
        return torso
    return "dqn" if torso == "auto" and kind == "cnn" and min(space.shape[:2]) >= _PHOTO else kind


class VirtualNorm(nn.Module):
    """Standardises each feature by the mean and variance that it had on a reference batch, and adds a bias.

    The statistics are the collection "norms": a call in which it is mutable sets them from its own batch, over all
    axes but the last; every other call uses them.

    References:
      Salimans et al. 2017, arXiv:1703.03864, sec. 2.2.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, …, C] -> the same."""
        width = x.shape[-1]
        mean = self.variable("norms", "mean", lambda: jnp.zeros(width))
        scale = self.variable("norms", "scale", lambda: jnp.ones(width))
        if self.is_mutable_collection("norms"):
            axes = tuple(range(x.ndim - 1))
            mean.value, scale.value = x.mean(axes), jax.lax.rsqrt(x.var(axes) + _NORM_EPSILON)
        return (x - mean.value) * scale.value + self.param("bias", nn.initializers.zeros_init(), (width,))


class PolicyNetwork(nn.Module):
    """Hidden layers, a memory if asked for, and the outputs of the policy.

    Attributes:
      num_outputs: width of the output layer, initial gain 0.01.
      hidden_sizes: widths of the dense layers.
      activation: a name in `ACTIVATIONS`.
      torso: "mlp"; "cnn", MinAtar's 16 filters of 3 x 3; "dqn" (32 of 8 x 8 stride 4, 64 of 4 x 4 stride 2, 64 of
        3 x 3) or "dqn_small" (16 of 8 x 8 stride 4, 32 of 4 x 4 stride 2), both with SAME padding.
      memory_size: width of a GRU behind the hidden layers; 0 is none.
      virtual_norm: `VirtualNorm` before each activation, in the place of the layer's bias.

    References:
      Such et al. 2017, arXiv:1712.06567: "dqn" with hidden_sizes (512,), "dqn_small" with (256,).
    """

    num_outputs: int
    hidden_sizes: tuple[int, ...]
    activation: str
    torso: str = "mlp"
    memory_size: int = 0
    virtual_norm: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, memory: Any = (), is_first: Any = ()) -> tuple[jax.Array, Any]:
        """Encoded observations [N, …], memory [N, M] and flags [N] -> outputs [N, num_outputs], and the memory."""
        gain = orthogonal(2.0**0.5)
        bias = not self.virtual_norm
        if self.torso == "cnn":
            x = self._activated(PatchConv(16, use_bias=bias)(x))
        for features, size, stride in _CONVOLUTIONS.get(self.torso, ()):
            conv = nn.Conv(features, (size, size), (stride, stride), use_bias=bias, kernel_init=gain)
            x = self._activated(conv(x))
        x = x.reshape(x.shape[0], -1)
        for width in self.hidden_sizes:
            x = self._activated(nn.Dense(width, use_bias=bias, kernel_init=gain)(x))
        if self.memory_size:
            memory, steps = GRU(self.memory_size, name="gru")(memory, x[None], is_first[None])
            x = steps[0]
        return nn.Dense(self.num_outputs, kernel_init=orthogonal(0.01), name="head")(x), memory

    def _activated(self, x: jax.Array) -> jax.Array:
        return ACTIVATIONS[self.activation](VirtualNorm()(x) if self.virtual_norm else x)
