"""What every registered algorithm must satisfy (design section 6 (4)), and the registry: one `Case` per preset.

Each function compiles what it needs and asserts; `test_algorithm.py` calls all of them for every case.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from helpers import TINY, TINY_REPLAY, WalkEnv, assert_trees_close, assert_trees_equal

from jaxrl.algorithm import Algorithm, init, sweep, train, with_evaluation
from jaxrl.presets import PRESETS
from jaxrl.spaces import Box
from jaxrl_envs import probes
from jaxrl_envs.gridworld import LevelDistribution, grid_random
from jaxrl_envs.mean_field.registry import make_mean_field, make_swarm
from jaxrl_envs.point_mass import point_mass

UPDATES = 6


@dataclasses.dataclass(frozen=True)
class Case:
    """A preset made small.

    Attributes:
      preset: its name.
      settings: of its configuration.
      sweeps: numbers, two values each, that must not behave otherwise when vmapped.
      make_env: of an environment that ends episodes and needs its observations.
      scale: `(env, reward) -> (env, params)`, the same environment with rewards that many times as large; by default
        its parameters' `reward` says so.
      warm_up: updates before the first one that moves anything.
      exact: programs of 6 and of 3 updates agree bit for bit under the tests' compiler flags, which fuse less; under
        the usual ones all do. (The chunks of a run are one program; a run that is killed and resumed is tested apart.)
    """

    preset: str
    settings: dict[str, Any]
    sweeps: dict[str, tuple[float, float]]
    make_env: Callable[[], Any]
    scale: Callable[[Any, Any], tuple[Any, Any]] = lambda env, reward: (
        env,
        dataclasses.replace(env.default_params, reward=reward),
    )
    warm_up: int = 0
    exact: bool = True
    traced: list[int] = dataclasses.field(default_factory=list)  # grows when `chunk` is traced

    @functools.cached_property
    def env(self) -> Any:
        return self.make_env()

    @functools.cached_property
    def config(self) -> Any:
        return dataclasses.replace(PRESETS[self.preset].config, **self.settings)

    @functools.cached_property
    def hparams(self) -> Any:
        """The two settings of the sweep, leaves [2]."""
        defaults = PRESETS[self.preset].hparams
        stacked = jax.tree.map(lambda leaf: jnp.full(2, leaf, jnp.float32), defaults)
        return stacked.replace(**{name: jnp.array(values) for name, values in self.sweeps.items()})

    def hparams_at(self, index: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[index], self.hparams)

    def make(self, hparams: Any, reward: Any = 1.0) -> Algorithm:
        env, params = self.scale(self.env, reward)
        return PRESETS[self.preset].make(env, self.config, hparams, params)

    @functools.cached_property
    def run(self) -> Callable[..., Any]:
        """`(key, hparams, reward) -> (state, metrics)` of all updates, compiled once for all checks."""
        updates = jax.jit(lambda key, hp, reward, state: train(key, self.make(hp, reward), UPDATES, state))
        # Otherwise the same program as `chunk`, the first state one of its arguments: with the compiler flags of the
        # tests, what stands beside a loop may change the last bits of what is in it.
        return lambda key, hp, reward: updates(key, hp, reward, self.first_state(key, hp))

    @functools.cached_property
    def chunk(self) -> Callable[..., Any]:
        """`(key, hparams, state, start) -> (state, metrics)` of half of the updates; counts its tracings."""

        def half(key: jax.Array, hp: Any, reward: Any, state: Any, start: jax.Array) -> Any:
            inner = self.make(hp, reward)

            def step(key: Any, state: Any, t: Any) -> Any:
                self.traced.append(1)
                return inner.step(key, state, t)

            return train(key, Algorithm(inner.init, step), UPDATES // 2, state, start)

        compiled = jax.jit(half)
        return lambda key, hp, state, start: compiled(key, hp, 1.0, state, start)

    @functools.cached_property
    def first_state(self) -> Callable[..., Any]:
        return jax.jit(lambda key, hp: init(key, self.make(hp)))


@dataclasses.dataclass(frozen=True)
class ScaledRewards:
    """An environment whose rewards are `reward` times as large; may be traced."""

    env: Any
    reward: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        state, timestep = self.env.step(key, state, action, params)
        return state, timestep._replace(reward=timestep.reward * self.reward)


@dataclasses.dataclass(frozen=True)
class ScaledLevels:
    """An environment that draws its levels, with their rewards `reward` times as large; may be traced."""

    env: Any
    reward: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def sample_params(self, key: jax.Array) -> Any:
        level = self.env.sample_params(key)
        return level.replace(reward=level.reward * self.reward)


def _on_levels(preset: str, sweeps: dict[str, tuple[float, float]], **changes: Any) -> Case:
    def scale(env: Any, reward: Any) -> tuple[Any, Any]:
        return ScaledLevels(env, reward), env.default_params

    return Case(preset, {**TINY_LEVELS, **changes}, sweeps, lambda: grid_random(TINY_DISTRIBUTION), scale)


def _on_policy(preset: str, **changes: Any) -> Case:
    sweeps = {"learning_rate": (1e-3, 1e-2), "gamma": (0.9, 0.99)}
    return Case(preset, {**TINY, **changes}, sweeps, probes.termination_probe)


def _off_policy(preset: str, discrete: bool = False, sweeps: Any = None, **changes: Any) -> Case:
    rate = "learning_rate" if preset == "dqn" else "critic_learning_rate"
    sweeps = {rate: (1e-3, 1e-2), "gamma": (0.9, 0.99)} | (sweeps or {})
    probe = probes.termination_probe()
    if not discrete:
        probe = dataclasses.replace(probe, single_action_space=Box((-1.0, 0.0), (1.0, 3.0), (2,)))
    return Case(preset, {**TINY_REPLAY, **changes}, sweeps, lambda: probe)


META_SWEEPS = {"meta_learning_rate": (1e-3, 1e-2), "learning_rate": (5.0, 20.0)}
EVO_SWEEPS = {"meta_learning_rate": (1e-3, 1e-2), "sigma": (0.1, 0.3)}
TINY_DISTRIBUTION = LevelDistribution((3, 4), (5, 8), (1, 2), 2, (2, 4))
TINY_LEVELS = {
    "total_steps": 10**5, "num_envs": 2, "num_steps": 4, "lifetime": 4, "max_episode_steps": 8, "width": 4,
    "target_width": 2, "embedding_width": 2,
}  # fmt: skip
TINY_POPULATION: dict[str, Any] = {"num_pairs": 2, "noise_batch": 1, "evaluation_episodes": 2}
TINY_DRIFT: dict[str, Any] = {
    **TINY, **TINY_POPULATION, "total_steps": 10**5, "agent_steps": 64, "width": 4, "max_episode_steps": 8,
    "population_batch": 0, "num_epochs": 1, "hidden_sizes": (4,), "evaluation_episodes": 8,
    # Under common random numbers these small drifts tie in everything, and ties move nothing.
    "sampling": "own",
}  # fmt: skip

POLICY_SWEEPS = {"sigma": (0.1, 0.3)}
ES_SWEEPS = {**POLICY_SWEEPS, "learning_rate": (0.01, 0.1)}  # Adam's first step does not depend on sigma alone
TINY_POLICIES: dict[str, Any] = {
    "total_steps": 10**5, "population": 6, "eval_episodes": 4, "max_episode_steps": 8, "hidden_sizes": (4,),
}  # fmt: skip


def _policies(preset: str, sweeps: dict[str, tuple[float, float]] = POLICY_SWEEPS, **changes: Any) -> Case:
    # In their first generation these only look around.
    warm_up = 1 if "num_policies" in changes else 0
    return Case(preset, {**TINY_POLICIES, **changes}, sweeps, WalkEnv, warm_up=warm_up)


TINY_ARCHIVE: dict[str, Any] = {
    "total_steps": 10**5, "episode_steps": 6, "num_initial": 6, "num_ga": 4, "grid_shape": (40, 40),
    "hidden_sizes": (4,),
}  # fmt: skip
TINY_LEARNER: dict[str, Any] = {
    **TINY_ARCHIVE, "num_pg": 3, "num_agent_updates": 3, "num_pg_steps": 2, "batch_size": 8, "buffer_size": 150,
    "critic_hidden_sizes": (6,),
}  # fmt: skip


def _archive(preset: str, **changes: Any) -> Case:
    learns = preset not in ("map_elites", "cma_map_elites")
    tiny = TINY_LEARNER if learns else TINY_ARCHIVE
    sweeps = {"critic_learning_rate": (1e-3, 1e-2)} if learns else {"iso_sigma": (0.3, 1.0)}
    sweeps = {"line_sigma": (0.1, 0.5), **sweeps}

    def scale(env: Any, reward: Any) -> tuple[Any, Any]:
        return ScaledRewards(env, reward), env.default_params

    return Case(preset, {**tiny, **changes}, sweeps, point_mass, scale, exact=not learns)


def _upper_level(preset: str, task: str, **changes: Any) -> Case:
    """Three agents, of an environment that a `jaxrl train` would name."""

    def scale(env: Any, reward: Any) -> tuple[Any, Any]:
        return ScaledRewards(env, reward), env.default_params

    sweeps = {"learning_rate": (1e-3, 1e-2), "gamma": (0.9, 0.99)}
    return Case(preset, TINY, sweeps, lambda: make_mean_field(task, num_agents=3, **changes), scale)


def _agents(preset: str, task: str, **settings: Any) -> Case:
    sweeps = {"learning_rate": (1e-3, 1e-2), "gamma": (0.9, 0.99)}

    def scale(env: Any, reward: Any) -> tuple[Any, Any]:
        return ScaledRewards(env, reward), env.default_params

    return Case(preset, {**TINY, **settings}, sweeps, lambda: make_swarm(task, 3), scale)


# Everything stateful is switched on somewhere: moments of observations and rewards, annealing, a pool of resets.
CASES: dict[str, Case] = {
    "ppo": _on_policy("ppo", normalize_obs=True, normalize_reward=True, clip_value=True),
    "ppo recurrent": _on_policy("ppo", memory="gru", memory_size=6, normalize_obs=True),
    "ppo mixture": Case(
        "ppo",
        {**TINY, "objective": "mdpo", "num_primitives": 3},
        {"learning_rate": (1e-3, 1e-2), "gamma": (0.9, 0.99)},
        lambda: dataclasses.replace(probes.termination_probe(), single_action_space=Box((-1.0, 0.0), (1.0, 3.0), (2,))),
    ),
    "a2c": _on_policy("a2c", num_epochs=1, num_minibatches=1, reset_pool=3),
    "mdpo": _on_policy("mdpo", num_minibatches=1),
    "pqn": _on_policy("pqn", normalize_obs=True, normalize_reward=True),
    "dqn": _off_policy("dqn", discrete=True, normalize_obs=True, normalize_reward=True, target_period=2),
    "dqn rainbow": _off_policy(
        "dqn", discrete=True, distribution="c51", num_atoms=5, prioritized=True, num_step_returns=3
    ),
    "sac": _off_policy("sac", normalize_obs=True, normalize_reward=True),
    "sac discrete": _off_policy("sac", discrete=True, reset_pool=3),
    "td3": _off_policy("td3", sweeps={"exploration_correlation": (0.9, 0.0)}, policy_delay=2, num_step_returns=2),
    "dsac_t": _off_policy("dsac_t"),
    "mdpo_off": _off_policy("mdpo_off", old_policy_period=4),
    "pmoe": _off_policy("pmoe", num_primitives=2),
    "lpg": _on_levels("lpg", META_SWEEPS, num_lifetimes=3, lifetime_batch=1, ended_batch=2, num_inner=2),
    "lpg2020": _on_levels(
        "lpg2020", META_SWEEPS, num_lifetimes=3, lifetime_batch=3, ended_batch=2, num_inner=2, bandit_learning_rates=()
    ),
    "groove": _on_levels(
        "groove", META_SWEEPS, num_lifetimes=2, lifetime_batch=2, ended_batch=1, num_inner=2, num_levels=6
    ),
    "ta_lpg": _on_levels("ta_lpg", EVO_SWEEPS, initial="random", population_batch=2, **TINY_POPULATION),
    "lpo": Case("lpo", TINY_DRIFT, EVO_SWEEPS, probes.contextual_probe),
    "deep_ga": _policies(
        "deep_ga", num_parents=3, elite_pool=2, elite_episodes=2, population_batch=4, memory="gru", memory_size=3
    ),
    "novelty_search": dataclasses.replace(
        _policies("novelty_search", num_parents=3, num_neighbours=3, archive_size=64), make_env=probes.continuous_probe
    ),
    "open_es": _policies(
        "open_es",
        ES_SWEEPS,
        normalize_obs=True,
        virtual_norm=True,
        explores=True,
        noise_batch=1,
    ),
    "ns_es": _policies("ns_es", ES_SWEEPS, num_policies=1, num_neighbours=2, noise_batch=1),
    "nsr_es": _policies("nsr_es", ES_SWEEPS, num_policies=1, num_neighbours=2, normalize_obs=True),
    "nsra_es": _policies("nsra_es", ES_SWEEPS, num_policies=1, num_neighbours=2),
    "cma_es": _policies("cma_es", hidden_sizes=()),  # otherwise axes of equal eigenvalues are anybody's choice
    "sep_cma_es": _policies("sep_cma_es"),
    "pgpe": _policies("pgpe"),
    "ars": _policies("ars"),
    "evosax": _policies("evosax", strategy="SimpleGA"),
    "map_elites": _archive("map_elites", num_ga=8),
    "pga_map_elites": _archive("pga_map_elites", num_injected=1, num_ga=16, num_initial=4),
    "dcg_map_elites": _archive("dcg_map_elites", num_probes=2, num_ga=8, num_initial=4),
    "cma_map_elites": _archive("cma_map_elites", population=6, num_strategies=2, num_ga=2, container="annealed"),
    "dcrl_map_elites": _archive("dcrl_map_elites", num_injected=2, grid_shape=(), num_cells=300, num_samples=400),
    "dec_pomfppo": _upper_level("dec_pomfppo", "two_room"),
    "m3fc_reference": dataclasses.replace(
        _upper_level("m3fc_reference", "lq", parametrisation="m3fc_reference"), exact=False
    ),
    "ippo": _agents("ippo", "two_room"),
    "mappo": _agents("mappo", "lq", normalize_obs=True),
    "mfc_ppo": _upper_level("mfc_ppo", "lq", full=True),
    "mfc_pg": Case(
        "mfc_pg",
        {"total_steps": 10**4, "num_envs": 2, "num_steps": 5, "policy": "network", "hidden_sizes": (4,)},
        {"learning_rate": (1e-3, 1e-2), "gamma": (0.5, 0.99)},
        point_mass,  # its starts are random: the others' dynamics are not
        lambda env, reward: (ScaledRewards(env, reward), env.default_params),
    ),
    "ta_lpo": Case("ta_lpo", {**TINY_DRIFT, "num_groups": 2}, EVO_SWEEPS, probes.contextual_probe),
}

KEY = jax.random.key  # typed keys


def metrics_are_flat_scalars(case: Case) -> None:
    state, metrics = case.run(KEY(0), case.hparams_at(0), 1.0)
    assert metrics
    assert all(isinstance(name, str) and "/" in name or name == "grad_norm" for name in metrics)
    assert {value.shape for value in metrics.values()} == {(UPDATES,)}
    assert not any(jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(state))


def resumed_equals_uninterrupted(case: Case) -> None:
    """n + m updates = n+m updates, bit for bit, and the chunk is traced once, wherever it starts."""
    hp = case.hparams_at(0)
    whole, metrics = case.run(KEY(0), hp, 1.0)
    half, first = case.chunk(KEY(0), hp, case.first_state(KEY(0), hp), jnp.int32(0))
    traced = len(case.traced)
    assert traced > 0
    rest, second = case.chunk(KEY(0), hp, half, jnp.int32(UPDATES // 2))
    assert len(case.traced) == traced
    halves = jax.tree.map(lambda a, b: np.concatenate([a, b]), first, second)
    if case.exact:
        assert_trees_equal((rest, halves), (whole, metrics))
    else:
        assert_trees_close((rest, halves), (whole, metrics), atol=1e-6, rtol=1e-5)
    # The parameters of both halves moved, so that the equality says something.
    assert _moved(half, whole) > 1e-6


def another_start_is_another_randomness(case: Case) -> None:
    """`start` is not forgotten: the same chunk from the same state at another index draws other experience."""
    hp = case.hparams_at(0)
    state = case.first_state(KEY(0), hp)
    at_zero, _ = case.chunk(KEY(0), hp, state, jnp.int32(0))
    at_three, _ = case.chunk(KEY(0), hp, state, jnp.int32(3))
    assert _moved(at_zero, at_three) > 1e-6


def same_key_same_run(case: Case) -> None:
    hp = case.hparams_at(0)
    assert_trees_equal(case.run(KEY(5), hp, 1.0), case.run(KEY(5), hp, 1.0))
    assert _moved(case.run(KEY(5), hp, 1.0)[0], case.run(KEY(6), hp, 1.0)[0]) > 1e-6


def swept_equals_separate(case: Case) -> None:
    """`vmap` over seeds and over numbers gives the parameters of separate runs, after one and two updates."""
    keys = jax.random.split(KEY(1), 2)
    both = jax.jit(lambda keys, hp: sweep(case.make, hp, keys, 2))
    single = jax.jit(lambda key, hp: train(key, case.make(hp), 2))
    states, metrics = both(keys, case.hparams)
    seen = []
    for h in range(2):
        for s in range(2):
            state, rows = single(keys[s], case.hparams_at(h))
            swept = jax.tree.map(lambda leaf: leaf[h, s], (_learnt(states), metrics))  # noqa: B023
            assert_trees_close(swept, (_learnt(state), rows), atol=1e-5, rtol=1e-4)
            seen.append(state)
    assert min(_moved(seen[0], seen[1]), _moved(seen[0], seen[2])) > 1e-4  # seeds and numbers make a difference


def jit_equals_no_jit(case: Case) -> None:
    """One update, op by op, gives what the compiled one gives."""
    sizes = {"num_envs": 2, "num_steps": 3, "hidden_sizes": (4,), "num_minibatches": 1, "num_gradient_steps": 1}
    known = {field.name for field in dataclasses.fields(case.config)}
    small = dataclasses.replace(case.config, **{name: size for name, size in sizes.items() if name in known})
    algorithm = dataclasses.replace(case, settings=dataclasses.asdict(small)).make(case.hparams_at(0))
    state, step = jax.jit(algorithm.init)(KEY(0)), jax.jit(algorithm.step)
    for t in range(case.warm_up):
        state, _ = step(KEY(2), state, jnp.int32(t))
    compiled = step(KEY(1), state, jnp.int32(case.warm_up))
    with jax.disable_jit():
        plain = algorithm.step(KEY(1), state, jnp.int32(case.warm_up))
    assert_trees_close(plain, compiled, atol=1e-5, rtol=1e-4)
    assert _moved(state, plain[0]) > 1e-6


def stays_finite_after_a_huge_reward(case: Case) -> None:
    state, metrics = case.run(KEY(2), case.hparams_at(0), 1e6)
    if hasattr(state, "archive"):  # an empty cell is worth -inf, and must be
        archive = state.archive
        assert (np.asarray(archive.fitness)[~np.asarray(archive.occupied)] == -np.inf).all()
        state = state.replace(archive=archive.replace(fitness=jnp.where(archive.occupied, archive.fitness, 0.0)))
    for leaf in jax.tree.leaves(state):
        assert np.isfinite(np.asarray(leaf)).all()
    of_what_ended = ("episode/", "lifetime/")  # NaN where nothing has
    assert all(np.isfinite(value).all() for name, value in metrics.items() if not name.startswith(of_what_ended))


def a_sweep_keeps_real_branches_on_t(case: Case) -> None:
    """Under `vmap` over runs, what happens every k-th update is still a `cond`: `t` is not batched."""
    keys = jax.random.split(KEY(0), 2)

    def measure(key: jax.Array, state: Any) -> dict[str, jax.Array]:
        return {"size": sum(jnp.abs(leaf).sum() for leaf in jax.tree.leaves(_learnt(state).params))}

    def conds(make: Callable[[Any], Algorithm]) -> int:
        return count_primitives(jax.make_jaxpr(lambda k, hp: sweep(make, hp, k, 4))(keys, case.hparams).jaxpr, "cond")

    plain = conds(case.make)
    evaluated = conds(lambda hp: with_evaluation(case.make(hp), measure, every=2))
    assert evaluated == plain + 1


def count_primitives(jaxpr: Any, name: str) -> int:
    """How often a primitive stands in a jaxpr, inner ones included."""
    total = 0
    for equation in jaxpr.eqns:
        total += equation.primitive.name == name
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(inner):
                total += count_primitives(getattr(inner, "jaxpr", inner), name)
    return total


def _is_jaxpr(x: Any) -> bool:
    return hasattr(x, "eqns") or hasattr(x, "jaxpr")


def _learnt(state: Any) -> Any:
    """The part of a state that has what is learnt as `params`: the agent's, or the state itself where rules are, or an
    archive."""
    return state if hasattr(state, "archive") else getattr(state, "agent", state)


def _moved(a: Any, b: Any) -> float:
    """The largest difference between the parameters of two states."""
    pairs = zip(jax.tree.leaves(_learnt(a).params), jax.tree.leaves(_learnt(b).params), strict=True)
    return max(float(np.abs(np.asarray(x) - np.asarray(y)).max()) for x, y in pairs)


CHECKS: tuple[Callable[[Case], None], ...] = (
    metrics_are_flat_scalars,
    resumed_equals_uninterrupted,
    another_start_is_another_randomness,
    same_key_same_run,
    swept_equals_separate,
    jit_equals_no_jit,
    stays_finite_after_a_huge_reward,
    a_sweep_keeps_real_branches_on_t,
)
