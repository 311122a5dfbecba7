"""What quality-diversity costs, beside qdax and pyribs: `python -m experiments.benchmarks.qd [--quick] [--json PATH]`.

`make bench-peers` builds the peers' environment. Each side runs in processes of its own, the sides in turns.

- `insert_ms_grid_4096_10000`: milliseconds in which 4,096 individuals of 100 numbers enter a grid of 100 x 100 cells,
  lookup included, the median; `insert_ratio_qdax` is qdax's median over ours. Both get the same random batches; ours
  writes into the archive that it is given (donated), theirs returns a new one.
- `arm_evals_ratio_qdax`, `arm_evals_ratio_ribs`: evaluations per second of MAP-Elites on the arm of qdax's README (100
  joints, 100 x 100 cells, batches of 1,024, iso+line), over theirs. Theirs is the README's loop over a compiled update,
  ours one compiled scan of the same length; compilation is left out. pyribs evaluates in NumPy.
- `vmap8_over_8runs`: seconds of 8 seeds under one `vmap` over 8 times those of one, of DCRL-MAP-Elites on PointMass in
  the sizes of `experiments.dcg_map_elites`, compilation left out; `_arm` is that of MAP-Elites on the arm, which fills
  the machine with one seed, and `_compiling` of the former with compilation. `sweep8_over_8runs` is that of the runner,
  which gives each core a seed at a time (`runtime.choose_layout`).
- `dcrl_compile_ratio_qdax`: compilation of one iteration of DCRL-MAP-Elites on walker2d_uni (256 individuals, 250
  steps, the published sizes) over qdax's; `null`, with `dcrl_qdax_reason`, where qdax's emitter does not import as
  released. `dcrl_compile_ratio_qdax_mended` is that over qdax with a stand-in for the module that it imports, and
  `null` where that does not run either. `dcrl_iteration_seconds_…` are those of one iteration. Ours is compiled as the
  runner compiles physics on CPUs (`runtime.step_compile_options`), theirs as JAX does.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from experiments.benchmarks.harness import measure, my_turn, peer_python, write
from experiments.dcg_map_elites import SCALES, settings_of
from jaxrl import make_env, train
from jaxrl.algorithm import Algorithm
from jaxrl.presets import find_preset
from jaxrl.qd.archive import elites
from jaxrl.qd.emitters import iso_line
from jaxrl.qd.map_elites import map_elites
from jaxrl.qd.tessellation import grid
from jaxrl.runtime import choose_layout, over_runs, place, step_compile_options, use_all_cores
from jaxrl.types import Evaluation
from jaxrl_envs.functions import arm as arm_task

OURS = ["-m", "experiments.benchmarks.qd", "--work"]
QDAX, RIBS = "experiments/benchmarks/peers/qdax_archive.py", "experiments/benchmarks/peers/ribs_arm.py"
ARM = {"batch": 1024, "initial": 100, "side": 100, "joints": 100}
INSERTION = {"batch": 4096, "side": 100, "size": 100}
SIZES = (
    "hidden_sizes", "critic_hidden_sizes", "num_initial", "num_ga", "num_pg", "num_injected", "num_agent_updates",
    "num_pg_steps", "batch_size", "buffer_size", "num_cells", "num_samples",
)  # fmt: skip
LIMITS = {
    "insert_ms_grid_4096_10000": "at most 2", "insert_ratio_qdax": "at least 100", "arm_evals_ratio_qdax": "at least 3",
    "vmap8_over_8runs": "below 1", "dcrl_compile_ratio_qdax": "at most 0.5",
    "dcrl_compile_ratio_qdax_mended": "at most 0.5",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
      quick: one process of each side, and an agent that learns a thirtieth as much in the iteration on walker2d_uni.
      repeats: processes of each side.
      parts: of insertion, arm, seeds and dcrl; a file with some has those figures only.
      json: where to write flat figures.
    """

    quick: bool = False
    repeats: int = 3
    parts: tuple[str, ...] = ("insertion", "arm", "seeds", "dcrl")
    json: str | None = None


def insertion(batch: int, side: int, size: int, repeats: int) -> dict[str, Any]:
    """Seconds of each of `repeats` insertions of `batch` individuals of `size` numbers into side x side cells."""
    container = elites(grid([0.0, 0.0], [1.0, 1.0], [side, side]))
    archive = container.init(jnp.zeros((1, size)), 2)
    insert, seconds = jax.jit(container.insert, donate_argnums=0), []
    for i in range(repeats + 1):
        keys = jax.random.split(jax.random.key(i), 3)
        genotypes, descriptors = jax.random.uniform(keys[0], (batch, size)), jax.random.uniform(keys[1], (batch, 2))
        rows = jax.block_until_ready((genotypes, jax.random.normal(keys[2], (batch,)), descriptors))
        began = time.perf_counter()
        archive, _ = jax.block_until_ready(insert(archive, *rows))
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds[1:], "filled": int(archive.occupied.sum())}


