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
# # Learn a rule
#
# A policy gradient multiplies `grad log π(a)` by an advantage that somebody has thought out. LPG (Oh et al. 2020) lets
# a recurrent network that reads the rollout backwards say what to multiply it by, and learns that network: from how
# well agents do that were trained with it. This notebook meta-trains a small one on random grid-worlds, looks at what
# it tells its agents, and then takes a rule that was trained for longer to levels that nobody has trained on.
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
from jaxrl.meta_scores import normalized
from jaxrl.meta_testing import level_returns
from jaxrl.objectives.lpg import LPGInputs, lpg_init, lpg_targets
from jaxrl.presets import MetaConfig, MetaHparams
from jaxrl.types import Progress
from jaxrl_envs.gridworld import level_image

# %matplotlib inline
# %config InlineBackend.print_figure_kwargs = {"dpi": 80}

fast = bool(os.environ.get("JAXRL_FAST"))

# %% [markdown]
# ## Levels
#
# A level is data: walls, objects that earn or cost something, end the episode or come back. One compiled step serves
# them all, so a population of agents, each on a level of its own, is a `vmap`.

# %%
env = jaxrl.make_env("jaxrl/grid_small")
levels = jax.vmap(env.sample_params)(jax.random.split(jax.random.key(5), 4))
figure, axes = plt.subplots(1, 4, figsize=(10, 2.8))
for i, axis in enumerate(axes):
    level = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), levels)
    axis.imshow(level_image(level))
    axis.set_title(f"at best {float(env.optimal_return(level)):.2f} in {int(level.limit)} steps", fontsize=9)
    axis.axis("off")

# %% [markdown]
# ## Meta-training
#
# Sixteen agents live at a time. Every meta-update is five updates of each of them, a rollout on which they are judged,
# and the gradient of that judgement through the five updates to the rule. A run like any other: chunks, checkpoints,
# `jaxrl train lpg jaxrl/grid_small` from the command line.

# %%
agents = {"num_lifetimes": 16, "lifetime_batch": 16, "ended_batch": 16, "num_envs": 16, "width": 32}
if fast:
    agents |= {"num_lifetimes": 4, "lifetime_batch": 4, "ended_batch": 4, "num_envs": 4}
lengths = MetaConfig(**agents)
num_updates = 60 if fast else 400
run_directory = Path(tempfile.mkdtemp()) / "lpg"
results = jaxrl.run(
    "lpg",
    "jaxrl/grid_small",
    seeds=2,
    settings=agents
    | {"total_steps": num_updates * lengths.steps_per_update, "meta_learning_rate": 1e-3, "play_ended": True},
    out=run_directory,
    progress=False,
)
mine = jaxrl.load_run(run_directory).rule(seed=0)
print(mine.kind, mine.config)

# %% [markdown]
# What agents earn at the end of their lives, as a share of what could be earned. Agents live for 250 updates, so every
# point is of lives that began 50 meta-updates before, under rules that were 50 meta-updates younger.

# %%
ended = np.nan_to_num(results.metric("lifetime/count")[0])
share = [
    np.nan_to_num(results.metric(f"lifetime/{name}")[0]) * ended for name in ("return", "optimal_return")
]  # sums over the lives that ended
when = np.flatnonzero(ended.sum(0) > 0)
plt.figure(figsize=(6, 3))
plt.plot(when + 1, share[0].sum(0)[when] / share[1].sum(0)[when], "o-", ms=3)
plt.xlabel("meta-updates")
plt.ylabel("return / optimal return")
plt.title("end of lifetimes, two meta-seeds together")

# %% [markdown]
# ## What the rule tells its agents
#
# A rollout in which nothing happens, save that step 14 of 20 earns 1. A rule that has understood something of
# reinforcement learning raises the probability of what was done *before* the reward, less so the longer before, and
# leaves alone what was done after it. Nobody has told it about discounting. We show it to an untrained rule, to ours,
# and to the one that ships with the library.


# %%
def told(rule, reward):
    """π̂ [T] for a rollout of one environment whose actions had probability 0.2; from its level without reward."""
    steps = len(reward)
    cell = jnp.zeros((steps, 1))
    y = jnp.full((steps, 1, rule.config.target_width), 1.0 / rule.config.target_width)

    def targets(reward):
        inputs = LPGInputs(cell + reward[:, None], cell > 0, cell > 0, cell + 0.2, y, y)
        return lpg_targets(rule.params, rule.config, inputs, 0.99, Progress(0, 250))[0][:, 0]

    return np.asarray(targets(jnp.asarray(reward)) - targets(jnp.zeros(steps)))


shipped = jaxrl.load_rule("lpg")
untrained = mine._replace(params=lpg_init(jax.random.key(0), mine.config))
reward = np.zeros(20, np.float32)
reward[14] = 1.0
plt.figure(figsize=(6, 3))
for label, rule in {"untrained": untrained, "ours": mine, "shipped": shipped}.items():
    values = told(rule, reward)
    plt.plot(values / np.abs(values).max(), "o-", ms=3, label=label)
plt.axvline(14, color="grey", lw=0.8, ls=":")
plt.xlabel("step of the rollout; the reward comes at the dotted line")
plt.ylabel("change of π̂, largest = 1")
plt.legend()
# %% [markdown]
# ## On levels that nobody has trained on
#
# A rule is one file with its parameters, its configuration and where it came from. New agents now live whole lives on
# held-out levels: under the shipped rule, under a random one, and by A2C, with the same networks and random numbers.

# %%
print({name: shipped.provenance[name] for name in ("summary", "command", "seeds") if name in shipped.provenance})
num_levels = 4 if fast else 48
returns = level_returns(
    [shipped], env, MetaConfig(num_envs=16), MetaHparams(), range(num_levels), batch=4 if fast else 16
)
rows = {
    "optimum": returns.optimal,
    "A2C": returns.a2c,
    "shipped rule": returns.rule[0],
    "random rule": returns.random_rule[0],
    "random policy": returns.random_policy,
}
for name, values in rows.items():
    print(f"{name:14} {values.mean():6.3f}")

# %%
scores = normalized(returns)
plt.figure(figsize=(4.2, 4))
plt.plot(returns.a2c, returns.rule[0], "o", ms=4)
limits = [min(returns.a2c.min(), returns.rule.min()), max(returns.a2c.max(), returns.rule.max())]
plt.plot(limits, limits, color="grey", lw=0.8)
plt.xlabel("return of A2C")
plt.ylabel("return under the shipped rule")
plt.title(f"{num_levels} held-out levels; above the line the rule is better", fontsize=9)

# %% [markdown]
# The rule was learned from agents with tables on small grid-worlds, and knows no other networks. Elsewhere it is
# `--objective lpg` of any actor-critic with discrete actions: `jaxrl.meta_test("lpg", "CartPole-v1")` trains agents
# with it and A2C beside it, and what came of that for every shipped rule stands in the README.
