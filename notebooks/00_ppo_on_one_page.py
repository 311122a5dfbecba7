# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # PPO on one page
#
# The library takes PPO apart: an objective, an agent, a loop, wired together by a preset. Here the same algorithm is
# written flat, top to bottom, in about a hundred lines and without any of those parts. Borrowed are the environment, the
# two dataclasses that hold the settings, so that both versions read the same numbers, and the initialiser. Afterwards
# the library trains the same thing, and the last section compares the two.
#
# `JAXRL_FAST=1` runs the same code on a small budget.

# %%
import os
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxrl
from jaxrl import plotting, reporting
from jaxrl.networks import orthogonal
from jaxrl.objectives import ppo_objective
from jaxrl.ops.distributions import Categorical
from jaxrl.types import Rollout

# %matplotlib inline

fast = bool(os.environ.get("JAXRL_FAST"))
num_seeds = 2 if fast else 8

env = jaxrl.make_env("CartPole-v1")
env_params = env.default_params
config = jaxrl.PPOConfig(total_steps=5_120 if fast else 204_800)  # 4 environments, 128 steps, 4 epochs, 4 minibatches
hp = jaxrl.PPOHparams(learning_rate=1e-3)

# %% [markdown]
# ## The network
#
# Policy and value share no layer. The initial gains matter: 0.01 on the last layer of the policy makes it nearly
# uniform, so early updates are not steered by an arbitrary preference; $\sqrt 2$ keeps the scale of the activations.
# (`nn.initializers.orthogonal` would do, save that its QR decompositions can deadlock under `vmap` on a small CPU.)


# %%
class ActorCritic(nn.Module):
    num_actions: int

    @nn.compact
    def __call__(self, obs):
        def mlp(width, gain):
            x = obs
            for size in (64, 64):
                x = nn.tanh(nn.Dense(size, kernel_init=orthogonal(np.sqrt(2.0)))(x))
            return nn.Dense(width, kernel_init=orthogonal(gain))(x)

        return mlp(self.num_actions, 0.01), mlp(1, 1.0)[..., 0]  # logits [B, A], value [B]


network = ActorCritic(env.action_space(env_params).n)


def log_prob_of(logits, action):
    return jnp.take_along_axis(nn.log_softmax(logits), action[..., None], axis=-1)[..., 0]


# %% [markdown]
# ## Collecting experience
#
# One `lax.scan` steps all environments `num_steps` times. An environment never resets itself. `timestep.final_obs` is
# the true successor of the observation acted on, and its value is what bootstrapping needs: the observation *after* a
# reset belongs to another episode. Termination (the pole fell) and truncation (500 steps are over) stay apart for the
# same reason: after the first the future is worth nothing, after the second it is merely not observed.


# %%
class Experience(NamedTuple):  # leaves [T, B, …]
    obs: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    next_value: jax.Array


def rollout(key, params, now):
    def body(now, key):
        env_state, obs, episode_return = now
        key_act, key_step, key_reset = jax.random.split(key, 3)
        logits, value = network.apply(params, obs)
        action = jax.random.categorical(key_act, logits)

        keys = jax.random.split(key_step, config.num_envs)
        env_state, timestep = jax.vmap(env.step, (0, 0, 0, None))(keys, env_state, action, env_params)
        done = timestep.terminated | timestep.truncated
        next_value = network.apply(params, timestep.final_obs)[1]
        answer = (timestep.reward, timestep.terminated, timestep.truncated)
        experience = Experience(obs, action, log_prob_of(logits, action), value, *answer, next_value)
        episode_return = episode_return + timestep.reward

        # Where an episode ended, a new one begins; `where` needs `done` with as many axes as the leaf has.
        fresh = jax.vmap(env.reset, (0, None))(jax.random.split(key_reset, config.num_envs), env_params)
        env_state, obs = jax.tree.map(
            lambda new, old: jnp.where(done.reshape(-1, *[1] * (old.ndim - 1)), new, old),
            fresh,
            (env_state, timestep.obs),
        )
        return (env_state, obs, jnp.where(done, 0.0, episode_return)), (experience, done, episode_return)

    now, (experience, done, returns) = jax.lax.scan(body, now, jax.random.split(key, config.num_steps))
    count = done.sum()  # the mean return of the episodes that ended here; NaN if none did
    return now, experience, {"episode/return": (returns * done).sum() / count, "episode/count": count}


# %% [markdown]
# ## Advantages
#
# Generalised advantage estimation, backwards through time:
# $\delta_t = r_t + \gamma V(s_{t+1}) - V(s_t)$ and $A_t = \delta_t + \gamma\lambda A_{t+1}$.
# The bootstrap vanishes at a termination only; the recursion is cut wherever an episode ends, for whatever reason.


