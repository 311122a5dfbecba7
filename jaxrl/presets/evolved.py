"""Ready-made evolution of update rules: fitness is how an agent fares after a whole lifetime under the rule."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.agents.actor_critic import actor_critic
from jaxrl.algorithm import Algorithm
from jaxrl.env import Environment
from jaxrl.evaluation import evaluate
from jaxrl.evo.evolve import Spread
from jaxrl.evo.open_es import SHAPINGS
from jaxrl.loops.on_policy import on_policy
from jaxrl.networks import TORSOS
from jaxrl.objectives.lpg import CORES, TIME_FEATURES, lpg_init, lpg_objective
from jaxrl.objectives.lpo import LPOConfig, lpo_init, lpo_objective
from jaxrl.presets import on_policy as on_policy_presets
from jaxrl.presets.base import Preset, on_policy_algorithm
from jaxrl.presets.evolution import PopulationLengths, check_population, evolved, live, num_played, own_keys
from jaxrl.presets.meta import (
    LPGParts,
    MetaConfig,
    MetaHparams,
    learned_rule,
    level_drawer,
    no_policy,
)
from jaxrl.presets.on_policy import PPOConfig, PPOHparams
from jaxrl.settings import check_at_least, check_choice, same_setting, setting
from jaxrl.types import Agent, Evaluation, Key, Params

FITNESSES = ("training", "evaluation")
_RELEASE = "EmptyJackson/groove"
_TA = "Jackson et al. 2024, arXiv:2402.05828"
_LRA = "AlexGoldie/learn-rl-algorithms"
_OURS = "jaxrl"


@dataclasses.dataclass(frozen=True)
class TALPGConfig(LPGParts, PopulationLengths):
    """What fixes shapes and branches of the evolution of a learned policy gradient."""

    total_steps: int = setting(
        819_200_000_000, "environment steps in all, counted as if all lifetimes were the longest", _RELEASE
    )
    num_pairs: int = setting(512, "antithetic pairs; the population is twice as large", _RELEASE)
    population_batch: int = setting(64, "agents trained at once; 0 for all", _OURS)
    noise_batch: int = setting(32, "pairs whose noise exists at once; divides num_pairs", _OURS)
    num_groups: int = setting(0, "groups of neighbours that share level and keys; 0 is every pair", _RELEASE)
    sampling: str = setting("shared", "keys of actions and transitions within a group: shared, or own", _OURS)
    shaping: str = setting("pair_ranks", f"of fitness: {', '.join(SHAPINGS)}", _TA)
    initial: str = setting("zeros", "the first mean: zeros, or random as a network is initialised", _RELEASE)
    lifetime: int = setting(250, "updates of an agent; where levels say it, at most", _RELEASE)
    evaluation_episodes: int = setting(64, "episodes, side by side, whose mean return is the fitness", _RELEASE)
    num_envs: int = same_setting(MetaConfig, "num_envs")
    num_steps: int = same_setting(MetaConfig, "num_steps")
    max_episode_steps: int = same_setting(MetaConfig, "max_episode_steps")
    core: str = same_setting(MetaConfig, "core")
    width: int = same_setting(MetaConfig, "width")
    target_width: int = same_setting(MetaConfig, "target_width")
    embedding_width: int = same_setting(MetaConfig, "embedding_width")
    include_gamma: bool = same_setting(MetaConfig, "include_gamma")
    time_features: str = setting("paper", "none, paper (n/N and log N) or raw (counters)", _TA)
    torso: str = same_setting(MetaConfig, "torso")
    hidden_sizes: tuple[int, ...] = same_setting(MetaConfig, "hidden_sizes")
    activation: str = same_setting(MetaConfig, "activation")
    optimizer: str = same_setting(MetaConfig, "optimizer")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "lifetime", "num_envs", "num_steps", "max_episode_steps")
        for name, choices in (("core", CORES), ("time_features", TIME_FEATURES), ("torso", TORSOS)):
            check_choice(name, getattr(self, name), choices)
        check_population(self)
        self.rule, self.agent  # noqa: B018 - their own checks


@struct.dataclass
class TALPGHparams:
    """The numbers of the evolution of a learned policy gradient; each may be swept in one program."""

    meta_learning_rate: Any = setting(1e-2, "of Adam on the rule, in the first generation", _RELEASE, low=0.0)
    meta_learning_rate_decay: Any = setting(0.999, "its factor per generation", _RELEASE, low=0.0, high=1.0)
    meta_learning_rate_floor: Any = setting(1e-5, "below which it does not fall", _RELEASE, low=0.0)
    sigma: Any = setting(0.1, "deviation of perturbations, in the first generation, above 0", _RELEASE, low=1e-12)
    sigma_decay: Any = setting(1.0, "its factor per generation", _RELEASE, low=0.0, high=1.0)
    sigma_floor: Any = setting(1e-12, "below which it does not fall, above 0", _OURS, low=1e-12)
    learning_rate: Any = same_setting(MetaHparams, "learning_rate")
    max_grad_norm: Any = same_setting(MetaHparams, "max_grad_norm")
    gamma: Any = same_setting(MetaHparams, "gamma")
    prediction_coef: Any = same_setting(MetaHparams, "prediction_coef")


@dataclasses.dataclass(frozen=True)
class EvolvedDriftConfig(PopulationLengths):
    """What fixes shapes and branches of the evolution of a learned drift (LPO, TA-LPO)."""

    total_steps: int = setting(25_600_000_000, "environment steps of all agents together", _LRA)
    agent_steps: int = setting(500_000, "environment steps of one agent, its lifetime", "purejaxrl ppo.py")
    num_pairs: int = setting(32, "antithetic pairs; the population is twice as large", _LRA)
    population_batch: int = setting(64, "agents trained at once; 0 for all", _OURS)
    noise_batch: int = setting(0, "pairs whose noise exists at once; divides num_pairs; 0: all", _OURS)
    num_groups: int = setting(1, "groups of neighbours that share keys; 0 is every pair", _OURS)
    sampling: str = setting("shared", "keys of actions and transitions within a group: shared, or own", _OURS)
    shaping: str = setting("centered_ranks", f"of fitness: {', '.join(SHAPINGS)}", _LRA)
    initial: str = setting(
        "random", "the first mean: zeros, or random hidden features; both are PPO with warm_start", _OURS
    )
    fitness: str = setting("training", "returns of the last tenth of training, or a greedy evaluation after it", _LRA)
    evaluation_episodes: int = setting(16, "fitness evaluation: episodes", _OURS)
    max_episode_steps: int = same_setting(MetaConfig, "max_episode_steps")
    width: int = same_setting(LPOConfig, "width")
    warm_start: bool = same_setting(LPOConfig, "warm_start")
    time_aware: bool = same_setting(LPOConfig, "time_aware")
    num_envs: int = same_setting(PPOConfig, "num_envs")
    num_steps: int = same_setting(PPOConfig, "num_steps")
    num_epochs: int = same_setting(PPOConfig, "num_epochs")
    num_minibatches: int = same_setting(PPOConfig, "num_minibatches")
    normalize_advantage: str = same_setting(PPOConfig, "normalize_advantage")
    clip_value: bool = same_setting(PPOConfig, "clip_value")
    anneal_learning_rate: bool = same_setting(PPOConfig, "anneal_learning_rate")
    optimizer: str = same_setting(PPOConfig, "optimizer")
    hidden_sizes: tuple[int, ...] = same_setting(PPOConfig, "hidden_sizes")
    activation: str = same_setting(PPOConfig, "activation")
    torso: str = same_setting(PPOConfig, "torso")
    shared_torso: bool = same_setting(PPOConfig, "shared_torso")
    normalize_obs: bool = same_setting(PPOConfig, "normalize_obs")
    normalize_reward: bool = same_setting(PPOConfig, "normalize_reward")
    reset_pool: int | None = same_setting(PPOConfig, "reset_pool")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "max_episode_steps")
        check_choice("fitness", self.fitness, FITNESSES)
        self.rule, self.agent  # noqa: B018 - their own checks
        check_population(self)

    @property
    def rule(self) -> LPOConfig:
        """Of the drift."""
        return LPOConfig(width=self.width, warm_start=self.warm_start, time_aware=self.time_aware)

    @property
    def agent(self) -> PPOConfig:
        """Of every agent."""
        own = {field.name for field in dataclasses.fields(self)} - {"total_steps"}
        names = [field.name for field in dataclasses.fields(PPOConfig) if field.name in own]
        return PPOConfig(total_steps=self.agent_steps, **{name: getattr(self, name) for name in names})


@struct.dataclass
class EvolvedDriftHparams:
    """The numbers of the evolution of a learned drift; each may be swept in one program."""

    meta_learning_rate: Any = setting(0.03, "of Adam on the rule, in the first generation", _LRA, low=0.0)
    meta_learning_rate_decay: Any = setting(0.99, "its factor per generation", _LRA, low=0.0, high=1.0)
    meta_learning_rate_floor: Any = setting(0.0, "below which it does not fall", _OURS, low=0.0)
    sigma: Any = setting(0.03, "deviation of perturbations, in the first generation, above 0", _LRA, low=1e-12)
    sigma_decay: Any = setting(0.99, "its factor per generation", _LRA, low=0.0, high=1.0)
    sigma_floor: Any = setting(1e-4, "below which it does not fall, above 0", _OURS, low=1e-12)
    learning_rate: Any = same_setting(PPOHparams, "learning_rate")
    gamma: Any = same_setting(PPOHparams, "gamma")
    gae_lambda: Any = same_setting(PPOHparams, "gae_lambda")
    clip_eps: Any = same_setting(PPOHparams, "clip_eps")
    vf_coef: Any = same_setting(PPOHparams, "vf_coef")
    ent_coef: Any = same_setting(PPOHparams, "ent_coef")
    max_grad_norm: Any = same_setting(PPOHparams, "max_grad_norm")


def lpg_pupil(env: Environment, config: TALPGConfig, hp: Any, params: Params, level: Any) -> Agent:
    """An agent of LPG as `ta_lpg` raises it; `params` of the rule and `level` may be traced."""
    spaces = env.observation_space(level), env.action_space(level)
    return actor_critic(lpg_objective(params, config.rule, hp), *spaces, config.agent, hp)


def lpg_loop(agent: Agent, env: Environment, config: TALPGConfig, level: Any, num_updates: Any) -> Algorithm:
    """The loop that an agent of `lpg_pupil` learns on."""
    sizes = {"num_envs": config.num_envs, "num_steps": config.num_steps}
    return on_policy(agent, env, level, **sizes, num_updates=num_updates)


def ta_lpg(
    env: Environment,
    config: TALPGConfig = TALPGConfig(),
    hp: TALPGHparams = TALPGHparams(),
    env_params: Any = None,
    spread: Spread | None = None,
) -> Algorithm:
    """Evolves a learned policy gradient that may know how much of an agent's lifetime is over.

    Every group gets a fresh level. Lifetimes of different lengths run side by side, each until its own end; a chunk of
    the population takes as long as the longest in it.

    Args:
      env: of one instance, with discrete actions. Its `sample_params(key)`, if it has one, draws the levels; their
        `lifetime`, if they have one, is in agent updates, and cut at `config.lifetime`.
      config: static settings.
      hp: numbers; may be traced.
      env_params: the only level of environments that draw none; of the others, for their shapes.
      spread: in the place of chunks of `config.population_batch`, as `evolve` takes it: to use several devices.
    Returns:
      An `Algorithm` whose state has the rule as `params`, the mean of the population.
    Raises:
      ValueError: for other actions, or a torso that does not fit the observations.
    References:
      Jackson et al. 2024, arXiv:2402.05828. Differs: ties in a pair count half for both; by default, members of a pair
      act with the same keys.
    """
    params = env.default_params if env_params is None else env_params
    draw = level_drawer(env, params)

    lpg_objective({}, config.rule, hp).heads(env.action_space(params))
    lpg_pupil(env, config, hp, {}, params)  # what does not fit is told here, not from inside a compilation

    def fitness(key: Key, own_key: Key, eta: Params) -> Evaluation:
        key_level, key_life, key_final = jax.random.split(key, 3)
        own_life, own_final = own_keys(config, own_key, key_life, key_final)
        level = draw(key_level)
        num_updates = jnp.minimum(getattr(level, "lifetime", config.lifetime), config.lifetime)
        agent = lpg_pupil(env, config, hp, eta, level)
        algorithm = lpg_loop(agent, env, config, level, num_updates)
        state, _ = live(key_life, own_life, algorithm, num_updates)
        cap, num = config.max_episode_steps, config.evaluation_episodes
        episodes = evaluate(own_final, agent, state.agent, env, level, num, max_steps=cap, explore=True)
        steps = num_updates * config.num_envs * config.num_steps
        return Evaluation(episodes.returns.mean(), (), steps + num_played(episodes))

    return evolved(config, hp, fitness, lambda key: lpg_init(key, config.rule), spread)


def lpo(
    env: Environment,
    config: EvolvedDriftConfig = EvolvedDriftConfig(),
    hp: EvolvedDriftHparams = EvolvedDriftHparams(),
    env_params: Any = None,
    spread: Spread | None = None,
) -> Algorithm:
    """Evolves a drift for PPO: LPO, and with `config.time_aware` TA-LPO.

    Args:
      env: of one instance. Its `sample_params(key)`, if it has one, draws a level for every group.
      config: static settings.
      hp: numbers; may be traced.
      env_params: the environment's, if it draws none; may be traced.
      spread: as in `ta_lpg`.
    Returns:
      An `Algorithm` whose state has the rule as `params`, the mean of the population.
    Raises:
      ValueError: for an action space that no policy covers, or a torso that does not fit the observations.
    References:
      Lu et al. 2022, arXiv:2210.05639; Jackson et al. 2024, arXiv:2402.05828.
    """
    params = env.default_params if env_params is None else env_params
    draw = level_drawer(env, params)
    agent_config = config.agent

    def pupil(eta: Params, level: Any) -> Agent:
        spaces = env.observation_space(level), env.action_space(level)
        objective = lpo_objective(eta, config.rule, hp, config.normalize_advantage, config.clip_value)
        return actor_critic(objective, *spaces, agent_config, hp)

    pupil({}, params)  # what does not fit is told here

    def fitness(key: Key, own_key: Key, eta: Params) -> Evaluation:
        key_level, key_life, key_final = jax.random.split(key, 3)
        own_life, own_final = own_keys(config, own_key, key_life, key_final)
        level = draw(key_level)
        agent = pupil(eta, level)
        algorithm = on_policy_algorithm(agent, env, agent_config, level)
        state, last_return = live(key_life, own_life, algorithm, agent_config.num_updates)
        if config.fitness == "training":
            return Evaluation(last_return, (), config.steps_per_life)
        cap, num = config.max_episode_steps, config.evaluation_episodes
        episodes = evaluate(own_final, agent, state.agent, env, level, num, max_steps=cap)
        return Evaluation(episodes.returns.mean(), (), config.steps_per_life + num_played(episodes))

    return evolved(config, hp, fitness, lambda key: lpo_init(key, config.rule), spread)


def _families() -> dict[str, dict[str, Any]]:
    """PPO's published settings, each for as many generations as the default."""
    default, overrides = EvolvedDriftConfig(), on_policy_presets.PRESETS["ppo"].overrides
    generations = default.total_steps // (2 * default.num_pairs * default.agent_steps)
    found = {}
    for family, settings in overrides.items():
        agent_steps = settings["total_steps"]
        total_steps = generations * 2 * default.num_pairs * agent_steps
        found[family] = {**settings, "agent_steps": agent_steps, "total_steps": total_steps}
    return found


_LPO = Preset(
    summary="evolves a drift for PPO",
    reference="arXiv:2210.05639",
    config=EvolvedDriftConfig(),
    hparams=EvolvedDriftHparams(),
    agent=no_policy,
    make=lpo,
    overrides=_families(),
    rule=learned_rule("lpo"),
    splits=True,
)
PRESETS: dict[str, Preset] = {
    "ta_lpg": Preset(
        summary="evolves a learned policy gradient that knows its agents' lifetimes",
        reference="arXiv:2402.05828",
        config=TALPGConfig(),
        hparams=TALPGHparams(),
        agent=no_policy,
        make=ta_lpg,
        overrides={},
        action_spaces="Discrete",
        rule=learned_rule("lpg"),
        splits=True,
    ),
    "lpo": _LPO,
    "ta_lpo": _LPO._replace(
        summary="evolves a drift for PPO that knows how much of the lifetime is over",
        reference="arXiv:2402.05828",
        config=EvolvedDriftConfig(time_aware=True),
    ),
}
