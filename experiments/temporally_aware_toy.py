"""Does a rule gain from knowing how much of its agents' lives is over? Bandits with two horizons that turn to lies.

    python -m experiments.temporally_aware_toy [--seeds 5] [--generations 5000] [--restarts 3]

An agent meets a bandit of two arms, one of which pays 1 more often than -1, the other less often. It is told so in the
second quarter of its life, whatever its length; in the third each arm pays as the other one does, and in the first and
the last the arms are alike. It is judged by what its last policy earns at the true prices. What it learns as it goes,
it unlearns; only the time tells when to listen, and as a share of the life: when the long-lived are first told the
truth, the short-lived have heard all that they will hear. It begins with a preference for some arm, drawn anew for
each life, so that its policy does not tell how much it has learned.

The numbers of the toy were chosen by what rules made by hand can do (`by_hand`: the best `size * reward` for both
horizons, the best that stops when the truth ends, and the best that listens to the truth only), and by evolutions with
other seeds than those of the result. Rules that cannot know the time could use whatever comes first or last, by
settling early or by forgetting; so there is nothing to be learnt there.

Evolution may lose its way: where a rule's targets are so large that every policy is settled at once, fitness is flat.
So each seed evolves `--restarts` rules of either kind, and its rule is the one with the highest mean fitness over the
last twentieth of the generations, which is all that meta-training knows.

What came of it with these numbers (0.6 is the best return): time-aware rules return 0.54 to 0.58 and 0.53 to 0.60 on
the two horizons, plain ones 0.13 to 0.36 and 0.15 to 0.47; the paired gains are 0.28 [0.14, 0.42] and 0.19 [0.00,
0.37]. The derivative with respect to n/N is not zero; nor is that of random rules, so by itself it is no evidence that
time is used. It takes 85 s on an H200; on two cores, hours.

Writes `<out>.json`: expected returns per horizon with intervals over seeds, the derivative of the time-aware rule with
respect to n/N, the rules by hand, settings, versions, seconds. No published figure is claimed.
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

from jaxrl.agents.actor_critic import actor_critic
from jaxrl.algorithm import sweep
from jaxrl.files import write_json
from jaxrl.objectives.lpg import LPGInputs, LPGTargets, lpg_objective, lpg_targets
from jaxrl.presets.evolution import live
from jaxrl.presets.evolved import TALPGConfig, TALPGHparams, lpg_loop, ta_lpg
from jaxrl.provenance import provenance
from jaxrl.spaces import Box, Discrete, Space
from jaxrl.types import Key, Objective, Params, Progress, Rollout, Timestep

HORIZONS = (10, 40)  # of 10 steps the second quarter has two, the third three
TRUTH, LIES = (0.25, 0.5), (0.5, 0.75)  # the shares of a life in which arms pay as they say, or each as the other
COIN = 1e-4  # for 1
PREFERENCE = 2.5  # length of the vector of first logits, whose direction is random
SCALE = 100.0 * PREFERENCE  # of the one observation: agents begin with kernels of length 0.01
VARIANTS = {"plain": "none", "time_aware": "paper"}
SIZES = tuple(2.0**power for power in range(-5, 3))


def listens(share: jax.Array | float, begin: jax.Array | float, end: jax.Array | float) -> jax.Array:
    """Is this share of the life in [begin, end)? Shares of integers are compared a little early."""
    return (share >= begin - 1e-5) & (share < end - 1e-5)


@struct.dataclass
class Bandit:
    """One bandit; traced.

    Attributes:
      best: int32, the arm that truly pays 1 with probability (1 + gap) / 2, and else -1; others with (1 - gap) / 2.
      lifetime: int32, agent updates, which are as many steps: an episode is as long as a life.
    """

    best: jax.Array | int
    lifetime: jax.Array | int


@dataclasses.dataclass(frozen=True)
class TwoHorizons:
    """Bandits whose agents live for one of two numbers of updates, each of one step; the state counts steps.

    Arms pay 1 or -1, with chances as they are during `TRUTH`, exchanged during `LIES`, and else even. The first step is
    true, since an evaluation is one step long, and pays `COIN`: rules cannot see so little, and are compared by rank.
    """

    num_arms: int = 2
    gap: float = 0.6
    horizons: tuple[int, int] = HORIZONS
    short_share: float = 0.5
    default_params = Bandit(0, HORIZONS[1])

    def sample_params(self, key: Key) -> Bandit:
        key_arm, key_life = jax.random.split(key)
        short, long = self.horizons
        lifetime = jnp.where(jax.random.bernoulli(key_life, self.short_share), jnp.int32(short), jnp.int32(long))
        return Bandit(jax.random.randint(key_arm, (), 0, self.num_arms), lifetime)

    def reset(self, key: Key, params: Bandit) -> tuple[jax.Array, jax.Array]:
        return jnp.int32(0), jnp.full(1, SCALE)

    def step(self, key: Key, state: jax.Array, action: jax.Array, params: Bandit) -> tuple[jax.Array, Timestep]:
        first = state == 0
        share = state / params.lifetime
        truth = jnp.where(first | listens(share, *TRUTH), 1.0, jnp.where(listens(share, *LIES), -1.0, 0.0))
        lead = self.gap * truth * jnp.where(action == params.best, 1.0, -1.0)
        reward = jnp.where(first, COIN, 1.0) * jnp.where(jax.random.bernoulli(key, 0.5 + 0.5 * lead), 1.0, -1.0)
        over, obs = state + 1 >= params.lifetime, jnp.full(1, SCALE)
        return state + 1, Timestep(obs, reward, over, jnp.zeros_like(over), obs, {})

    def observation_space(self, params: Bandit) -> Space:
        return Box(0.0, SCALE, (1,))

    def action_space(self, params: Bandit) -> Space:
        return Discrete(self.num_arms)


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run.

    Attributes:
      seeds: how many; all are evolved side by side.
      restarts: evolutions of each seed, of which the fittest counts.
      generations: of OpenES.
      num_pairs: half of the population.
      short_share: of lives, during evolution, that are short.
      num_tests: lives per horizon in which every rule is judged at the end.
      out: where to write, without suffix; `None` writes nothing.
    """

    seeds: int = 5
    restarts: int = 3
    generations: int = 5000
    num_pairs: int = 128
    short_share: float = 0.5
    num_tests: int = 1000
    out: Path | None = Path("experiments/results/temporally_aware_toy")