# %%
def gae(experience):
    future = jnp.where(experience.terminated, 0.0, experience.next_value)
    delta = experience.reward + hp.gamma * future - experience.value
    decay = jnp.where(experience.terminated | experience.truncated, 0.0, hp.gamma * hp.gae_lambda)

    def body(advantage, inputs):
        delta, decay = inputs
        advantage = delta + decay * advantage
        return advantage, advantage

    return jax.lax.scan(body, jnp.zeros(config.num_envs), (delta, decay), reverse=True)[1]


# %% [markdown]
# ## The loss
#
# The ratio compares the policy being trained with the one that collected the data. The minimum makes the clip
# one-sided: a sample stops pushing once its ratio has moved far enough in the direction that its advantage asks for,
# but one that moved the wrong way is still pulled back. Advantages are standardised within the minibatch, which makes
# the policy's gradient independent of the reward scale. The target of the value is the λ-return, advantage plus old
# value.


# %%
def loss(params, batch):
    experience, advantage = batch
    logits, value = network.apply(params, experience.obs)
    normalized = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    ratio = jnp.exp(log_prob_of(logits, experience.action) - experience.log_prob)
    clipped = jnp.clip(ratio, 1 - hp.clip_eps, 1 + hp.clip_eps)
    policy_loss = -jnp.minimum(ratio * normalized, clipped * normalized).mean()
    value_loss = 0.5 * jnp.square(value - (advantage + experience.value)).mean()
    entropy = -(nn.softmax(logits) * nn.log_softmax(logits)).sum(-1).mean()
    return policy_loss + hp.vf_coef * value_loss - hp.ent_coef * entropy


# %% [markdown]
# ## The update, and training
#
# An update collects once, computes advantages once, and then makes `num_epochs` passes over the samples in a new
# random order, `num_minibatches` gradient steps each. The learning rate falls linearly to zero over the run. Training
# is a scan of updates: compiled as one program, with no Python between the steps.


# %%
optimizer = optax.chain(optax.clip_by_global_norm(hp.max_grad_norm), optax.scale_by_adam(eps=1e-5))


def update(state, inputs):
    key, t = inputs
    params, opt_state, now = state
    key_rollout, key_shuffle = jax.random.split(key)
    now, experience, metrics = rollout(key_rollout, params, now)
    samples = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (experience, gae(experience)))
    epochs = jax.random.split(key_shuffle, config.num_epochs)
    orders = jax.vmap(jax.random.permutation, (0, None))(epochs, config.steps_per_update)
    orders = orders.reshape(config.num_epochs * config.num_minibatches, -1)  # one row of indices per minibatch
    learning_rate = hp.learning_rate * (1 - t / config.num_updates)

    def descend(carry, order):
        params, opt_state = carry
        grad = jax.grad(loss)(params, jax.tree.map(lambda leaf: leaf[order], samples))
        direction, opt_state = optimizer.update(grad, opt_state)
        return (jax.tree.map(lambda p, d: p - learning_rate * d, params, direction), opt_state), None

    (params, opt_state), _ = jax.lax.scan(descend, (params, opt_state), orders)
    return (params, opt_state, now), metrics


def train(key):
    key_params, key_reset, key_updates = jax.random.split(key, 3)
    env_state, obs = jax.vmap(env.reset, (0, None))(jax.random.split(key_reset, config.num_envs), env_params)
    params = network.init(key_params, obs)
    state = (params, optimizer.init(params), (env_state, obs, jnp.zeros(config.num_envs)))
    keys = jax.random.split(key_updates, config.num_updates)
    return jax.lax.scan(update, state, (keys, jnp.arange(config.num_updates)))


# %% [markdown]
# That is all of PPO. `train` is a pure function of a key, so any number of seeds is one compiled program:
# `jax.lax.map` runs them one after the other, and `jax.vmap(train)(keys)` would run them side by side. An accelerator
# wants the latter. A CPU gains little from it, since one agent already keeps a core busy.

# %%
keys = jax.random.split(jax.random.key(0), num_seeds)
_, flat_metrics = jax.jit(lambda keys: jax.lax.map(train, keys))(keys)  # leaves [S, num_updates]
steps = (np.arange(config.num_updates) + 1) * config.steps_per_update


def as_results(metrics):
    """Labelled results: axes settings (one here), seeds, updates."""
    arrays = {name: np.asarray(metrics[name]).reshape(1, num_seeds, -1) for name in ("episode/return", "episode/count")}
    return jaxrl.Results({}, np.arange(num_seeds), steps, arrays, config={"algorithm": "ppo", "env": "CartPole-v1"})


flat = as_results(flat_metrics)
print("final return of each seed:", flat.final().round(1))

# %% [markdown]
# ## The same through the library
#
# `jaxrl.ppo` returns an `Algorithm`: a pair of pure functions, `init` and `step`, where a step is one update with its
# rollout. `jaxrl.train` scans it. Neither compiles anything by itself, so `jit` goes outermost, once.

