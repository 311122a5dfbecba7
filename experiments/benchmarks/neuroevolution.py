"""What neuroevolution costs: `python -m experiments.benchmarks.neuroevolution [--quick] [--json PATH]`.

- `generations_ratio_evosax_<P>`: generations per second of ours over those of evosax 0.3, the smaller of the ratios of
  the GA (`deep_ga` beside SimpleGA) and of OpenAI-ES (`open_es` beside Open_ES), on CartPole-v1 and the hard maze, at
  a population of P. Each side is one jitted scan over generations, with the same policy, environment, horizon and
  episodes, and stops a generation's episodes when they are over; the elite is not evaluated again.
  Ours is what `jaxrl train` runs: all cores share the population. Both sides have the compiler's flags that it sets
  (`runtime.use_all_cores`: small loops are one function). ES has a learning rate of 0, since whoever learned
  more would play longer episodes; its deviation of 0.5 makes some individuals balance the pole to the end.
  Theirs is evosax's ask and tell around a vmap over individuals of an episode's loop, as its own problems have it, on
  the default device. `<pair>_<env>_<P>` are the ratios one by one, and then where the difference comes from:
  `<pair>_one_core_<env>_<P>`, ours without the other cores; `<pair>_same_evaluation_<env>_<P>`, evosax's algorithm in
  our evaluation with all that it has, hence how the algorithms alone compare.
- `reevaluation_cost_<env>_<P>`: what 10 x 30 more episodes of the elite's candidates cost, as a factor on a
  generation's time.
- `peak_mb_d1e6_p1024`: resident memory of a process above what it took after importing, at its highest, running a
  generation of 1,024 individuals of 1,000,000 parameters; `temporary_mb_d1e6_p1024` is the compiler's account of it.
- `reconstruct_ms_4m_100`: rebuilding 4,052,658 parameters from the seeds of 100 generations, compiled.

Each measurement is a process of its own, the sides of a ratio in turns within one; a side's time is the smallest of its
pieces, since whatever else a machine does only adds to it. All pieces of a side are the same generations, the first.
What a generation costs is set by its longest episode: `<pair>_longest_<env>_<P>` is theirs over ours, the mean over the
generations, and the ratios of speed are divided by it.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks.harness import measure, show_and_write
from jaxrl import make_env
from jaxrl.adapters.evosax import evosax_strategy
from jaxrl.agents.policy import PolicyState, policy_agent
from jaxrl.algorithm import Algorithm, train
from jaxrl.env import Environment
from jaxrl.evo.deep_ga import DeepGAHparams, deep_ga
from jaxrl.evo.evolve import Strategy, evolve, in_chunks
from jaxrl.evo.seeds import SeedGenome, quantize, seed_codec
from jaxrl.ops.distributions import to_environment
from jaxrl.presets.neuroevolution import DeepGAConfig, network_codec
from jaxrl.presets.policies import initial_params, policy_evolution
from jaxrl.presets.strategies import OpenESConfig, OpenESPolicyHparams, open_es
from jaxrl.runtime import Layout, choose_layout, member_spread, over_runs, place, use_all_cores
from jaxrl.types import Evaluation, Metrics

WORK = ["-m", "experiments.benchmarks.neuroevolution", "--work"]
ENVS = {"CartPole-v1": 500, "jaxrl/hard_maze": 400}
SHORT = {"CartPole-v1": "cartpole", "jaxrl/hard_maze": "hard_maze"}
PAIRS = ("ga", "es")
POPULATIONS = (64, 512)
PLAYED = 12_800  # individuals of a piece, before it is over
_MB = 1e6


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
      quick: 3 short pieces of each side, instead of 7.
      json: where to write flat figures.
    """

    quick: bool = False
    json: str | None = None


