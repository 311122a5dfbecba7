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
# # A swarm that learns to flock
#
# Two hundred agents fly at the same speed. Each sees the mean heading of those near it and nothing else, and all act by
# one rule. What they are paid for, as a team, is heading the same way. Mean-field control learns that rule as if there
# were a single agent: what it sees are features of the population, and what it does is choose the rule for the next
# step. The learner is PPO as it stands; the method is in the style of Cui et al. 2024 (arXiv:2307.06175), with numbers
# of ours.
#
# `JAXRL_FAST=1` runs the same code on a small budget.

# %%
import os
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxrl
from jaxrl.evaluation import record
from jaxrl.swarm_evaluation import evaluate_swarm
from jaxrl.swarm_plots import film_strip
from jaxrl_envs.mean_field.pairs import order_parameter

# %matplotlib inline
# %config InlineBackend.print_figure_kwargs = {"dpi": 70}

fast = bool(os.environ.get("JAXRL_FAST"))
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Training
#
# A single step hardly orders a swarm, and what one rule begins, the next one, drawn by the explorer, undoes. So rewards
# are remembered for about ten steps (`gamma=0.9`). Discs of radius 1 hold some forty agents.

# %%
horizon = 10 if fast else 100
settings = {
    "num_envs": 4 if fast else 64,
    "num_steps": 5 if fast else 20,
    "total_steps": 80 if fast else 128_000,
    "hidden_sizes": (64, 64),
    "learning_rate": 2e-3,
    "gamma": 0.9,
    "env.radius": 1.0,
    "env.max_steps": horizon,
}
results = jaxrl.run("dec_pomfppo", "jaxrl/mean_field_vicsek", settings=settings, out=folder / "flock", progress=False)
run = jaxrl.load_run(folder / "flock")
agent, state, params = run.policy()
env = run.env

figure, axis = plt.subplots(figsize=(6, 3))
returns = np.asarray(results.metrics["episode/return"]).reshape(-1)
ended = np.isfinite(returns)  # episodes end in some of the updates
axis.plot(np.flatnonzero(ended), returns[ended])
axis.axhline(-np.pi / 2 * horizon, color="grey", ls=":", label="headings without order")
axis.set(xlabel="update", ylabel="return")
axis.legend()

# %% [markdown]
# ## Watching it
#
# Before and after, from the same start. Colours are headings; the number is the polarisation, 1 for a swarm of one mind.
# `jaxrl render` makes a film of it.


# %%
def watch(state, title):
    """An episode of a policy's best guess as a strip, and how ordered the swarm is at its end."""
    states = jax.jit(lambda s: record(jax.random.key(5), agent, s, env, params, horizon)["states"])(state)
    order = np.asarray(jax.vmap(lambda x: order_parameter(x[:, 2]))(states.field.x))
    return film_strip(env, params, states, values=order, num_frames=5, title=title), float(order[-1])


untrained = agent.init(jax.random.key(0), env.observation_space(params), env.action_space(params))
figure, before = watch(untrained, "before training")
figure

# %%
figure, after = watch(state, "after training")
print(f"polarisation at the end: {before:.2f} before, {after:.2f} after")
figure

# %% [markdown]
# ## The rule
#
# What the policy chooses for this swarm: the turn of an agent by the sine of its neighbours' mean heading relative to its
# own, when they head its way half as much as they could. Vicsek's rule, up to a factor, is a line through the middle.

# %%
_, obs = env.reset(jax.random.key(5), params)
xi, _, _ = agent.act(jax.random.key(0), state, agent.memory(1), obs[None], jnp.ones(1, bool), False)
sine = jnp.linspace(-0.8, 0.8, 41)
mean, deviation = env.rule.moments(xi[0], jnp.stack([sine, jnp.full_like(sine, 0.5)], 1))
figure, axis = plt.subplots(figsize=(5, 3))
axis.plot(sine, mean[:, 0])
axis.fill_between(sine, mean[:, 0] - deviation[:, 0], mean[:, 0] + deviation[:, 0], alpha=0.2)
axis.set(xlabel="mean sine of the neighbours' headings", ylabel="turn", ylim=(-1.05, 1.05))

# %% [markdown]
# ## Few and many agents
#
# The rule was learnt by two hundred agents, and any number can play it: one call. In mode *central* all follow the same
# rule, drawn by a policy that sees the population; in *decentral sampled* everybody draws for itself; in *open loop* they
# know nothing but the clock, and follow the plan of rules that the policy makes along a large population.

# %%
sizes, large = ((7,), 7) if fast else ((2, 7, 20, 50, 200), 1000)
found = evaluate_swarm(
    jax.random.key(1),
    agent,
    state,
    env,
    sizes,
    num_episodes=4 if fast else 20,
    env_params=params,
    many=large,
)
figure, axis = plt.subplots(figsize=(6, 3.4))
for i, mode in enumerate(found.returns):
    rows = [row for row in found.rows() if row["mode"] == mode]
    mean, low, high = (np.array([row[part] for row in rows]) for part in ("mean", "low", "high"))
    axis.plot(sizes, mean[:-1], color=f"C{i}", label=mode.replace("_", " "))
    axis.fill_between(sizes, low[:-1], high[:-1], color=f"C{i}", alpha=0.2)
    axis.axhspan(low[-1], high[-1], color=f"C{i}", alpha=0.1)
axis.set(xscale="log", xlabel="agents", ylabel=f"return (bands across: {large} agents)")
axis.legend(fontsize=8)

# %% [markdown]
# ## Seven agents

# %%
seven = env.with_agents(7)
states = jax.jit(lambda s: record(jax.random.key(2), agent, s, seven, params, horizon)["states"])(state)
order = np.asarray(jax.vmap(lambda x: order_parameter(x[:, 2]))(states.field.x))
film_strip(seven, params, states, values=order, num_frames=5, title="seven agents")

# %% [markdown]
# How the trained swarm compares with agents that rest, act at random, follow Vicsek's rule or learn for themselves
# (`ippo`, `mappo`) is measured by `experiments/mean_field_control.py`, over seeds and up to ten thousand agents.
