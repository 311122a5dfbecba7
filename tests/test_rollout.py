"""The rollout and the evaluation, with an environment and an agent whose every number is known."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import SCRIPTS, ScriptedEnv, ScriptParams, scripted_agent

from jaxrl.env import autoreset, time_limit, vectorize
from jaxrl.evaluation import evaluate, record
from jaxrl.loops.on_policy import on_policy
from jaxrl.loops.rollout import begin, rollout
from jaxrl.spaces import Box
from jaxrl.types import Agent, Rollout, Timestep

NUM_ENVS, NUM_STEPS = 12, 9
PARAMS = ScriptParams(2.0)

Rolls = list[tuple[Rollout, dict[str, np.ndarray]]]


def roll(pool: int | None = None) -> Rolls:
    """Three rollouts in a row, the episodes running on, with their metrics."""
    envs = autoreset(vectorize(ScriptedEnv(), NUM_ENVS), pool)
    agent = scripted_agent()

    def run(key: jax.Array) -> Any:
        keys = jax.random.split(key, 4)
        now, results = begin(keys[0], agent, envs, PARAMS), []
        for i in range(3):
            now = now.replace(env_state=envs.refresh(jax.random.fold_in(keys[0], i), now.env_state, PARAMS))
            now, experience, metrics = rollout(keys[i + 1], agent, (), envs, PARAMS, now, NUM_STEPS)
            results.append((experience, metrics))
        return results

    return jax.tree.map(np.asarray, jax.jit(run)(jax.random.key(0)))


@pytest.fixture(scope="module", params=[None, 6], ids=["reset", "pool"])
def rolls(request: pytest.FixtureRequest) -> Rolls:
    return roll(request.param)


def joined(rolls: Rolls) -> Rollout:
    """All steps on one axis."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *[r._replace(memory=()) for r, _ in rolls])


def test_every_kind_of_episode_occurs(rolls: Rolls) -> None:
    """Else the tests below would be about nothing."""
    whole = joined(rolls)
    ends = whole.terminated | whole.truncated
    assert set(whole.obs[..., 0][ends].astype(int)) == {0, 1, 2, 3, 4}
    assert np.any(whole.truncated[NUM_STEPS - 1 :: NUM_STEPS])  # a truncation on a rollout's last step
    assert not np.all(ends[NUM_STEPS - 1 :: NUM_STEPS])


def test_steps_follow_the_script(rolls: Rolls) -> None:
    whole = joined(rolls)
    kind, time = whole.obs[..., 0].astype(int), whole.obs[..., 1].astype(int)
    length, terminates, truncates = (np.array(column)[kind] for column in zip(*SCRIPTS, strict=True))
    np.testing.assert_array_equal(whole.action, time % 2)
    np.testing.assert_allclose(whole.reward, 2.0 * (kind + time / 10 + 100 * (time % 2)), rtol=1e-5)
    np.testing.assert_array_equal(whole.terminated, (time == length - 1) & terminates)
    np.testing.assert_array_equal(whole.truncated, (time == length - 1) & truncates)
    # Observations run on, across rollouts too, and begin again at 0 behind an end.
    ends = (whole.terminated | whole.truncated)[:-1]
    np.testing.assert_array_equal(time[1:], np.where(ends, 0, time[:-1] + 1))
    np.testing.assert_array_equal(kind[1:][~ends], kind[:-1][~ends])


def test_is_first_marks_the_first_step_of_each_episode(rolls: Rolls) -> None:
    whole = joined(rolls)
    np.testing.assert_array_equal(whole.is_first, whole.obs[..., 1] == 0)
    assert whole.is_first[0].all()
    assert not rolls[1][0].is_first[0].all()  # the second rollout goes on where the first stopped


def test_successors_are_seen_before_the_reset(rolls: Rolls) -> None:
    """The value of the true successor, of the same episode, at every step where the future counts."""
    for experience, _ in rolls:
        kind, time = experience.obs[..., 0], experience.obs[..., 1]
        counts = ~experience.terminated
        np.testing.assert_array_equal(experience.next_extras["value"][counts], (100 * kind + time + 1)[counts])
        np.testing.assert_array_equal(experience.extras["value"], 100 * kind + time)


def test_memory_is_carried_reset_and_asked_before_the_reset(rolls: Rolls) -> None:
    """The agent's memory counts the steps of an episode, this one included; the successor's is one more."""
    before = np.zeros(NUM_ENVS, int)
    for experience, _ in rolls:
        time = experience.obs[..., 1].astype(int)
        np.testing.assert_array_equal(experience.memory, before)
        np.testing.assert_array_equal(experience.extras["memory"], time + 1)
        counts = ~experience.terminated
        np.testing.assert_array_equal(experience.next_extras["memory"][counts], (time + 2)[counts])
        before = experience.extras["memory"][-1]


