"""PPO in one file, as many write it in JAX: what our PPO is measured beside; `python -m …single_file '{"seeds": …}'`.

In the style of Lu et al. 2022 (purejaxrl), written anew: `make_train(config)` returns a `train(rng)` that can be jitted
and put under `vmap`. Nothing of jaxrl is used. What it does otherwise than ours: the environment is gymnax's own, which
resets inside its step, and a truncated episode counts as terminated (ours bootstraps); nothing is logged but the mean
return of the episodes that ended in an update (ours returns ten metrics); permutations are `jax.random.permutation`;
parameters are optimised leaf by leaf. Network, losses, optimiser and numbers are the same.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import gymnax
import jax
import jax.numpy as jnp
import optax
from flax.linen.initializers import constant
from flax.training.train_state import TrainState

DEFAULTS: dict[str, Any] = {
    "env": "CartPole-v1",
    "total_steps": 500_000,
    "num_envs": 4,
    "num_steps": 128,
    "num_epochs": 4,
    "num_minibatches": 4,
    "learning_rate": 2.5e-4,
    "anneal_learning_rate": True,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_eps": 0.2,
    "vf_coef": 0.5,
    "ent_coef": 0.01,
    "max_grad_norm": 0.5,
}


def orthogonal(gain: float) -> Callable[..., jax.Array]:
    """As flax's initialiser, column after column: its QR decomposition under `vmap` at times never ends on a CPU."""

    def init(key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> jax.Array:
        long, short = max(shape), min(shape)

        def column(i: jax.Array, found: jax.Array) -> jax.Array:
            # What is left of it once all columns so far are taken away; a second time, for rounding.
            left = found[i] - (found[i] @ found.T * (jnp.arange(short) < i)) @ found
            left = left - (left @ found.T * (jnp.arange(short) < i)) @ found
            return found.at[i].set(left / jnp.linalg.norm(left))

        rows = jax.lax.fori_loop(0, short, column, jax.random.normal(key, (short, long), dtype))
        return gain * (rows if shape[0] == short else rows.T)

    return init


class ActorCritic(nn.Module):
    """Logits and value of observations, from two towers of two layers."""

    num_actions: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        def tower(width: int, gain: float) -> jax.Array:
            hidden = x
            for _ in range(2):
                hidden = nn.tanh(nn.Dense(64, kernel_init=orthogonal(2**0.5), bias_init=constant(0.0))(hidden))
            return nn.Dense(width, kernel_init=orthogonal(gain), bias_init=constant(0.0))(hidden)

        return tower(self.num_actions, 0.01), tower(1, 1.0)[..., 0]


class Step(NamedTuple):
    """What is kept of one step of all environments."""

    obs: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    done: jax.Array
    episode_return: jax.Array


def make_train(config: dict[str, Any]) -> Callable[[jax.Array], dict[str, Any]]:  # noqa: PLR0915 - that is the style
    """The whole training as one function of a key.

    Args:
      config: what differs from `DEFAULTS`.
    Returns:
      `train(rng)`: {"train_state", "env_steps", "returns" [updates], of the episodes that ended in each, NaN if none}.
    """
    config = {**DEFAULTS, **config}
    env, env_params = gymnax.make(config["env"])
    num_envs, num_steps = config["num_envs"], config["num_steps"]
    num_updates = config["total_steps"] // (num_envs * num_steps)
    network = ActorCritic(env.action_space(env_params).n)

    def learning_rate(count: jax.Array) -> jax.Array:
        done = count // (config["num_minibatches"] * config["num_epochs"]) / num_updates
        return config["learning_rate"] * (1.0 - done if config["anneal_learning_rate"] else 1.0)

    def loss_fn(params: Any, batch: tuple[Step, jax.Array, jax.Array]) -> jax.Array:
        step, advantage, target = batch
        logits, value = network.apply(params, step.obs)
        log_probs = jax.nn.log_softmax(logits)
        log_prob = jnp.take_along_axis(log_probs, step.action[:, None], 1)[:, 0]
        near = step.value + jnp.clip(value - step.value, -config["clip_eps"], config["clip_eps"])
        value_loss = 0.5 * jnp.maximum(jnp.square(value - target), jnp.square(near - target)).mean()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        ratio = jnp.exp(log_prob - step.log_prob)
        clipped = jnp.clip(ratio, 1.0 - config["clip_eps"], 1.0 + config["clip_eps"])
        policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
        entropy = -(jnp.exp(log_probs) * log_probs).sum(-1).mean()
        return policy_loss + config["vf_coef"] * value_loss - config["ent_coef"] * entropy

    def env_step(carry: Any, _: Any) -> tuple[Any, Step]:
        train_state, env_state, obs, so_far, counted, rng = carry
        rng, rng_act, rng_step = jax.random.split(rng, 3)
        logits, value = network.apply(train_state.params, obs)
        action = jax.random.categorical(rng_act, logits)
        log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), action[:, None], 1)[:, 0]
        keys = jax.random.split(rng_step, num_envs)
        next_obs, env_state, reward, terminated, truncated, _ = jax.vmap(env.step, (0, 0, 0, None))(
            keys, env_state, action, env_params
        )
        done, so_far = terminated | truncated, so_far + reward
        row = Step(obs, action, log_prob, value, reward, done, so_far)
        carry = (train_state, env_state, next_obs, jnp.where(done, 0.0, so_far), counted + num_envs, rng)
        return carry, row

    def advantages(steps: Step, last_value: jax.Array) -> jax.Array:
        def backwards(carry: tuple[jax.Array, jax.Array], step: Step) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            advantage, next_value = carry
            goes_on = 1.0 - step.done
            delta = step.reward + config["gamma"] * next_value * goes_on - step.value
            advantage = delta + config["gamma"] * config["gae_lambda"] * goes_on * advantage
            return (advantage, step.value), advantage

        start = (jnp.zeros_like(last_value), last_value)
        return jax.lax.scan(backwards, start, steps, reverse=True, unroll=16)[1]

    def minibatch(train_state: TrainState, batch: Any) -> tuple[TrainState, None]:
        return train_state.apply_gradients(grads=jax.grad(loss_fn)(train_state.params, batch)), None

    def epoch(carry: Any, _: Any) -> tuple[Any, None]:
        train_state, data, rng = carry
        rng, rng_order = jax.random.split(rng)
        order = jax.random.permutation(rng_order, num_envs * num_steps)
        batches = jax.tree.map(
            lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[order].reshape(
                config["num_minibatches"], -1, *leaf.shape[2:]
            ),
            data,
        )
        train_state, _ = jax.lax.scan(minibatch, train_state, batches)
        return (train_state, data, rng), None

    def update(carry: Any, _: Any) -> tuple[Any, jax.Array]:
        carry, steps = jax.lax.scan(env_step, carry, None, num_steps)
        train_state, env_state, obs, so_far, counted, rng = carry
        advantage = advantages(steps, network.apply(train_state.params, obs)[1])
        data = (steps, advantage, advantage + steps.value)
        (train_state, _, rng), _ = jax.lax.scan(epoch, (train_state, data, rng), None, config["num_epochs"])
        ended = steps.done.sum()
        mean = jnp.where(ended > 0, (steps.episode_return * steps.done).sum() / jnp.maximum(ended, 1), jnp.nan)
        return (train_state, env_state, obs, so_far, counted, rng), mean

    def train(rng: jax.Array) -> dict[str, Any]:
        rng, rng_network, rng_reset = jax.random.split(rng, 3)
        tx = optax.chain(optax.clip_by_global_norm(config["max_grad_norm"]), optax.adam(learning_rate, eps=1e-5))
        obs, env_state = jax.vmap(env.reset, (0, None))(jax.random.split(rng_reset, num_envs), env_params)
        params = network.init(rng_network, obs)
        train_state = TrainState.create(apply_fn=network.apply, params=params, tx=tx)
        carry = (train_state, env_state, obs, jnp.zeros(num_envs), jnp.int32(0), rng)
        (train_state, _, _, _, counted, _), returns = jax.lax.scan(update, carry, None, num_updates)
        return {"train_state": train_state, "env_steps": counted, "returns": returns}

    return train


