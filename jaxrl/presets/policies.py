"""What presets that evolve policies have in common: the network, the episodes that are its fitness, the state."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.agents.policy import PolicyState, policy_agent, policy_state
from jaxrl.algorithm import Algorithm
from jaxrl.env import Environment, sign_rewards
from jaxrl.evaluation import Moment
from jaxrl.evo.episodes import Behaviour, average, episodes, final, obs_sums
from jaxrl.evo.evolve import Evaluate, Spread, Strategy, evolve, in_chunks
from jaxrl.networks import ACTIVATIONS
from jaxrl.policy_networks import POLICY_TORSOS
from jaxrl.settings import check_at_least, check_choice, setting
from jaxrl.types import Agent, Key, Metrics, Params

_OURS = "jaxrl"
_SUCH = "Such et al. 2017, arXiv:1712.06567"


@dataclasses.dataclass(frozen=True)
class PolicyEvolutionConfig:
    """What fixes shapes and branches of every evolution of policies; each algorithm adds its own."""

    total_steps: int = setting(100_000_000, "environment steps, counted as if all episodes were the longest", _OURS)
    population: int = setting(256, "individuals per generation", _OURS)
    population_batch: int = setting(
        0, "individuals that exist and play at once, on each device; 0 for all of its part", _OURS
    )
    eval_episodes: int = setting(1, "episodes whose mean return is the fitness", _SUCH)
    max_episode_steps: int = setting(1_000, "after which an episode is cut", _OURS)
    hidden_sizes: tuple[int, ...] = setting((16, 16), "widths of the dense layers", _OURS)
    activation: str = setting("tanh", "tanh, relu, swish, gelu or elu", _OURS)
    torso: str = setting("auto", f"{', '.join(POLICY_TORSOS)}: auto is a CNN for images", _OURS)
    memory: str = setting("none", "none, or gru: a policy with a memory", _OURS)
    memory_size: int = setting(16, "width of the memory", _OURS)
    output: str = setting("clip", "real actions: clip into the box, or tanh scaled to it", _OURS)

    def __post_init__(self) -> None:
        check_at_least(self, 1, "total_steps", "population", "eval_episodes", "max_episode_steps", "memory_size")
        check_at_least(self, 0, "population_batch")
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("torso", self.torso, POLICY_TORSOS)
        if any(size < 1 for size in self.hidden_sizes):
            raise ValueError(f"hidden_sizes = {self.hidden_sizes}: expected widths >= 1, as in (64, 64)")
        if self.num_updates < 1:
            raise ValueError(
                f"total_steps = {self.total_steps} is less than one generation; use at least {self.steps_per_update}"
            )

    @property
    def normalize_obs(self) -> bool:
        """Whether policies know statistics of observations."""
        return False

    @property
    def virtual_norm(self) -> bool:
        """Whether networks have virtual batch normalisation."""
        return False

    @property
    def steps_again(self) -> int:
        """Environment steps of a generation's second evaluations, at most."""
        return 0

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one generation, at most."""
        return self.population * self.eval_episodes * self.max_episode_steps + self.steps_again

    @property
    def num_updates(self) -> int:
        """Generations of the whole run."""
        return self.total_steps // self.steps_per_update


@struct.dataclass
class PolicyEvolutionState:
    """State of an evolution of policies: the strategy's, and what it has found as the state of `policy_agent`."""

    strategy: Any
    agent: PolicyState


def evolved_policy(env: Environment, config: Any, hp: Any, env_params: Any = None) -> Agent:
    """The agent that plays what was found."""
    params = env.default_params if env_params is None else env_params
    return policy_agent(*_spaces(env, params), config, getattr(hp, "action_noise", 0.0))


def network_shapes(env: Environment, config: Any, env_params: Any) -> Params:
    """Shapes of the parameters of the policy's network."""
    return jax.eval_shape(initial_params(env, config, env_params), jax.random.key(0))


def initial_params(env: Environment, config: Any, env_params: Any) -> Callable[[Key], Params]:
    """`(key) -> params` of the policy's network."""
    spaces = _spaces(env, env_params)
    agent = policy_agent(*spaces, config)
    return lambda key: agent.init(key, *spaces).params


