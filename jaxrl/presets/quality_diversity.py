"""Ready-made quality-diversity: archives of policies, by variation alone or with an agent that learns beside it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.agents.policy import player
from jaxrl.agents.td3 import TD3Networks, td3, td3_networks
from jaxrl.algorithm import Algorithm
from jaxrl.env import Environment, time_limit
from jaxrl.evo.episodes import Behaviour, episodes
from jaxrl.evo.evolve import Spread, in_chunks
from jaxrl.networks import INITIALIZERS
from jaxrl.presets.base import Preset, check_network
from jaxrl.presets.continuous import TD3Config, TD3Hparams, check_td3
from jaxrl.presets.policies import behaviour_of
from jaxrl.qd.archive import Container, annealed, elites, individuals_at, nearest_individual
from jaxrl.qd.conditioning import PolicyGradientNumbers, PolicyGradientSizes, scaled
from jaxrl.qd.emitters import Emitter, iso_line
from jaxrl.qd.map_elites import map_elites as map_elites_loop
from jaxrl.qd.metrics import Evaluate
from jaxrl.qd.novelty import dominated_novelty
from jaxrl.qd.policy_gradient import Learner, policy_gradient
from jaxrl.qd.tessellation import Tessellation, cvt_centroids, grid, voronoi
from jaxrl.settings import check_at_least, check_choice, setting
from jaxrl.spaces import Box, Space
from jaxrl.types import Agent, Key, Metrics, Params
from jaxrl.value_networks import fold_inputs

_OURS = "jaxrl"
_DCG = "Faldor et al. 2023, arXiv:2303.03832"
_DCRL = "Faldor et al. 2025, arXiv:2401.08632, its code"
_PGA = "Nilsson and Cully 2021"
_CMA_MAE = "Fontaine and Nikolaidis 2023, arXiv:2205.10752"
_DNS = "Bahlous-Boldi et al. 2025, arXiv:2502.00593"
CONTAINERS = ("elites", "annealed", "dominated_novelty")
_NETWORKS = ("hidden_sizes", "activation", "initializer", "torso")


@dataclasses.dataclass(frozen=True)
class MapElitesConfig:
    """What fixes shapes and branches of a run of MAP-Elites over policies."""

    total_steps: int = setting(256_000_000, "environment steps, at most; the first population not counted", _DCRL)
    episode_steps: int = setting(250, "steps after which an episode is truncated", _DCRL)
    num_initial: int = setting(256, "random policies at the start", _DCRL)
    num_ga: int = setting(256, "offspring of iso+line variation per iteration", _DCRL)
    num_cells: int = setting(1024, "cells of a centroidal Voronoi tessellation", _DCRL)
    grid_shape: tuple[int, ...] = setting((), "cells of a grid along each axis, in the place of num_cells", _OURS)
    num_samples: int = setting(50_000, "points from which centroids are made", _DCRL)
    centroid_seed: int = setting(0, "of the centroids, which all seeds share", _OURS)
    hidden_sizes: tuple[int, ...] = setting((128, 128), "of policies", _DCRL)
    activation: str = setting("relu", "tanh, relu, swish, gelu or elu", _DCRL)
    initializer: str = setting("lecun_uniform", "of networks: orthogonal or lecun_uniform", _DCRL)
    population_batch: int = setting(0, "policies evaluated side by side; 0 is all", _OURS)
    container: str = setting("elites", f"what is kept: {', '.join(CONTAINERS)}", _DCRL)
    num_neighbors: int = setting(3, "dominated_novelty: fitter individuals to which distances are averaged", _DNS)

    def __post_init__(self) -> None:
        check_at_least(
            self, 1, "total_steps", "episode_steps", "num_initial", "num_cells", "num_samples", "num_neighbors"
        )
        check_at_least(self, 0, "population_batch", "centroid_seed", "num_ga")
        check_network(self)
        check_choice("initializer", self.initializer, INITIALIZERS)
        check_choice("container", self.container, CONTAINERS)
        if self.num_evaluations < 1:
            raise ValueError("an iteration makes no individual: expected num_ga >= 1, or another operator's number")
        if self.num_updates < 1:
            raise ValueError(
                f"total_steps = {self.total_steps} is less than one iteration of {self.num_evaluations} episodes; use "
                f"at least {self.steps_per_update}"
            )

    @property
    def torso(self) -> str:
        """Policies see vectors."""
        return "mlp"

    @property
    def num_evaluations(self) -> int:
        """Episodes per iteration."""
        return self.num_ga

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one iteration, at most."""
        return self.num_evaluations * self.episode_steps

    @property
    def initial_steps(self) -> int:
        """Environment steps of the first population, at most."""
        return self.num_initial * self.episode_steps

    @property
    def num_updates(self) -> int:
        """Iterations of the whole run."""
        return self.total_steps // self.steps_per_update


