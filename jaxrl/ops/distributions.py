"""Policy distributions: pytrees over parameter arrays, so that `vmap`, `scan` and storage in a rollout just work.

Written out here rather than taken from distrax, whose import costs 2.5 s and whose objects break when they leave a
`vmap`; distrax is the oracle of the tests.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space
from jaxrl.types import Key

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


@struct.dataclass
class Categorical:
    """Distribution over 0 … A-1.

    Attributes:
      logits: [..., A], unnormalised; -inf forbids an action.
    """

    logits: jax.Array

    def sample(self, key: Key) -> jax.Array:
        """[...] int32."""
        return jax.random.categorical(key, self.logits)

    def mode(self) -> jax.Array:
        """[...] int32, the most probable."""
        return jnp.argmax(self.logits, -1).astype(jnp.int32)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """[...] log-probabilities of `action` [...]."""
        # A comparison, not a gather: the gradient of a gather is a scatter, slow on every backend.
        chosen = action[..., None] == jnp.arange(self.logits.shape[-1])
        return jnp.sum(jnp.where(chosen, jax.nn.log_softmax(self.logits), 0.0), -1)

    def entropy(self) -> jax.Array:
        """[...] nats."""
        return -_sum_where_probable(jax.nn.log_softmax(self.logits), jax.nn.log_softmax(self.logits))

    def mean_of(self, values: jax.Array) -> jax.Array:
        """[...] expectation of `values` [..., A], one per action."""
        return jnp.sum(jax.nn.softmax(self.logits) * values, -1)

    def kl(self, other: Categorical) -> jax.Array:
        """[...] KL(self || other), nats."""
        log_p = jax.nn.log_softmax(self.logits)
        return _sum_where_probable(log_p, log_p - jax.nn.log_softmax(other.logits))


def _sum_where_probable(log_p: jax.Array, term: jax.Array) -> jax.Array:
    """`sum p * term`, with 0 (and a zero gradient) where p is 0."""
    probable = jnp.isfinite(log_p)
    return jnp.sum(jnp.where(probable, jnp.exp(log_p) * jnp.where(probable, term, 0.0), 0.0), -1)


@struct.dataclass
class MultiCategorical:
    """Independent categoricals, one per element of a `MultiDiscrete` action.

    Attributes:
      logits: [..., sum(nvec)], the elements' logits side by side.
      nvec: static sizes.
    """

    logits: jax.Array
    nvec: tuple[int, ...] = struct.field(pytree_node=False)

    def _parts(self) -> list[Categorical]:
        splits = np.cumsum(self.nvec)[:-1].tolist()
        return [Categorical(part) for part in jnp.split(self.logits, splits, -1)]

    def sample(self, key: Key) -> jax.Array:
        """[..., len(nvec)] int32."""
        keys = jax.random.split(key, len(self.nvec))
        return jnp.stack([part.sample(k) for part, k in zip(self._parts(), keys, strict=True)], -1)

    def mode(self) -> jax.Array:
        """[..., len(nvec)] int32."""
        return jnp.stack([part.mode() for part in self._parts()], -1)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """[...], summed over elements."""
        return sum((p.log_prob(action[..., i]) for i, p in enumerate(self._parts())), jnp.float32(0.0))

    def entropy(self) -> jax.Array:
        """[...] nats."""
        return sum((p.entropy() for p in self._parts()), jnp.float32(0.0))

    def kl(self, other: MultiCategorical) -> jax.Array:
        """[...] KL(self || other), nats."""
        pairs = zip(self._parts(), other._parts(), strict=True)
        return sum((p.kl(q) for p, q in pairs), jnp.float32(0.0))


@struct.dataclass
class DiagNormal:
    """Gaussian with a diagonal covariance; the last axis is one action of dimension D.

    Attributes:
      mean, log_std: [..., D].
    """

    mean: jax.Array
    log_std: jax.Array

    def sample(self, key: Key) -> jax.Array:
        """[..., D] float32, unclipped: `log_prob` is that of the action as sampled."""
        return self.mean + jnp.exp(self.log_std) * jax.random.normal(key, self.mean.shape)

    def mode(self) -> jax.Array:
        """[..., D], the mean."""
        return self.mean

    def log_prob(self, action: jax.Array) -> jax.Array:
        """[...] log-density of `action` [..., D]."""
        z = (action - self.mean) * jnp.exp(-self.log_std)
        return jnp.sum(-0.5 * z**2 - self.log_std - _LOG_SQRT_2PI, -1)

    def entropy(self) -> jax.Array:
        """[...] nats (differential)."""
        return jnp.sum(self.log_std + 0.5 + _LOG_SQRT_2PI, -1)

    def kl(self, other: DiagNormal) -> jax.Array:
        """[...] KL(self || other), nats."""
        ratio = jnp.exp(2.0 * (self.log_std - other.log_std))
        distance = ((self.mean - other.mean) * jnp.exp(-other.log_std)) ** 2
        return 0.5 * jnp.sum(ratio + distance - 1.0 - 2.0 * (self.log_std - other.log_std), -1)


@struct.dataclass
class MixtureNormal:
    """K diagonal Gaussians, of which a categorical gate chooses one; the last axis is one action of dimension D.

    Attributes:
      gate: logits [..., K].
      primitives: leaves [..., K, D].
    """

    gate: Categorical
    primitives: DiagNormal

    def sample(self, key: Key) -> jax.Array:
        """[..., D], unclipped."""
        key_gate, key_primitives = jax.random.split(key)
        return take_primitive(self.primitives.sample(key_primitives), self.gate.sample(key_gate))

    def mode(self) -> jax.Array:
        """[..., D], the mean of the likeliest primitive."""
        return take_primitive(self.primitives.mode(), self.gate.mode())

    def log_prob(self, action: jax.Array) -> jax.Array:
        """[...] log-density of `action` [..., D] under the mixture."""
        of_each = self.primitives.log_prob(action[..., None, :])
        return jax.nn.logsumexp(jax.nn.log_softmax(self.gate.logits) + of_each, -1)

    def entropy(self) -> jax.Array:
        """[...] nats: an upper bound, exact where primitives coincide or lie far apart; no closed form exists.

        References:
          Kolchinsky & Tracey 2017, arXiv:1706.02419, eq. 10 with the KL divergence.
        """
        first = jax.tree.map(lambda leaf: leaf[..., :, None, :], self.primitives)
        second = jax.tree.map(lambda leaf: leaf[..., None, :, :], self.primitives)
        overlap = jax.nn.logsumexp(jax.nn.log_softmax(self.gate.logits)[..., None, :] - first.kl(second), -1)
        return self.gate.mean_of(self.primitives.entropy() - overlap)

    def kl(self, other: MixtureNormal) -> jax.Array:
        """[...] KL(self || other), nats: an upper bound, primitive by primitive; exact for one.

        As a penalty it does what the divergence does: never negative, and 0 with a zero gradient where the two are
        equal, which better approximations (Hershey & Olsen 2007, eq. 20) are not.

        References:
          Chain rule with the choice of the primitive known, as in Do 2003; an upper bound by its convexity.
        """
        matched = self.primitives.kl(other.primitives)
        return self.gate.kl(other.gate) + self.gate.mean_of(matched)


def take_primitive(of_each: jax.Array, index: jax.Array) -> jax.Array:
    """[..., K, D] at index [...] -> [..., D]; by comparison, since a gather's gradient is a slow scatter."""
    chosen = index[..., None] == jnp.arange(of_each.shape[-2])
    return jnp.sum(jnp.where(chosen[..., None], of_each, 0.0), -2)


