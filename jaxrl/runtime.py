"""The host's side of JAX: devices, the compilation cache, and how runs are laid out over them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxrl.evo.evolve import Individual, Spread, in_chunks

CACHE_VARIABLE = "JAX_COMPILATION_CACHE_DIR"
_RUN, _MEMBER = "run", "member"
# A loop that touches no more than so many bytes (in one turn, where its length is not known) becomes one function on a
# CPU, instead of operations that are started one by one, which takes longer than most small ones do. XLA has 1024.
SMALL_LOOPS = "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=1048576"


def use_all_cores() -> str | None:
    """Makes every CPU core a JAX device, so that runs are spread over them, and small loops quick on each of them.

    For both, JAX must not have computed anything yet. The first leaves a number of devices alone that was asked for
    already, and changes nothing beside a GPU or TPU; the second adds to XLA_FLAGS, which child processes inherit,
    unless they say something about --xla_backend_extra_options.

    Returns:
      `None`, or a hint for the user where a backend was already initialised with a single device.
    """
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    config: Any = jax.config  # the option exists only at run time, so type checkers do not know it
    asked, flags = config.jax_num_cpu_devices or -1, os.environ.get("XLA_FLAGS", "")
    is_free = asked == -1 and "xla_force_host_platform_device_count" not in flags
    try:
        # Raises where a backend is up, if it is another number.
        jax.config.update("jax_num_cpu_devices", num_cores if is_free else asked + 1)
        if not is_free:
            jax.config.update("jax_num_cpu_devices", asked)
    except RuntimeError:
        if is_free and jax.default_backend() == "cpu" and jax.device_count() == 1 and num_cores > 1:
            return (
                f"JAX was already running with one CPU device; call jaxrl.run_sweep before any other JAX computation, "
                f"or set jax.config.update('jax_num_cpu_devices', {num_cores}) first, to use all cores"
            )
        return None
    if SMALL_LOOPS.split("=")[0] not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {SMALL_LOOPS}".strip()
    return None


def use_compilation_cache(directory: str | Path | None = None) -> None:
    """Keeps compiled programs between processes, in `directory` or where JAX_COMPILATION_CACHE_DIR says, or in the
    user's cache folder. An empty JAX_COMPILATION_CACHE_DIR turns the cache off.
    """
    if os.environ.get(CACHE_VARIABLE) == "":
        return
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jaxrl" / "xla"
    path = Path(directory or os.environ.get(CACHE_VARIABLE) or default)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # a read-only home costs compilation time, not the run
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def quick_compile_options() -> dict[str, Any] | None:
    """Compiler options for a program that runs once: on a CPU a third of the time to compile, for slower code."""
    if jax.default_backend() != "cpu":
        return None
    return {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


def step_compile_options(env: Any) -> dict[str, Any] | None:
    """Compiler options for an environment's training: half the time on a CPU where `env.compiles_slowly`.

    Engines of physics are thousands of small operations, which take long to compile and gain nothing by what these
    options leave out; small networks would lose a third of their speed (both measured).
    """
    if jax.default_backend() != "cpu" or not getattr(env, "compiles_slowly", False):
        return None
    return {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False}


class Layout(NamedTuple):
    """How R independent runs share the hardware; the numbers that come out do not depend on it beyond rounding.

    Attributes:
      num_devices: devices the run axis is split over.
      batch: runs side by side on one device (`vmap`); the others follow one after the other (`map`). 0 is all.
      split: devices that evaluate the population of each run together (`over_members`), in the place of one.
    """

    num_devices: int
    batch: int
    split: int = 1


def choose_layout(num_runs: int, splits: bool = False) -> Layout:
    """The fastest layout measured: accelerators batch all runs, CPU cores take one run at a time each.

    Args:
      num_runs: independent runs.
      splits: whether runs have populations that devices without a run of their own can help with.
    """
    available = jax.device_count()
    num_devices = min(available, num_runs)
    split = available // num_devices if splits else 1
    return Layout(num_devices, 1 if jax.default_backend() == "cpu" else 0, split)


def padded(num_runs: int, layout: Layout) -> int:
    """`num_runs` rounded up to what the layout divides evenly."""
    return -(-num_runs // layout.num_devices) * layout.num_devices


def over_runs(fn: Callable[..., Any], layout: Layout) -> Callable[..., Any]:
    """`fn(runs, shared)` of one run, as a function of all: leaves of `runs` [R, …] and of the result likewise.

    Args:
      fn: pure; its first argument is one run's, its second the same for all, such as the index of the first update.
      layout: `num_devices` divides R.
    """

    def block(runs: Any, shared: Any) -> Any:
        num = jax.tree.leaves(runs)[0].shape[0]

        def one(run: Any) -> Any:
            return fn(run, shared)

        if num == 1 or layout.batch == 1:
            # No vmap at all: branches stay branches, so a step that ends no episode pays for no reset.
            return _unbatched(one, runs) if num == 1 else jax.lax.map(one, runs)
        if layout.batch in (0, num) or layout.batch > num:
            return jax.vmap(one)(runs)
        return jax.lax.map(one, runs, batch_size=layout.batch)

    if layout.num_devices * layout.split == 1:
        return block
    mesh = run_mesh(layout)
    runs_spec, shared_spec = PartitionSpec(_RUN), PartitionSpec()
    # check_vma: a scan whose carry starts from a constant fails that check, though nothing here crosses devices.
    return jax.shard_map(block, mesh=mesh, in_specs=(runs_spec, shared_spec), out_specs=runs_spec, check_vma=False)


def member_spread(population_batch: int, layout: Layout) -> Spread:
    """How the populations of runs are evaluated in a layout: in chunks, and by the devices that share a run.

    Args:
      population_batch: individuals at once, on each device; 0 for all of its part.
      layout: of the `over_runs` around.
    """
    return over_members(in_chunks(population_batch), layout.split)


def over_members(spread: Spread, split: int) -> Spread:
    """How individuals are evaluated where `split` devices share a run: each takes a part, and all get all results.

    What is not evaluation, every one of those devices computes alike, so that nothing but results is ever sent.

    Args:
      spread: of a device's own part, as `jaxrl.evo.evolve.in_chunks` makes it.
      split: as in the `Layout` of the `over_runs` around; 1 is `spread` itself.
    """
    if split == 1:
        return spread

    def shared_out(one: Individual) -> Individual:
        part = spread(one)

        def everyone(individuals: Any, shared: Any) -> Any:
            num = jax.tree.leaves(individuals)[0].shape[0]
            each = -(-num // split)
            # The last individual fills up, and counts once.
            index = jnp.minimum(jax.lax.axis_index(_MEMBER) * each + jnp.arange(each), num - 1)
            results = part(jax.tree.map(lambda leaf: leaf[index], individuals), shared)
            return jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, _MEMBER, tiled=True)[:num], results)

        return everyone

    return shared_out


def run_mesh(layout: Layout) -> jax.sharding.Mesh:
    """The mesh over runs and, where devices share one, over members of its population."""
    shape = (layout.num_devices, layout.split)
    devices = jax.devices()[: layout.num_devices * layout.split]
    return jax.make_mesh(shape, (_RUN, _MEMBER), axis_types=(AxisType.Auto,) * 2, devices=devices)


def place(runs: Any, layout: Layout) -> Any:
    """Puts leaves [R, …] where `over_runs` wants them."""
    return jax.device_put(runs, run_sharding(layout))


def place_empty(runs: Any, layout: Layout) -> Any:
    """Puts leaves without elements [R, …, 0, …] where `over_runs` wants them: a program gives them back elsewhere."""

    def where_it_belongs(leaf: jax.Array) -> jax.Array:
        if leaf.size:
            return leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return place(leaf, layout)
        return jax.make_array_from_callback(
            leaf.shape, run_sharding(layout), lambda index: np.zeros(leaf.shape, leaf.dtype)[index]
        )

    return jax.tree.map(where_it_belongs, runs)


def run_sharding(layout: Layout) -> jax.sharding.Sharding:
    """Where leaves [R, …] are."""
    if layout.num_devices * layout.split == 1:
        return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return NamedSharding(run_mesh(layout), PartitionSpec(_RUN))


def memory_needed(compiled: Any) -> int:
    """Bytes of one device that a compiled program needs for what it is given, gives and keeps in between."""
    found = compiled.memory_analysis()
    given = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return int(given + found.temp_size_in_bytes)


def memory_limit() -> float:
    """Bytes of one device that may be used unless said otherwise: most of an accelerator's, half of a machine's."""
    device = jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit is not None:
        return 0.9 * limit
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else float("inf")
    return 0.5 * pages / jax.local_device_count()


def _unbatched(one: Callable[[Any], Any], runs: Any) -> Any:
    result = one(jax.tree.map(lambda leaf: leaf[0], runs))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], result)
