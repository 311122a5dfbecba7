"""Patches and one matmul against `nn.Conv`, on MinAtar's shape: `python -m experiments.benchmarks.conv [--json PATH]`.

Gradient of a loss through conv 3x3x16 and a dense layer, batch 256 of 10x10x4; alone, and under `vmap` over 8 seeds
(where XLA sees a grouped convolution). Both in one process, interleaved; best of many.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import tyro

from experiments.benchmarks.harness import write
from jaxrl.networks import PatchConv


class Net(nn.Module):
    patches: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = PatchConv(16) if self.patches else nn.Conv(16, (3, 3), padding="VALID")
        x = nn.relu(conv(x))
        return nn.Dense(128)(x.reshape(x.shape[0], -1))


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured: `repeats` of each side; `json`, where to write flat figures."""

    repeats: int = 20
    json: str | None = None


def gradient(patches: bool, seeds: int) -> Callable[[], jax.Array]:
    """A compiled gradient of all seeds, ready to call."""
    net = Net(patches)
    x = jax.random.bernoulli(jax.random.key(0), 0.2, (256, 10, 10, 4)).astype(jnp.float32)
    params = jax.vmap(lambda key: net.init(key, x))(jax.random.split(jax.random.key(1), seeds))
    grad = jax.grad(lambda p: jnp.square(net.apply(p, x)).mean())
    if seeds == 1:
        params = jax.tree.map(lambda leaf: leaf[0], params)
        compiled = jax.jit(grad).lower(params).compile()
    else:
        compiled = jax.jit(jax.vmap(grad)).lower(params).compile()
    return lambda: jax.block_until_ready(compiled(params))


def main(config: Config) -> dict[str, float]:
    """Prints and returns milliseconds and the ratio conv over patches."""
    figures = {}
    for seeds in (1, 8):
        sides = {"patches": gradient(True, seeds), "conv": gradient(False, seeds)}
        best = dict.fromkeys(sides, float("inf"))
        for _ in range(config.repeats):
            for name, run in sides.items():
                began = time.perf_counter()
                run()
                best[name] = min(best[name], time.perf_counter() - began)
        for name, seconds in best.items():
            figures[f"ms_{name}_{seeds}"] = 1e3 * seconds
        figures[f"speed_ratio_conv_{seeds}"] = best["conv"] / best["patches"]
        print(f"{seeds} seeds: patches {1e3 * best['patches']:.2f} ms, nn.Conv {1e3 * best['conv']:.2f} ms")
    write(config.json, figures)
    return figures


if __name__ == "__main__":
    main(tyro.cli(Config))
