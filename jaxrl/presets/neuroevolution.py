"""Ready-made genetic algorithms over networks of any size: the Deep GA, novelty search, random search."""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import struct

from jaxrl.algorithm import Algorithm
from jaxrl.env import Environment
from jaxrl.evo.deep_ga import DeepGAHparams as Numbers
from jaxrl.evo.deep_ga import champion_genome
from jaxrl.evo.deep_ga import deep_ga as strategy
from jaxrl.evo.evolve import Spread
from jaxrl.evo.novelty import METRICS, NoveltySearch
from jaxrl.evo.seeds import INITS, SeedCodec, seed_codec
from jaxrl.presets.base import Preset
from jaxrl.presets.policies import (
    PolicyEvolutionConfig,
    behaviour_of,
    evolved_policy,
    network_shapes,
    policy_evolution,
)
from jaxrl.settings import check_at_least, check_choice, setting

_OURS = "jaxrl"
_SUCH = "Such et al. 2017, arXiv:1712.06567"
SELECTIONS = ("fitness", "novelty")


@dataclasses.dataclass(frozen=True)
class DeepGAConfig(PolicyEvolutionConfig):
    """What fixes shapes and branches of a genetic algorithm over policies; defaults as for the paper's Atari games."""

    total_steps: int = setting(
        1_000_000_000, "environment steps, counted as if all episodes were the longest", "250 M steps played; " + _SUCH
    )
    population: int = setting(1_000, "children per generation", _SUCH)
    num_parents: int = setting(20, "whom children come from, the best; 0 is random search", _SUCH)
    elite_pool: int = setting(
        10, "individuals evaluated again to find the elite; with 0 it plays in the population", _SUCH
    )
    elite_episodes: int = setting(30, "further episodes of each of them", _SUCH)
    init: str = setting("xavier_normal", "of networks: xavier_normal (the paper's) or fan_in (its code's)", _SUCH)
    selection: str = setting("fitness", "who becomes a parent: the fittest or the most novel", _SUCH)
    num_neighbours: int = setting(25, "novelty: of which the mean distance is taken", _SUCH)
    metric: str = setting("euclidean", f"novelty: {' or '.join(METRICS)}", _OURS)
    archive_size: int = setting(10_000, "novelty: behaviours that the archive has room for", _OURS)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "num_parents", "elite_pool")
        check_at_least(self, 1, "elite_episodes", "num_neighbours", "archive_size")
        check_choice("init", self.init, INITS)
        check_choice("selection", self.selection, SELECTIONS)
        check_choice("metric", self.metric, METRICS)
        for name in ("num_parents", "elite_pool"):
            if getattr(self, name) > self.population:
                raise ValueError(f"{name} = {getattr(self, name)}: expected at most population = {self.population}")

    @property
    def uses_behaviour(self) -> bool:
        """Whether anybody asks what individuals do."""
        return self.selection == "novelty"

    @property
    def steps_again(self) -> int:
        """Environment steps of the elite's candidates, at most."""
        episodes = self.elite_pool * self.elite_episodes if self.elite_pool else self.eval_episodes
        return episodes * self.max_episode_steps


@struct.dataclass
class DeepGAHparams:
    """The numbers of a genetic algorithm; each may be swept in one program."""

    sigma: Any = setting(0.002, "deviation of mutations in the first generation, above 0", _SUCH, low=1e-12)
    sigma_decay: Any = setting(1.0, "its factor per generation", _SUCH, low=0.0, high=1.0)
    sigma_floor: Any = setting(1e-12, "below which it does not fall, above 0", _OURS, low=1e-12)
    archive_probability: Any = setting(
        0.01, "novelty: with which a behaviour is kept in the archive", _SUCH, low=0.0, high=1.0
    )


def network_codec(env: Environment, config: DeepGAConfig, env_params: Any = None) -> SeedCodec:
    """What turns seeds into the parameters of a run's network."""
    params = env.default_params if env_params is None else env_params
    return seed_codec(network_shapes(env, config, params), config.init)


