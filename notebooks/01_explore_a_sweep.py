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
# # Explore a sweep
#
# A result in reinforcement learning is a distribution: over seeds, and over the settings that one might have chosen
# instead. `jaxrl.run_sweep` trains a whole grid, every cell with every seed, and returns labelled data. This notebook
# makes a sweep, asks it what one asks of a sweep, opens it again from its directory, and then sweeps two things that
# are no hyperparameters: a parameter of the environment, and the objective.
#
# `JAXRL_FAST=1` runs the same code on a small budget.

# %%
import os
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from IPython.display import Image

import jaxrl
from jaxrl import plotting
from jaxrl.objectives import ppo_objective

# %matplotlib inline
# %config InlineBackend.print_figure_kwargs = {"dpi": 80}

fast = bool(os.environ.get("JAXRL_FAST"))
total_steps = 4_096 if fast else 32_768
seeds = 2 if fast else 8

# %% [markdown]
# ## The sweep
#
# Numbers in the grid are swept inside one compiled program; a value that changes a shape, such as `hidden_sizes`, gets
# a program of its own. `run_sweep` uses all cores of a CPU by itself, provided that JAX has computed nothing before,
# and batches all runs on an accelerator. With `out`, everything is kept in a run directory. Here that is a temporary
# one; `out="runs/explore"` would keep it.

# %%
directory = Path(tempfile.mkdtemp()) / "explore"
results = jaxrl.run_sweep(
    "ppo",
    "CartPole-v1",
    grid={"learning_rate": [1e-3, 1e-2] if fast else [1e-3, 3e-3, 1e-2, 3e-2], "clip_eps": [0.1, 0.2, 0.4]},
    seeds=seeds,
    settings={"total_steps": total_steps, "num_envs": 8, "num_steps": 64},
    out=directory,
    progress=False,  # the progress bar
)
num_agents = results.num_settings * len(results.seeds)
print(f"{num_agents} agents of {results.steps[-1]:,} steps each, in {results.info['num_programs']} program")

# %% [markdown]
# ## The data
#
# Three dimensions: setting, seed, step. `to_dataframe` gives one row for each combination, with a column for every
# setting and every metric. A return is NaN where no episode ended in that update.

# %%
frame = results.to_dataframe()
frame[["learning_rate", "clip_eps", "seed", "step", "episode/return", "policy/entropy", "policy/approx_kl"]].tail(3)

# %% [markdown]
# For instance, how far one update moves the policy, averaged over all of training. The clip range does not bound it: in
# every column it grows with the learning rate, since clipping takes away the gradient of samples that have moved enough
# but does not hold the policy in place.

# %%
moved = frame.pivot_table(index="learning_rate", columns="clip_eps", values="policy/approx_kl")
moved.style.format("{:.4f}").format_index("{:g}", axis=0).format_index("{:g}", axis=1)

# %% [markdown]
# ## The best setting, and how sure that is
#
# `final` is the mean return over the last tenth of training, each episode counted once. Over seeds, `iqm` takes the
# mean of the middle half, which one lucky or one broken seed cannot move, and resamples the seeds for a 95 % interval.

# %%
results.best()

# %%
estimate = results.iqm()
columns = {"IQM": estimate.point, "low": estimate.low, "high": estimate.high}
table = pd.DataFrame(dict(results.hparams) | columns).sort_values("IQM", ascending=False)
table.style.format("{:.1f}", subset=list(columns)).format("{:g}", subset=list(results.hparams)).hide()

# %% [markdown]
# The best cell was *chosen* for its score, so its interval is too optimistic: the maximum of several noisy numbers is
# biased upwards, the more so the more cells there are. For a number to publish, train the chosen setting again with
# fresh seeds (`seeds=range(100, 108)`).
#
# ## Learning curves
#
# IQM and interval at every point; colours for the best settings, grey for the rest.

# %%
results.plot(max_lines=3)

# %% [markdown]
# ## Heat map and sensitivity
#
# The heat map shows whether the two settings interact. In this one the smaller learning rates seem to want a wide clip
# range and the largest a narrow one; with intervals that overlap so much, that is a hint to be followed with more seeds,
# not a finding. It also shows whether the grid was wide enough: the best learning rate should not lie at its edge.

# %%
results.heatmap("learning_rate", "clip_eps")

# %% [markdown]
# `sensitivity` asks about one setting at a time. `iqm` pools all seeds and all values of the other settings: what to
# expect if nothing else is tuned. `best_iqm` is what the others can make of it: if that is flat, a bad value here can
# be repaired elsewhere.


# %%
def sensitivity_table(results):
    table = pd.DataFrame(results.sensitivity())
    scores = ["iqm", "iqm_low", "iqm_high", "best_iqm"]
    return table.style.format("{:.1f}", subset=scores).format("{:g}", subset=["value"]).hide()


sensitivity_table(results)

# %% [markdown]
# ## Opening the run again
#
# A run directory is complete: what was asked (`run.json`), checkpoints and metrics, `results.npz`, `summary.json`, and
# figures. `jaxrl.load_run` opens it in another process, on another day; `jaxrl evaluate`, `jaxrl render` and
# `jaxrl plot` do the same from the command line.

