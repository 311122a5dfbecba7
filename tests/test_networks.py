"""Networks: the patch convolution against linen's, encodings of every space, and how heads and torsos hang together."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from jaxrl.networks import ActorCritic, PatchConv, TableHeads, Torso, encode, orthogonal, resolve_torso
from jaxrl.spaces import Box, Discrete, Indexed, MultiDiscrete, Space

IMAGE = Box(0.0, 1.0, (5, 6, 4))


@pytest.fixture(scope="module")
def images() -> tuple[jax.Array, Any]:
    x = jax.random.normal(jax.random.key(0), (3, 5, 6, 4))
    params = PatchConv(7).init(jax.random.key(1), x)["params"]
    return x, {"kernel": params["kernel"], "bias": jax.random.normal(jax.random.key(2), (7,))}


def test_patch_conv_is_linens(images: tuple[jax.Array, Any]) -> None:
    x, params = images
    conv = nn.Conv(7, (3, 3), padding="VALID")

    def run(module: nn.Module, params: Any, x: jax.Array) -> jax.Array:
        return module.apply({"params": params}, x)

    ours, theirs = run(PatchConv(7), params, x), run(conv, params, x)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    by_hand = oracles.conv_valid(*(np.asarray(a, np.float64) for a in (x, params["kernel"], params["bias"])))
    np.testing.assert_allclose(ours, by_hand, atol=2e-6)
    weights = jax.random.normal(jax.random.key(3), ours.shape)
    gradients = [
        jax.grad(lambda p, x, m=module: (weights * run(m, p, x)).sum(), (0, 1))(params, x)
        for module in (PatchConv(7), conv)
    ]
    for a, b in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    # The same names and shapes, so that parameters are interchangeable.
    assert jax.tree.map(jnp.shape, conv.init(jax.random.key(1), x)["params"]) == jax.tree.map(jnp.shape, params)


def test_patch_conv_under_vmap_over_seeds(images: tuple[jax.Array, Any]) -> None:
    x, params = images
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), params)
    both = jax.vmap(lambda p: PatchConv(7).apply({"params": p}, x))(stacked)
    conv = nn.Conv(7, (3, 3), padding="VALID")
    for i in range(2):
        single = conv.apply({"params": jax.tree.map(lambda leaf: leaf[i], stacked)}, x)  # noqa: B023
        np.testing.assert_allclose(both[i], single, atol=2e-6)


@pytest.mark.parametrize(
    ("space", "obs", "expected"),
    [
        (Discrete(3), [2, 0], [[0, 0, 1], [1, 0, 0]]),
        (MultiDiscrete((2, 3)), [[1, 0], [0, 2]], [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]),
        (Indexed(3, 2), [[2, 0.5, -7], [0, 1, 2]], [[0, 0, 1, 0.5, -7], [1, 0, 0, 1, 2]]),
        (Indexed(2), [[1], [0]], [[0, 1], [1, 0]]),
        (Box(-1.0, 1.0, ()), [0.5, -0.5], [[0.5], [-0.5]]),
        (Box(-1.0, 1.0, (2,)), [[0.5, 1.0]], [[0.5, 1.0]]),
        (Box(0, 9, (2, 2), jnp.uint8), [[[1, 2], [3, 4]]], [[1, 2, 3, 4]]),
    ],
)
def test_encodings_by_hand(space: Space, obs: Any, expected: Any) -> None:
    encoded = encode(space, jnp.array(obs, space.dtype))
    assert encoded.dtype == jnp.float32
    np.testing.assert_array_equal(encoded, expected)


def test_images_keep_their_axes() -> None:
    space = Box(0, 255, (2, 3, 1), jnp.uint8)
    pixels = jnp.arange(12, dtype=jnp.uint8).reshape(2, 2, 3, 1)
    np.testing.assert_array_equal(encode(space, pixels), np.arange(12.0).reshape(2, 2, 3, 1))
    assert encode(space, pixels).dtype == jnp.float32


def test_torsos_are_chosen_by_shape() -> None:
    assert resolve_torso("auto", IMAGE) == "cnn"
    assert resolve_torso("mlp", IMAGE) == "mlp"
    assert resolve_torso("cnn", IMAGE) == "cnn"
    for space in (Discrete(3), MultiDiscrete((2, 2)), Indexed(3, 1), Box(0.0, 1.0, (4,)), Box(0.0, 1.0, (4, 4))):
        assert resolve_torso("auto", space) == "mlp"
        with pytest.raises(ValueError, match=r"\[height, width, channels\].*use 'mlp'"):
            resolve_torso("cnn", space)
    assert resolve_torso("auto", Box(0.0, 1.0, (2, 5, 1))) == "mlp"  # smaller than a filter
    with pytest.raises(ValueError, match="expected one of auto, mlp, cnn"):
        resolve_torso("lstm", IMAGE)


def actor_critic(**changes: Any) -> ActorCritic:
    defaults = {
        "num_policy_outputs": 3,
        "heads": (("value", 1), ("extra", 5)),
        "num_log_std": 0,
        "hidden_sizes": (16, 16),
        "activation": "tanh",
        "torso": "mlp",
        "shared_torso": False,
    }
    return ActorCritic(**{**defaults, **changes})


@pytest.mark.parametrize("shared", [True, False])
def test_heads_and_first_weights(shared: bool) -> None:
    network = actor_critic(shared_torso=shared, num_log_std=3)
    x = jax.random.normal(jax.random.key(0), (4, 6))
    params = network.init(jax.random.key(1), x)["params"]
    outputs = network.apply({"params": params}, x)
    assert {name: value.shape for name, value in outputs.items()} == {
        "policy": (4, 3), "value": (4, 1), "extra": (4, 5), "log_std": (3,)
    }  # fmt: skip
    for name, gain in (("policy", 0.01), ("value", 1.0), ("extra", 1.0)):
        kernel = np.asarray(params[f"head_{name}"]["kernel"])
        np.testing.assert_allclose(kernel.T @ kernel, gain**2 * np.eye(kernel.shape[1]), atol=1e-5)
    hidden = np.asarray(params["torso"]["Dense_1"]["kernel"])
    np.testing.assert_allclose(hidden.T @ hidden, 2 * np.eye(16), atol=1e-5)
    np.testing.assert_array_equal(outputs["log_std"], 0.0)
    assert ("critic_torso" in params) is not shared


@pytest.mark.parametrize("shared", [True, False])
def test_critics_reach_the_actor_only_through_a_shared_torso(shared: bool) -> None:
    network = actor_critic(shared_torso=shared)
    x = jax.random.normal(jax.random.key(0), (4, 6))
    params = network.init(jax.random.key(1), x)
    of_value = jax.grad(lambda p: network.apply(p, x)["value"].sum())(params)["params"]
    of_policy = jax.grad(lambda p: network.apply(p, x)["policy"].sum())(params)["params"]

    def reached(gradient: Any) -> set[str]:
        return {name for name, tree in gradient.items() if any(np.any(np.asarray(g)) for g in jax.tree.leaves(tree))}

    assert reached(of_policy) == {"torso", "head_policy"}
    assert reached(of_value) == {"torso" if shared else "critic_torso", "head_value"}


@pytest.mark.parametrize("activation", ["tanh", "relu", "swish", "gelu", "elu"])
def test_a_small_network_by_hand(activation: str) -> None:
    network = actor_critic(hidden_sizes=(4,), activation=activation, shared_torso=True, heads=(("value", 1),))
    x = jax.random.normal(jax.random.key(0), (2, 3))
    params = network.init(jax.random.key(1), x)["params"]
    layer, head = params["torso"]["Dense_0"], params["head_value"]
    z = np.asarray(x @ layer["kernel"] + layer["bias"], np.float64)
    hidden = {
        "tanh": np.tanh(z),
        "relu": np.maximum(z, 0),
        "swish": z / (1 + np.exp(-z)),
        "gelu": 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))),
        "elu": np.where(z > 0, z, np.expm1(z)),
    }[activation]
    value = network.apply({"params": params}, x)["value"]
    np.testing.assert_allclose(value, hidden @ np.asarray(head["kernel"]) + np.asarray(head["bias"]), atol=1e-5)


def test_the_cnn_sees_where_things_are() -> None:
    """Two images with the same pixels in other places: other features, through the convolution."""
    network = actor_critic(torso="cnn", shared_torso=True, activation="relu")
    x = jnp.zeros((2, *IMAGE.shape)).at[0, 0, 0, 0].set(1.0).at[1, 2, 3, 1].set(1.0)
    params = network.init(jax.random.key(1), x)
    assert params["params"]["torso"]["PatchConv_0"]["kernel"].shape == (3, 3, 4, 16)
    value = np.asarray(network.apply(params, x)["value"])
    assert abs(value[0] - value[1]) > 1e-4


@pytest.mark.parametrize("shape", [(16, 16), (4, 16), (16, 2), (3, 3, 4, 8)])
def test_orthogonal_columns_or_rows_are_orthogonal_with_the_gain(shape: tuple[int, ...]) -> None:
    """The shorter side of the matrix spans an orthogonal basis of length `gain`, also under vmap over seeds."""
    kernels = jax.vmap(lambda key: orthogonal(2.0)(key, shape))(jax.random.split(jax.random.key(0), 3))
    for kernel in np.asarray(kernels).reshape(3, -1, shape[-1]):
        short = kernel if kernel.shape[0] >= kernel.shape[1] else kernel.T
        np.testing.assert_allclose(short.T @ short, 4.0 * np.eye(short.shape[1]), atol=1e-5)


def test_orthogonal_is_uniform_over_rotations() -> None:
    """First entries of random 3 x 3 rotations are uniform on [-1, 1] (Archimedes): mean 0, variance 1/3."""
    kernels = jax.vmap(lambda key: orthogonal(1.0)(key, (3, 3)))(jax.random.split(jax.random.key(1), 4000))
    for row, column in ((0, 0), (1, 2), (2, 1)):
        entry = np.asarray(kernels[:, row, column])
        assert abs(entry.mean()) < 0.04
        assert abs(entry.var() - 1 / 3) < 0.03


def standardized(x: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def test_layer_norm_stands_before_each_activation() -> None:
    """Of images over the filters of each place; of hidden layers over their width; each with its scale and shift."""
    torso = Torso((6, 4), "relu", "cnn", layer_norm=True)
    x = jax.random.normal(jax.random.key(0), (3, *IMAGE.shape))
    params = torso.init(jax.random.key(1), x)["params"]
    random = jax.random.normal(jax.random.key(2), (3, 2, 16))
    for i, width in enumerate((16, 6, 4)):
        params[f"LayerNorm_{i}"] = {"scale": random[i, 0, :width], "bias": random[i, 1, :width]}
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def layer(i: int, z: np.ndarray) -> np.ndarray:
        return np.maximum(standardized(z) * p[f"LayerNorm_{i}"]["scale"] + p[f"LayerNorm_{i}"]["bias"], 0.0)

    conv = p["PatchConv_0"]
    hidden = layer(0, oracles.conv_valid(np.asarray(x, np.float64), conv["kernel"], conv["bias"])).reshape(3, -1)
    for i in range(2):
        hidden = layer(i + 1, hidden @ p[f"Dense_{i}"]["kernel"] + p[f"Dense_{i}"]["bias"])
    np.testing.assert_allclose(torso.apply({"params": params}, x), hidden, atol=1e-4)


def test_without_layer_norm_there_is_none() -> None:
    params = Torso((6,), "relu", "cnn").init(jax.random.key(1), jnp.zeros((1, *IMAGE.shape)))["params"]
    assert set(params) == {"PatchConv_0", "Dense_0"}


def test_a_table_is_a_dense_layer_over_one_hot_indices_and_features() -> None:
    space, heads = Indexed(7, 2), (("policy", 3), ("value", 1))
    network = TableHeads(space.n, heads)
    rng = np.random.default_rng(0)
    obs = jnp.asarray(np.column_stack([rng.integers(0, 7, 5), rng.random((5, 2))]), jnp.float32)
    params = network.init(jax.random.key(0), obs)
    outputs = network.apply(params, obs)
    dense = encode(space, obs) @ params["params"]["kernel"]
    np.testing.assert_allclose(outputs["policy"], dense[:, :3], atol=1e-6)
    np.testing.assert_allclose(outputs["value"], dense[:, 3:], atol=1e-6)


def test_a_table_needs_an_index() -> None:
    with pytest.raises(ValueError, match=r"torso = 'table' needs observations in an Indexed space.*use 'mlp'"):
        resolve_torso("table", Box(0.0, 1.0, (3,)))
