"""How good learned rules are: on any environment by name, and on many held-out levels at once. Host side.

`meta_test` runs a rule and A2C on an environment. `level_returns` plays whole lifetimes on levels that no training
drew, under learned rules, random rules and A2C. [meta_scores.py](meta_scores.py) makes scores and intervals of both.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.algorithm import train
from jaxrl.evaluation import evaluate
from jaxrl.loops.on_policy import on_policy
from jaxrl.meta.gradient import frozen_after
from jaxrl.objectives import a2c_objective
from jaxrl.presets.meta import MetaConfig, MetaHparams, knows_optimum, meta_agent
from jaxrl.results import Results
from jaxrl.rules import KINDS, Rule, load_rule, save_rule
from jaxrl.runs import run_sweep
from jaxrl.types import Agent, Key, Objective, Params

_STREAM = 0x6C76  # folded into the key of held-out levels: a run of the same number never draws them
_RANDOM = 0x726E  # … of random rules


def meta_test(
    rule: Rule | str | Path,
    env: str,
    seeds: int | Sequence[int] = 16,
    settings: Mapping[str, Any] | None = None,
    *,
    out: str | Path | None = None,
    progress: bool = True,
) -> Results:
    """Trains agents with a rule, and A2C beside it, on an environment by name; all seeds in one program each.

    Drifts (rules of kind lpo) are tested in the preset `ppo`, with PPO beside them: while the ratio is 1, as it is in
    the one update per rollout of A2C, every drift is 0.

    Args:
      rule: a `Rule`, the name of a shipped one, or a file.
      env: see `jaxrl list envs`.
      seeds: how many agents, or which.
      settings: of the preset `ppo` for drifts, else of `a2c`, which has one update per rollout, as rules of kind lpg
        are trained for; the published agents have {"optimizer": "adam", "learning_rate": 5e-4}.
      out, progress: as of `jaxrl.run_sweep`.
    Returns:
      `Results` of two cells: "objective" is the rule's name or file in the first, "a2c" or "ppo" in the second.
    Raises:
      ValueError: as from `jaxrl.run_sweep`; a rule in memory cannot have a run directory, which would not find it.
    """
    if not isinstance(rule, Rule):
        baseline = "ppo" if KINDS[load_rule(rule).kind].drift else "a2c"
        grid = {"objective": [str(rule), baseline]}
        return run_sweep(baseline, env, seeds=seeds, grid=grid, settings=settings, out=out, progress=progress)
    if out is not None:
        raise ValueError("a run directory remembers the file of its rule: save it first with `jaxrl.save_rule`, and "
                         "give its path")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rule.npz"
        save_rule(file, rule)
        return meta_test(file, env, seeds, settings, progress=progress)


class LevelReturns(NamedTuple):
    """Mean returns of agents after their lifetimes, for R rules on M levels.

    Attributes:
      rule: [R, M].
      random_rule: [R, M], of rules of the same configurations that nothing has trained.
      a2c: [M].
      random_policy: [M], actions uniform.
      optimal: [M], the best expected return; NaN where the environment does not know it.
    """

    rule: np.ndarray
    random_rule: np.ndarray
    a2c: np.ndarray
    random_policy: np.ndarray
    optimal: np.ndarray


def level_returns(
    rules: Sequence[Rule],
    env: Any,
    config: MetaConfig,
    hp: MetaHparams = MetaHparams(),
    levels: Sequence[int] = range(256),
    key: int = 0,
    batch: int = 32,
) -> LevelReturns:
    """Whole lifetimes on held-out levels, every agent from the same parameters and with the same random numbers.

    Args:
      rules: of one kind and one configuration: one per meta-seed.
      env: has `sample_params(key)`, as `jaxrl.make_env("jaxrl/grid_small")`; of those that have a finite set `levels`
        [M, …], as "jaxrl/grid_handcrafted", the numbers are places in it.
      config, hp: of the agents, as in meta-training; the antagonist's numbers are A2C's.
      levels: numbers of levels; a level depends on `key` and its number only, so that pieces may be put together.
      key: of the levels and of everything that happens on them; no key of a run gives the same.
      batch: levels side by side.
    Returns:
      `LevelReturns`; each is the mean over the first episodes of `config.num_envs` workers, actions sampled.
    Raises:
      ValueError: for an environment without levels or without these, or rules that differ in more than their
        parameters.
    """
    if not hasattr(env, "sample_params"):
        raise ValueError("held-out levels need an environment with `sample_params(key)`, as jaxrl/grid_small; "
                         "use `jaxrl.meta_test` for others")  # fmt: skip
    if len({(rule.kind, rule.config) for rule in rules}) != 1:
        raise ValueError(f"expected one or more rules of one kind and config, got {[r[:2] for r in rules]}")
    kind, rule_config = rules[0][:2]
    base = jax.random.fold_in(jax.random.key(key), _STREAM)
    numbers = np.asarray(levels, np.uint32)
    keys = jax.vmap(lambda number: jax.random.split(jax.random.fold_in(base, number)))(numbers)
    finite = getattr(env, "levels", None)
    if finite is None:
        drawn = jax.jit(jax.vmap(env.sample_params))(keys[:, 0])
    else:
        drawn = jax.tree.map(lambda leaf: jnp.asarray(leaf)[_places(finite, levels)], finite)
    longest = int(np.max(getattr(drawn, "lifetime", config.lifetime)))
    learned = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(rule.params for rule in rules))
    rule_keys = jax.random.split(jax.random.fold_in(base, _RANDOM), len(rules))
    untrained = jax.vmap(lambda key: KINDS[kind].init(key, rule_config))(rule_keys)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), learned, untrained)

    def one(key: Key, level: Any, params: Params) -> dict[str, jax.Array]:
        return _on_level(key, level, rules[0]._replace(params=params), env, config, hp, longest)

    play = jax.jit(jax.vmap(one, (0, 0, None)))
    pieces = []
    for start in range(0, len(keys), batch):
        # The last piece is filled up with the first levels, so that one program serves all.
        index = (start + np.arange(batch)) % len(keys)
        rows = jax.tree.map(np.asarray, play(keys[index, 1], jax.tree.map(lambda leaf: leaf[index], drawn), both))  # noqa: B023
        pieces.append({name: value[: len(keys) - start] for name, value in rows.items()})
    found = {name: np.concatenate([piece[name] for piece in pieces]).T for name in pieces[0]}
    of_rules = found.pop("rules")
    return LevelReturns(of_rules[: len(rules)], of_rules[len(rules) :], **found)


def _places(finite: Any, levels: Sequence[int]) -> np.ndarray:
    num = jax.tree.leaves(finite)[0].shape[0]
    if not all(0 <= number < num for number in levels):
        raise ValueError(f"levels = {list(levels)}: the environment has {num}; use levels=range({num}) or some of it")
    return np.asarray(levels, np.int32)


def _on_level(
    key: Key, level: Any, rules: Rule, env: Any, config: MetaConfig, hp: Any, longest: int
) -> dict[str, jax.Array]:
    """Returns on one level: of rules with stacked parameters [R, …], of A2C, and at random."""
    key_train, key_play = jax.random.split(key)
    num_updates = getattr(level, "lifetime", config.lifetime)

    def played(agent: Agent, state: Any) -> jax.Array:
        episodes = evaluate(
            key_play, agent, state, env, level, config.num_envs, max_steps=config.max_episode_steps, explore=True
        )
        return episodes.returns.mean()

    def trained(objective: Objective) -> jax.Array:
        agent = meta_agent(env, config, hp, level, objective).agent
        loop = on_policy(
            agent, env, level, num_envs=config.num_envs, num_steps=config.num_steps, num_updates=num_updates
        )
        state, _ = train(key_train, frozen_after(loop, num_updates), longest)
        return played(agent, state.agent)

    def with_params(params: Params) -> Objective:
        return rules._replace(params=params).objective(config.agent, hp)

    # The same network for all, so that they differ in nothing but what they optimise.
    rival = a2c_objective(hp, "batch")._replace(heads=rules.objective(config.agent, hp).heads)
    agent = meta_agent(env, config, hp, level, rival).agent
    spaces = env.observation_space(level), env.action_space(level)
    best = env.optimal_return(level) if knows_optimum(env) else jnp.nan
    return {
        "rules": jax.vmap(lambda params: trained(with_params(params)))(rules.params),
        "a2c": trained(rival),
        "random_policy": played(_uniform(agent, spaces[1]), agent.init(key_train, *spaces)),
        "optimal": jnp.asarray(best, jnp.float32),
    }


def _uniform(agent: Agent, action_space: Any) -> Agent:
    """The agent with actions drawn uniformly."""

    def act(key: Key, state: Any, memory: Any, obs: Any, is_first: jax.Array, explore: bool) -> Any:
        action, memory, extras = agent.act(key, state, memory, obs, is_first, explore)
        return jax.random.randint(key, action.shape, 0, action_space.n, action.dtype), memory, extras

    return agent._replace(act=act)
