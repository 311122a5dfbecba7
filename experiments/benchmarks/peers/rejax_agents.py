"""One measurement of a rejax agent, run by the interpreter of its own environment: `python rejax_agents.py '{…}'`."""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
from gymnax.wrappers import LegacyStepAPIWrapper
from rejax import get_algo


class Wrapper(LegacyStepAPIWrapper):
    """gymnax's legacy step, made copyable: rejax deep-copies its configuration, and the wrapper recurses there."""

    def __deepcopy__(self, memo: dict) -> Wrapper:
        return self


def main(algorithm: str, env: str, seeds: int, total_steps: int, chunks: int, settings: dict[str, Any]) -> dict:
    """Trains `seeds` agents `chunks` times over, without evaluation, and says what it cost.

    What is timed is `total_steps` steps of each. Where there is a buffer, `fill_buffer` steps and one iteration come
    before that and outside of what is timed, so that every timed iteration learns. Compilation is that of the whole
    training, filling included.
    """
    environment, params = gymnax.make(env)
    learner = get_algo(algorithm).create(
        env=Wrapper(environment),
        env_params=params,
        total_timesteps=total_steps,
        eval_freq=total_steps,
        skip_initial_evaluation=True,
        **settings,
    )
    learner = learner.replace(eval_callback=lambda *args: 0)
    keys = jax.random.split(jax.random.PRNGKey(0), seeds)
    train, keys = (jax.vmap(learner.train), keys) if seeds > 1 else (learner.train, keys[0])
    began = time.perf_counter()
    timed: Any = jax.jit(train).lower(keys).compile()
    given: Any = keys
    compile_seconds = time.perf_counter() - began
    before = {"env_steps": 0, "updates": 0}
    if "fill_buffer" in settings:
        timed, given, before = after_filling(learner, keys, seeds)
    rates = []
    for _ in range(chunks):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(timed(given))
        rates.append(seeds * total_steps / (time.perf_counter() - began))
    rates.sort()
    after = counted(state)
    return {
        "compile_seconds": compile_seconds,
        "steps_per_second": rates[len(rates) // 2],
        "best_steps_per_second": rates[-1],
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        **{name: after[name] - before[name] for name in after},
    }


def after_filling(learner: Any, keys: jax.Array, seeds: int) -> tuple[Any, list, dict[str, int]]:
    """The compiled training that goes on from states with filled buffers, these states, and what they have counted.

    Counters do not depend on the seed, and are shared between seeds here as they are in `jax.vmap(train)(keys)`: one
    per seed would turn the branch that asks whether the buffer is filled into a select.
    """
    iteration = learner.num_envs * getattr(learner, "policy_delay", 1)
    warm_up = (-(-learner.fill_buffer // iteration) + 1) * iteration
    filler = learner.replace(total_timesteps=warm_up, eval_freq=warm_up)
    train = jax.vmap(filler.train) if seeds > 1 else filler.train
    states, _ = jax.block_until_ready(jax.jit(train)(keys))
    leaves, tree = jax.tree.flatten(states)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(states)]
    shared = [seeds > 1 and is_counter(path, leaf) for path, leaf in zip(paths, leaves, strict=True)]
    given = [leaf[0] if flag else leaf for leaf, flag in zip(leaves, shared, strict=True)]

    def go_on(*leaves: Any) -> Any:
        return learner.train(train_state=jax.tree.unflatten(tree, leaves))

    axes = [None if flag else 0 for flag in shared]
    over_seeds = jax.vmap(go_on, axes) if seeds > 1 else go_on
    return jax.jit(lambda given: over_seeds(*given)).lower(given).compile(), given, counted(states)


def is_counter(path: tuple, leaf: jax.Array) -> bool:
    """One number per seed, and the same for all."""
    whole = jnp.issubdtype(leaf.dtype, jnp.integer) or leaf.dtype == bool
    if leaf.ndim != 1 or not (whole or getattr(path[-1], "name", "") == "count"):
        return False
    assert bool((leaf == leaf[0]).all()), path
    return True


def counted(state: Any) -> dict[str, int]:
    """Environment steps of the first agent, and updates of its critic or Q-network, as its state has counted them."""
    network = state.critic_ts if hasattr(state, "critic_ts") else state.q_ts
    return {"env_steps": int(state.global_step.ravel()[0]), "updates": int(network.step.ravel()[0])}


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))