def _config(env_name: str, population: int, **changes: Any) -> Any:
    sizes = {
        "population": population, "max_episode_steps": ENVS[env_name], "hidden_sizes": (16,), "total_steps": 10**9,
    }  # fmt: skip
    return DeepGAConfig(**{**sizes, "num_parents": max(population // 20, 1), "elite_pool": 0, **changes})


def _sides(env_name: str, population: int, generations: int) -> dict[str, tuple[Algorithm, Layout]]:
    """{"ga_ours": (algorithm, how it is laid out), …}."""
    env = make_env(env_name)
    params, config = env.default_params, _config(env_name, population)
    first = initial_params(env, config, params)
    hp = OpenESPolicyHparams(sigma=0.5, learning_rate=0.0)
    es_config = OpenESConfig(
        population=population, max_episode_steps=ENVS[env_name], hidden_sizes=(16,), total_steps=10**9
    )
    together, alone = choose_layout(1, splits=True), Layout(1, 1)

    def ga(pool: int, layout: Layout) -> tuple[Algorithm, Layout]:
        # One fewer child without second evaluations, since the champion then plays in the population.
        sizes = (population - (pool == 0), config.num_parents, generations, pool)
        strategy = deep_ga(network_codec(env, config), DeepGAHparams(0.1), *sizes)
        spread = member_spread(config.population_batch, layout)
        return policy_evolution(strategy, env, config, hp, params, spread, again_episodes=30), layout

    def es(layout: Layout) -> tuple[Algorithm, Layout]:
        return open_es(env, es_config, hp, spread=member_spread(es_config.population_batch, layout)), layout

    def lent(strategy: Strategy) -> tuple[Algorithm, Layout]:
        spread = member_spread(config.population_batch, together)
        return policy_evolution(strategy, env, config, hp, params, spread), together

    genetic = evosax_strategy("SimpleGA", first, population, sigma=0.1)
    gradient = evosax_strategy("Open_ES", first, population, sigma=0.5, learning_rate=0.0)
    return {
        "ga_ours": ga(0, together),
        "ga_evosax": (evosax_loop(genetic, env, config), alone),
        "ga_one_core": ga(0, alone),
        "ga_same_evaluation": lent(genetic),
        "ga_again": ga(10, together),
        "es_ours": es(together),
        "es_evosax": (evosax_loop(gradient, env, config), alone),
        "es_one_core": es(alone),
        "es_same_evaluation": lent(gradient),
    }


def evosax_loop(strategy: Strategy, env: Environment, config: Any) -> Algorithm:
    """A generation as evosax's users write it: ask, a vmap over individuals of one episode, tell."""
    params = env.default_params
    spaces = env.observation_space(params), env.action_space(params)
    agent = policy_agent(*spaces, config)

    def episode(key: Any, individual: Any) -> jax.Array:
        key_reset, key_steps = jax.random.split(key)

        def running(carry: Any) -> jax.Array:
            time, _, _, _, done = carry
            return (time < config.max_episode_steps) & ~done

        def move(carry: Any) -> Any:
            time, state, obs, total, _ = carry
            key_act, key_step = jax.random.split(jax.random.fold_in(key_steps, time))
            action = agent.act(key_act, PolicyState(individual), (), obs[None], jnp.zeros(1, bool), False)[0]
            state, answer = env.step(key_step, state, to_environment(spaces[1], action)[0], params)
            return time + 1, state, answer.obs, total + answer.reward, answer.terminated | answer.truncated

        state, obs = env.reset(key_reset, params)
        start = (jnp.int32(0), state, obs, jnp.float32(0.0), jnp.array(False))
        return jax.lax.while_loop(running, move, start)[3]

    def step(key: Any, state: Any, t: Any) -> tuple[Any, Metrics]:
        key_ask, key_play, key_tell = jax.random.split(key, 3)
        genomes, state = strategy.ask(key_ask, state)
        fitness = jax.vmap(episode, (None, 0))(key_play, genomes)
        state = strategy.tell(key_tell, state, genomes, Evaluation(fitness))
        return state, {"fitness/best": fitness.max()}

    return Algorithm(strategy.init, step)


def speed(env: str, population: int, pieces: int, generations: int) -> dict[str, dict[str, float]]:
    """Of every side: "seconds" per generation, the smallest over pieces, in turns; "longest", steps, the mean over
    generations of their longest episode.
    """
    use_all_cores()
    runs: dict[str, Callable[..., Any]] = {}
    states: dict[str, Any] = {}
    seconds: dict[str, list[float]] = {}
    longest: dict[str, float] = {}
    for name, (algorithm, layout) in _sides(env, population, generations).items():
        runs[name], states[name] = _compiled(algorithm, layout, generations)
        seconds[name] = []
    for _ in range(1 + pieces):
        for name, run in runs.items():
            began = time.perf_counter()
            _, best = jax.block_until_ready(run(states[name]))
            seconds[name].append((time.perf_counter() - began) / generations)
            # A step of CartPole is paid 1; in the maze all episodes are of the same length.
            longest[name] = float(best[0]) if env == "CartPole-v1" else float(ENVS[env])
    return {name: {"seconds": min(values[1:]), "longest": longest[name]} for name, values in seconds.items()}


def _compiled(algorithm: Algorithm, layout: Layout, generations: int) -> tuple[Callable[..., Any], Any]:
    """`(state) -> (state, mean best fitness)` of a run's first generations, as the runner compiles it; the state."""

    def piece(states: Any) -> Any:
        def run(state: Any, start: Any) -> Any:
            state, metrics = train(jax.random.key(0), algorithm, generations, state, start)
            return state, metrics["fitness/best"].mean()

        return over_runs(run, layout)(states, jnp.int32(0))

    keys = jax.random.key(0)[None]
    state = place(jax.jit(jax.vmap(algorithm.init))(keys), layout)
    return jax.jit(piece).lower(state).compile(), state


def _beside_evosax(sides: dict[str, dict[str, float]], pair: str, where: str) -> dict[str, float]:
    """Ratios of the times of a generation, each over the length of its longest episode."""
    ours, theirs = sides[f"{pair}_ours"], sides[f"{pair}_evosax"]

    def per_step(side: dict[str, float]) -> float:
        return side["seconds"] / side["longest"]

    return {
        f"{pair}_{where}": per_step(theirs) / per_step(ours),
        f"{pair}_longest_{where}": theirs["longest"] / ours["longest"],
        f"{pair}_one_core_{where}": per_step(theirs) / per_step(sides[f"{pair}_one_core"]),
        f"{pair}_same_evaluation_{where}": per_step(sides[f"{pair}_same_evaluation"]) / per_step(ours),
        f"{pair}_{where}_generations_per_second": 1.0 / ours["seconds"],
    }


def memory() -> dict[str, float]:
    """A generation of 1,024 individuals of a million parameters, whose fitness reads all of them."""
    jax.block_until_ready(jnp.zeros(1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    codec = seed_codec({"w": jax.ShapeDtypeStruct((1000, 1000), jnp.float32)})
    strategy = deep_ga(codec, DeepGAHparams(0.01), 1024, 20, 100, 0)

    def fitness(key: Any, own_key: Any, params: Any) -> Evaluation:
        return Evaluation(-jnp.mean(jnp.square(params["w"])))

    algorithm = evolve(strategy, fitness, in_chunks(4))
    state = jax.jit(algorithm.init)(jax.random.key(0))
    compiled = jax.jit(algorithm.step, donate_argnums=1).lower(jax.random.key(0), state, 0).compile()
    state, _ = compiled(jax.random.key(0), state, 0)
    state, _ = jax.block_until_ready(compiled(jax.random.key(1), state, 1))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    analysis = compiled.memory_analysis()
    return {"peak_mb": (after - before) / _MB, "temporary_mb": analysis.temp_size_in_bytes / _MB}


def reconstruction(repeats: int) -> dict[str, float]:
    """Milliseconds for 4,052,658 parameters of 100 generations, the median."""
    codec = seed_codec({"w": jax.ShapeDtypeStruct((4_052_658,), jnp.float32)})
    seeds = jax.random.bits(jax.random.key(0), (101,), jnp.uint32)
    genome = SeedGenome(seeds, quantize(jnp.full(101, 0.002)).at[0].set(0.0), jnp.int32(101))
    rebuild, taken = jax.jit(codec.rebuild).lower(genome).compile(), []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(rebuild(genome))
        taken.append(1e3 * (time.perf_counter() - began))
    return {"reconstruct_ms": float(np.median(taken))}


def main(config: Config) -> dict[str, float]:
    """Prints and returns the flat figures."""
    pieces, played = (3, PLAYED // 10) if config.quick else (7, PLAYED)
    figures: dict[str, float] = {}
    for population in POPULATIONS:
        ratios = []
        for env, short in SHORT.items():
            work = {"env": env, "population": population, "pieces": pieces, "generations": played // population}
            sides = measure(sys.executable, WORK, what="speed", **work)
            for pair in PAIRS:
                found = _beside_evosax(sides, pair, f"{short}_{population}")
                ratios.append(found[f"{pair}_{short}_{population}"])
                figures |= found
            cost = sides["ga_again"]["seconds"] / sides["ga_ours"]["seconds"]
            figures[f"reevaluation_cost_{short}_{population}"] = cost
        figures[f"generations_ratio_evosax_{population}"] = min(ratios)
    found = measure(sys.executable, WORK, what="memory")
    figures |= {f"{name}_d1e6_p1024": value for name, value in found.items()}
    rebuilt = measure(sys.executable, WORK, what="reconstruction", repeats=1 if config.quick else 3)
    figures["reconstruct_ms_4m_100"] = rebuilt["reconstruct_ms"]
    show_and_write(config.json, figures)
    return figures


if __name__ == "__main__":
    if "--work" in sys.argv:
        arguments = json.loads(sys.argv[-1])
        kinds = {"speed": speed, "memory": memory, "reconstruction": reconstruction}
        print(json.dumps(kinds[arguments.pop("what")](**arguments)))
    else:
        main(tyro.cli(Config))
