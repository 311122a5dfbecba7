"""Off-policy agents small enough to set every number of: linear networks over observations of one number."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.presets import PRESETS
from jaxrl.spaces import Box
from jaxrl.types import Agent, Progress, Sample
from jaxrl_envs import probes

WIDE = Box(-2.0, 2.0, (1,))
KEY = jax.random.key(0)


def make(name: str, space: Any = WIDE, hidden_sizes: tuple[int, ...] = (), **settings: Any) -> tuple[Agent, Any]:
    """An agent on observations of one number, and its state."""
    preset = PRESETS[name]
    static = {field.name for field in dataclasses.fields(preset.config)}
    config = dataclasses.replace(
        preset.config, hidden_sizes=hidden_sizes, **{k: v for k, v in settings.items() if k in static}
    )
    known = {field.name for field in dataclasses.fields(preset.hparams)}
    hparams = preset.hparams.replace(**{k: v for k, v in settings.items() if k in known})
    env = dataclasses.replace(probes.termination_probe(), single_action_space=space)
    agent = preset.agent(env, config, hparams)
    return agent, agent.init(KEY, env.obs_space, space)


def batch(num: int = 1, action: float = 0.0, discount: float = 0.99, reward: float = 1.0) -> Sample:
    obs, ones = jnp.linspace(-1.0, 1.0, num)[:, None], jnp.ones(num)
    index = jnp.zeros(num, jnp.int32)
    return Sample(obs, jnp.full((num, 1), action), reward * ones, discount * ones, obs / 2, ones, index)


def constant(params: Any, bias: list[Any]) -> Any:
    """A network without hidden layers that says the same of everything."""
    heads = {
        name: {"kernel": jnp.zeros_like(head["kernel"]), "bias": jnp.array(bias)}
        for name, head in params["params"].items()
    }
    return {"params": heads}


def differs(a: Any, b: Any) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return any(not np.array_equal(np.asarray(x), np.asarray(y)) for x, y in pairs)


def updates(agent: Agent, state: Any, sample: Sample, num: int, first: int = 0) -> Any:
    """The state after updates number first … first + num - 1."""
    run = _compiled(agent.update)
    for i in range(first, first + num):
        state, _ = run(jax.random.fold_in(KEY, i), state, sample, i)
    return state


@functools.lru_cache(maxsize=4)
def _compiled(update: Callable[..., Any]) -> Any:
    return jax.jit(lambda key, state, sample, i: update(key, state, sample, Progress(i, 1000)))