def test_episode_metrics_by_hand(rolls: Rolls) -> None:
    """Whole episodes, also those that began in an earlier rollout, count in the rollout in which they end."""
    total, steps = np.zeros(NUM_ENVS), np.zeros(NUM_ENVS)
    for experience, metrics in rolls:
        returns, lengths = [], []
        for t, b in np.ndindex(NUM_STEPS, NUM_ENVS):
            total[b] += experience.reward[t, b]
            steps[b] += 1
            if experience.terminated[t, b] or experience.truncated[t, b]:
                returns.append(total[b])
                lengths.append(steps[b])
                total[b] = steps[b] = 0.0
        assert metrics["episode/count"] == len(returns) > 0
        np.testing.assert_allclose(metrics["episode/return"], np.mean(returns), rtol=1e-5)
        np.testing.assert_allclose(metrics["episode/length"], np.mean(lengths), rtol=1e-6)


def test_no_finished_episode_is_nan_not_zero() -> None:
    """Three steps of episodes of seven: no return is known."""

    class Long(ScriptedEnv):
        def reset(self, key: jax.Array, params: ScriptParams) -> Any:
            state, _ = super().reset(key, params)
            state = state.replace(kind=jnp.int32(4))
            return state, self._obs(state)

    envs = autoreset(vectorize(Long(), 2))
    agent = scripted_agent()
    now = begin(jax.random.key(0), agent, envs, PARAMS)
    metrics = jax.jit(lambda now: rollout(jax.random.key(1), agent, (), envs, PARAMS, now, 3)[2])(now)
    assert metrics["episode/count"] == 0.0
    assert np.isnan(metrics["episode/return"])
    assert np.isnan(metrics["episode/length"])


def test_a_pool_gives_only_its_first_states() -> None:
    """With a pool of one, every episode that begins within a rollout is of the same kind."""
    kinds = []
    for experience, _ in roll(pool=1):
        begun = experience.is_first.copy()
        begun[0] = False  # drawn before the pool was renewed
        kinds.append(set(experience.obs[..., 0][begun]))
    assert all(len(kind) == 1 for kind in kinds)
    assert len(set.union(*kinds)) > 1  # and the pool is renewed between rollouts


def test_the_loop_hands_over_progress_and_rollouts() -> None:
    seen: list[Any] = []
    scripted = scripted_agent()

    def update(key: Any, state: jax.Array, experience: Rollout, progress: Any) -> Any:
        seen.append((experience.obs.shape, progress.num_updates))
        return state + experience.reward.sum(), {"fraction": progress.fraction}

    agent = Agent(lambda *_: jnp.float32(0), scripted.memory, scripted.act, update)
    algorithm = on_policy(agent, ScriptedEnv(), PARAMS, num_envs=3, num_steps=4, num_updates=8)
    state = algorithm.init(jax.random.key(0))
    after, metrics = jax.jit(algorithm.step)(jax.random.key(1), state, jnp.int32(2))
    assert seen[0] == ((4, 3, 2), 8)
    assert metrics["fraction"] == 0.25
    assert after.agent > 0
    assert set(metrics) == {"fraction", "episode/return", "episode/length", "episode/count"}


@pytest.mark.parametrize("pool", [None, 3])
def test_the_loop_renews_the_pool_before_each_rollout(pool: int | None) -> None:
    class Places(ScriptedEnv):
        """Every reset is somewhere else, so that pools are seen to differ."""

        def reset(self, key: jax.Array, params: ScriptParams) -> Any:
            state, obs = super().reset(key, params)
            return state, obs + jax.random.uniform(key)

    algorithm = on_policy(scripted_agent(), Places(), PARAMS, num_envs=3, num_steps=4, num_updates=8, reset_pool=pool)
    state, pools = algorithm.init(jax.random.key(0)), []
    for t in range(3):
        pools.append(jax.tree.leaves(state.interaction.env_state.pool)[-1:])
        state, _ = jax.jit(algorithm.step)(jax.random.key(t), state, jnp.int32(t))
    assert all(len(leaves) == (0 if pool is None else 1) for leaves in pools)
    if pool is not None:
        seen = [np.asarray(leaves[0]) for leaves in pools]
        assert seen[0].shape == (3, 2)
        assert len({leaf.tobytes() for leaf in seen}) == 3


