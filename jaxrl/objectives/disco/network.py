"""The meta-network of Disco103: from a trajectory to targets, plain functions over a tree of dense layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.objectives.disco.config import DiscoConfig, Predictions, Trajectory
from jaxrl.objectives.disco.values import Values, of_action
from jaxrl.types import Key, Params

_NUM_STEP_FEATURES = 23  # beside the embedding of the actions: its mean, and that of the action taken
_NUM_ACTION_FEATURES = 9


class Layer(NamedTuple):
    """A dense layer: widths, and the deviation of its random weights; `None` for one over the root of `num_in`."""

    num_in: int
    num_out: int
    stddev: float | None = None


def build(make: Callable[[str, Layer], Any], config: DiscoConfig) -> Params:
    """The tree of the meta-network's layers, each `make(name, layer)`; names are those of the published file."""
    hidden, width = config.action_embedding

    def features(prefix: str) -> dict[str, Any]:
        """Layers that turn predictions and per-action features into inputs."""
        predictions = {
            name: [
                make(f"{prefix}{module}/~/linear_0", Layer(config.prediction_size, config.embedding_size)),
                make(f"{prefix}{module}/~/linear_1", Layer(config.embedding_size, 1)),
            ]
            for name, module in (("y", "mlp"), ("z", "mlp_1"))
        }
        actions = [
            make(f"{prefix}sequential/conv1_d", Layer(2 * _NUM_ACTION_FEATURES, hidden)),
            make(f"{prefix}sequential/conv1_d_1", Layer(2 * hidden, width)),
        ]
        return predictions | {"actions": actions}

    core, lifetime, num_features = config.core_size, config.lifetime_size, _NUM_STEP_FEATURES + 2 * width
    of_updates = "lstm/~/meta_lstm/~unroll/"
    return {
        "features": features("lstm/"),
        "core": make("lstm/lstm/linear", Layer(num_features + core, 4 * core)),
        "gate": make("lstm/linear", Layer(lifetime, core, 1.0)),
        "summary": make("lstm/linear_1", Layer(core, 1, 0.3)),
        "y": make("lstm/linear_2", Layer(core, config.prediction_size, 0.3)),
        "z": make("lstm/linear_3", Layer(core, config.prediction_size, 0.3)),
        "pi": [
            make("lstm/sequential_1/conv1_d", Layer(2 * (core + width), config.policy_size)),
            make("lstm/linear_4", Layer(config.policy_size, 1, 0.3)),
        ],
        "lifetime": {
            "features": features(of_updates),
            "embedding": make(f"{of_updates}mlp_2/~/linear_0", Layer(num_features + 2, config.embedding_size)),
            "core": make(f"{of_updates}lstm/linear", Layer(config.embedding_size + lifetime, 4 * lifetime)),
        },
    }


def init_disco(key: Key, config: DiscoConfig = DiscoConfig()) -> Params:
    """Random meta-parameters, as meta-training would start from.

    Args:
      key: consumed.
      config: static.
    Returns:
      Tree of {"kernel": [in, out], "bias": [out]}; 754,778 numbers at the published sizes.
    """
    num_layers = len(jax.tree.leaves(build(lambda name, layer: name, config)))
    keys = iter(jax.random.split(key, num_layers))

    def make(name: str, layer: Layer) -> dict[str, jax.Array]:
        stddev = layer.num_in**-0.5 if layer.stddev is None else layer.stddev
        kernel = stddev * jax.random.truncated_normal(next(keys), -2.0, 2.0, (layer.num_in, layer.num_out))
        return {"kernel": kernel, "bias": jnp.zeros(layer.num_out)}

    return build(make, config)


def _dense(layer: Params, x: jax.Array) -> jax.Array:
    return x @ layer["kernel"] + layer["bias"]


def _to_number(layers: list[Params], logits: jax.Array) -> jax.Array:
    """A prediction [..., P] as one number [...]."""
    return _dense(layers[1], jax.nn.relu(_dense(layers[0], jax.nn.softmax(logits))))[..., 0]


def _over_actions(layer: Params, x: jax.Array) -> jax.Array:
    """A layer [..., A, C] -> [..., A, out] shared by the actions, each of which sees the mean of all beside its own."""
    mean = jnp.broadcast_to(x.mean(-2, keepdims=True), x.shape)
    return jax.nn.relu(_dense(layer, jnp.concatenate([x, mean], -1)))


def _gates(gated: jax.Array, cell: jax.Array) -> tuple[jax.Array, jax.Array]:
    """An LSTM's step after its dense layer, gates in the order i, g, f, o; the forget gate's bias is raised by 1."""
    i, g, f, o = jnp.split(gated, 4, -1)
    cell = jax.nn.sigmoid(f + 1.0) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(cell), cell


