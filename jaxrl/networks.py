"""Networks: linen modules from a batch of observations [N, …] to a dict of heads [N, width]."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.spaces import Box, Discrete, Indexed, MultiDiscrete, Space
from jaxrl.types import Key

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "relu": nn.relu,
    "swish": nn.swish,
    "gelu": nn.gelu,
    "elu": nn.elu,
}
TORSOS = ("auto", "mlp", "cnn", "table")
MEMORIES = ("none", "gru")
HIDDEN_GAIN = float(np.sqrt(2.0))


def orthogonal(gain: float) -> Callable[..., jax.Array]:
    """Initialiser: a random orthogonal matrix (Haar measure) times `gain`, as `nn.initializers.orthogonal`.

    By Gram-Schmidt, twice over, instead of a QR decomposition: LAPACK calls inside a `vmap` over seeds can wait for
    each other for ever on a CPU with few cores (jaxlib 0.10.2).

    References:
      Saxe et al. 2014, arXiv:1312.6120; Giraud et al. 2005 (why twice is enough).
    """

    def init(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        rows, columns = int(np.prod(shape[:-1])), shape[-1]
        gaussian = jax.random.normal(key, (max(rows, columns), min(rows, columns)), dtype)

        def orthogonalize(j: jax.Array, basis: jax.Array) -> jax.Array:
            column = gaussian[:, j]
            for _ in range(2):
                column -= basis @ (column @ basis)
            return basis.at[:, j].set(column / jnp.linalg.norm(column))

        basis = jax.lax.fori_loop(0, gaussian.shape[1], orthogonalize, jnp.zeros_like(gaussian))
        return gain * (basis if rows >= columns else basis.T).reshape(shape)

    return init


def normc(length: float) -> Callable[..., jax.Array]:
    """Initialiser: Gaussian, each output's column of weights scaled to `length`, as RLlib's `normc_initializer`."""

    def init(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        weights = jax.random.normal(key, shape, dtype)
        return length * weights / jnp.sqrt(jnp.square(weights).sum(0, keepdims=True))

    return init


INITIALIZERS = ("orthogonal", "lecun_uniform")
POLICY_INITIALIZERS = ("orthogonal", "normc")


def initializer(name: str, gain: float) -> Callable[..., jax.Array]:
    """Of a layer: `orthogonal(gain)`, or uniform with the variance of one over the number of inputs, whatever the gain.

    Raises:
      ValueError: for another name.
    """
    if name not in INITIALIZERS:
        raise ValueError(f"initializer = {name!r}: expected one of {', '.join(INITIALIZERS)}")
    return orthogonal(gain) if name == "orthogonal" else nn.initializers.lecun_uniform()


def encode(space: Space, obs: jax.Array) -> jax.Array:
    """Observations as a network takes them: integers of Discrete spaces and indices one-hot, all else float32.

    Args:
      space: of one observation.
      obs: [N, *space.shape], native dtype.
    Returns:
      [N, …] float32; images keep their axes, everything else is flattened.
    """
    if isinstance(space, Discrete):
        return jax.nn.one_hot(obs, space.n)
    if isinstance(space, MultiDiscrete):
        return jnp.concatenate([jax.nn.one_hot(obs[..., i], n) for i, n in enumerate(space.nvec)], -1)
    if isinstance(space, Indexed):
        return jnp.concatenate([jax.nn.one_hot(space.index(obs), space.n), space.features(obs)], -1)
    obs = obs.astype(jnp.float32)
    return obs if len(space.shape) == 3 else obs.reshape(obs.shape[0], -1)


def resolve_torso(torso: str, space: Space) -> str:
    """ "auto" is a CNN for observations [height, width, channels] of at least 3 x 3, else an MLP.

    Raises:
      ValueError: for an unknown torso, a CNN on observations that are no images, or a table on those without an index.
    """
    if torso not in TORSOS:
        raise ValueError(f"torso = {torso!r}: expected one of {', '.join(TORSOS)}")
    is_image = isinstance(space, Box) and len(space.shape) == 3 and min(space.shape[:2]) >= 3
    if torso == "cnn" and not is_image:
        raise ValueError(
            f"torso = 'cnn' needs observations [height, width, channels] of at least 3 x 3, got {space}; use 'mlp'"
        )
    if torso == "table" and not isinstance(space, Indexed):
        raise ValueError(f"torso = 'table' needs observations in an Indexed space, got {space}; use 'mlp'")
    return ("cnn" if is_image else "mlp") if torso == "auto" else torso


def truncated_lecun(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Initialiser: normal, of deviation one over the root of the inputs, cut off at two deviations.

    As in Sonnet and Haiku: unlike `nn.initializers.lecun_normal`, it does not make up for the tails that are missing.
    """
    return shape[0] ** -0.5 * jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)


