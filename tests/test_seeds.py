"""Genomes of seeds: the same bits in every execution mode, and what their noise and initialisation are."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.evo.seeds import SeedGenome, check_key, extend, founder, quantize, seed_codec, unit_normal
from jaxrl.runtime import Layout, over_runs

KEY = jax.random.key(0)


def shapes(size: int) -> Any:
    """A layer of 3 inputs, its bias, and the rest as another bias: D numbers; only vectors where D is too small."""
    sizes = {"kernel": (3, size // 6), "bias": (size - 3 * (size // 6),)} if size >= 6 else {"bias": (size,)}
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in sizes.items()}


def genomes(num: int, length: int, scheduled: bool) -> SeedGenome:
    seeds = jax.random.bits(KEY, (num, length), jnp.uint32)
    power = 0.05 * 0.9 ** np.arange(length) if scheduled else np.full(length, 0.05)
    powers = jnp.broadcast_to(quantize(power), (num, length)).at[:, 0].set(0.0)
    return SeedGenome(seeds, powers, jnp.full(num, length, jnp.int32))


@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("size", [1, 17, 386, 100_003])
@pytest.mark.quick("17-False", "386-True", "100003-False")
def test_every_execution_mode_gives_the_same_bits(size: int, scheduled: bool) -> None:
    """Oracle 1. Op by op, compiled, vmapped, scanned, mapped, in chunks and over devices."""
    codec = seed_codec(shapes(size))
    people = genomes(4, 30 if size < 1000 else 8, scheduled)

    def by_scan(genome: SeedGenome) -> jax.Array:
        def body(theta: jax.Array, entry: Any) -> Any:
            return codec.mutate(theta, *entry), None

        start = codec.first(codec.noise(genome.seeds[0]))
        return jax.lax.scan(body, start, (genome.seeds[1:], genome.powers[1:]))[0]

    def eagerly(genome: SeedGenome) -> jax.Array:
        theta = codec.first(codec.noise(genome.seeds[0]))
        for seed, power in zip(genome.seeds[1:], genome.powers[1:], strict=True):
            theta = codec.mutate(theta, seed, power)
        return theta

    single = [jax.tree.map(lambda leaf: leaf[i], people) for i in range(4)]  # noqa: B023
    compiled, mutate = jax.jit(codec.rebuild), jax.jit(codec.mutate)
    expected = np.stack([compiled(genome) for genome in single])
    step_by_step = []
    for genome in single:
        theta = jax.jit(lambda seed: codec.first(codec.noise(seed)))(genome.seeds[0])
        for seed, power in zip(genome.seeds[1:], genome.powers[1:], strict=True):
            theta = mutate(theta, seed, power)
        step_by_step.append(theta)
    modes = {
        "eager": np.stack([eagerly(genome) for genome in single]),
        "incremental": np.stack(step_by_step),
        "vmap": jax.jit(jax.vmap(codec.rebuild))(people),
        "scan": jax.jit(jax.vmap(by_scan))(people),
        "map": jax.jit(lambda people: jax.lax.map(codec.rebuild, people))(people),
        "chunks": jax.jit(lambda people: jax.lax.map(codec.rebuild, people, batch_size=3))(people),
        "devices": jax.jit(over_runs(lambda one, _: codec.rebuild(one), Layout(2, 0)))(people, ()),
    }
    for mode, found in modes.items():
        np.testing.assert_array_equal(np.asarray(found).view(np.uint32), expected.view(np.uint32), err_msg=mode)
    assert np.abs(expected).max() > 0.01


@pytest.mark.thorough
def test_four_devices_in_another_process() -> None:
    """The same bits on a mesh of 4, from a process with other compiler settings."""
    code = """
