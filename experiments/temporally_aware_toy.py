"""Does a rule gain from knowing how long its agents live? Bandits with two horizons, evolved with and without time.

    python -m experiments.temporally_aware_toy [--seeds 5] [--generations 400]

An agent meets a bandit of five arms, one of which pays 1 more often than -1, and is judged by the policy that it has at
the end of its life: a few updates, or many. What is learnt from one update is mostly noise. Who lives shortly must take
large steps, or is undecided at the end; who lives long gains by small steps first, since large ones decide too early,
and often wrongly. A rule that cannot know which of the two it serves must find one way for both.

What came of it with 5 seeds, 400 generations and one life in five short: the plain rule finds a way that serves both
horizons, and time gains nothing. That time helps on both horizons is not shown. The derivative with respect to n/N is
that of random rules to begin with, and by itself no evidence that time is used.

Writes `<out>.json`: expected returns per horizon with intervals over seeds, the derivative of the time-aware rule with
respect to n/N, settings, versions, seconds. No published figure is claimed.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import struct
from scipy import stats

from jaxrl.algorithm import sweep
from jaxrl.evaluation import evaluate
from jaxrl.files import write_json
from jaxrl.objectives.lpg import LPGInputs, lpg_targets
from jaxrl.presets.evolution import live
from jaxrl.presets.evolved import TALPGConfig, TALPGHparams, lpg_loop, lpg_pupil, ta_lpg
from jaxrl.provenance import provenance
from jaxrl.spaces import Discrete, Indexed, Space
from jaxrl.types import Key, Params, Progress, Timestep

HORIZONS = (3, 60)
VARIANTS = {"plain": "none", "time_aware": "paper"}


@struct.dataclass
class Bandit:
    """One bandit; traced.

    Attributes:
      best: int32, the arm that pays 1 with probability (1 + gap) / 2, and else -1; the others with (1 - gap) / 2.
      lifetime: int32, agent updates.
    """

    best: jax.Array | int
    lifetime: jax.Array | int


@dataclasses.dataclass(frozen=True)
class TwoHorizons:
    """Bandits whose agents live for one of two numbers of updates; every step is an episode."""

    num_arms: int = 5
    gap: float = 0.4
    horizons: tuple[int, int] = HORIZONS
    short_share: float = 0.2
    default_params = Bandit(0, HORIZONS[1])

    def sample_params(self, key: Key) -> Bandit:
        key_arm, key_life = jax.random.split(key)
        short, long = self.horizons
        lifetime = jnp.where(jax.random.bernoulli(key_life, self.short_share), jnp.int32(short), jnp.int32(long))
        return Bandit(jax.random.randint(key_arm, (), 0, self.num_arms), lifetime)

    def reset(self, key: Key, params: Bandit) -> tuple[jax.Array, jax.Array]:
        return jnp.int32(0), jnp.zeros(1)

    def step(self, key: Key, state: jax.Array, action: jax.Array, params: Bandit) -> tuple[jax.Array, Timestep]:
        chance = 0.5 + 0.5 * self.gap * jnp.where(action == params.best, 1.0, -1.0)
        reward = jnp.where(jax.random.bernoulli(key, chance), 1.0, -1.0)
        over, obs = jnp.array(True), jnp.zeros(1)
        return state, Timestep(obs, reward, over, ~over, obs, {})

    def observation_space(self, params: Bandit) -> Space:
        return Indexed(1)

    def action_space(self, params: Bandit) -> Space:
        return Discrete(self.num_arms)


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run.

    Attributes:
      seeds: how many; all are evolved side by side.
      generations: of OpenES.
      num_pairs: half of the population.
      short_share: of lives, during evolution, that are short.
      num_tests: lives per horizon in which every rule is judged at the end.
      out: where to write, without suffix; `None` writes nothing.
    """

    seeds: int = 5
    generations: int = 400
    num_pairs: int = 64
    short_share: float = 0.2
    num_tests: int = 2000
    out: Path | None = Path("experiments/results/temporally_aware_toy")


def preset_config(config: Config, time_features: str) -> TALPGConfig:
    sizes = {"num_pairs": config.num_pairs, "population_batch": 0, "noise_batch": 0, "lifetime": HORIZONS[1]}
    return TALPGConfig(
        **sizes, total_steps=10**12, num_envs=4, num_steps=1, evaluation_episodes=64, max_episode_steps=1,
        width=16, target_width=2, embedding_width=2, time_features=time_features, initial="random", torso="mlp",
        hidden_sizes=(),
    )  # fmt: skip


HPARAMS = TALPGHparams(
    meta_learning_rate=0.03, meta_learning_rate_decay=0.995, learning_rate=4.0, max_grad_norm=10.0, prediction_coef=0.0
)