class PatchConv(nn.Module):
    """Convolution, stride 1, VALID, as one matrix product over patches; parameters as in `nn.Conv`.

    Under `vmap` over seeds a convolution becomes a grouped one, which XLA runs slowly; this becomes a batched matmul.
    """

    features: int
    size: int = 3
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, H, W, C] -> [N, H-size+1, W-size+1, features]."""
        size, channels = self.size, x.shape[-1]
        kernel = self.param("kernel", orthogonal(HIDDEN_GAIN), (size, size, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,)) if self.use_bias else 0.0
        height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
        patches = [x[:, i : i + height, j : j + width] for i in range(size) for j in range(size)]
        return jnp.concatenate(patches, -1) @ kernel.reshape(-1, self.features) + bias


class Torso(nn.Module):
    """Hidden layers: an optional small CNN (MinAtar's: 16 filters of 3x3), then an MLP. [N, …] -> [N, width].

    Attributes:
      hidden_sizes: widths of the MLP's layers.
      activation: a name in `ACTIVATIONS`.
      kind: "mlp" or "cnn".
      layer_norm: standardise what comes into each activation, over its last axis (of images, the filters).
      kernel_init: of the MLP's layers.
    """

    hidden_sizes: tuple[int, ...]
    activation: str
    kind: str = "mlp"
    layer_norm: bool = False
    kernel_init: Callable[..., jax.Array] = orthogonal(HIDDEN_GAIN)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Features of a batch of encoded observations."""
        activation = ACTIVATIONS[self.activation]
        if self.kind == "cnn":
            x = PatchConv(16)(x)
            x = activation(nn.LayerNorm()(x) if self.layer_norm else x)
        x = x.reshape(x.shape[0], -1)
        for size in self.hidden_sizes:
            x = nn.Dense(size, kernel_init=self.kernel_init)(x)
            x = activation(nn.LayerNorm()(x) if self.layer_norm else x)
        return x


class ActorCritic(nn.Module):
    """A policy and further heads, on separate torsos or a shared one.

    Attributes:
      num_policy_outputs: width of "policy" (initial gain 0.01: nearly uniform at first).
      heads: names and widths of the others, "value" among them (gain 1).
      num_log_std: width of the parameter "log_std", first 0, which does not depend on observations; 0 for none.
      shared_torso: one torso for all heads, else one for the policy and one for the others.
      state_std: "log_std" [N, width] is a head beside the policy's instead.
      policy_inputs: the policy sees only so many entries of each observation, the other heads all; 0 for all.
      initializer: "orthogonal", as above and in `Torso`; or "normc", columns of length 1, of heads 0.01.
    """

    num_policy_outputs: int
    heads: tuple[tuple[str, int], ...]
    num_log_std: int
    hidden_sizes: tuple[int, ...]
    activation: str
    torso: str
    shared_torso: bool
    state_std: bool = False
    policy_inputs: int = 0
    initializer: str = "orthogonal"

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        """[N, …] encoded observations -> {"policy": [N, P], name: [N, width], …}."""
        by_column = self.initializer == "normc"
        torso = functools.partial(
            Torso,
            self.hidden_sizes,
            self.activation,
            self.torso,
            kernel_init=normc(1.0) if by_column else orthogonal(HIDDEN_GAIN),
        )

        def head(name: str, width: int, gain: float) -> nn.Dense:
            return (
                nn.Dense(width, kernel_init=normc(0.01), name=f"head_{name}") if by_column else _head(name, width, gain)
            )

        features = torso(name="torso")(x[:, : self.policy_inputs] if self.policy_inputs else x)
        outputs = {"policy": head("policy", self.num_policy_outputs, 0.01)(features)}
        if self.state_std:
            outputs["log_std"] = head("log_std", self.num_log_std, 0.01)(features)
        if not self.shared_torso:
            features = torso(name="critic_torso")(x)
        for name, width in self.heads:
            outputs[name] = head(name, width, 1.0)(features)
        if self.num_log_std and not self.state_std:
            outputs["log_std"] = self.param("log_std", nn.initializers.zeros_init(), (self.num_log_std,))
        return outputs


class ActionConditioned(nn.Module):
    """A policy and further heads on a shared torso, and heads per action behind one recurrent step into each action.

    A linear layer on the torso gives the features. They become the state of an LSTM, the one-hot action is its input,
    and each head per action is a hidden layer and a linear one over what comes out. All heads begin small.

    Attributes:
      num_policy_outputs: A, the number of actions.
      heads: names and widths of the heads beside "policy".
      action_heads: names and widths of the heads per action.
      torso: shared by all.
      feature_size: width of the features.
      action_size: width of the LSTM, and of the hidden layers behind it.

    References:
      Hessel et al. 2021, arXiv:2104.06159 (Muesli); Oh et al. 2025, doi:10.1038/s41586-025-09761-x. Differs: the heads
      per action begin small, too. Random logits over bins of returns are values of several units, which many a policy
      follows into determinism before they are unlearnt.
    """

    num_policy_outputs: int
    heads: tuple[tuple[str, int], ...]
    action_heads: tuple[tuple[str, int], ...]
    torso: Torso
    feature_size: int
    action_size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        """[N, …] encoded observations -> {"policy": [N, A], head: [N, width], head per action: [N, A, width]}."""
        dense = functools.partial(nn.Dense, kernel_init=truncated_lecun)
        features = dense(self.feature_size, name="features")(self.torso(x))
        small = nn.initializers.truncated_normal(0.01)
        outputs = {
            name: nn.Dense(width, kernel_init=small, name=f"head_{name}")(features)
            for name, width in (("policy", self.num_policy_outputs), *self.heads)
        }
        cell = dense(self.action_size, name="root")(features)
        # One layer over [action, state], in two pieces: a one-hot action picks a row of its own.
        both = nn.initializers.truncated_normal((self.num_policy_outputs + self.action_size) ** -0.5)
        of_state = nn.Dense(4 * self.action_size, kernel_init=both, name="lstm")(jnp.tanh(cell))
        of_action = self.param("action_kernel", both, (self.num_policy_outputs, 4 * self.action_size))
        i, g, f, o = jnp.split(of_state[:, None] + of_action, 4, -1)
        cell = nn.sigmoid(f + 1.0) * cell[:, None] + nn.sigmoid(i) * jnp.tanh(g)
        features = nn.sigmoid(o) * jnp.tanh(cell)
        for name, width in self.action_heads:
            hidden = nn.relu(dense(self.action_size, name=f"hidden_{name}")(features))
            outputs[name] = nn.Dense(width, kernel_init=small, name=f"head_{name}")(hidden)
        return outputs


class GRU(nn.Module):
    """Gated recurrent unit over a sequence, forgetting at the start of each episode.

    With the memory h (0 where `is_first`), the gates r = σ(W_r x + U_r h + b_r) and z = σ(W_z x + U_z h + b_z), and the
    candidate n = tanh(W_n x + b_n + r·(U_n h + c)), the next memory is (1 - z)·n + z·h. Parameters hold the three
    side by side, in the order r, z, n: all that does not wait for h is one matrix product for all steps.

    Attributes:
      size: M, width of the memory.

    References:
      Cho et al. 2014, arXiv:1406.1078; with the reset gate behind the product, as cuDNN and `nn.GRUCell`.
    """

    size: int

    @nn.compact
    def __call__(self, memory: jax.Array, x: jax.Array, is_first: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Memory [B, M], inputs [T, B, D] and flags [T, B] -> the last memory, and those after each step [T, B, M]."""
        input_kernel = self.param("input_kernel", nn.initializers.lecun_normal(), (x.shape[-1], 3 * self.size))
        memory_kernel = self.param("memory_kernel", _side_by_side(3, orthogonal(1.0)), (self.size, 3 * self.size))
        bias = self.param("bias", nn.initializers.zeros_init(), (3 * self.size,))
        candidate_bias = self.param("candidate_bias", nn.initializers.zeros_init(), (self.size,))

        def cell(memory: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            of_input, first = inputs
            memory = jnp.where(first[:, None], 0.0, memory)
            reset, update, candidate = jnp.split(of_input, 3, -1)
            from_reset, from_update, from_candidate = jnp.split(memory @ memory_kernel, 3, -1)
            reset, update = nn.sigmoid(reset + from_reset), nn.sigmoid(update + from_update)
            candidate = jnp.tanh(candidate + reset * (from_candidate + candidate_bias))
            memory = (1.0 - update) * candidate + update * memory
            return memory, memory

        of_inputs = x @ input_kernel + bias
        if len(x) == 1:  # as in acting: no loop
            memory, _ = cell(memory, (of_inputs[0], is_first[0]))
            return memory, memory[None]
        return jax.lax.scan(cell, memory, (of_inputs, is_first))


class LSTM(nn.Module):
    """Long short-term memory over a sequence, forgetting at the start of each episode; as `GRU`.

    The memory is h beside c, [B, 2M]. With i, f, g, o the four quarters of W x + U h + b: c' = σ(f) c + σ(i) tanh(g)
    and h' = σ(o) tanh(c'). One bias per gate; that of f starts at 0.

    Attributes:
      size: M, width of what it puts out.

    References:
      Hochreiter & Schmidhuber 1997; Gers et al. 2000 (the gate f).
    """

    size: int

    @nn.compact
    def __call__(self, memory: jax.Array, x: jax.Array, is_first: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Memory [B, 2M], inputs [T, B, D] and flags [T, B] -> the last memory, and h after each step [T, B, M]."""
        input_kernel = self.param("input_kernel", nn.initializers.lecun_normal(), (x.shape[-1], 4 * self.size))
        memory_kernel = self.param("memory_kernel", _side_by_side(4, orthogonal(1.0)), (self.size, 4 * self.size))
        bias = self.param("bias", nn.initializers.zeros_init(), (4 * self.size,))

        def cell(memory: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            of_input, first = inputs
            hidden, carry = jnp.split(jnp.where(first[:, None], 0.0, memory), 2, -1)
            write, keep, candidate, show = jnp.split(of_input + hidden @ memory_kernel, 4, -1)
            carry = nn.sigmoid(keep) * carry + nn.sigmoid(write) * jnp.tanh(candidate)
            hidden = nn.sigmoid(show) * jnp.tanh(carry)
            return jnp.concatenate([hidden, carry], -1), hidden

        return jax.lax.scan(cell, memory, (x @ input_kernel + bias, is_first))


class TableHeads(nn.Module):
    """Heads that are linear in a one-hot index and in features, without hidden layers or biases.

    Equal to a dense layer over `encode(Indexed(n, F), obs)`, but its product with the one-hot vector is a lookup.

    Attributes:
      num_indices: n.
      heads: names and widths.
    """

    num_indices: int
    heads: tuple[tuple[str, int], ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        """[N, 1 + F], index and features -> {name: [N, width]}."""
        num_inputs, widths = self.num_indices + x.shape[-1] - 1, [width for _, width in self.heads]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (num_inputs, sum(widths)))
        rows = kernel[x[:, 0].astype(jnp.int32)] + x[:, 1:] @ kernel[self.num_indices :]
        parts = jnp.split(rows, np.cumsum(widths)[:-1].tolist(), -1)
        return {name: part for (name, _), part in zip(self.heads, parts, strict=True)}


class RecurrentActorCritic(nn.Module):
    """An embedding of each observation, one memory, and an `ActorCritic` that reads it.

    Attributes:
      embedding: of encoded observations.
      memory_size: M.
      heads: of the memory after each step.
    """

    embedding: Torso
    memory_size: int
    heads: ActorCritic

    @nn.compact
    def __call__(self, memory: jax.Array, x: jax.Array, is_first: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Memory [B, M], encoded observations [T * B, …], time first, and flags [T, B].

        Returns:
          The memory after the last step, and what `heads` gives, [T * B, width].
        """
        features = self.embedding(x).reshape(*is_first.shape, -1)
        memory, features = GRU(self.memory_size, name="gru")(memory, features, is_first)
        return memory, self.heads(features.reshape(len(x), -1))


def _side_by_side(num: int, initializer: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Initialiser: `num` matrices, each drawn by itself, along the last axis."""

    def init(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        part = (*shape[:-1], shape[-1] // num)
        return jnp.concatenate([initializer(k, part, dtype) for k in jax.random.split(key, num)], -1)

    return init


def _head(name: str, width: int, gain: float) -> nn.Dense:
    return nn.Dense(width, kernel_init=orthogonal(gain), name=f"head_{name}")
