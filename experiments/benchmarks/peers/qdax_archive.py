"""One measurement of qdax 0.5, run by the interpreter of its own environment: `python qdax_archive.py '{…}'`."""

from __future__ import annotations

import functools
import importlib
import json
import sys
import time
import types
from typing import Any

import jax
import jax.numpy as jnp
from qdax.core.containers.mapelites_repertoire import MapElitesRepertoire, compute_euclidean_centroids
from qdax.core.emitters.mutation_operators import isoline_variation
from qdax.core.emitters.standard_emitters import MixingEmitter
from qdax.core.map_elites import MAPElites
from qdax.tasks.arm import arm_scoring_function
from qdax.utils.metrics import default_qd_metrics


def insertion(batch: int, side: int, size: int, repeats: int) -> dict[str, Any]:
    """Seconds of each of `repeats` insertions of `batch` individuals of `size` numbers into side x side cells."""
    centroids = compute_euclidean_centroids((side, side), 0.0, 1.0)
    repertoire = MapElitesRepertoire.init_default(jnp.zeros(size), centroids)
    add = jax.jit(lambda kept, *rows: kept.add(*rows))
    seconds = []
    for i in range(repeats + 1):
        keys = jax.random.split(jax.random.key(i), 3)
        rows = (
            jax.random.uniform(keys[0], (batch, size)),
            jax.random.uniform(keys[1], (batch, 2)),
            jax.random.normal(keys[2], (batch,)),
        )
        jax.block_until_ready(rows)
        began = time.perf_counter()
        repertoire = jax.block_until_ready(add(repertoire, *rows))
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds[1:], "filled": int((repertoire.fitnesses > -jnp.inf).sum())}


def arm(batch: int, initial: int, iterations: int, pieces: int, side: int, joints: int) -> dict[str, Any]:
    """Evaluations per second of MAP-Elites on the arm as qdax's README has it: a Python loop over a compiled update."""
    first = jax.random.uniform(jax.random.key(0), (initial, joints))
    vary = functools.partial(isoline_variation, iso_sigma=0.05, line_sigma=0.1, minval=0.0, maxval=1.0)
    emitter = MixingEmitter(lambda x, y: (x, y), vary, 1.0, batch)
    metrics_of = functools.partial(default_qd_metrics, qd_offset=0.0)
    algorithm = MAPElites(arm_scoring_function, emitter, metrics_of)
    centroids = compute_euclidean_centroids((side, side), 0.0, 1.0)
    began = time.perf_counter()
    repertoire, state, metrics = algorithm.init(first, centroids, jax.random.key(1))
    update = jax.jit(algorithm.update).lower(repertoire, state, jax.random.key(2)).compile()
    compile_seconds = time.perf_counter() - began
    key, rates = jax.random.key(3), []
    for _ in range(pieces):
        began = time.perf_counter()
        for _ in range(iterations):
            key, own = jax.random.split(key)
            repertoire, state, metrics = update(repertoire, state, own)
        jax.block_until_ready(repertoire)
        rates.append(batch * iterations / (time.perf_counter() - began))
    found = {name: float(value) for name, value in metrics.items()}
    found["coverage"] /= 100.0  # there in percent
    return {"rates": rates, "compile_seconds": compile_seconds, "metrics": found}


def dcrl(num_steps: int, sizes: dict[str, Any], iterations: int) -> dict[str, Any]:
    """Compilation of one iteration of DCRL-MAP-Elites on walker2d_uni, and seconds of each of some iterations.

    `reason` says why the released emitter does not import, where it does not. Then a stand-in takes the place of the
    one name that it imports from there, which it needs only in annotations, so that the rest can be measured.
    """
    reason = None
    try:
        importlib.import_module("qdax.core.emitters.dcrl_me_emitter")
    except (ImportError, AttributeError) as error:
        reason = f"qdax.core.emitters.dcrl_me_emitter does not import: {error}"
        for name in [name for name in sys.modules if name.startswith(("qdax.tasks.brax.v1", "brax.v1"))]:
            del sys.modules[name]
        for name in ("qdax.tasks.brax.v1", "qdax.tasks.brax.v1.envs", "qdax.tasks.brax.v1.envs.base_env"):
            sys.modules[name] = types.ModuleType(name)
        sys.modules["qdax.tasks.brax.v1.envs.base_env"].QDEnv = object  # type: ignore[attr-defined]
    return {"reason": reason, **_dcrl(num_steps, sizes, iterations)}