def behaviour_of(
    env: Environment, env_params: Any, state_of: Callable[[Any], Any] = lambda state: state
) -> tuple[Behaviour, int]:
    """What episodes of an environment are described by, and how many numbers that is.

    What the environment calls its behaviour, if it has a method `behaviour(state, params)`: that of the state after the
    last step, or with `behaviour_summary = "average"` the mean over steps. Else the last observation.

    Args:
      env, env_params: of one instance.
      state_of: finds the environment's own state in that of what wraps it.
    """
    own = getattr(env, "behaviour", None)

    def feature(moment: Moment) -> jax.Array:
        if own is None:
            return jnp.ravel(jnp.asarray(moment.timestep.final_obs, jnp.float32))
        return jnp.ravel(own(state_of(moment.env_state), env_params))

    state, obs = jax.eval_shape(env.reset, jax.random.key(0), env_params)
    seen = obs if own is None else jax.eval_shape(lambda state: own(state, env_params), state)
    averages = own is not None and getattr(env, "behaviour_summary", "final") == "average"
    return (average if averages else final)(feature), int(max(seen.size, 1))


def policy_evolution(
    strategy: Strategy,
    env: Environment,
    config: Any,
    hp: Any,
    env_params: Any,
    spread: Spread | None = None,
    again_episodes: int = 1,
) -> Algorithm:
    """Evolves policies whose fitness is their mean return.

    Args:
      strategy: of the parameters of the policy's network, or `Informed` ones; says what its `solution` is.
      env, env_params: of one instance.
      config: has the fields of `PolicyEvolutionConfig`.
      hp: the algorithm's numbers.
      spread: in the place of chunks of `config.population_batch`.
      again_episodes: of those that are evaluated again.
    Returns:
      An `Algorithm` with state `PolicyEvolutionState`. It adds "episode/return": the fitness of the elite where the
      strategy evaluates it again, else the mean of the population; and "episode/count".
    """
    spaces = _spaces(env, env_params)
    agent = policy_agent(*spaces, config, getattr(hp, "action_noise", 0.0))
    explores = getattr(config, "explores", False)
    payer = sign_rewards(env) if getattr(config, "sign_rewards", False) else env

    def as_state(found: Any) -> PolicyState:
        if config.normalize_obs or config.virtual_norm:
            return policy_state(*spaces, config, found.params, found.moments, found.reference)
        return PolicyState(found)

    def play(num_episodes: int) -> Evaluate:
        return episodes(
            agent,
            payer,
            env_params,
            num_episodes,
            config.max_episode_steps,
            as_state=as_state,
            behaviour=behaviour_of(env, env_params)[0] if getattr(config, "uses_behaviour", False) else None,
            gather=obs_sums() if config.normalize_obs else None,
            explore=explores,
        )

    chunks = spread or in_chunks(config.population_batch)
    algorithm = evolve(strategy, play(config.eval_episodes), chunks, play(again_episodes))
    solution = strategy.solution
    if solution is None:
        raise ValueError("expected a strategy that says what its solution is")

    def init(key: Key) -> PolicyEvolutionState:
        state = algorithm.init(key)
        return PolicyEvolutionState(state, as_state(solution(state)))

    def step(key: Key, state: PolicyEvolutionState, t: Any) -> tuple[PolicyEvolutionState, Metrics]:
        inner, metrics = algorithm.step(key, state.strategy, t)
        shown = metrics["elite/fitness"] if "elite/fitness" in metrics else metrics["fitness/mean"]
        num = jnp.asarray(len(strategy.groups), jnp.float32) * (1.0 - metrics["evolution/failed"])
        metrics |= {"episode/return": shown, "episode/count": num}
        return PolicyEvolutionState(inner, as_state(solution(inner))), metrics

    return Algorithm(init, step)


def _spaces(env: Environment, env_params: Any) -> tuple[Any, Any]:
    return env.observation_space(env_params), env.action_space(env_params)
