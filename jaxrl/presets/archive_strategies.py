"""Ready-made quality-diversity by evolution strategies: CMA-ME, CMA-MAE, any algorithm of evosax over an archive."""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import struct

from jaxrl.algorithm import Algorithm
from jaxrl.env import Environment
from jaxrl.evo.evolve import Spread, Strategy
from jaxrl.presets.base import Preset
from jaxrl.presets.quality_diversity import MAP_ELITES, MapElitesConfig, MapElitesHparams, Parts
from jaxrl.qd.emitters import iso_line, mixture
from jaxrl.qd.strategy_emitter import RANKINGS, strategies
from jaxrl.settings import check_at_least, check_choice, setting

_OURS = "jaxrl"
_CMA_ME = "Fontaine et al. 2020, arXiv:1912.02400"
_EVOSAX = "evosax 0.3"


@dataclasses.dataclass(frozen=True)
class CMAMapElitesConfig(MapElitesConfig):
    """What fixes shapes and branches of a run with evolution strategies."""

    num_ga: int = setting(0, "offspring of iso+line variation per iteration, beside the strategies'", _CMA_ME)
    hidden_sizes: tuple[int, ...] = setting((32,), "of policies", _OURS)
    strategy: str = setting("Sep_CMA_ES", "a name in evosax: CMA_ES, Sep_CMA_ES, LM_MA_ES, Open_ES, PGPE, …", _OURS)
    num_strategies: int = setting(4, "side by side, each from an individual of its own", _OURS)
    population: int = setting(64, "offspring of each strategy per iteration", _OURS)
    optimizer: str = setting("adam", "adam, sgd or clipup, where the algorithm has one", _EVOSAX)
    patience: int = setting(1, "iterations without gain before a strategy begins anew; 2 for populations (GA)", _CMA_ME)
    ranking: str = setting("two_stage", f"by which a strategy is told what is better: {', '.join(RANKINGS)}", _CMA_ME)

    def __post_init__(self) -> None:
        check_at_least(self, 1, "num_strategies", "population", "patience")
        check_choice("ranking", self.ranking, RANKINGS)
        super().__post_init__()

    @property
    def num_evaluations(self) -> int:
        """Episodes per iteration."""
        return self.num_ga + self.num_strategies * self.population


@struct.dataclass
class CMAMapElitesHparams(MapElitesHparams):
    """The numbers of a run with evolution strategies; each may be swept in one program."""

    sigma: Any = setting(0.1, "a strategy's deviation at first, above 0", _OURS, low=1e-12)
    learning_rate: Any = setting(0.01, "of its optimiser, where it has one", _OURS, low=0.0)


def cma_map_elites(
    env: Environment,
    config: CMAMapElitesConfig = CMAMapElitesConfig(),
    hp: CMAMapElitesHparams = CMAMapElitesHparams(),
    env_params: Any = None,
    spread: Spread | None = None,
) -> Algorithm:
    """MAP-Elites whose offspring come from evolution strategies; with `container = "annealed"` it is CMA-MAE.

    Args:
      env, config, hp, env_params, spread: as of `jaxrl.presets.map_elites`.
    Raises:
      ValueError: as there, and for unknown strategies and sizes that they refuse.
    References:
      Fontaine et al. 2020, arXiv:1912.02400; Fontaine and Nikolaidis 2023, arXiv:2205.10752.
    """
    from jaxrl.adapters.evosax import evosax_strategy

    def make(first: Any) -> Strategy:
        sizes = {"sigma": hp.sigma, "learning_rate": hp.learning_rate, "optimizer": config.optimizer}
        return evosax_strategy(config.strategy, first, config.population, **sizes)

    parts = Parts(env, config, env_params)
    emitter = strategies(make, config.population, config.num_strategies, config.ranking, config.patience)
    if config.num_ga:
        emitter = mixture([emitter, iso_line(config.num_ga, hp.iso_sigma, hp.line_sigma)])
    return parts.algorithm(emitter, hp, spread, keep_transitions=False)


PRESETS: dict[str, Preset] = {
    "cma_map_elites": MAP_ELITES._replace(
        summary="MAP-Elites by evolution strategies (evosax): CMA-ME, CMA-MAE",
        reference="arXiv:1912.02400",
        config=CMAMapElitesConfig(),
        hparams=CMAMapElitesHparams(),
        make=cma_map_elites,
        overrides={**MAP_ELITES.overrides, "jaxrl/point_mass": {"episode_steps": 50, "grid_shape": (16, 16)}},
    ),
}
