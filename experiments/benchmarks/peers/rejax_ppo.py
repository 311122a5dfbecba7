"""One measurement of rejax's PPO, run by the interpreter of its own environment: `python rejax_ppo.py '{…}'`."""

from __future__ import annotations

import json
import resource
import sys
import time

import gymnax
import jax
from gymnax.wrappers import LegacyStepAPIWrapper
from rejax import get_algo


class Wrapper(LegacyStepAPIWrapper):
    """gymnax's legacy step, made copyable: rejax deep-copies its configuration, and the wrapper recurses there."""

    def __deepcopy__(self, memo: dict) -> Wrapper:
        return self


def main(seeds: int, total_steps: int, chunks: int, settings: dict) -> dict:
    """Trains `seeds` agents `chunks` times over, without evaluation, and says what it cost."""
    env, params = gymnax.make("CartPole-v1")
    algorithm = get_algo("ppo").create(
        env=Wrapper(env),
        env_params=params,
        total_timesteps=total_steps,
        eval_freq=total_steps,
        skip_initial_evaluation=True,
        **settings,
    )
    algorithm = algorithm.replace(eval_callback=lambda *args: 0)
    keys = jax.random.split(jax.random.PRNGKey(0), seeds)
    train, keys = (jax.vmap(algorithm.train), keys) if seeds > 1 else (algorithm.train, keys[0])
    began = time.perf_counter()
    compiled = jax.jit(train).lower(keys).compile()
    compile_seconds = time.perf_counter() - began
    rates = []
    for _ in range(chunks):
        began = time.perf_counter()
        jax.block_until_ready(compiled(keys))
        rates.append(seeds * total_steps / (time.perf_counter() - began))
    rates.sort()
    return {
        "compile_seconds": compile_seconds,
        "steps_per_second": rates[len(rates) // 2],
        "best_steps_per_second": rates[-1],
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))
