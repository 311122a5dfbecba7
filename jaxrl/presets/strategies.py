"""Ready-made evolution strategies over policies: OpenAI-ES, its relatives that seek novelty, and those of evosax."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import optax
from flax import struct

from jaxrl.algorithm import Algorithm
from jaxrl.env import Environment
from jaxrl.evo.evolve import Spread, Strategy
from jaxrl.evo.novelty import METRICS, NoveltySearch
from jaxrl.evo.novelty_es import NoveltyESHparams as NoveltyNumbers
from jaxrl.evo.novelty_es import novelty_es
from jaxrl.evo.observing import observing, random_observations
from jaxrl.evo.open_es import SHAPINGS, OpenESHparams
from jaxrl.evo.open_es import open_es as open_strategy
from jaxrl.presets.base import Preset
from jaxrl.presets.policies import (
    PolicyEvolutionConfig,
    behaviour_of,
    evolved_policy,
    initial_params,
    policy_evolution,
)
from jaxrl.settings import check_at_least, check_choice, same_setting, setting
from jaxrl.spaces import Box

_OURS = "jaxrl"
_SALIMANS = "Salimans et al. 2017, arXiv:1703.03864"
_CONTI = "Conti et al. 2018, arXiv:1712.06560"
_EVOSAX = "evosax 0.3"
REFERENCES = 128


@dataclasses.dataclass(frozen=True)
class OpenESConfig(PolicyEvolutionConfig):
    """What fixes shapes and branches of OpenAI-ES over policies."""

    noise_batch: int = setting(0, "pairs whose noise exists at once; 0: all, for a generation", _OURS)
    shaping: str = setting("centered_ranks", f"of fitness: {', '.join(SHAPINGS)}", _SALIMANS)
    normalize_obs: bool = setting(False, "standardise observations by what the population has met", _SALIMANS)
    virtual_norm: bool = setting(False, f"virtual batch normalisation, by {REFERENCES} random observations", _SALIMANS)
    sign_rewards: bool = setting(False, "individuals are paid the signs of rewards", _SALIMANS)
    explores: bool = setting(False, "individuals act with noise (action_noise), or sample discrete actions", _SALIMANS)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "noise_batch")
        check_choice("shaping", self.shaping, SHAPINGS)
        if self.population % 2:
            raise ValueError(f"population = {self.population}: expected pairs; use {self.population + 1}")
        if self.noise_batch and self.num_pairs % self.noise_batch:
            raise ValueError(f"population / 2 = {self.num_pairs} is not divisible by noise_batch = {self.noise_batch}")

    @property
    def num_pairs(self) -> int:
        """Antithetic pairs."""
        return self.population // 2


@dataclasses.dataclass(frozen=True)
class NoveltyESConfig(OpenESConfig):
    """What fixes shapes and branches of NS-ES, NSR-ES and NSRA-ES."""

    num_policies: int = setting(3, "policies that are improved in turn", _CONTI)
    elite_episodes: int = setting(1, "episodes by which a policy's own behaviour and return are known", _CONTI)
    num_neighbours: int = setting(10, "of which the mean distance is taken", _CONTI)
    metric: str = setting("euclidean", " or ".join(METRICS), _CONTI)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "num_policies", "elite_episodes", "num_neighbours")
        check_choice("metric", self.metric, METRICS)

    @property
    def uses_behaviour(self) -> bool:
        """What individuals do is always asked."""
        return True

    @property
    def steps_again(self) -> int:
        """Environment steps of the policies themselves, at most."""
        return self.num_policies * self.elite_episodes * self.max_episode_steps

    @property
    def archive_size(self) -> int:
        """Room for every behaviour that is archived."""
        return self.num_policies + self.num_updates


@struct.dataclass
class OpenESPolicyHparams:
    """The numbers of OpenAI-ES over policies; each may be swept in one program."""

    learning_rate: Any = setting(0.01, "of Adam", _SALIMANS, low=0.0)
    sigma: Any = setting(0.02, "deviation of perturbations, above 0", _SALIMANS, low=1e-12)
    weight_decay: Any = setting(0.005, "times the parameters, added to the gradient", _SALIMANS, low=0.0)
    action_noise: Any = setting(0.01, "explores: deviation of the noise on real actions", _SALIMANS, low=0.0)
    obs_probability: Any = setting(
        0.01, "normalize_obs: with which an individual's observations count", _SALIMANS, low=0.0, high=1.0
    )


@struct.dataclass
class NoveltyESPolicyHparams:
    """The numbers of NS-ES and its relatives; each may be swept in one program."""

    learning_rate: Any = same_setting(OpenESPolicyHparams, "learning_rate")
    sigma: Any = same_setting(OpenESPolicyHparams, "sigma")
    weight_decay: Any = same_setting(OpenESPolicyHparams, "weight_decay")
    action_noise: Any = same_setting(OpenESPolicyHparams, "action_noise")
    obs_probability: Any = same_setting(OpenESPolicyHparams, "obs_probability")
    reward_weight: Any = setting(0.0, "of the return beside novelty, at first", _CONTI, low=0.0, high=1.0)
    weight_change: Any = setting(0.0, "of that weight: up if returns rise, down if not", _CONTI, low=0.0, high=1.0)
    patience: Any = setting(50.0, "generations without a better return before it falls", _CONTI, low=1.0)


def _descent(hp: Any) -> tuple[optax.GradientTransformation, OpenESHparams]:
    """Adam on the published gradient, which is not divided by sigma, with its weight decay; and constant numbers."""
    tx = optax.chain(optax.scale(hp.sigma), optax.add_decayed_weights(hp.weight_decay), optax.scale_by_adam())
    return tx, OpenESHparams(hp.learning_rate, 1.0, 0.0, hp.sigma, 1.0, 0.0)


def _informed(strategy: Strategy, env: Environment, config: Any, hp: Any, env_params: Any) -> Strategy:
    """With moments of observations and a reference batch, where the network has a use for them."""
    if not (config.normalize_obs or config.virtual_norm):
        return strategy
    space = env.observation_space(env_params)
    if config.normalize_obs and not isinstance(space, Box):
        raise ValueError(f"normalize_obs = True needs observations in a Box, got {space}; set it to False")

    def reference(key: jax.Array) -> jax.Array:
        return random_observations(key, env, env_params, REFERENCES)

    shape = space.shape if config.normalize_obs else None
    return observing(strategy, shape, hp.obs_probability, reference if config.virtual_norm else None)


def open_es(
    env: Environment,
    config: OpenESConfig = OpenESConfig(),
    hp: OpenESPolicyHparams = OpenESPolicyHparams(),
    env_params: Any = None,
    spread: Spread | None = None,
) -> Algorithm:
    """OpenAI-ES over policies: mirrored sampling, centred ranks, Adam with weight decay.

    Args:
      env: of one instance.
      config: static settings.
      hp: numbers; may be traced.
      env_params: the environment's; may be traced.
      spread: in the place of chunks of `config.population_batch`, for instance over devices.
    Returns:
      An `Algorithm` whose policy is the mean of the population.
    Raises:
      ValueError: for spaces that no policy covers, or sizes that do not fit.
    References:
      Salimans et al. 2017, arXiv:1703.03864.
    """
    params = env.default_params if env_params is None else env_params
    tx, numbers = _descent(hp)
    first = initial_params(env, config, params)
    es = open_strategy(first, tx, numbers, config.num_pairs, SHAPINGS[config.shaping], 1, config.noise_batch)
    return policy_evolution(_informed(es, env, config, hp, params), env, config, hp, params, spread)


def ns_es(
    env: Environment,
    config: NoveltyESConfig = NoveltyESConfig(),
    hp: NoveltyESPolicyHparams = NoveltyESPolicyHparams(),
    env_params: Any = None,
    spread: Spread | None = None,
) -> Algorithm:
    """NS-ES, NSR-ES and NSRA-ES over policies, as the numbers say.

    Args:
      env: of one instance; its `behaviour(state, params)` at an episode's end says what was done, else the last
        observation.
      config, hp, env_params, spread: as of `open_es`.
    Returns:
      An `Algorithm` whose policy is the one of highest return among those that are improved in turn.
    Raises:
      ValueError: for spaces that no policy covers, or sizes that do not fit.
    References:
      Conti et al. 2018, arXiv:1712.06560.
    """
    params = env.default_params if env_params is None else env_params
    tx, numbers = _descent(hp)
    es = novelty_es(
        initial_params(env, config, params),
        tx,
        numbers,
        NoveltyNumbers(hp.reward_weight, hp.weight_change, hp.patience),
        config.num_pairs,
        NoveltySearch(behaviour_of(env, params)[1], config.archive_size, config.num_neighbours, config.metric),
        config.num_policies,
        config.noise_batch,
    )
    informed = _informed(es, env, config, hp, params)
    return policy_evolution(informed, env, config, hp, params, spread, config.elite_episodes)


@dataclasses.dataclass(frozen=True)
class EvosaxConfig(PolicyEvolutionConfig):
    """What fixes shapes and branches of an algorithm of evosax over policies."""

    strategy: str = setting("CMA_ES", "a name in evosax: CMA_ES, Sep_CMA_ES, PGPE, ARS, SimpleGA, PSO, …", _EVOSAX)
    optimizer: str = setting("adam", "adam, sgd or clipup, where the algorithm has one", _EVOSAX)


@struct.dataclass
class EvosaxHparams:
    """The numbers of an algorithm of evosax; each may be swept in one program."""

    sigma: Any = setting(0.1, "deviation at first, where the algorithm has one, above 0", _OURS, low=1e-12)
    learning_rate: Any = setting(0.01, "of its optimiser, where it has one", _OURS, low=0.0)


def evosax(
    env: Environment,
    config: EvosaxConfig = EvosaxConfig(),
    hp: EvosaxHparams = EvosaxHparams(),
    env_params: Any = None,
    spread: Spread | None = None,
) -> Algorithm:
    """Any algorithm of evosax over policies.

    Args:
      env: of one instance.
      config, hp, env_params, spread: as of `open_es`.
    Returns:
      An `Algorithm` whose policy is the mean of a distribution, or the best individual of a population.
    Raises:
      ValueError: for unknown names, spaces that no policy covers, or sizes that do not fit.
    References:
      Lange 2022, arXiv:2212.04180.
    """
    from jaxrl.adapters.evosax import evosax_strategy

    params = env.default_params if env_params is None else env_params
    strategy = evosax_strategy(
        config.strategy,
        initial_params(env, config, params),
        config.population,
        sigma=hp.sigma,
        learning_rate=hp.learning_rate,
        optimizer=config.optimizer,
    )
    return policy_evolution(strategy, env, config, hp, params, spread)


# Humanoid's settings, with a population that an accelerator plays at once; pictures need the reference batch.
_BRAX = {"hidden_sizes": (64, 64), "normalize_obs": True, "explores": True}
_MINATAR = {"hidden_sizes": (64,), "activation": "relu", "virtual_norm": True, "max_episode_steps": 5_000}
_MAZE = {
    "hidden_sizes": (16,),
    "max_episode_steps": 400,
    "population": 500,
    "total_steps": 12_024_000,
    "sigma": 0.5,
    "learning_rate": 0.1,
    "weight_decay": 0.0,
}
_MAZE_IMAGES = {
    **_MAZE,
    "hidden_sizes": (512,),
    "activation": "relu",
    "torso": "dqn",
    "population_batch": 64,
    "sigma": 0.02,
    "learning_rate": 0.01,
}
_FAMILIES = {"brax": _BRAX, "minatar": _MINATAR, "jaxrl": _MAZE, "jaxrl/hard_maze_images": _MAZE_IMAGES}
_NS = Preset(
    summary="evolution strategy that follows novelty alone",
    reference="arXiv:1712.06560",
    config=NoveltyESConfig(),
    hparams=NoveltyESPolicyHparams(),
    agent=evolved_policy,
    make=ns_es,
    overrides=_FAMILIES,
    splits=True,
)
_PLAIN = {"brax": {"hidden_sizes": (32,), "output": "tanh"}, "minatar": {"hidden_sizes": (32,), "activation": "relu"}}
_CMA = Preset(
    summary="covariance matrix adaptation (evosax)",
    reference="arXiv:1604.00772",
    config=EvosaxConfig(population=64),
    hparams=EvosaxHparams(),
    agent=evolved_policy,
    make=evosax,
    overrides=_PLAIN,
    splits=True,
)
PRESETS: dict[str, Preset] = {
    "open_es": Preset(
        summary="OpenAI-ES: mirrored sampling, centred ranks",
        reference="arXiv:1703.03864",
        config=OpenESConfig(),
        hparams=OpenESPolicyHparams(),
        agent=evolved_policy,
        make=open_es,
        overrides=_FAMILIES,
        splits=True,
    ),
    "ns_es": _NS,
    "nsr_es": _NS._replace(
        summary="evolution strategy that follows novelty and reward alike",
        hparams=NoveltyESPolicyHparams(reward_weight=0.5),
    ),
    "nsra_es": _NS._replace(
        summary="evolution strategy that turns to novelty where reward does not rise",
        hparams=NoveltyESPolicyHparams(reward_weight=1.0, weight_change=0.05),
    ),
    "cma_es": _CMA,
    "sep_cma_es": _CMA._replace(
        summary="CMA-ES with a diagonal covariance (evosax)", config=EvosaxConfig(strategy="Sep_CMA_ES")
    ),
    "pgpe": _CMA._replace(
        summary="policy gradients with parameter-based exploration and ClipUp (evosax)",
        reference="arXiv:2008.02387",
        config=EvosaxConfig(strategy="PGPE", optimizer="clipup"),
        hparams=EvosaxHparams(sigma=0.1, learning_rate=0.0075),
    ),
    "ars": _CMA._replace(
        summary="augmented random search (evosax)",
        reference="arXiv:1803.07055",
        config=EvosaxConfig(strategy="ARS", optimizer="sgd", hidden_sizes=()),
        hparams=EvosaxHparams(sigma=0.03, learning_rate=0.02),
        overrides={},
    ),
    "evosax": _CMA._replace(summary="any algorithm of evosax: --set strategy=NAME", reference="arXiv:2212.04180"),
}