def arm_algorithm(batch: int, initial: int, side: int, joints: int) -> Algorithm:
    """MAP-Elites on the arm, as in qdax's README."""

    def evaluate(key: Any, own_key: Any, x: jax.Array) -> Evaluation:
        return Evaluation(*arm_task(x))

    cells = elites(grid([0.0, 0.0], [1.0, 1.0], [side, side]))
    emitter = iso_line(batch, 0.05, 0.1, 0.0, 1.0)
    return map_elites(evaluate, emitter, cells, lambda key: jax.random.uniform(key, (initial, joints)), 2)


def arm(batch: int, initial: int, iterations: int, pieces: int, side: int, joints: int) -> dict[str, Any]:
    """Evaluations per second of `pieces` stretches of iterations, and what the archive is worth at the end."""
    algorithm = arm_algorithm(batch, initial, side, joints)
    seconds, compile_seconds, metrics = stretches(algorithm, iterations, pieces)
    rates = [batch * iterations / taken for taken in seconds]
    last = {name: float(metrics[f"archive/{name}"][-1]) for name in ("coverage", "max_fitness")}
    return {"rates": rates, "compile_seconds": compile_seconds, "metrics": last}


def stretches(algorithm: Algorithm, iterations: int, pieces: int) -> tuple[list[float], float, Any]:
    """Seconds of each stretch of one run and of compilation, and the last metrics."""
    stretch, compile_seconds = compiled_stretch(algorithm, iterations)
    rows = [stretch(piece) for piece in range(pieces)]
    return [seconds for seconds, _ in rows], compile_seconds, rows[-1][1]


def compiled_stretch(
    algorithm: Algorithm, iterations: int, seeds: int = 0
) -> tuple[Callable[[int], tuple[float, Any]], float]:
    """`piece -> (seconds, metrics)` of one run, or of seeds side by side, which goes on; and seconds of compilation."""

    def go(key: Any, state: Any, start: Any) -> Any:
        return train(key, algorithm, iterations, state, start)

    keys: Any = jax.random.split(jax.random.key(0), seeds) if seeds else jax.random.key(0)
    init: Callable[..., Any] = jax.vmap(algorithm.init) if seeds else algorithm.init
    run: Callable[..., Any] = jax.vmap(go, (0, 0, None)) if seeds else go
    began = time.perf_counter()
    first = jax.jit(init).lower(keys).compile()
    state = jax.block_until_ready(first(keys))
    running = time.perf_counter()
    compiled = jax.jit(run, donate_argnums=1).lower(keys, state, jnp.int32(0)).compile()
    compile_seconds = time.perf_counter() - running + (running - began)

    def stretch(piece: int) -> tuple[float, Any]:
        nonlocal state  # which the program takes back
        began = time.perf_counter()
        state, metrics = jax.block_until_ready(compiled(keys, state, jnp.int32(piece * iterations)))
        return time.perf_counter() - began, metrics

    return stretch, compile_seconds


def many(what: str, iterations: int, pieces: int) -> dict[str, Any]:
    """Medians of seconds of one run and of 8 side by side, in turns, and seconds of compilation."""
    algorithm = arm_algorithm(**ARM) if what == "arm" else learner()
    sides = {seeds: compiled_stretch(algorithm, iterations, seeds) for seeds in (0, 8)}
    rows = [{seeds: stretch(piece)[0] for seeds, (stretch, _) in sides.items()} for piece in range(pieces)]
    medians = {f"seconds_{n or 1}": statistics.median(row[n] for row in rows) for n in sides}
    return medians | {f"compile_seconds_{n or 1}": seconds for n, (_, seconds) in sides.items()}


def learner() -> Algorithm:
    """DCRL-MAP-Elites on PointMass."""
    config, hp = settings_of("dcrl_map_elites", "jaxrl/point_mass", SCALES["cpu"]["jaxrl/point_mass"])
    return find_preset("dcrl_map_elites").make(make_env("jaxrl/point_mass"), config, hp, None)