def deep_ga(
    env: Environment,
    config: DeepGAConfig = DeepGAConfig(),
    hp: DeepGAHparams = DeepGAHparams(),
    env_params: Any = None,
    spread: Spread | None = None,
) -> Algorithm:
    """Evolves policies by truncation selection and mutation, with genomes of seeds; random search with no parents.

    Args:
      env: of one instance. With novelty, its `behaviour(state, params)` at an episode's end says what was done, else
        the last observation.
      config: static settings.
      hp: numbers; may be traced.
      env_params: the environment's; may be traced.
      spread: in the place of chunks of `config.population_batch`, for instance over devices.
    Returns:
      An `Algorithm`; its state's `strategy` is a `DeepGAState`, whose champion `champion_genome` takes out.
    Raises:
      ValueError: for spaces that no policy covers, or sizes that do not fit.
    References:
      Such et al. 2017, arXiv:1712.06567.
    """
    params = env.default_params if env_params is None else env_params
    search = None
    if config.uses_behaviour:
        size = behaviour_of(env, params)[1]
        search = NoveltySearch(size, config.archive_size, config.num_neighbours, config.metric)
    ga = strategy(
        network_codec(env, config, params),
        Numbers(hp.sigma, hp.sigma_decay, hp.sigma_floor, hp.archive_probability),
        config.population,
        config.num_parents,
        config.num_updates,
        config.elite_pool,
        search,
    )
    return policy_evolution(ga, env, config, hp, params, spread, config.elite_episodes)


_NETWORK = ("hidden_sizes", "activation", "torso", "memory", "memory_size", "output", "init")


def seeds_of_champion(env: Environment, config: DeepGAConfig, state: Any) -> dict[str, Any]:
    """The champion of a run's state, as `Preset.champion`."""
    return {
        "genome": champion_genome(state.strategy),
        "settings": {name: getattr(config, name) for name in _NETWORK},
        "codec": network_codec(env, config).header,
        "fitness": float(state.strategy.champion_fitness),
    }


# Networks and lengths as the paper has them for Humanoid; sigma falls to 0.001 there after 1,000 generations, here
# by as much as that in all of them.
_HUMANOID = {
    "total_steps": 94_000_000_000,
    "population": 12_500,
    "num_parents": 625,
    "elite_pool": 0,
    "eval_episodes": 5,
    "hidden_sizes": (256, 256),
    "max_episode_steps": 1_000,
    "population_batch": 256,
    "sigma": 0.00224,
    "sigma_decay": 0.9992,
    "sigma_floor": 0.001,
}
_MINATAR = {
    "total_steps": 1_000_000_000,
    "hidden_sizes": (128,),
    "activation": "relu",
    "max_episode_steps": 5_000,
    "population_batch": 50,
    "sigma": 0.01,
}
# The maze is the same every time: one episode says all, and evaluating again says nothing.
_MAZE = {
    "total_steps": 12_024_000,
    "population": 500,
    "num_parents": 25,
    "elite_pool": 0,
    "hidden_sizes": (16,),
    "max_episode_steps": 400,
    "sigma": 0.5,
}
# As the paper has it, with a network of 4.1 M parameters.
_MAZE_IMAGES = {
    **_MAZE,
    "total_steps": 8_000_400_000,
    "population": 20_000,
    "num_parents": 61,
    "hidden_sizes": (512,),
    "activation": "relu",
    "torso": "dqn",
    "population_batch": 64,
    "sigma": 0.005,
}
_FAMILIES = {"minatar": _MINATAR, "brax": _HUMANOID, "jaxrl": _MAZE, "jaxrl/hard_maze_images": _MAZE_IMAGES}
_GA = Preset(
    summary="the Deep GA: truncation selection and mutation, genomes of seeds",
    reference="arXiv:1712.06567",
    config=DeepGAConfig(),
    hparams=DeepGAHparams(),
    agent=evolved_policy,
    make=deep_ga,
    overrides=_FAMILIES,
    champion=seeds_of_champion,
    splits=True,
)
PRESETS: dict[str, Preset] = {
    "deep_ga": _GA,
    "novelty_search": _GA._replace(
        summary="the Deep GA with novelty in the place of fitness",
        config=DeepGAConfig(
            total_steps=8_000_400_000,
            population=20_000,
            num_parents=61,
            elite_pool=0,
            max_episode_steps=400,
            selection="novelty",
        ),
        hparams=DeepGAHparams(sigma=0.005),
        overrides={name: {**family, "selection": "novelty"} for name, family in _FAMILIES.items()},
    ),
}