@struct.dataclass
class TanhNormal:
    """A diagonal Gaussian, squashed by tanh into a box; the last axis is one action of dimension D.

    Densities are of the action, and computed from the Gaussian's own sample u, never from `atanh(action)`.

    Attributes:
      base: of u, [..., D].
      low, high: the box, broadcast against D.
    """

    base: DiagNormal
    low: jax.Array
    high: jax.Array

    def to_action(self, u: jax.Array) -> jax.Array:
        """[..., D] in [low, high]."""
        return self.low + 0.5 * (jnp.tanh(u) + 1.0) * (self.high - self.low)

    def log_det(self, u: jax.Array) -> jax.Array:
        """[...] log-determinant of `to_action` at u; exact for large |u|, where log(1 - tanh(u)^2 + eps) is not."""
        squash = 2.0 * (math.log(2.0) - u - jax.nn.softplus(-2.0 * u))
        return jnp.sum(squash + jnp.log(0.5 * (self.high - self.low)), -1)

    def sample_base(self, key: Key) -> jax.Array:
        """u [..., D], differentiable in the parameters."""
        return self.base.sample(key)

    def sample(self, key: Key) -> jax.Array:
        """[..., D] actions."""
        return self.to_action(self.sample_base(key))

    def mode(self) -> jax.Array:
        """[..., D], the action at the Gaussian's mean."""
        return self.to_action(self.base.mode())

    def log_prob_base(self, u: jax.Array) -> jax.Array:
        """[...] log-density of the action at u."""
        return self.base.log_prob(u) - self.log_det(u)

    def sample_and_log_prob(self, key: Key) -> tuple[jax.Array, jax.Array]:
        """Actions [..., D] and their log-densities [...]."""
        u = self.sample_base(key)
        return self.to_action(u), self.log_prob_base(u)