@struct.dataclass
class MapElitesHparams:
    """The numbers of a run of MAP-Elites; each may be swept in one program."""

    iso_sigma: Any = setting(0.005, "deviation of the noise on parameters", _PGA, low=0.0)
    line_sigma: Any = setting(0.05, "deviation along the line between two parents, in their distances", _PGA, low=0.0)
    qd_offset: Any = setting(0.0, "added to every fitness in the QD score; minus the lowest there can be", _OURS)
    threshold_rate: Any = setting(
        0.01, "annealed: how fast thresholds follow what they let in", _CMA_MAE, low=0.0, high=1.0
    )
    threshold_minimum: Any = setting(0.0, "annealed: the first threshold; the lowest fitness there can be", _CMA_MAE)


@dataclasses.dataclass(frozen=True)
class DCRLConfig(MapElitesConfig):
    """What fixes shapes and branches of a run with an agent."""

    num_ga: int = setting(128, "offspring of iso+line variation per iteration", _DCRL)
    num_pg: int = setting(64, "offspring of policy-gradient variation per iteration", _DCRL)
    num_injected: int = setting(64, "copies of the actor per iteration, each told a descriptor", _DCRL)
    num_probes: int = setting(0, "the same, evaluated for the agent only and kept out of the archive", _DCRL)
    num_agent_updates: int = setting(3000, "updates of the agent per iteration", _DCRL)
    num_pg_steps: int = setting(150, "gradient steps of each parent", _DCRL)
    batch_size: int = setting(100, "transitions per update", _DCRL)
    buffer_size: int = setting(1_000_000, "transitions that are remembered", _DCRL)
    conditioned: bool = setting(True, "agent and critic are told descriptors", _DCRL)
    blind_actor: bool = setting(False, "the actor sees zeros for the descriptor, and the critic is told it", _DCRL)
    pg_command: str = setting("parent", "of the experience of pg offspring: parent's or own descriptor", _DCRL)
    negatives: str = setting("none", "reversed learns each batch again with others' descriptors", _DCG)
    mask_truncated: bool = setting(True, "leave truncated transitions out instead of bootstrapping", _DCRL)
    drop_repeated: bool = setting(False, "leave out what fills the buffer after an early end", _OURS)
    critic_hidden_sizes: tuple[int, ...] = setting((256, 256), "of critics; () as policies", _DCRL)
    critic_targets: str = setting("every", "when critics' targets move: every update, or delayed with the actor", _DCRL)
    policy_delay: int = setting(2, "updates of the critics per update of the actor", _DCRL)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_td3(self)
        check_at_least(self, 1, "policy_delay")
        self.sizes  # noqa: B018 - its own checks
        most = max(self.num_evaluations, self.num_initial) * self.episode_steps
        if most > self.buffer_size:
            raise ValueError(
                f"buffer_size = {self.buffer_size} holds less than one iteration of {most} transitions; use at least "
                f"that many, or fewer individuals or episode_steps"
            )

    @property
    def num_evaluations(self) -> int:
        """Episodes per iteration, those of probes included."""
        return self.num_ga + self.num_pg + self.num_injected + self.num_probes

    @property
    def sizes(self) -> PolicyGradientSizes:
        """Of the emitter."""
        names = [field.name for field in dataclasses.fields(PolicyGradientSizes)]
        return PolicyGradientSizes(**{name: getattr(self, name) for name in names})

    @property
    def td3(self) -> TD3Config:
        """Of the agent."""
        names = (
            "hidden_sizes",
            "activation",
            "initializer",
            "torso",
            "critic_hidden_sizes",
            "critic_targets",
            "policy_delay",
        )
        return TD3Config(**{name: getattr(self, name) for name in names})