def _dcrl(num_steps: int, sizes: dict[str, Any], iterations: int) -> dict[str, Any]:
    import qdax.tasks.brax.v2 as environments
    from qdax.core.containers.mapelites_repertoire import compute_cvt_centroids
    from qdax.core.emitters.dcrl_me_emitter import DCRLMEConfig, DCRLMEEmitter
    from qdax.core.neuroevolution.buffers.buffer import DCRLTransition
    from qdax.core.neuroevolution.networks.networks import MLP, MLPDC
    from qdax.tasks.brax.v2.env_creators import scoring_function_brax_envs

    env = environments.create("walker2d_uni", episode_length=num_steps)
    layers = (*sizes["hidden_sizes"], env.action_size)
    init = jax.nn.initializers.lecun_uniform()
    policy = MLP(layers, kernel_init=init, final_activation=jnp.tanh)
    actor = MLPDC(layers, kernel_init=init, final_activation=jnp.tanh)

    def play(state: Any, params: Any, key: Any) -> Any:
        actions = policy.apply(params, state.obs)
        seen = state.info["state_descriptor"]
        after = env.step(state, actions)
        blank = jnp.full(env.descriptor_length, jnp.nan)
        row = DCRLTransition(
            obs=state.obs, next_obs=after.obs, rewards=after.reward, dones=after.done, actions=actions,
            truncations=after.info["truncation"], state_desc=seen, next_state_desc=after.info["state_descriptor"],
            desc=blank, desc_prime=blank,
        )  # fmt: skip
        return after, params, key, row

    def mean_contact(rows: Any, mask: jax.Array) -> jax.Array:
        kept = (1.0 - mask)[:, :, None]
        return (rows.state_desc * kept).sum(1) / kept.sum(1)

    score = functools.partial(
        scoring_function_brax_envs, episode_length=num_steps, play_reset_fn=env.reset, play_step_fn=play,
        descriptor_extractor=mean_contact,
    )  # fmt: skip
    config = DCRLMEConfig(
        ga_batch_size=sizes["num_ga"], dcrl_batch_size=sizes["num_pg"], ai_batch_size=sizes["num_injected"],
        num_critic_training_steps=sizes["num_agent_updates"], num_pg_training_steps=sizes["num_pg_steps"],
        batch_size=sizes["batch_size"], replay_buffer_size=sizes["buffer_size"], policy_learning_rate=5e-3,
        critic_hidden_layer_size=tuple(sizes["critic_hidden_sizes"]),
    )  # fmt: skip
    vary = functools.partial(isoline_variation, iso_sigma=0.005, line_sigma=0.05)
    emitter = DCRLMEEmitter(config, policy, actor, env, vary)
    algorithm = MAPElites(score, emitter, functools.partial(default_qd_metrics, qd_offset=0.0))
    centroids = compute_cvt_centroids(
        env.descriptor_length, sizes["num_samples"], sizes["num_cells"], 0.0, 1.0, jax.random.key(0)
    )
    keys = jax.random.split(jax.random.key(1), sizes["num_initial"])
    first = jax.vmap(policy.init, (0, None))(keys, jnp.zeros(env.observation_size))
    repertoire, state, _ = algorithm.init(first, centroids, jax.random.key(2))
    began = time.perf_counter()
    update = jax.jit(algorithm.update).lower(repertoire, state, jax.random.key(3)).compile()
    compile_seconds = time.perf_counter() - began
    seconds = []
    for i in range(iterations):
        began = time.perf_counter()
        repertoire, state, metrics = jax.block_until_ready(update(repertoire, state, jax.random.key(4 + i)))
        seconds.append(time.perf_counter() - began)
    found = {name: float(value) for name, value in metrics.items()} if iterations else {}
    return {"compile_seconds": compile_seconds, "iteration_seconds": seconds, "metrics": found}


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    kinds = {"insertion": insertion, "arm": arm, "dcrl": dcrl}
    print(json.dumps(kinds[arguments.pop("what")](**arguments)))