@struct.dataclass
class TanhMixture:
    """K squashed Gaussians, of which a categorical gate chooses one; as `TanhNormal` otherwise.

    Attributes:
      gate: over primitives, logits [..., K].
      primitives: leaves of `base` [..., K, D].
    """

    gate: Categorical
    primitives: TanhNormal

    def sample(self, key: Key) -> jax.Array:
        """[..., D] actions."""
        return self.sample_and_log_prob(key)[0]

    def mode(self) -> jax.Array:
        """[..., D], the mode of the likeliest primitive."""
        return take_primitive(self.primitives.mode(), self.gate.mode())

    def log_prob_base(self, u: jax.Array) -> jax.Array:
        """[...] log-density, under the mixture, of the action at u [..., D]."""
        of_each = self.primitives.base.log_prob(u[..., None, :])
        mixed = jax.nn.logsumexp(jax.nn.log_softmax(self.gate.logits) + of_each, -1)
        return mixed - self.primitives.log_det(u)

    def sample_and_log_prob(self, key: Key) -> tuple[jax.Array, jax.Array]:
        """Actions [..., D] and their log-densities [...] under the mixture."""
        key_gate, key_base = jax.random.split(key)
        u = take_primitive(self.primitives.sample_base(key_base), self.gate.sample(key_gate))
        return self.primitives.to_action(u), self.log_prob_base(u)


Policy = Categorical | MultiCategorical | DiagNormal | MixtureNormal


def num_policy_outputs(space: Space, num_primitives: int = 1) -> int:
    """How many numbers a network must put out for a policy over `space`, a mixture where `num_primitives` > 1.

    Raises:
      ValueError: for a Box of integers or of more than one axis, or a mixture over anything but a Box.
    """
    if num_primitives > 1 and not isinstance(space, Box):
        raise ValueError(f"num_primitives = {num_primitives} needs a Box as action space, got {space}; set it to 1")
    if isinstance(space, Discrete):
        return space.n
    if isinstance(space, MultiDiscrete):
        return sum(space.nvec)
    if not isinstance(space, Box) or len(space.shape) != 1 or not jnp.issubdtype(space.dtype, jnp.floating):
        raise ValueError(
            f"policies take Discrete, MultiDiscrete or a float Box of one axis as action space, got {space}"
        )
    size = space.shape[0]
    return size if num_primitives == 1 else num_primitives * (size + 1)


def policy(space: Space, outputs: jax.Array, log_std: jax.Array | None = None, num_primitives: int = 1) -> Policy:
    """The policy over `space` that a network's outputs describe.

    Args:
      space: of actions.
      outputs: [..., num_policy_outputs(space, num_primitives)]; of a mixture, the gate's logits come first.
      log_std: [num_primitives * D], for a Box: a parameter that does not depend on the observation.
      num_primitives: Gaussians of a mixture; their means begin evenly spread over [-1, 1], since primitives that begin
        alike would stay alike.
    """
    if isinstance(space, Discrete):
        return Categorical(outputs)
    if isinstance(space, MultiDiscrete):
        return MultiCategorical(outputs, space.nvec)
    if log_std is None:
        raise ValueError("a policy over a Box needs log_std")
    if num_primitives == 1:
        return DiagNormal(outputs, jnp.broadcast_to(log_std, outputs.shape))
    shape = (*outputs.shape[:-1], num_primitives, space.shape[0])
    means = outputs[..., num_primitives:].reshape(shape) + jnp.linspace(-1.0, 1.0, num_primitives)[:, None]
    primitives = DiagNormal(means, jnp.broadcast_to(log_std.reshape(shape[-2:]), shape))
    return MixtureNormal(Categorical(outputs[..., :num_primitives]), primitives)


def to_environment(space: Space, action: jax.Array) -> jax.Array:
    """What the environment is given for a sampled action: clipped into a Box, else unchanged."""
    if isinstance(space, Box):
        low, high = space.bounds()
        return jnp.clip(action, low, high)
    return action