def preset_config(config: Config, time_features: str) -> TALPGConfig:
    sizes = {"num_pairs": config.num_pairs, "population_batch": 0, "noise_batch": 0, "lifetime": HORIZONS[1]}
    return TALPGConfig(
        **sizes, total_steps=10**12, num_envs=8, num_steps=1, evaluation_episodes=32, max_episode_steps=1,
        width=8, target_width=2, embedding_width=2, time_features=time_features, initial="random", torso="mlp",
        hidden_sizes=(),
    )  # fmt: skip


HPARAMS = TALPGHparams(
    meta_learning_rate=0.1, meta_learning_rate_decay=0.9997, prediction_coef=0.0,
    learning_rate=4.0 / SCALE**2, max_grad_norm=1e9,  # logits move by 4 times the mean of target and score, unclipped
)  # fmt: skip


def judge(key: Key, objective: Objective, config: TALPGConfig, lifetime: jax.Array, num_tests: int) -> jax.Array:
    """Mean probability of the best arm, over new bandits, at the end of a life of this length; as expected return."""
    env = TwoHorizons()

    def one(key: Key) -> jax.Array:
        key_level, key_life = jax.random.split(key)
        level = env.sample_params(key_level).replace(lifetime=lifetime)
        spaces = env.observation_space(level), env.action_space(level)
        agent = actor_critic(objective, *spaces, config.agent, HPARAMS)
        state, _ = live(key_life, key_life, lpg_loop(agent, env, config, level, lifetime), lifetime)
        extras = agent.act(key_life, state.agent, (), jnp.full((1, 1), SCALE), jnp.zeros(1, bool), True)[2]
        chance = jnp.exp(extras["policy"].log_prob(jnp.atleast_1d(level.best)))[0]
        return env.gap * (2.0 * chance - 1.0)

    return jax.lax.map(one, jax.random.split(key, num_tests), batch_size=500).mean()


def hand_made(size: jax.Array | float, span: tuple[jax.Array | float, ...], config: TALPGConfig) -> Objective:
    """A rule that tells an agent `size * reward` while the share of its life is in `span`, and else nothing."""
    base = lpg_objective({}, config.rule, HPARAMS)

    def prepare(state: Any, outputs: Any, next_outputs: Any, rollout: Rollout, progress: Progress) -> Any:
        now = jnp.where(listens(jnp.asarray(progress.fraction), *span), size, 0.0)
        flat = jnp.full((*rollout.reward.shape, config.target_width), -jnp.log(config.target_width))
        return LPGTargets(rollout.action, now * rollout.reward, flat), state

    return base._replace(prepare=prepare)


