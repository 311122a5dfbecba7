"""Scores of learned rules, and their intervals: of many levels, and of environments by name. Host side.

On levels a rule is measured by what A2C gains over a random policy there, or by the best return there is; on
environments by the baseline that `meta_test` trains beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.adapters import make_env
from jaxrl.evaluation import evaluate
from jaxrl.meta_testing import LevelReturns
from jaxrl.reporting import Estimate, stratified_bootstrap
from jaxrl.results import Results
from jaxrl.types import Agent, Key

MIN_GAP = 0.1  # reward units; an object of the grid-worlds is worth at most 1


class Scores(NamedTuple):
    """Normalised returns: 0 is the random policy's, 1 is A2C's.

    Attributes:
      rule, random_rule: [R, M'], on the levels that are kept.
      kept: [M] bool.
    """

    rule: np.ndarray
    random_rule: np.ndarray
    kept: np.ndarray


def normalized(returns: LevelReturns, min_gap: float = MIN_GAP) -> Scores:
    """`(return - random policy) / (A2C - random policy)`, on levels where A2C gains at least `min_gap`.

    A plain ratio of returns means nothing where A2C's is near 0 or negative, as on levels with nothing but penalties.

    Args:
      returns: of all levels.
      min_gap: in reward units, above 0; levels below say nothing and are left out.
    Raises:
      ValueError: if no level is left.
    """
    gap = returns.a2c - returns.random_policy
    kept = gap >= min_gap
    if not min_gap > 0.0 or not kept.any():
        raise ValueError(f"min_gap = {min_gap}: expected a number above 0 that A2C's gain over a random policy reaches "
                         f"on some level; the largest is {gap.max():.3g}")  # fmt: skip

    def scores(values: np.ndarray) -> np.ndarray:
        return (values - returns.random_policy)[:, kept] / gap[kept]

    return Scores(scores(returns.rule), scores(returns.random_rule), kept)


def crossed_bootstrap(
    values: np.ndarray, num_resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """The mean over meta-seeds and levels, with a percentile interval; both are resampled, each as a whole.

    Of differences between two rules on the same levels it is a paired interval.

    Args:
      values: [R, M, …]. With R = 1 only levels are resampled, and nothing is known of other meta-seeds.
      num_resamples, confidence, seed: of the bootstrap.
    Returns:
      `Estimate` of arrays […].
    References:
      Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1.
    """
    values = np.asarray(values, np.float64)
    num_rules, num_levels = values.shape[:2]
    rng = np.random.default_rng(seed)
    draws = []
    for done in range(0, num_resamples, 250):
        num = min(250, num_resamples - done)
        rows = rng.multinomial(num_rules, np.full(num_rules, 1 / num_rules), num) / num_rules
        columns = rng.multinomial(num_levels, np.full(num_levels, 1 / num_levels), num) / num_levels
        draws.append(np.einsum("nr,rm...,nm->n...", rows, values, columns, optimize=True))
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(np.concatenate(draws), [tail, 1.0 - tail], axis=0)
    return Estimate(values.mean((0, 1)), low, high)


def fraction_above(scores: np.ndarray, thresholds: np.ndarray) -> Estimate:
    """Share of levels on which a rule scores above each threshold τ.

    Args:
      scores: [R, M].
      thresholds: [N].
    Returns:
      `Estimate` of arrays [N], pointwise, by `crossed_bootstrap`.
    """
    return crossed_bootstrap(scores[..., None] > np.asarray(thresholds))


def share_of_optimum(returns: LevelReturns, min_optimum: float = MIN_GAP) -> tuple[np.ndarray, np.ndarray]:
    """The rules' returns over the best expected return, [R, M'], and which levels are kept, [M] bool.

    Args:
      returns: of all levels.
      min_optimum: in reward units, above 0; levels on which no more can be had are left out.
    Raises:
      ValueError: if no level is left, as where the environment does not know its optimum.
    """
    kept = np.nan_to_num(returns.optimal, nan=-np.inf) >= min_optimum
    if not min_optimum > 0.0 or not kept.any():
        raise ValueError(f"min_optimum = {min_optimum}: expected a number above 0 that the best return reaches on some "
                         f"level; the best returns are {returns.optimal[:5]}")  # fmt: skip
    return returns.rule[:, kept] / returns.optimal[kept], kept


def baseline_scores(
    tests: Mapping[str, Results], random_returns: Mapping[str, float] | None = None
) -> dict[str, dict[str, Any]]:
    """What `meta_test` found on several environments, normalised: 0 is a random policy, 1 the baseline beside the rule.

    Args:
      tests: {environment: what `meta_test` returned}, all with the same number of seeds.
      random_returns: {environment: mean return of a random policy}; by default they are measured (`random_return`).
    Returns:
      {environment: {"score", "low", "high", "rule", "baseline", "random"}} and the same under "all", where the score is
      the IQM over all environments and seeds; 95 % bootstrap intervals over the rule's seeds. The baseline's mean over
      its seeds counts as known.
    Raises:
      ValueError: if a baseline is no better than a random policy, so that nothing can be measured by it.
    """
    rows, scores = {}, []
    for env, results in tests.items():
        rule, baseline = results.final()
        by_chance = random_return(env) if random_returns is None else random_returns[env]
        gain = float(baseline.mean()) - by_chance
        if not gain > 0.0:
            raise ValueError(f"{env}: the baseline's return {baseline.mean():.4g} is no better than a random policy's, "
                             f"{by_chance:.4g}; train for longer, or leave it out")  # fmt: skip
        scores.append((rule - by_chance) / gain)
        means = {"rule": float(rule.mean()), "baseline": float(baseline.mean()), "random": by_chance}
        rows[env] = _scored(scores[-1][:, None]) | means
    return {**rows, "all": _scored(np.stack(scores, axis=1))}


def random_return(env: str, num_episodes: int = 256, key: int = 0) -> float:
    """Mean return of whole episodes in which actions are drawn uniformly from the space of actions."""
    environment = make_env(env)
    params = environment.default_params
    space = environment.action_space(params)

    def act(key: Key, state: Any, memory: Any, obs: Any, is_first: jax.Array, explore: bool) -> Any:
        return jax.vmap(space.sample)(jax.random.split(key, len(is_first))), memory, {}

    nobody = Agent(lambda *_: (), lambda num: (), act, lambda key, state, *_: (state, {}))
    play = jax.jit(lambda k: evaluate(k, nobody, (), environment, params, num_episodes, explore=True).returns)
    return float(play(jax.random.key(key)).mean())


def _scored(scores: np.ndarray) -> dict[str, float]:
    estimate = stratified_bootstrap(scores)
    return {"score": float(estimate.point), "low": float(estimate.low), "high": float(estimate.high)}