def judge(key: Key, rule: Params, config: TALPGConfig, lifetime: jax.Array, num_tests: int) -> jax.Array:
    """Mean expected return, over new bandits, of policies at the end of a life of this length under the rule."""
    env = TwoHorizons()

    def one(key: Key) -> jax.Array:
        key_level, key_life, key_end = jax.random.split(key, 3)
        level = env.sample_params(key_level).replace(lifetime=lifetime)
        agent = lpg_pupil(env, config, HPARAMS, rule, level)
        state, _ = live(key_life, key_life, lpg_loop(agent, env, config, level, lifetime), lifetime)
        return evaluate(key_end, agent, state.agent, env, level, 64, max_steps=1, explore=True).returns.mean()

    return jax.lax.map(one, jax.random.split(key, num_tests), batch_size=500).mean()


def time_derivative(rule: Params, config: TALPGConfig, lifetime: int) -> tuple[jax.Array, jax.Array]:
    """Mean |d target / d (n/N)| and mean |target|, over rewards -1 and 1, probabilities and shares of the lifetime."""
    reward, probability = jnp.meshgrid(jnp.array([-1.0, 1.0]), jnp.array([0.1, 0.3, 0.6, 0.9]), indexing="ij")

    def target(share: jax.Array) -> jax.Array:
        def of(reward: jax.Array, probability: jax.Array) -> jax.Array:
            cell = jnp.zeros((1, config.num_envs))
            y = jnp.full((*cell.shape, config.target_width), 1.0 / config.target_width)
            inputs = LPGInputs(cell + reward, cell == 0, cell > 0, cell + probability, y, y)
            return lpg_targets(rule, config.rule, inputs, 0.99, Progress(share * lifetime, lifetime))[0][0, 0]

        return jax.vmap(of)(reward.ravel(), probability.ravel())

    shares = jnp.linspace(0.0, 1.0, 11)
    return jnp.abs(jax.vmap(jax.jacfwd(target))(shares)).mean(), jnp.abs(jax.vmap(target)(shares)).mean()


def interval(values: np.ndarray) -> dict[str, Any]:
    """Mean and its 95 % interval by Student's t."""
    mean, error = float(values.mean()), float(stats.sem(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return {"mean": mean, "interval_95": [mean - half, mean + half], "values": values.tolist()}


def main(config: Config) -> dict[str, np.ndarray]:
    """Evolves both variants; returns {"<variant>/returns": [S, 2], "<variant>/fitness": [S, generations], …}."""
    arrays: dict[str, np.ndarray] = {}
    begun = time.perf_counter()
    key_train, key_test = jax.random.split(jax.random.key(0))
    hparams = jax.tree.map(lambda leaf: jnp.full(1, leaf, jnp.float32), HPARAMS)
    keys = jax.random.split(key_train, config.seeds)
    for name, features in VARIANTS.items():
        preset = preset_config(config, features)
        run = jax.jit(
            lambda k, c=preset: sweep(lambda hp: ta_lpg(TwoHorizons(), c, hp), hparams, k, config.generations)
        )
        state, metrics = jax.tree.map(lambda leaf: leaf[0], run(keys))
        test = jax.jit(jax.vmap(jax.vmap(judge, (None, None, None, 0, None)), (None, 0, None, None, None)),
                       static_argnums=(2, 4))  # fmt: skip
        arrays[f"{name}/returns"] = test(key_test, state.params, preset, jnp.array(HORIZONS), config.num_tests)
        arrays[f"{name}/fitness"] = metrics["fitness/mean"]
        if features != "none":
            slopes = [jax.vmap(lambda rule, n=n: time_derivative(rule, preset, n))(state.params) for n in HORIZONS]  # noqa: B023
            arrays["derivative"], arrays["target"] = (jnp.stack(part, -1) for part in zip(*slopes, strict=True))
        print(f"{name:12} {np.asarray(arrays[f'{name}/returns']).round(4).tolist()}", flush=True)
    arrays = {name: np.asarray(value) for name, value in arrays.items()}
    if config.out is not None:
        write_json(config.out.with_suffix(".json"), table(config, arrays) | {"seconds": time.perf_counter() - begun})
    return arrays


def table(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """What is published of a run."""
    rows = {}
    for i, horizon in enumerate(HORIZONS):
        plain, aware = arrays["plain/returns"][:, i], arrays["time_aware/returns"][:, i]
        rows[str(horizon)] = {"plain": interval(plain), "time_aware": interval(aware), "gain": interval(aware - plain),
                              "derivative": interval(arrays["derivative"][:, i]),
                              "target": interval(arrays["target"][:, i])}  # fmt: skip
    return {
        "statistic": "mean return of the last policy over new bandits, and 95 % Student interval over seeds; gains are "
        "paired by seed; derivative: mean |d target / d (n/N)|, target: mean |target|",
        "best_return": TwoHorizons().gap,
        "horizons": rows,
        "settings": {
            name: getattr(config, name) for name in ("seeds", "generations", "num_pairs", "short_share", "num_tests")
        },
        **provenance(),
    }


if __name__ == "__main__":
    main(tyro.cli(Config))