SPANS = {"always": (-1.0, 2.0), "stops": (-1.0, TRUTH[1]), "listens": TRUTH}


def by_hand(key: Key, config: TALPGConfig, num_tests: int) -> dict[str, Any]:
    """For each of `SPANS` the size, of `SIZES`, whose mean over horizons is best, and returns [horizon].

    "always_for_each_horizon" has a size for either, which a rule that does not know the horizon cannot have.
    """

    def of(size: jax.Array, span: jax.Array, lifetime: jax.Array) -> jax.Array:
        return judge(key, hand_made(size, (span[0], span[1]), config), config, lifetime, num_tests)

    table = jax.jit(lambda sizes, spans, lives: jax.lax.map(
        lambda w: jax.lax.map(lambda n: jax.lax.map(lambda s: of(s, w, n), sizes), lives), spans))(
        jnp.array(SIZES), jnp.array(list(SPANS.values())), jnp.array(HORIZONS))  # fmt: skip
    found = {}
    for name, returns in zip(SPANS, np.asarray(table), strict=True):  # [H, sizes]
        best = int(returns.mean(0).argmax())
        found[name] = {"size": SIZES[best], "returns": returns[:, best].tolist()}
    plain = np.asarray(table)[0]
    found["always_for_each_horizon"] = {"size": [SIZES[i] for i in plain.argmax(1)], "returns": plain.max(1).tolist()}
    return found


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


def fittest(fitness: jax.Array, restarts: int) -> jax.Array:
    """Of evolutions [S * R, generations], for each seed the row of the fittest in the last twentieth: [S]."""
    late = fitness[:, -max(fitness.shape[1] // 20, 1) :].mean(1).reshape(-1, restarts)
    return late.argmax(1) + restarts * jnp.arange(len(late))


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
    keys = jax.random.split(key_train, config.seeds * config.restarts)
    for name, features in VARIANTS.items():
        preset = preset_config(config, features)
        env = TwoHorizons(short_share=config.short_share)
        run = jax.jit(lambda k, c=preset, e=env: sweep(lambda hp: ta_lpg(e, c, hp), hparams, k, config.generations))
        state, metrics = jax.tree.map(lambda leaf: leaf[0], run(keys))
        kept = fittest(metrics["fitness/mean"], config.restarts)
        state, metrics = jax.tree.map(lambda leaf, rows=kept: leaf[rows], (state, metrics))

        def test(rule: Params, lifetime: jax.Array, c: TALPGConfig = preset) -> jax.Array:
            return judge(key_test, lpg_objective(rule, c.rule, HPARAMS), c, lifetime, config.num_tests)

        tests = jax.jit(jax.vmap(jax.vmap(test, (None, 0)), (0, None)))
        arrays[f"{name}/returns"] = tests(state.params, jnp.array(HORIZONS))
        arrays[f"{name}/fitness"] = metrics["fitness/mean"]
        if features != "none":
            slopes = [jax.vmap(lambda rule, n=n: time_derivative(rule, preset, n))(state.params) for n in HORIZONS]  # noqa: B023
            arrays["derivative"], arrays["target"] = (jnp.stack(part, -1) for part in zip(*slopes, strict=True))
        print(f"{name:12} {np.asarray(arrays[f'{name}/returns']).round(4).tolist()}", flush=True)
    arrays = {name: np.asarray(value) for name, value in arrays.items()}
    if config.out is not None:
        about = table(config, arrays) | {"by_hand": by_hand(key_test, preset_config(config, "none"), config.num_tests)}
        write_json(config.out.with_suffix(".json"), about | {"seconds": time.perf_counter() - begun})
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
        "statistic": "mean expected return per step, at the true prices, of the last policy over new bandits, and 95 % "
        "Student interval over seeds; gains are paired by seed; derivative: mean |d target / d (n/N)|, target: "
        "mean |target|",
        "best_return": TwoHorizons().gap,
        "horizons": rows,
        "settings": {
            name: getattr(config, name)
            for name in ("seeds", "restarts", "generations", "num_pairs", "short_share", "num_tests")
        },
        **provenance(),
    }


if __name__ == "__main__":
    main(tyro.cli(Config))