# %%
algorithm = jaxrl.ppo(env, config, hp)
state, metrics = jax.jit(lambda key: jaxrl.train(key, algorithm, config.num_updates))(keys[0])
print({name: values.shape for name, values in metrics.items()})

# %% [markdown]
# `jaxrl.sweep` adds two axes by `vmap`: hyperparameters and seeds. Constructors may be called under tracing, so the
# learning rate below is a traced number inside one program, and a longer list would still be one program. Only numbers
# can be swept this way: what fixes a shape or a Python branch lives in `PPOConfig` and needs a program of its own. That
# grouping, progress, checkpoints and files are what `jaxrl.run_sweep` adds; see
# [01_explore_a_sweep](01_explore_a_sweep.ipynb).


# %%
def make(learning_rate):
    return jaxrl.ppo(env, config, hp.replace(learning_rate=learning_rate))


run = jax.jit(lambda rates, keys: jaxrl.sweep(make, rates, keys, config.num_updates))
states, metrics = run(jnp.array([hp.learning_rate]), keys)  # leaves [1, S, …]
library = as_results(metrics)
print("final return of each seed:", library.final().round(1))

# %% [markdown]
# ## Do the two agree?
#
# **The mathematics: to rounding.** On one batch of experience, with a network that has moved away from the one that
# collected it (otherwise every ratio is 1 and nothing is clipped), the loss of this page and the library's objective
# have the same value and the same gradient up to the last digits of float32. The library's objective is two functions:
# `prepare` sees the rollout in time order, once, and makes the targets; `loss` sees a minibatch of them.


# %%
def flat_and_library(key):
    key_params, key_reset, key_rollout, key_move = jax.random.split(key, 4)
    env_state, obs = jax.vmap(env.reset, (0, None))(jax.random.split(key_reset, config.num_envs), env_params)
    collector = network.init(key_params, obs)
    _, experience, _ = rollout(key_rollout, collector, (env_state, obs, jnp.zeros(config.num_envs)))
    noise = optax.tree.random_like(key_move, collector)
    moved = jax.tree.map(lambda leaf, noise: leaf + 0.1 * noise, collector, noise)

    def flat_loss(params):
        samples = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (experience, gae(experience)))
        return loss(params, samples)

    def library_loss(params):
        objective = ppo_objective(hp)
        obs, action, _, value, reward, terminated, truncated, next_value = experience
        outputs = {"policy": Categorical(network.apply(collector, obs)[0]), "value": value}
        data = Rollout(obs, action, reward, terminated, truncated, None, outputs, {"value": next_value}, ())
        targets, state = objective.prepare(objective.init(), data.extras, data.next_extras, data, None)
        logits, value = network.apply(params, obs)
        return objective.loss(state, {"policy": Categorical(logits), "value": value}, targets)

    return jax.value_and_grad(flat_loss)(moved), jax.value_and_grad(library_loss, has_aux=True)(moved)


(value, grad), ((library_value, metrics), library_grad) = jax.jit(flat_and_library)(jax.random.key(1))
gap = max(float(jnp.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (grad, library_grad)), strict=True))
largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grad))
print(f"{metrics['policy/clip_fraction']:.0%} of the ratios lie outside the clip interval")
print(f"loss {value:.6f} on this page, {library_value:.6f} in the library")
print(f"the gradients differ by at most {gap:.0e} where the largest entry is {largest:.2f}")
assert gap < 1e-5 * max(largest, 1.0)

# %% [markdown]
# **The learning curves: as two samples of one distribution.** The two versions draw their random numbers in a different
# order, so no seed can be compared with its namesake, and the question is whether the two groups of seeds differ by
# more than chance. Two figures are compared: the final return, and the mean return over the whole of training, which
# also tells how fast it was reached. The interval of their difference comes from resampling the seeds of both groups;
# where it contains zero, these seeds show no difference between the two versions.

# %%
curves = {"this page": flat, "library": library}
figure = plotting.compare(curves)
figure


# %%
def difference(a, b, num_resamples=10_000):
    """Difference of the interquartile means of two groups of seeds, with its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    a, b = (x[rng.integers(len(x), size=(num_resamples, len(x)))] for x in (a, b))
    gaps = reporting.iqm(a, axis=1) - reporting.iqm(b, axis=1)
    return np.quantile(gaps, [0.025, 0.975])


for title, window in (("final return", 0.1), ("mean return over training", 1.0)):
    for name, results in curves.items():
        point, low, high = (bound[0] for bound in results.iqm(window=window))
        print(f"{title}, {name}: IQM {point:.1f} [{low:.1f}, {high:.1f}]")
    low, high = difference(flat.final(window=window)[0], library.final(window=window)[0])
    verdict = "contains zero" if low <= 0 <= high else "does not contain zero"
    print(f"difference: between {low:.1f} and {high:.1f}, which {verdict}\n")