def laid_out(iterations: int, pieces: int) -> dict[str, Any]:
    """Median of seconds of 8 seeds of the learner, over all cores."""
    use_all_cores()
    layout, algorithm = choose_layout(8), learner()
    keys = place(jax.random.split(jax.random.key(0), 8), layout)
    state = place(jax.jit(jax.vmap(algorithm.init))(keys), layout)

    def piece(keys: Any, state: Any, start: Any) -> Any:
        def one(run: Any, start: Any) -> Any:
            return train(run["key"], algorithm, iterations, run["state"], start)[0]

        return over_runs(one, layout)({"key": keys, "state": state}, start)

    compiled, seconds = jax.jit(piece, donate_argnums=1).lower(keys, state, jnp.int32(0)).compile(), []
    for number in range(pieces):
        began = time.perf_counter()
        state = jax.block_until_ready(compiled(keys, state, jnp.int32(number * iterations)))
        seconds.append(time.perf_counter() - began)
    return {"seconds_8": statistics.median(seconds)}


def walker(num_steps: int, sizes: dict[str, Any], iterations: int) -> dict[str, Any]:
    """Compilation of one iteration of DCRL-MAP-Elites on walker2d_uni, and seconds of each of some iterations."""
    preset = find_preset("dcrl_map_elites")
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in sizes.items()}
    config = dataclasses.replace(preset.config, episode_steps=num_steps, **given)
    env = make_env("brax/walker2d_uni")
    algorithm = preset.make(env, config, preset.hparams, None)
    state = jax.block_until_ready(jax.jit(algorithm.init)(jax.random.key(0)))
    began = time.perf_counter()
    lowered = jax.jit(algorithm.step, donate_argnums=1).lower(jax.random.key(1), state, jnp.int32(0))
    step = lowered.compile(compiler_options=step_compile_options(env))
    compile_seconds, seconds = time.perf_counter() - began, []
    for i in range(iterations):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(step(jax.random.key(2 + i), state, jnp.int32(i)))
        seconds.append(time.perf_counter() - began)
    return {"compile_seconds": compile_seconds, "iteration_seconds": seconds}


def evaluations(env: str, batch: int, iterations: int, episode_steps: int) -> dict[str, Any]:
    """Policies that MAP-Elites evaluates per second, of `batch` per iteration, variation and insertion included."""
    preset = find_preset("map_elites")
    config = dataclasses.replace(preset.config, num_ga=batch, num_initial=batch, episode_steps=episode_steps)
    made = make_env(env)
    algorithm = preset.make(made, config, preset.hparams, None)
    keys = jax.random.split(jax.random.key(0), iterations + 2)
    began = time.perf_counter()
    first = jax.jit(algorithm.init).lower(keys[0]).compile()
    state = jax.eval_shape(algorithm.init, keys[0])
    lowered = jax.jit(algorithm.step, donate_argnums=1).lower(keys[0], state, jnp.int32(0))
    step = lowered.compile(compiler_options=step_compile_options(made))
    compile_seconds = time.perf_counter() - began
    my_turn()
    state, seconds = jax.block_until_ready(first(keys[0])), []
    for i, key in enumerate(keys[1:]):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(step(key, state, jnp.int32(i)))
        seconds.append(time.perf_counter() - began)
    rate = batch / statistics.median(seconds[1:])
    return {"evaluations_per_second": rate, "compile_seconds": compile_seconds}


def insertions(config: Config) -> dict[str, Any]:
    """Figures of the insertion."""
    peer, ours, theirs = peer_python("qdax"), list[float](), list[float]()
    for _ in range(1 if config.quick else config.repeats):
        one = measure(sys.executable, OURS, what="insertion", repeats=200, **INSERTION)
        other = measure(peer, QDAX, what="insertion", repeats=3 if config.quick else 8, **INSERTION)
        ours, theirs = ours + one["seconds"], theirs + other["seconds"]
    mine, peers = statistics.median(ours), statistics.median(theirs)
    return {
        "insert_ms_grid_4096_10000": 1e3 * mine,
        "insert_ms_grid_4096_10000_best": 1e3 * min(ours),
        "insert_ms_grid_4096_10000_qdax": 1e3 * peers,
        "insert_ratio_qdax": peers / mine,
    }


def arms(config: Config) -> dict[str, Any]:
    """Figures of MAP-Elites on the arm."""
    peer, work = peer_python("qdax"), {**ARM, "iterations": 50, "pieces": 2 if config.quick else 4}
    rows: dict[str, list[dict[str, Any]]] = {"ours": [], "qdax": [], "ribs": []}
    for _ in range(1 if config.quick else config.repeats):
        rows["ours"].append(measure(sys.executable, OURS, what="arm", **work))
        rows["qdax"].append(measure(peer, QDAX, what="arm", **work))
        rows["ribs"].append(measure(peer, RIBS, **work))
    rates = {name: statistics.median(rate for row in side for rate in row["rates"]) for name, side in rows.items()}
    return {
        "arm_evals_ratio_qdax": rates["ours"] / rates["qdax"],
        "arm_evals_ratio_ribs": rates["ours"] / rates["ribs"],
        **{f"arm_evals_per_second_{name}": rate for name, rate in rates.items()},
        **{f"arm_coverage_{name}": side[0]["metrics"]["coverage"] for name, side in rows.items()},
        **{
            f"arm_compile_seconds_{n}": statistics.median(r["compile_seconds"] for r in rows[n])
            for n in ("ours", "qdax")
        },
    }