import jax, numpy as np, jax.numpy as jnp, hashlib
from test_seeds import genomes, shapes
from jaxrl.evo.seeds import seed_codec
from jaxrl.runtime import Layout, over_runs
codec, people = seed_codec(shapes(386)), genomes(8, 30, True)
num = jax.local_device_count()
run = over_runs(lambda one, _: codec.rebuild(one), Layout(num, 2))
print(num, hashlib.sha256(np.asarray(jax.jit(run)(people, ())).tobytes()).hexdigest())
"""
    found = {}
    for devices in (1, 4):
        flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level={devices - 1}"
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="tests",
            env={**os.environ, "XLA_FLAGS": flags},
        )  # fmt: skip
        num, digest = result.stdout.split()
        found[int(num)] = digest
    assert set(found) == {1, 4}
    assert found[1] == found[4]


def test_a_child_is_its_parent_and_one_more_draw() -> None:
    """Oracle 2: extending the genome and rebuilding it all, against one mutation of the parent that was kept."""
    codec = seed_codec(shapes(386))
    genome = founder(jnp.uint32(3), 5)
    theta = codec.rebuild(genome)
    for i, power in enumerate((0.1, 0.05, 0.033)):
        seed = jnp.uint32(2**31 + i)
        theta, genome = codec.mutate(theta, seed, power), extend(genome, seed, jnp.float32(power))
        np.testing.assert_array_equal(codec.rebuild(genome), theta)
    assert int(genome.length) == 4
    full = extend(extend(genome, jnp.uint32(1), jnp.float32(0.1)), jnp.uint32(2), jnp.float32(0.1))
    assert int(full.length) == 6  # more than there is room for, and it shows
    np.testing.assert_array_equal(full.seeds[:4], genome.seeds[:4])


@pytest.mark.thorough
def test_the_sum_is_the_definition() -> None:
    """float64 NumPy: scale * z(s_0) + sum of p * z(s)."""
    codec = seed_codec(shapes(386), "fan_in")
    genome = jax.tree.map(lambda leaf: leaf[0], genomes(1, 6, True))
    draws = np.stack([codec.noise(seed) for seed in genome.seeds]).astype(np.float64)
    kernel = np.arange(386) >= 386 - 3 * 64  # "bias" comes first
    expected = np.where(kernel, 3**-0.5, 0.0) * draws[0] + np.asarray(genome.powers, np.float64) @ draws
    np.testing.assert_allclose(codec.rebuild(genome), expected, atol=1e-3 * np.abs(expected).max())
    tree = codec.to_params(codec.rebuild(genome))
    np.testing.assert_array_equal(np.concatenate([tree["bias"], tree["kernel"].ravel()]), codec.rebuild(genome))


def test_products_are_exact() -> None:
    """Noise and powers have 12 significant bits, so their products have at most 24, which float32 holds."""
    codec = seed_codec(shapes(386))
    z, power = np.asarray(codec.noise(jnp.uint32(5)), np.float64), np.float64(quantize(0.0123456))
    np.testing.assert_array_equal(np.float32(z * power).astype(np.float64), z * power)
    mantissa, _ = np.frexp(z)
    np.testing.assert_array_equal(mantissa * 2**12, np.round(mantissa * 2**12))
    np.testing.assert_allclose(power, 0.0123456, rtol=2**-12)


def test_noise_is_unit_normal_and_seeds_are_independent() -> None:
    codec = seed_codec(shapes(100_003))
    a, b = np.asarray(codec.noise(jnp.uint32(1))), np.asarray(codec.noise(jnp.uint32(2)))
    for z in (a, b):
        assert abs(z.mean()) < 4 / np.sqrt(z.size)
        assert abs(z.var() - 1) < 4 * np.sqrt(2 / z.size)
        assert abs((z**4).mean() / z.var() ** 2 - 3) < 4 * np.sqrt(96 / z.size)
        ordered, steps = np.sort(z), np.arange(1, z.size + 1) / z.size
        cdf = 0.5 * (1 + np.asarray(jax.scipy.special.erf(ordered / 2**0.5)))
        assert np.abs(cdf - steps).max() < 1.95 / np.sqrt(z.size)  # Kolmogorov and Smirnov, at 0.001
    assert abs((a * b).mean()) < 4 / np.sqrt(a.size)
    for lag in (1, 2, a.size // 2, a.size // 2 + 1):
        assert abs((a[lag:] * a[:-lag]).mean()) < 4 / np.sqrt(a.size - lag)


def test_noise_is_what_it_was() -> None:
    """Genomes in files mean what they meant: threefry of the key (0x5EED, seed), by an implementation in NumPy."""

    def rotated(x: np.ndarray, by: int) -> np.ndarray:
        return (x << np.uint32(by)) | (x >> np.uint32(32 - by))

    def threefry(key: tuple[int, int], x: np.ndarray) -> np.ndarray:
        a, b = np.array_split(x, 2)
        keys = [np.uint32(key[0]), np.uint32(key[1]), np.uint32(key[0] ^ key[1] ^ 0x1BD11BDA)]
        a, b = a + keys[0], b + keys[1]
        for group in range(5):
            for by in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
                a = a + b
                b = rotated(b, by) ^ a
            a, b = a + keys[(group + 1) % 3], b + keys[(group + 2) % 3] + np.uint32(group + 1)
        return np.concatenate([a, b])

    with np.errstate(over="ignore"):
        bits = threefry((0x5EED, 12345), np.arange(6, dtype=np.uint32))
    index = np.concatenate([bits & 0xFFFF, bits >> 16])[:9]
    expected = [NormalDist().inv_cdf((i + 0.5) / 2**16) for i in index]
    np.testing.assert_allclose(unit_normal(jnp.uint32(12345), 9), expected, rtol=4e-4)


def test_initialisation() -> None:
    """Deviations by fan-in and fan-out, of kernels of convolutions too; biases 0; a small output layer with fan_in."""
    tree = {"conv": jax.ShapeDtypeStruct((3, 3, 32, 64), jnp.float32), "bias": jax.ShapeDtypeStruct((64,), jnp.float32),
            "head": {"kernel": jax.ShapeDtypeStruct((512, 32), jnp.float32)}}  # fmt: skip
    expected = {"xavier_normal": (2 / (9 * 96), 2 / 544), "fan_in": (1 / 288, 0.01 / 512)}
    for init, (conv, head) in expected.items():
        codec = seed_codec(tree, init)
        params = codec.to_params(codec.first(codec.noise(jnp.uint32(0))))
        np.testing.assert_array_equal(params["bias"], 0.0)
        np.testing.assert_allclose(params["conv"].var(), conv, rtol=0.05)
        np.testing.assert_allclose(params["head"]["kernel"].var(), head, rtol=0.05)


def test_keys_that_break_genomes_are_refused() -> None:
    check_key(KEY)
    check_key(jax.random.split(KEY, 3))
    for bad in (jax.random.key(0, impl="rbg"), jax.random.key(0, impl="unsafe_rbg"), jax.random.PRNGKey(0)):
        with pytest.raises(ValueError, match="threefry2x32"):
            check_key(bad)
    with pytest.raises(ValueError, match="float32"):
        seed_codec({"a": jax.ShapeDtypeStruct((3,), jnp.bfloat16)})
    with pytest.raises(ValueError, match="init = 'he'"):
        seed_codec(shapes(17), "he")


def test_headers_tell_networks_apart() -> None:
    header = seed_codec(shapes(386)).header
    assert header == seed_codec(shapes(386)).header
    others = [seed_codec(shapes(387)), seed_codec(shapes(386), "fan_in")]
    swapped = seed_codec({"a": shapes(386)["bias"], "kernel": shapes(386)["kernel"]})
    assert all(other.header != header for other in (*others, swapped))


@pytest.mark.slow
def test_four_million_parameters_and_a_hundred_generations() -> None:
    """Rebuilt from 100 seeds; prints how long that takes."""
    codec = seed_codec({"w": jax.ShapeDtypeStruct((4_052_658,), jnp.float32)})
    genome = jax.tree.map(lambda leaf: leaf[0], genomes(1, 101, False))
    rebuild = jax.jit(codec.rebuild).lower(genome).compile()
    began = time.perf_counter()
    theta = jax.block_until_ready(rebuild(genome))
    seconds = time.perf_counter() - began
    print(f"4,052,658 parameters of 100 generations rebuilt in {seconds:.1f} s")  # noqa: T201 - asked for
    np.testing.assert_allclose(theta.var(), 100 * 0.05**2, rtol=0.01)