@struct.dataclass
class DCRLHparams(MapElitesHparams):
    """The numbers of a run with an agent; each may be swept in one program. Noises are in half the action's range."""

    policy_learning_rate: Any = setting(5e-3, "of policy-gradient variation", _DCRL, low=0.0)
    actor_learning_rate: Any = setting(3e-4, "of the actor's optimiser", _DCRL, low=0.0)
    critic_learning_rate: Any = setting(3e-4, "of the critics' optimiser", _DCRL, low=0.0)
    gamma: Any = setting(0.99, "discount factor, in [0, 1]", _DCRL, low=0.0, high=1.0)
    tau: Any = setting(0.005, "share of the targets that a move replaces", _DCRL, low=0.0, high=1.0)
    policy_noise: Any = setting(0.2, "deviation of the noise on targets' actions", _DCRL, low=0.0)
    noise_clip: Any = setting(0.5, "bound of the noise on targets' actions", _DCRL, low=0.0)
    length_scale: Any = setting(0.1, "of the similarity of descriptors scaled to [-1, 1]", _DCRL, low=1e-6)
    probe_sigma: Any = setting(0.0, "deviation of the noise on probes' descriptors, so scaled", _DCG, low=0.0)

    @property
    def td3(self) -> TD3Hparams:
        """Of the agent; gradients are not clipped."""
        names = ("actor_learning_rate", "critic_learning_rate", "gamma", "tau", "policy_noise", "noise_clip")
        return TD3Hparams(**{name: getattr(self, name) for name in names}, max_grad_norm=jnp.inf)


def bounded_behaviour(env: Environment, env_params: Any) -> tuple[Behaviour, np.ndarray, np.ndarray]:
    """What episodes of an environment with a time limit are described by (`behaviour_of`), and its bounds [D].

    The environment has `behaviour(state, params) -> [D]` and `behaviour_bounds(params)`.

    Raises:
      ValueError: if it has none.
    """
    if not (hasattr(env, "behaviour") and hasattr(env, "behaviour_bounds")):
        raise ValueError(
            f"{env!r} does not say what its episodes are described by: expected methods `behaviour(state, params)` and "
            "`behaviour_bounds(params)`, as of jaxrl/point_mass, jaxrl/hard_maze or brax/ant_omni"
        )

    low, high = (np.asarray(bound, np.float32) for bound in env.behaviour_bounds(env_params))
    return behaviour_of(env, env_params, lambda state: state.env_state)[0], low, high  # below the time limit


def cells_of(config: MapElitesConfig, low: np.ndarray, high: np.ndarray) -> Tessellation:
    """The grid, or the Voronoi cells, of a configuration."""
    if config.grid_shape:
        return grid(low, high, config.grid_shape)
    asked = (config.centroid_seed, config.num_cells, tuple(low.tolist()), tuple(high.tolist()), config.num_samples)
    return voronoi(_centroids(*asked), low, high)


def container_of(config: MapElitesConfig, hp: MapElitesHparams, low: np.ndarray, high: np.ndarray) -> Container:
    """What a configuration keeps; `num_cells` individuals where there are no cells."""
    if config.container == "dominated_novelty":
        return dominated_novelty(config.num_cells, config.num_neighbors)
    cells = cells_of(config, low, high)
    if config.container == "annealed":
        return annealed(cells, hp.threshold_rate, hp.threshold_minimum)
    return elites(cells)


@functools.lru_cache(maxsize=16)
def _centroids(seed: int, num: int, low: tuple[float, ...], high: tuple[float, ...], num_samples: int) -> np.ndarray:
    with jax.ensure_compile_time_eval():
        return np.asarray(cvt_centroids(jax.random.key(seed), num, np.array(low), np.array(high), num_samples))