def main(seeds: int, total_steps: int, chunks: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Trains `seeds` agents under one `vmap`, `chunks` times over, and says what it cost; as `ours.main`.

    The seconds that first states take, those of a training of no steps, count as compilation, as there.
    """
    keys: Any = jax.random.split(jax.random.key(0), seeds)
    keys = keys if seeds > 1 else keys[0]

    def compiled(steps: int) -> tuple[Callable[[Any], Any], float]:
        train = make_train({**settings, "total_steps": steps})
        began = time.perf_counter()
        program = jax.jit(jax.vmap(train) if seeds > 1 else train).lower(keys).compile()
        return program, time.perf_counter() - began

    def timed(program: Callable[[Any], Any]) -> tuple[Any, list[float]]:
        found, seconds = None, []
        for _ in range(chunks):
            began = time.perf_counter()
            found = jax.block_until_ready(program(keys))
            seconds.append(time.perf_counter() - began)
        return found, seconds

    program, compile_seconds = compiled(total_steps)
    first = min(timed(compiled(0)[0])[1])
    found, seconds = timed(program)
    rates = sorted(seeds * total_steps / (taken - first) for taken in seconds)
    return {
        "compile_seconds": compile_seconds + first,
        "steps_per_second": rates[len(rates) // 2],
        "best_steps_per_second": rates[-1],
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "env_steps": int(found["env_steps"].ravel()[0]),
        "updates": int(found["train_state"].step.ravel()[0]),
    }


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))