def _signed_log(x: jax.Array) -> jax.Array:
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def meta_inputs(features: Params, seen: Trajectory, values: Values) -> tuple[jax.Array, jax.Array]:
    """What the meta-network sees of a trajectory.

    Args:
      features: layers of one of the two recurrent cores.
      seen: leaves [T, B, …].
      values: numbers along it.
    Returns:
      [T, B, F] per step, and the embedding of each action, [T, B, A, C].
    """
    pi, next_pi, target_pi, behaviour = (
        jax.nn.softmax(x) for x in (seen.online.pi, seen.next_online.pi, seen.target.pi, seen.behaviour)
    )

    def of_taken(x: jax.Array) -> jax.Array:
        return of_action(x, seen.action)

    def of_z(now: Predictions, after: Predictions) -> tuple[list[jax.Array], jax.Array]:
        """z of the action taken, the policy's mean now and next, the largest now and next; and z of all actions."""
        z, next_z = (_to_number(features["z"], of.z) for of in (now, after))
        means = [(pi * z).sum(-1), (next_pi * next_z).sum(-1)]
        return [of_taken(z), *means, z.max(-1), next_z.max(-1)], z

    online_z, z = of_z(seen.online, seen.next_online)
    target_z, z_of_target = of_z(seen.target, seen.next_target)
    steps = [
        of_taken(pi),
        of_taken(behaviour),
        _signed_log(seen.reward),
        1.0 - seen.terminated,
        _signed_log(values.value),
        _signed_log(values.next_value),
        _signed_log(values.advantage),
        values.normalized_advantage,
        of_taken(target_pi),
        *(_to_number(features["y"], of.y) for of in (seen.online, seen.next_online, seen.target, seen.next_target)),
        *online_z,
        *target_z,
    ]
    actions = [
        pi,
        behaviour,
        target_pi,
        z,
        z_of_target,
        _signed_log(values.target_q),
        _signed_log(values.action_advantage),
        values.normalized_action_advantage,
        jax.nn.one_hot(seen.action, pi.shape[-1]),
    ]
    embedding = jnp.stack(actions, -1)
    for layer in features["actions"]:
        embedding = _over_actions(layer, embedding)
    return jnp.concatenate([jnp.stack(steps, -1), embedding.mean(-2), of_taken(embedding)], -1), embedding


def _backwards(layer: Params, x: jax.Array, is_last: jax.Array) -> jax.Array:
    """An LSTM [T, B, F] -> [T, B, H] from the last step to the first, forgetting what lies behind an episode's end."""
    num_features, size = x.shape[-1], layer["bias"].shape[-1] // 4
    of_input, of_hidden = layer["kernel"][:num_features], layer["kernel"][num_features:]

    def body(carry: tuple[jax.Array, jax.Array], step: tuple[jax.Array, jax.Array]) -> Any:
        gated, over = step
        hidden, cell = (jnp.where(over[:, None], 0.0, leaf) for leaf in carry)
        carry = _gates(gated + hidden @ of_hidden, cell)
        return carry, carry[0]

    nothing = jnp.zeros((x.shape[1], size))
    return jax.lax.scan(body, (nothing, nothing), (x @ of_input + layer["bias"], is_last), reverse=True)[1]


class MetaOutputs(NamedTuple):
    """Logits of the targets, pi [T, B, A], y and z [T, B, P]; and the lifetime's `hidden` and `cell` afterwards."""

    pi: jax.Array
    y: jax.Array
    z: jax.Array
    hidden: jax.Array
    cell: jax.Array


def meta_network(params: Params, hidden: jax.Array, cell: jax.Array, seen: Trajectory, values: Values) -> MetaOutputs:
    """One application: targets of every step, and one step of the recurrent core over updates.

    Args:
      params: from `init_disco` or `load_disco103`.
      hidden, cell: [lifetime_size], of the core over updates.
      seen: leaves [T, B, …].
      values: numbers along it.
    """
    x, of_actions = meta_inputs(params["features"], seen, values)
    x = _backwards(params["core"], x, seen.terminated | seen.truncated)
    x = x * _dense(params["gate"], hidden)
    y, z = _dense(params["y"], x), _dense(params["z"], x)
    per_action = jnp.broadcast_to(x[..., None, :], (*of_actions.shape[:-1], x.shape[-1]))
    first, last = params["pi"]
    pi = _dense(last, _over_actions(first, jnp.concatenate([per_action, of_actions], -1)))[..., 0]

    lifetime = params["lifetime"]
    inputs, _ = meta_inputs(lifetime["features"], seen, values)
    summary = [_dense(params["summary"], x), _to_number(lifetime["features"]["y"], y)[..., None]]
    mean = _dense(lifetime["embedding"], jnp.concatenate([inputs, *summary], -1)).mean((0, 1))
    hidden, cell = _gates(_dense(lifetime["core"], jnp.concatenate([mean, hidden])), cell)
    return MetaOutputs(pi, y, z, hidden, cell)