class Parts:
    """What a run over policies is made of, for one environment."""

    def __init__(self, env: Environment, config: Any, env_params: Any) -> None:
        self.env_params = env.default_params if env_params is None else env_params
        self.obs_space, self.action_space = env.observation_space(self.env_params), env.action_space(self.env_params)
        _check_vector(self.obs_space)
        self.behaviour, self.low, self.high = bounded_behaviour(env, self.env_params)
        self.networks: TD3Networks = td3_networks(self.obs_space, self.action_space, _network_config(config))
        self.agent = player(self.networks.policy, self.init_policy)
        self.env = time_limit(env, config.episode_steps)
        self.config = config

    def init_policy(self, key: Key) -> Params:
        """A random policy."""
        return self.networks.actor.init(key, jnp.zeros((1, *self.obs_space.shape)))

    def evaluation(self, keep_transitions: bool) -> Evaluate:
        """One episode of one individual."""
        return episodes(
            self.agent, self.env, self.env_params, 1, self.config.episode_steps,
            behaviour=self.behaviour, keep_transitions=keep_transitions,
        )  # fmt: skip

    def algorithm(self, emitter: Emitter, hp: Any, spread: Spread | None, keep_transitions: bool) -> Algorithm:
        """MAP-Elites with an emitter."""
        config, evaluate = self.config, self.evaluation(keep_transitions)

        def first(key: Key) -> Params:
            return jax.vmap(self.init_policy)(jax.random.split(key, config.num_initial))

        container = container_of(config, hp, self.low, self.high)
        spread = spread or in_chunks(config.population_batch)
        return _with_returns(map_elites_loop(evaluate, emitter, container, first, len(self.low), spread, hp.qd_offset))


def map_elites(
    env: Environment,
    config: MapElitesConfig = MapElitesConfig(),
    hp: MapElitesHparams = MapElitesHparams(),
    env_params: Any = None,
    spread: Spread | None = None,
) -> Algorithm:
    """MAP-Elites over policies with iso+line variation.

    Args:
      env: of one instance, with a behaviour (`bounded_behaviour`), observations in a vector, and bounded real actions.
      config: static settings.
      hp: numbers; may be traced.
      env_params: the environment's; `None` for its defaults; may be traced.
      spread: in the place of chunks of `config.population_batch`.
    Raises:
      ValueError: for an environment without behaviour, or other observations or actions.
    References:
      Vassiliades et al. 2018, arXiv:1610.05729 (CVT-MAP-Elites), with the settings of arXiv:2401.08632.
    """
    parts = Parts(env, config, env_params)
    return parts.algorithm(iso_line(config.num_ga, hp.iso_sigma, hp.line_sigma), hp, spread, keep_transitions=False)


def dcrl_map_elites(
    env: Environment,
    config: DCRLConfig = DCRLConfig(),
    hp: DCRLHparams = DCRLHparams(),
    env_params: Any = None,
    spread: Spread | None = None,
) -> Algorithm:
    """MAP-Elites with TD3 beside it; the configuration makes it PGA-, DCG- or DCRL-MAP-Elites.

    Args:
      env, config, hp, env_params, spread: as of `map_elites`. With a conditioned agent negative rewards count as 0 to
        the agent.
    Raises:
      ValueError: as `map_elites`, and for a buffer that is too small.
    References:
      Faldor et al. 2025, arXiv:2401.08632.
    """
    parts = Parts(env, config, env_params)
    num_told = len(parts.low) if config.conditioned else 0
    num_obs = parts.obs_space.shape[0]
    told_space = Box(-jnp.inf, jnp.inf, (num_obs + num_told,))

    def view(told: jax.Array) -> jax.Array:
        return told.at[..., num_obs:].set(0.0) if config.blind_actor else told

    agent = td3(told_space, parts.action_space, config.td3, hp.td3, view)
    networks = td3_networks(told_space, parts.action_space, config.td3, view)

    inject = functools.partial(_injected, config)
    learner = Learner(agent, told_space, parts.action_space, parts.networks.policy, networks.value, inject)
    others = iso_line(config.num_ga, hp.iso_sigma, hp.line_sigma)
    numbers = PolicyGradientNumbers(hp.policy_learning_rate, hp.length_scale, hp.probe_sigma, hp.gamma)
    emitter = policy_gradient(learner, others, config.sizes, numbers, parts.low, parts.high)
    return parts.algorithm(emitter, hp, spread, keep_transitions=True)


def archive_agent(env: Environment, config: Any, hp: Any, env_params: Any = None) -> Agent:
    """Plays an individual of the archive; its state is the genotype."""
    return Parts(env, config, env_params).agent


def archive_evaluation(env: Environment, config: Any, env_params: Any = None) -> Evaluate:
    """How a run evaluates an individual, as `evaluate_again` and `map_elites` of `jaxrl.qd` take it: one episode."""
    parts = Parts(env, config, env_params)
    return parts.evaluation(keep_transitions=False)