def seeds_side_by_side(config: Config) -> dict[str, Any]:
    """Figures of 8 seeds."""
    pieces = 3 if config.quick else 7
    one = measure(sys.executable, OURS, what="many", of="dcrl", iterations=5, pieces=pieces)
    plain = measure(sys.executable, OURS, what="many", of="arm", iterations=10, pieces=pieces)
    over_cores = measure(sys.executable, OURS, what="laid_out", iterations=5, pieces=pieces)
    whole = {n: one[f"compile_seconds_{n}"] + pieces * one[f"seconds_{n}"] for n in (1, 8)}
    return {
        "vmap8_over_8runs": one["seconds_8"] / (8 * one["seconds_1"]),
        "sweep8_over_8runs": over_cores["seconds_8"] / (8 * one["seconds_1"]),
        "vmap8_over_8runs_arm": plain["seconds_8"] / (8 * plain["seconds_1"]),
        "vmap8_over_8runs_compiling": whole[8] / (8 * whole[1]),
    }


def medians(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of seconds of compilation and of an iteration."""
    return {
        "compile_seconds": statistics.median(row["compile_seconds"] for row in rows),
        "iteration_seconds": [statistics.median(min(row["iteration_seconds"]) for row in rows)],
    }


def iteration(config: Config) -> dict[str, Any]:
    """Figures of one iteration on walker2d_uni."""
    published = find_preset("dcrl_map_elites").config
    sizes = {name: getattr(published, name) for name in SIZES} | ({"num_agent_updates": 100} if config.quick else {})
    work = {"num_steps": 250, "sizes": sizes, "iterations": 1 if config.quick else 2}
    rows: dict[str, list[dict[str, Any]]] = {"ours": [], "qdax": []}
    theirs: dict[str, Any] = {"reason": None}
    for _ in range(1 if config.quick else config.repeats):
        rows["ours"].append(measure(sys.executable, OURS, what="walker", **work))
        if "failure" not in theirs:
            try:
                rows["qdax"].append(measure(peer_python("qdax"), QDAX, what="dcrl", **work))
                theirs = medians(rows["qdax"]) | {"reason": rows["qdax"][-1]["reason"]}
            except RuntimeError as error:
                theirs = {"reason": None, "failure": str(error).strip().splitlines()[-1]}
    ours = medians(rows["ours"])
    as_released = theirs["reason"] is None and "failure" not in theirs
    ratio = ours["compile_seconds"] / theirs["compile_seconds"] if "compile_seconds" in theirs else None
    figures = {
        "dcrl_compile_ratio_qdax": ratio if as_released else None,
        "dcrl_qdax_reason": theirs["reason"] or theirs.get("failure"),
        "dcrl_compile_ratio_qdax_mended": ratio,
        "dcrl_qdax_mended_failure": theirs.get("failure"),
    }
    for name, side in (("ours", ours), ("qdax", theirs)):
        figures[f"dcrl_compile_seconds_{name}"] = side.get("compile_seconds")
        figures[f"dcrl_iteration_seconds_{name}"] = min(side.get("iteration_seconds") or [float("inf")])
    return {name: None if value == float("inf") else value for name, value in figures.items()}


def main(config: Config) -> dict[str, Any]:
    """Prints and returns the flat figures."""
    parts = {"insertion": insertions, "arm": arms, "seeds": seeds_side_by_side, "dcrl": iteration}
    if unknown := sorted(set(config.parts) - set(parts)):
        sys.exit(f"parts: {', '.join(parts)}; got {', '.join(unknown)}")
    figures: dict[str, Any] = {}
    for name in config.parts:
        figures |= parts[name](config)
    for name, value in figures.items():
        shown = f"{value:12.4g}" if isinstance(value, float) else f"{value}"
        print(f"{name:40} {shown:>12}   {LIMITS.get(name, '')}")
    write(config.json, figures)
    return figures


if __name__ == "__main__":
    if "--work" in sys.argv:
        arguments = json.loads(sys.argv[-1])
        if "of" in arguments:
            arguments["what"], of = "many", arguments.pop("of")
        kinds: dict[str, Callable[..., Any]] = {
            "insertion": insertion, "arm": arm, "walker": walker, "laid_out": laid_out,
            "evaluations": evaluations,
            "many": lambda **given: many(of, **given),
        }  # fmt: skip
        print(json.dumps(kinds[arguments.pop("what")](**arguments)))
    else:
        main(tyro.cli(Config))
