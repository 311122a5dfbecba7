"""Ready-made meta-learners: rules that are learnt by meta-gradients over the lifetimes of many agents."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from jaxrl.agents.actor_critic import actor_critic
from jaxrl.agents.critic import AgentWithCritic, with_critic
from jaxrl.algorithm import Algorithm
from jaxrl.env import Environment
from jaxrl.evaluation import evaluate
from jaxrl.loops.on_policy import on_policy
from jaxrl.meta.bandit import bandit_levels
from jaxrl.meta.gradient import Lifetime, meta_gradient
from jaxrl.meta.levels import PRIORITIES, LevelSampler, fixed_levels, frozen_levels, replay_levels, uniform_levels
from jaxrl.meta.outcome import policy_gradient_outcome, value_errors
from jaxrl.networks import TORSOS
from jaxrl.objectives import a2c_objective
from jaxrl.objectives.lpg import CORES, TIME_FEATURES, LPGConfig, lpg_init, lpg_objective
from jaxrl.presets.base import Preset
from jaxrl.presets.on_policy import PPOConfig
from jaxrl.rules import Rule
from jaxrl.settings import check_at_least, check_choice, setting
from jaxrl.types import Agent, Key, Metrics, Objective, Params

UNSCORED = ("uniform", "frozen")  # levels are drawn whatever became of them
SCORES = (*UNSCORED, "alg_regret", "optimal_regret", "l1_value_loss", "positive_value_loss", "max_mc")
_OH = "Oh et al. 2020, arXiv:2007.08794"
_GROOVE = "Jackson et al. 2023, arXiv:2310.02782"
_RELEASE = "EmptyJackson/groove"
_REIMPLEMENTED = "jjgarau/LPG"
_OURS = "jaxrl"


class LPGParts:
    """What follows from a configuration that has the fields of `LPGConfig` and those of LPG's agents."""

    @property
    def rule(self) -> LPGConfig:
        """Of the meta-network."""
        return LPGConfig(**{field.name: getattr(self, field.name) for field in dataclasses.fields(LPGConfig)})

    @property
    def agent(self: Any) -> PPOConfig:
        """Of every agent: one step per rollout, with a constant learning rate, for `lifetime` updates at most."""
        names = ("num_envs", "num_steps", "hidden_sizes", "activation", "torso", "optimizer")
        return PPOConfig(
            **{name: getattr(self, name) for name in names},
            total_steps=self.lifetime * self.num_envs * self.num_steps,
            num_epochs=1,
            num_minibatches=1,
            normalize_advantage="batch",
            anneal_learning_rate=False,
        )


