"""One measurement of meta-training in a process of its own: `python -m experiments.benchmarks.meta_work '{…}'`."""

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
import numpy as np

from experiments.benchmarks.harness import my_turn
from jaxrl import make_env
from jaxrl.algorithm import Algorithm, init, train
from jaxrl.presets import PRESETS


def algorithm(preset: str, env: str, settings: dict[str, Any]) -> tuple[Any, Algorithm]:
    """The configuration of a preset, settings replaced, and its algorithm."""
    known = PRESETS[preset]
    config = dataclasses.replace(known.config, **settings)
    return config, known.make(make_env(env), config, known.hparams, None)


def compiled(algorithm: Algorithm, num_steps: int) -> tuple[Any, Any, float]:
    """`(state, start) -> (state, metrics)` of `num_steps` meta-steps, a first state, and the seconds of compiling."""
    key = jax.random.key(0)
    state = jax.jit(lambda key: init(key, algorithm))(key)

    def run(state: Any, start: Any) -> Any:
        return train(key, algorithm, num_steps, state, start)

    began = time.perf_counter()
    advance = jax.jit(run, donate_argnums=0).lower(state, jnp.int32(0)).compile()
    return advance, state, time.perf_counter() - began


def steps(env: str, presets: dict[str, str], settings: dict[str, Any], num_steps: int, repeats: int) -> dict[str, Any]:
    """Seconds per meta-step of several presets, whose pieces alternate.

    Args:
      env: of levels whose lifetimes differ.
      presets: {name in the answer: preset}.
      settings: of all of them.
      num_steps: meta-steps of a piece: one whole lifetime of the longest. A piece that is not counted comes first, so
        that lifetimes, which begin together, are staggered.
      repeats: pieces of each, of which the median counts.
    """
    parts: dict[str, Any] = {}
    seconds: dict[str, list[float]] = {name: [] for name in presets}
    ended: dict[str, list[float]] = {name: [] for name in presets}
    answer: dict[str, Any] = {}
    for name, preset in presets.items():
        config, made = algorithm(preset, env, settings)
        advance, state, took = compiled(made, num_steps)
        parts[name] = (advance, state)
        answer |= {f"{name}_piece_compile_seconds": took, f"{name}_env_steps_per_meta_step": config.steps_per_update}
    my_turn()
    for piece in range(repeats + 1):
        for name, (advance, state) in parts.items():
            began = time.perf_counter()
            state, metrics = jax.block_until_ready(advance(state, jnp.int32(piece * num_steps)))
            if piece > 0:
                seconds[name].append((time.perf_counter() - began) / num_steps)
                ended[name].append(float(np.sum(metrics["lifetime/count"])))
            parts[name] = (advance, state)
    for name in presets:
        took = statistics.median(seconds[name])
        answer |= {
            f"{name}_seconds_per_meta_step": took,
            f"{name}_env_steps_per_second": answer[f"{name}_env_steps_per_meta_step"] / took,
            f"{name}_lifetimes_ended_per_meta_step": statistics.mean(ended[name]) / num_steps,
        }
    return answer


def compilation(preset: str, env: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Seconds to trace and compile one meta-step, and the bytes that it takes; nothing is run."""
    _, made = algorithm(preset, env, settings)
    key = jax.random.key(0)
    state = jax.eval_shape(lambda key: init(key, made), key)
    began, spent = time.perf_counter(), time.process_time()
    program = jax.jit(made.step, donate_argnums=1).lower(key, state, jax.ShapeDtypeStruct((), jnp.int32)).compile()
    seconds, spent = time.perf_counter() - began, time.process_time() - spent
    memory: Any = program.memory_analysis()
    return {
        "compile_seconds": seconds,
        "compile_cpu_seconds": spent,
        "temp_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes - memory.alias_size_in_bytes,
    }


def evolution(preset: str, env: str, settings: dict[str, Any], num_steps: int, repeats: int) -> dict[str, Any]:
    """Environment steps per second of a preset of evolution strategies; nothing if there is none of that name."""
    if preset not in PRESETS:
        return {}
    known = {field.name for field in dataclasses.fields(PRESETS[preset].config)}
    config, made = algorithm(preset, env, {name: value for name, value in settings.items() if name in known})
    advance, state, took = compiled(made, num_steps)
    my_turn()
    seconds = []
    for piece in range(repeats + 1):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(advance(state, jnp.int32(piece * num_steps)))
        seconds.append((time.perf_counter() - began) / num_steps)
    return {
        "es_env_steps_per_second": config.steps_per_update / statistics.median(seconds[1:]),
        "es_compile_seconds": took,
    }


WORK: dict[str, Callable[..., dict[str, Any]]] = {"steps": steps, "compilation": compilation, "evolution": evolution}

if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(WORK[asked.pop("what")](**asked)))