# %%
for path in sorted(directory.rglob("*")):
    if path.is_file() and "program" not in path.parent.name:
        print(f"{path.stat().st_size / 1024:7.1f} KB  {path.relative_to(directory)}")

# %%
run = jaxrl.load_run(directory)
episodes = run.evaluate(num_episodes=32)  # the best cell's first seed, greedy actions, fresh episodes
print(f"greedy return over 32 episodes: mean {episodes.returns.mean():.1f}, worst {episodes.returns.min():.0f}")

# %% [markdown]
# The first 50 steps of one episode. Any trained policy can be played (`cell=…`, `seed=…`); `replay.html` instead of
# `replay.gif` gives a page with a play button and a slider.

# %%
Image(run.render(directory / "figures" / "replay.gif", max_steps=50).read_bytes(), format="gif")

# %% [markdown]
# ## Sweeping the environment
#
# Parameters of the environment are traced as hyperparameters are, and swept in the same way under their name with
# `env.` in front. `length` is half the length of CartPole's pole, 0.5 by default. A long pole falls slowly, which even
# an untrained policy survives for a while; a short one leaves the cart, with its fixed force and time step, little time
# to answer.

# %%
best = results.best()["hyperparameters"]
fixed = {"total_steps": total_steps, "num_envs": 8, "num_steps": 64}
lengths = jaxrl.run_sweep(
    "ppo",
    "CartPole-v1",
    grid={"env.length": [0.05, 0.1, 0.5, 2.0]},
    seeds=seeds,
    settings=fixed | best,
    progress=False,
)
lengths.plot()

# %% [markdown]
# ## Swapping the objective
#
# `jaxrl list objectives` names those that ship with the library. The objective is a static setting, so each one is a
# program of its own, and `grid={"objective": ["ppo", "spo"]}` would make two. PPO has been run already, with these seeds
# and settings: it is the best cell of the sweep. So only SPO is missing.

# %%
spo = jaxrl.run("ppo", "CartPole-v1", seeds=seeds, settings=fixed | best | {"objective": "spo"}, progress=False)
plotting.compare({"ppo": results, "spo": spo})

# %% [markdown]
# SPO replaces the clip by a quadratic penalty on the ratio. `"a2c"` would be refused here: nothing in the plain policy
# gradient notices that the policy has moved away from the one that collected the data, so it takes one step per rollout,
# not four epochs of them.
#
# An objective of your own needs no registration. It is a NamedTuple of five functions, and here three lines differ from
# PPO's: instead of clipping the ratio, they charge for the divergence from the old policy, with a weight `beta` (the
# penalty form in section 4 of the PPO paper, here with a fixed weight). `ppo_objective`'s `prepare` still computes the
# advantages.

# %%
env = jaxrl.make_env("CartPole-v1")
config = jaxrl.PPOConfig(**fixed)
hp = jaxrl.PPOHparams(**best)


def penalty_objective(beta):
    def loss(state, outputs, targets):
        advantage = (targets.advantage - targets.advantage.mean()) / (targets.advantage.std() + 1e-8)
        log_ratio = outputs["policy"].log_prob(targets.action) - targets.log_prob
        ratio = jnp.exp(log_ratio)
        divergence = (ratio - 1 - log_ratio).mean()  # an estimate of KL(old, new) from the old policy's samples
        policy_loss = -(ratio * advantage).mean() + beta * divergence
        value_loss = 0.5 * jnp.square(outputs["value"] - targets.returns).mean()
        entropy = outputs["policy"].entropy().mean()
        total = policy_loss + hp.vf_coef * value_loss - hp.ent_coef * entropy
        return total, {"loss/policy": policy_loss, "loss/value": value_loss, "policy/approx_kl": divergence}

    return ppo_objective(hp)._replace(loss=loss)


# %% [markdown]
# `beta` may be a tracer, so it is swept like any other number, now with `jaxrl.sweep`, the pure function below
# `run_sweep`: one program, all agents side by side under `vmap`.


# %%
@jax.jit
def train_all(betas, keys):
    def make(beta):
        return jaxrl.ppo(env, config, hp, objective=penalty_objective(beta))

    return jaxrl.sweep(make, betas, keys, config.num_updates)


betas = jnp.array([0.0, 1.0, 10.0])
_, metrics = train_all(betas, jax.random.split(jax.random.key(0), seeds))
penalised = jaxrl.Results(
    hparams={"beta": np.asarray(betas)},
    seeds=np.arange(seeds),
    steps=(np.arange(config.num_updates) + 1) * config.steps_per_update,
    metrics=metrics,
    config={"algorithm": "PPO with a penalty", "env": "CartPole-v1"},
)
penalised.plot()

# %% [markdown]
# The arrays that `sweep` returns have the axes of `Results`, so whatever this notebook did with the first sweep works
# for a home-made one, too.

# %%
sensitivity_table(penalised)