class Dial:
    """Continuous actions; the reward is the action as the environment received it. Ends after 2 steps."""

    default_params = ScriptParams()

    def reset(self, key: jax.Array, params: ScriptParams) -> Any:
        return jnp.int32(0), jnp.zeros(1)

    def step(self, key: jax.Array, state: jax.Array, action: jax.Array, params: ScriptParams) -> Any:
        obs = jnp.ones(1) * (state + 1)
        return state + 1, Timestep(obs, action[0], state + 1 >= 2, jnp.bool_(False), obs, {})

    def observation_space(self, params: ScriptParams) -> Box:
        return Box(0.0, 2.0, (1,))

    def action_space(self, params: ScriptParams) -> Box:
        return Box(-1.0, 0.5, (1,))


def test_actions_are_clipped_for_the_environment_and_kept_for_the_learner() -> None:
    def act(key: Any, state: Any, memory: Any, obs: jax.Array, is_first: Any, explore: bool) -> Any:
        return jnp.where(obs == 0, 3.0, -7.0), memory, {"value": obs[:, 0]}

    agent = Agent(lambda *_: (), lambda num: (), act, lambda *_: ((), {}))
    envs = autoreset(vectorize(Dial(), 2))
    now = begin(jax.random.key(0), agent, envs, PARAMS)
    _, experience, _ = jax.jit(lambda now: rollout(jax.random.key(1), agent, (), envs, PARAMS, now, 2))(now)
    np.testing.assert_array_equal(experience.action[..., 0], [[3.0, 3.0], [-7.0, -7.0]])
    np.testing.assert_array_equal(experience.reward, [[0.5, 0.5], [-1.0, -1.0]])


def test_evaluation_plays_each_episode_once() -> None:
    """Returns of whole first episodes, by the script; those that `max_steps` cuts say so."""
    episodes = jax.jit(lambda key: evaluate(key, scripted_agent(), (), ScriptedEnv(), PARAMS, 40, max_steps=6))(
        jax.random.key(0)
    )
    lengths = np.asarray(episodes.lengths)
    # By length: kinds 0 to 3 have lengths 2, 3, 4, 1; the last would be 7 and is cut.
    kinds = {2: 0, 3: 1, 4: 2, 1: 3, 6: 4}
    assert set(lengths) == set(kinds)
    for length, total, ended in zip(lengths, episodes.returns, episodes.ended, strict=True):
        expected = sum(2.0 * (kinds[int(length)] + t / 10 + 100 * (t % 2)) for t in range(length))
        assert total == pytest.approx(expected, rel=1e-5)
        assert ended == (length != 6)


def test_evaluation_stops_when_all_have_ended() -> None:
    env = time_limit(ScriptedEnv(), 5)
    episodes = jax.jit(lambda key: evaluate(key, scripted_agent(), (), env, PARAMS, 8))(jax.random.key(1))
    assert episodes.ended.all()
    assert np.asarray(episodes.lengths).max() == 5


def test_evaluation_explores_only_when_asked() -> None:
    scripted = scripted_agent()
    seen: list[bool] = []

    def act(key: Any, state: Any, memory: Any, obs: Any, is_first: Any, explore: bool) -> Any:
        seen.append(explore)
        return scripted.act(key, state, memory, obs, is_first, explore)

    agent = scripted._replace(act=act)
    for explore in (False, True):
        seen.clear()
        jax.eval_shape(
            lambda key, e=explore: evaluate(key, agent, (), ScriptedEnv(), PARAMS, 2, explore=e), jax.random.key(0)
        )
        assert set(seen) == {explore}


def test_a_record_shows_one_episode() -> None:
    env = time_limit(ScriptedEnv(), 3)
    rows = jax.jit(lambda key: record(key, scripted_agent(), (), env, PARAMS, 6))(jax.random.key(3))
    rows = jax.tree.map(np.asarray, rows)
    length = int(np.flatnonzero(rows["done"])[0]) + 1
    kind = int(rows["obs"][0, 0])
    assert length == min(SCRIPTS[kind][0], 3)
    np.testing.assert_array_equal(rows["obs"][:, 1], np.arange(6))  # nothing resets
    np.testing.assert_array_equal(rows["states"].time, np.arange(6))
    np.testing.assert_array_equal(rows["action"], np.arange(6) % 2)
    np.testing.assert_allclose(rows["reward"], 2.0 * (kind + np.arange(6) / 10 + 100 * (np.arange(6) % 2)), rtol=1e-5)