@dataclasses.dataclass(frozen=True)
class MetaConfig(LPGParts):
    """What fixes shapes and branches of meta-training by meta-gradients."""

    total_steps: int = setting(20_000_000_000, "environment steps in all, evaluations not counted", _RELEASE)
    num_lifetimes: int = setting(512, "agents that live at a time, each on a level of its own", _GROOVE)
    lifetime_batch: int = setting(32, "lifetimes differentiated at once; divides num_lifetimes", _RELEASE)
    ended_batch: int = setting(16, "ended lifetimes that are played out and replaced at once", _OURS)
    num_inner: int = setting(5, "updates of an agent per meta-update (K)", _GROOVE)
    num_envs: int = setting(64, "parallel environments of one agent", _GROOVE)
    num_steps: int = setting(20, "steps per environment and update", _GROOVE)
    lifetime: int = setting(250, "updates of an agent, where the environment's parameters do not say it", _RELEASE)
    max_episode_steps: int = setting(100_000, "an episode of an evaluation ends here at the latest", _OURS)
    core: str = setting("gru", "of the meta-network: gru or lstm", _RELEASE)
    width: int = setting(256, "of the core", _RELEASE)
    target_width: int = setting(8, "bins of an agent's prediction", _RELEASE)
    embedding_width: int = setting(16, "of the hidden layer that reads predictions", _RELEASE)
    include_gamma: bool = setting(False, "the discount factor is an input of the meta-network", _RELEASE)
    time_features: str = setting("none", "none, paper (n/N and log N) or raw (counters)", _OURS)
    torso: str = setting("table", "of agents: table (of indexed observations), mlp or cnn", _RELEASE)
    hidden_sizes: tuple[int, ...] = setting((32,), "of agents, unless they have a table", _RELEASE)
    activation: str = setting("relu", "of agents", _OURS)
    optimizer: str = setting("sgd", "of agents: sgd, adam or rmsprop", _GROOVE)
    score: str = setting("uniform", f"of levels: {', '.join(SCORES)}", _GROOVE)
    bandit_learning_rates: tuple[float, ...] = setting(
        (), "of agents, between which a bandit chooses for each lifetime; none: learning_rate", _OH
    )
    bandit_prediction_coefs: tuple[float, ...] = setting((), "likewise; none: prediction_coef", _OH)
    play_ended: bool = setting(
        False, "for lifetime/return, and the optimal one where it is known, whatever the score", _OURS
    )
    num_levels: int = setting(4000, "places in the buffer of levels; how many are frozen", _GROOVE)
    priority: str = setting("rank", "how scores become priorities: rank or topk", _RELEASE)

    def __post_init__(self) -> None:
        check_at_least(
            self, 1, "total_steps", "num_lifetimes", "lifetime_batch", "ended_batch", "num_inner", "num_envs",
            "num_steps", "lifetime", "max_episode_steps", "num_levels",
        )  # fmt: skip
        for name, choices in (
            ("core", CORES), ("time_features", TIME_FEATURES), ("torso", TORSOS), ("score", SCORES),
            ("priority", PRIORITIES),
        ):  # fmt: skip
            check_choice(name, getattr(self, name), choices)
        if self.num_lifetimes % self.lifetime_batch:
            fits = [n for n in range(1, self.num_lifetimes + 1) if self.num_lifetimes % n == 0]
            near = min(fits, key=lambda n: abs(n - self.lifetime_batch))
            raise ValueError(
                f"num_lifetimes = {self.num_lifetimes} is not divisible by lifetime_batch = {self.lifetime_batch}; "
                f"use {near}"
            )
        if self.num_inner > self.lifetime:
            raise ValueError(
                f"num_inner = {self.num_inner} is more than the lifetime = {self.lifetime}; a meta-update cannot "
                f"look at more updates than an agent has: use num_inner = {self.lifetime} or less, or longer lifetimes"
            )
        if self.num_updates < 1:
            raise ValueError(f"total_steps = {self.total_steps} is less than one meta-update; use at least "
                             f"{self.steps_per_update}")  # fmt: skip
        if self.num_arms and self.score != "uniform":
            raise ValueError(
                f"score = {self.score!r} with a bandit: its arms are compared by returns on levels drawn alike; "
                "use score = 'uniform', or neither bandit_learning_rates nor bandit_prediction_coefs"
            )
        self.rule, self.agent  # noqa: B018 - their own checks

    @property
    def num_arms(self) -> int:
        """Pairs between which the bandit chooses; 0 without one."""
        rates, coefs = self.bandit_learning_rates, self.bandit_prediction_coefs
        return max(1, len(rates)) * max(1, len(coefs)) if rates or coefs else 0

    def with_arm(self, hp: Any, arm: jax.Array) -> Any:
        """The numbers of an agent whose lifetime has been given this arm."""
        rates, coefs = self.bandit_learning_rates, self.bandit_prediction_coefs
        of_rates, of_coefs = jnp.divmod(arm, max(1, len(coefs)))
        changes = {"learning_rate": (rates, of_rates), "prediction_coef": (coefs, of_coefs)}
        return hp.replace(**{n: jnp.asarray(values)[index] for n, (values, index) in changes.items() if values})

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one meta-update, that on which agents are judged included."""
        return self.num_lifetimes * self.num_envs * self.num_steps * (self.num_inner + 1)

    @property
    def num_updates(self) -> int:
        """Meta-updates of the whole run."""
        return self.total_steps // self.steps_per_update


@struct.dataclass
class MetaHparams:
    """The numbers of meta-training; each may be swept in one program."""

    meta_learning_rate: Any = setting(1e-4, "of Adam on the rule", _GROOVE, low=0.0)
    learning_rate: Any = setting(40.0, "of agents", _GROOVE, low=0.0)
    critic_learning_rate: Any = setting(4.0, "of the critics that judge agents", _RELEASE, low=0.0)
    max_grad_norm: Any = setting(0.5, "global norm to which gradients of agents are clipped", _RELEASE, low=0.0)
    gamma: Any = setting(0.99, "discount factor, in [0, 1]", _GROOVE, low=0.0, high=1.0)
    gae_lambda: Any = setting(0.95, "trace decay of the advantage estimate, in [0, 1]", _RELEASE, low=0.0, high=1.0)
    prediction_coef: Any = setting(0.5, "weight of the prediction's loss (alpha_y)", _GROOVE, low=0.0)
    policy_entropy_coef: Any = setting(0.05, "weight of the entropy of policies in the meta-loss", _GROOVE)
    prediction_entropy_coef: Any = setting(1e-3, "weight of the entropy of predictions in the meta-loss", _GROOVE)
    policy_target_coef: Any = setting(5e-3, "weight of the squared targets of policies in the meta-loss", _GROOVE)
    prediction_target_coef: Any = setting(1e-3, "weight of the squared targets of predictions", _GROOVE)
    ent_coef: Any = setting(0.01, "weight of the antagonists' entropy bonus", _RELEASE)
    vf_coef: Any = setting(0.0, "weight of a value loss inside antagonists, whose values are a critic's", _OURS)
    replay_probability: Any = setting(0.5, "with which a lifetime gets a level again", _GROOVE, low=0.0, high=1.0)
    score_temperature: Any = setting(1.0, "of priorities by rank, above 0", _RELEASE, low=1e-6)
    staleness_coef: Any = setting(0.0, "share of priorities by staleness", _OURS, low=0.0, high=1.0)
    bandit_temperature: Any = setting(0.1, "of the bandit's softmax, in units of the return", _REIMPLEMENTED, low=1e-6)
    bandit_bonus: Any = setting(0.2, "of rarely chosen arms, in units of the return", _REIMPLEMENTED, low=0.0)


def meta_agent(env: Environment, config: MetaConfig, hp: Any, level: Any, objective: Objective) -> AgentWithCritic:
    """An agent as it lives in meta-training: one network, whatever the objective, and a critic beside it."""
    obs_space, action_space = env.observation_space(level), env.action_space(level)
    agent = actor_critic(objective, obs_space, action_space, config.agent, hp)
    return with_critic(agent, obs_space, config.agent, hp)


def lpg_lifetime(env: Environment, config: MetaConfig, hp: Any, params: Params, level: Any) -> Lifetime:
    """One agent of LPG on one level, and what it is judged by; `params` and `level` may be traced."""
    objective = lpg_objective(params, config.rule, hp)
    agent, fit = meta_agent(env, config, hp, level, objective)
    # The backward pass works an update out again from its rollout instead of keeping what is inside.
    agent = agent._replace(update=jax.checkpoint(agent.update))
    num_updates = getattr(level, "lifetime", config.lifetime)

    def loop(agent: Agent) -> Algorithm:
        return on_policy(
            agent, env, level, num_envs=config.num_envs, num_steps=config.num_steps, num_updates=num_updates
        )

    # The same network, head by head, so that the two differ in nothing but what they optimise.
    rival = a2c_objective(hp, "batch")._replace(heads=objective.heads)
    antagonist = meta_agent(env, config, hp, level, rival).agent
    companion = loop(antagonist) if config.score == "alg_regret" else None

    def mean_return(key: Key, agent: Agent, state: Any) -> jax.Array:
        episodes = evaluate(
            key, agent, state, env, level, config.num_envs, max_steps=config.max_episode_steps, explore=True
        )
        return episodes.returns

    def final(key: Key, state: Any, companion_state: Any) -> tuple[jax.Array, Metrics]:
        key_own, key_other = jax.random.split(key)
        if config.score in UNSCORED and not config.play_ended and not config.num_arms:
            return jnp.float32(0.0), {}
        returns = mean_return(key_own, agent, state.agent)
        metrics = {"return": returns.mean()}
        if config.play_ended and knows_optimum(env):
            metrics["optimal_return"] = env.optimal_return(level)  # type: ignore[attr-defined]
        if config.score in UNSCORED:
            return metrics["return"] if config.num_arms else jnp.float32(0.0), metrics
        if config.score == "alg_regret":
            # The same key: on a level that leaves nothing to either, equal agents have a regret of exactly 0.
            other = mean_return(key_own, antagonist, companion_state.agent).mean()
            return other - metrics["return"], metrics | {"antagonist_return": other}
        if config.score == "optimal_regret":
            best = env.optimal_return(level)  # type: ignore[attr-defined]
            return best - metrics["return"], metrics | {"optimal_return": best}
        _, errors = loop(value_errors(agent, hp)).step(key_other, state, jnp.int32(0))
        if config.score == "max_mc":
            return returns.max() - errors["value"], metrics
        return errors[config.score], metrics

    examine = loop(policy_gradient_outcome(agent, fit, hp)).step
    return Lifetime(loop(agent), num_updates, examine, companion, final)


def knows_optimum(env: Environment) -> bool:
    """Whether the environment tells the best expected return of a level; grid-worlds do if they are tabular."""
    return hasattr(env, "optimal_return") and getattr(env, "tabular", True)


def level_drawer(env: Environment, params: Any) -> Callable[[Key], Any]:
    """`(key) -> level`: `env.sample_params(key)`, or where the environment has none, always `params`."""
    draw = getattr(env, "sample_params", None)
    return lambda key: jax.tree.map(jnp.asarray, draw(key) if draw else params)


def level_source(env: Environment, config: MetaConfig, hp: Any, params: Any) -> LevelSampler:
    """Levels as `config.score` says, with arms if there is a bandit; a task of it is one of a finite set of levels."""
    sample_level = level_drawer(env, params)
    levels = getattr(env, "levels", None)
    if config.num_arms:
        return bandit_levels(*_tasks(sample_level, levels), config.num_arms, config.num_lifetimes, hp)
    if config.score == "uniform":
        return uniform_levels(sample_level)
    if config.score == "frozen":
        return frozen_levels(sample_level, config.num_levels) if levels is None else fixed_levels(levels)
    return replay_levels(sample_level, config.num_lifetimes, config.num_levels, hp, config.priority)


def _tasks(sample_level: Callable[[Key], Any], levels: Any) -> tuple[Callable[[Key], Any], int]:
    """`key -> (level, task)` and the number of tasks: each of a finite set of levels, or one for all there are."""
    if levels is None:
        return lambda key: (sample_level(key), 0), 1
    num = jax.tree.leaves(levels)[0].shape[0]

    def draw(key: Key) -> tuple[Any, jax.Array]:
        task = jax.random.randint(key, (), 0, num)
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[task], levels), task

    return draw, num


def lpg(
    env: Environment, config: MetaConfig = MetaConfig(), hp: MetaHparams = MetaHparams(), env_params: Any = None
) -> Algorithm:
    """Meta-trains a learned policy gradient; with `config.score`, by GROOVE's curriculum.

    Args:
      env: of one instance, with discrete actions. Its `sample_params(key)`, if it has one, draws the levels; their
        `lifetime`, if they have one, is in agent updates. Its `levels` [M, …], if it has them, are all that it draws.
      config: static settings.
      hp: numbers; may be traced.
      env_params: the only level of environments that draw none; of the others, for their shapes.
    Returns:
      An `Algorithm` whose state has the rule as `params`.
    Raises:
      ValueError: for other actions, a torso that does not fit the observations, levels on which agents live for less
        than `config.num_inner` updates, or a score that the environment cannot give.
    References:
      Oh et al. 2020, arXiv:2007.08794; Jackson et al. 2023, arXiv:2310.02782.
    """
    if config.score == "optimal_regret" and not knows_optimum(env):
        raise ValueError(
            "score = 'optimal_regret' needs an environment with `optimal_return(params)`, as tabular grid-worlds have; "
            "use 'alg_regret'"
        )
    params = env.default_params if env_params is None else env_params
    # What does not fit is told here, not from inside a compilation.
    lpg_objective({}, config.rule, hp).heads(env.action_space(params))
    _check_lifetimes(env, config, params)
    meta_agent(env, config, hp, params, lpg_objective({}, config.rule, hp))
    regularizers = {
        "policy/entropy": -hp.policy_entropy_coef,
        "prediction/entropy": -hp.prediction_entropy_coef,
        "target/policy_square": hp.policy_target_coef,
        "target/prediction_square": hp.prediction_target_coef,
    }

    def inner(eta: Params, drawn: Any) -> Lifetime:
        if not config.num_arms:
            return lpg_lifetime(env, config, hp, eta, drawn)
        return lpg_lifetime(env, config, config.with_arm(hp, drawn.arm), eta, drawn.level)

    return meta_gradient(
        inner,
        lambda key: lpg_init(key, config.rule),
        optax.chain(optax.scale_by_adam(), optax.scale(-1.0), _scale_by(hp.meta_learning_rate)),
        level_source(env, config, hp, params),
        config,
        regularizers,
    )


def _says_lifetime(level: Any) -> bool:
    return hasattr(level, "lifetime") and not isinstance(level.lifetime, jax.core.Tracer)


def _check_lifetimes(env: Environment, config: MetaConfig, params: Any) -> None:
    """Levels may say how long agents live: of random ones the distribution knows the least."""
    known = [getattr(env, "levels", None), params]
    shortest = next((np.min(level.lifetime) for level in known if _says_lifetime(level)), config.lifetime)
    if getattr(env, "distribution", None) is not None:
        shortest = env.distribution.lifetime[0]  # type: ignore[attr-defined]
    if not isinstance(shortest, jax.core.Tracer) and config.num_inner > int(shortest):
        raise ValueError(
            f"num_inner = {config.num_inner} is more than the shortest lifetime of these levels, {int(shortest)}; use "
            f"num_inner = {int(shortest)} or less, or levels on which agents live longer"
        )


def _scale_by(factor: Any) -> optax.GradientTransformation:
    return optax.stateless(lambda updates, params: jax.tree.map(lambda u: factor * u, updates))


def no_policy(env: Environment, config: Any, hp: Any, env_params: Any = None) -> Agent:
    """The `agent` of presets that leave none: raises ValueError."""
    raise ValueError(
        "a run of meta-training leaves a rule and no policy: save the rule, `jaxrl rule RUN --out RULE.npz`, then "
        "train an agent with it, `jaxrl train a2c ENV --objective RULE.npz`"
    )


def learned_rule(kind: str) -> Callable[[Any, Any], Rule]:
    """What an algorithm whose state has the rule as `params` has learned, as `Preset.rule`."""
    return lambda config, state: Rule(kind, config.rule, state.params, {})


_LPG = Preset(
    summary="meta-trains a learned policy gradient over random levels",
    reference="arXiv:2007.08794",
    config=MetaConfig(),
    hparams=MetaHparams(),
    agent=no_policy,
    make=lpg,
    overrides={},
    action_spaces="Discrete",
    rule=learned_rule("lpg"),
)
PRESETS: dict[str, Preset] = {
    "lpg": _LPG,
    # Meta-updates in all are not known.
    "lpg2020": _LPG._replace(
        summary="LPG as first published: an LSTM, and a bandit over the numbers of agents",
        config=MetaConfig(
            num_lifetimes=960,
            lifetime=2343,
            core="lstm",
            target_width=30,
            include_gamma=True,
            bandit_learning_rates=(20.0, 40.0, 80.0),
            bandit_prediction_coefs=(0.1, 0.5, 1.0),
        ),
        hparams=MetaHparams(gamma=0.995, policy_entropy_coef=0.01, policy_target_coef=1e-3),
    ),
    "groove": _LPG._replace(
        summary="LPG on a curriculum of levels where A2C does better",
        reference="arXiv:2310.02782",
        config=MetaConfig(score="alg_regret"),
    ),
}