def told_individuals(
    env: Environment, config: DCRLConfig, env_params: Any, agent_state: Any, descriptors: Any
) -> Params:
    """The actor of a run as individuals that are told descriptors once and for all.

    Args:
      env, config, env_params: of the run.
      agent_state: of its agent, `state.emitter.agent`.
      descriptors: [C, D], in units of the descriptor.
    Returns:
      Genotypes, leaves [C, …].
    """
    _, low, high = bounded_behaviour(env, env.default_params if env_params is None else env_params)
    commands = scaled(jnp.asarray(descriptors), low, high)
    return jax.vmap(functools.partial(_injected, config, agent_state))(commands)


def _injected(config: DCRLConfig, agent_state: Any, command: jax.Array) -> Params:
    command = command if config.conditioned else command[:0]
    seen = jnp.zeros_like(command) if config.blind_actor else command
    return fold_inputs(agent_state.params["actor"], seen)


def chosen_individual(
    env: Environment, config: Any, env_params: Any, state: Any, descriptor: Sequence[float]
) -> tuple[Params, str]:
    """The individual of a run's archive that does about what is asked for (`nearest_individual`), and what it does."""
    _, low, high = bounded_behaviour(env, env.default_params if env_params is None else env_params)
    place = nearest_individual(state.archive, descriptor, low, high)
    genotype, _, does = individuals_at(state.archive, jnp.asarray(place))
    numbers = ", ".join(f"{value:.3g}" for value in np.asarray(does))
    return genotype, f"descriptor ({numbers}) in cell {place}"


def _network_config(config: MapElitesConfig) -> TD3Config:
    return TD3Config(**{name: getattr(config, name) for name in _NETWORKS})


def _with_returns(algorithm: Algorithm) -> Algorithm:
    def step(key: Key, state: Any, t: Any) -> tuple[Any, Metrics]:
        state, metrics = algorithm.step(key, state, t)
        num = metrics["evolution/evaluations"] * (1.0 - metrics["evolution/failed"])
        return state, metrics | {"episode/return": metrics["fitness/mean"], "episode/count": num}

    return Algorithm(algorithm.init, step)


def _check_vector(space: Space) -> None:
    if not (isinstance(space, Box) and len(space.shape) == 1):
        raise ValueError(f"policies of an archive see vectors: expected a Box of one axis, got {space}")


# Steps per episode of tasks that differ.
_OVERRIDES: dict[str, dict[str, Any]] = {
    "jaxrl/point_mass": {"episode_steps": 50, "grid_shape": (16, 16), "hidden_sizes": (64, 64)},
    "jaxrl/hard_maze": {"episode_steps": 400},
}
_LONG = ("walker2d_uni", "halfcheetah_uni", "hopper_uni", "ant_uni", "humanoid_uni", "humanoid_omni")
_OVERRIDES |= {f"brax/{name}": {"episode_steps": 1000} for name in _LONG}


MAP_ELITES = Preset(
    "the best policy for each kind of behaviour, by variation alone", "arXiv:1610.05729", MapElitesConfig(),
    MapElitesHparams(), archive_agent, map_elites, _OVERRIDES, "Box", metric="archive/qd_score",
    horizon=lambda config: config.episode_steps, individual=chosen_individual,
)  # fmt: skip


def _preset(config: DCRLConfig, summary: str, reference: str) -> Preset:
    return MAP_ELITES._replace(
        summary=summary, reference=reference, config=config, hparams=DCRLHparams(), make=dcrl_map_elites
    )


PRESETS: dict[str, Preset] = {
    "map_elites": MAP_ELITES,
    "pga_map_elites": _preset(
        DCRLConfig(num_pg=127, num_injected=1, conditioned=False),
        "MAP-Elites, half of whose offspring climb the critic of a TD3 agent", "Nilsson and Cully 2021",
    ),
    "dcg_map_elites": _preset(
        DCRLConfig(num_pg=128, num_injected=0, num_probes=64),
        "PGA-MAP-Elites whose agent is told descriptors, and tried out on some in each iteration", "arXiv:2303.03832",
    ),
    "dcrl_map_elites": _preset(
        DCRLConfig(),
        "DCG-MAP-Elites whose agent enters the archive, as a policy for each of some descriptors", "arXiv:2401.08632",
    ),
}  # fmt: skip
