"""Replay against a plain list of rows: what can be drawn, how often, and what an n-step sample says."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.algorithm import init, train
from jaxrl.buffers import Buffer, replay
from jaxrl.presets import PRESETS
from jaxrl.spaces import Box
from jaxrl.types import Transition
from jaxrl_envs import probes

GAMMA = 0.9
NUM_ENVS = 3
# Rows are numbered as they are written; each row's numbers say which row and environment they are of.
Row = dict[str, np.ndarray]


def make_rows(rng: np.random.Generator, first: int, num: int, num_envs: int = NUM_ENVS) -> list[Row]:
    rows = []
    for number in range(first, first + num):
        name = 10 * number + np.arange(num_envs)
        rows.append(
            {
                "obs": np.stack([name, name], -1).astype(np.int32),
                "action": rng.integers(0, 5, num_envs).astype(np.int32),
                "reward": rng.normal(size=num_envs).astype(np.float32),
                "terminated": rng.random(num_envs) < 0.15,
                "truncated": rng.random(num_envs) < 0.15,
                "final_obs": np.stack([name, -name], -1).astype(np.int32),
            }
        )
    return rows


def stacked(rows: list[Row]) -> Transition:
    return Transition(**{name: jnp.asarray(np.stack([row[name] for row in rows])) for name in rows[0]})


def naive_sample(rows: list[Row], row: int, env: int, n: int) -> tuple[float, float, np.ndarray]:
    """(reward, discount, final_obs) of the n-step sample that begins at a row, of those in time order."""
    total = 0.0
    for i in range(n):
        now = rows[row + i]  # an IndexError if the sum runs beyond what is written
        total += GAMMA**i * now["reward"][env]
        if now["terminated"][env]:
            return total, 0.0, now["final_obs"][env]
        if now["truncated"][env] or i == n - 1:
            return total, GAMMA ** (i + 1), now["final_obs"][env]
    raise AssertionError("n >= 1")


class Program:
    """Blocks of rows written to a buffer and to a list that forgets its oldest."""

    def __init__(self, capacity: int, num_steps: int, n: int, exponent: float | None, batch_size: int = 12) -> None:
        self.n, self.num_steps = n, num_steps
        self.capacity = capacity // (NUM_ENVS * num_steps) * num_steps
        self.buffer: Buffer = replay(capacity, NUM_ENVS, num_steps, batch_size, GAMMA, n, exponent)
        self.rng = np.random.default_rng(capacity + 10 * n)
        self.kept: list[Row] = []
        self.written = 0
        item = jax.tree.map(lambda leaf: leaf[0, 0], stacked(make_rows(self.rng, 0, 1)))
        self.state = self.buffer.init(item)
        self.add_jitted = jax.jit(self.buffer.add)
        self.sample_jitted = jax.jit(jax.vmap(self.buffer.sample, (0, None)))

    def add(self, num_blocks: int) -> None:
        rows = make_rows(self.rng, self.written, num_blocks * self.num_steps)
        self.written += len(rows)
        self.kept = (self.kept + rows)[-self.capacity :]
        self.state = self.add_jitted(self.state, stacked(rows))

    def sample(self, seed: int = 0, num: int = 300) -> Any:
        """Draws of `num` batches, one after the other."""
        draws = self.sample_jitted(jax.random.split(jax.random.key(seed), num), self.state)
        return jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]), draws)

    def places(self, sample: Any) -> tuple[np.ndarray, np.ndarray]:
        """Which kept row, and which environment, each sample begins at."""
        number, env = np.divmod(sample.obs[:, 0], 10)
        return number - (self.written - len(self.kept)), env

    def check(self, sample: Any) -> np.ndarray:
        """Samples are what the naive loop says of some row that may be drawn; returns how often each was."""
        rows, envs = self.places(sample)
        num_valid = len(self.kept) - self.n + 1
        assert rows.min() >= 0
        assert rows.max() < num_valid
        for i in range(0, len(rows), 7):
            reward, discount, final_obs = naive_sample(self.kept, rows[i], envs[i], self.n)
            assert sample.reward[i] == pytest.approx(reward, abs=1e-5)
            assert sample.discount[i] == pytest.approx(discount, abs=1e-6)
            np.testing.assert_array_equal(sample.final_obs[i], final_obs)
            np.testing.assert_array_equal(sample.obs[i], self.kept[rows[i]]["obs"][envs[i]])
            assert sample.action[i] == self.kept[rows[i]]["action"][envs[i]]
        return np.bincount(rows * NUM_ENVS + envs, minlength=num_valid * NUM_ENVS)


def chi_square_is_plausible(counts: np.ndarray, probability: np.ndarray) -> bool:
    """The statistic lies within five deviations of its mean, and not suspiciously far below unless stratified."""
    expected = counts.sum() * probability
    degrees = len(counts) - 1
    return float(((counts - expected) ** 2 / expected).sum()) < degrees + 5 * np.sqrt(2 * degrees)


@pytest.mark.quick("1-1", "2-2", "1-4-prioritised")
@pytest.mark.parametrize("exponent", [None, 0.6], ids=["uniform", "prioritised"])
@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("num_steps", [1, 2])
def test_random_programs(num_steps: int, n: int, exponent: float | None) -> None:
    """Until the ring has gone round more than twice; blocks of one and of several sizes, also across its end."""
    program = Program(14 * NUM_ENVS, num_steps, n, exponent)
    for turn, blocks in enumerate([4, 1, 1, 1, 3, 1, 5, 2, 1, 4, 1, 14 // num_steps, 1]):
        program.add(blocks)
        counts = program.check(program.sample(turn))
        assert counts.min() > 0  # every row that may be drawn is
        assert chi_square_is_plausible(counts, np.full(len(counts), 1 / len(counts)))


def test_the_first_rows_can_be_drawn_as_soon_as_there_are_n() -> None:
    for exponent in (None, 0.6):
        program = Program(30, 1, 3, exponent)
        program.add(3)
        assert set(program.places(program.sample())[0]) == {0}
        program.add(1)
        assert set(program.places(program.sample())[0]) == {0, 1}


@pytest.mark.parametrize(
    ("terminated", "truncated", "reward", "discount", "final"),
    [
        # Oracle: gamma .9, rewards 1, 2, 3, bootstrap 10: 1 + 1.8 + 2.43 + 7.29 = 12.52.
        ([0, 0, 0], [0, 0, 0], 5.23, 0.729, 2),
        ([0, 0, 1], [0, 0, 0], 5.23, 0.0, 2),
        ([0, 0, 0], [0, 0, 1], 5.23, 0.729, 2),
        ([0, 1, 0], [0, 0, 0], 2.8, 0.0, 1),
        ([0, 0, 0], [0, 1, 0], 2.8, 0.81, 1),
        ([0, 1, 0], [0, 1, 0], 2.8, 0.0, 1),
        ([1, 0, 0], [0, 0, 0], 1.0, 0.0, 0),
        ([0, 0, 1], [1, 0, 0], 1.0, 0.9, 0),
    ],
)
def test_three_step_sums_by_hand(
    terminated: list[int], truncated: list[int], reward: float, discount: float, final: int
) -> None:
    buffer = replay(8, 1, 1, 4, GAMMA, 3)
    flags = np.array([terminated, truncated], bool)[..., None]
    number = jnp.arange(3.0)[:, None, None]
    rows = Transition(number, jnp.zeros((3, 1)), jnp.array([[1.0], [2.0], [3.0]]), flags[0], flags[1], number)
    state = buffer.add(buffer.init(jax.tree.map(lambda leaf: leaf[0, 0], rows)), rows)
    sample = buffer.sample(jax.random.key(0), state)
    np.testing.assert_allclose(sample.reward, reward, rtol=1e-6)
    np.testing.assert_allclose(sample.discount, discount, rtol=1e-6)
    np.testing.assert_array_equal(sample.final_obs[:, 0], final)
    assert (sample.reward + sample.discount * 10)[0] == pytest.approx(reward + discount * 10)
    if not flags.any():
        assert (sample.reward + sample.discount * 10)[0] == pytest.approx(12.52, abs=1e-5)


def test_dtypes_are_kept() -> None:
    buffer = replay(20, 2, 1, 4, GAMMA)
    image = jnp.zeros((3, 2, 4, 4, 1), jnp.uint8)
    flag = jnp.zeros((3, 2), bool)
    rows = Transition({"image": image}, jnp.zeros((3, 2), jnp.int32), jnp.zeros((3, 2)), flag, flag, {"image": image})
    state = buffer.add(buffer.init(jax.tree.map(lambda leaf: leaf[0, 0], rows)), rows)
    sample = buffer.sample(jax.random.key(0), state)
    assert state.data.obs["image"].dtype == sample.obs["image"].dtype == jnp.uint8
    assert sample.final_obs["image"].shape == (4, 4, 4, 1)
    assert sample.action.dtype == jnp.int32
    assert state.data.terminated.dtype == bool


def three_rows() -> tuple[Buffer, Any]:
    """Three transitions of one environment with priorities 1, 2, 4."""
    buffer = replay(4, 1, 1, 3, GAMMA, 1, 0.6)
    number, zeros = jnp.arange(3.0)[:, None], jnp.zeros((3, 1), bool)
    rows = Transition(number[..., None], jnp.zeros((3, 1)), number, zeros, zeros, number[..., None])
    state = buffer.add(buffer.init(jax.tree.map(lambda leaf: leaf[0, 0], rows)), rows)
    return buffer, buffer.update(state, jnp.arange(3), jnp.array([1.0, 2.0, 4.0]))


def test_prioritised_probabilities_by_hand() -> None:
    buffer, state = three_rows()
    samples = jax.jit(jax.vmap(buffer.sample, (0, None)))(jax.random.split(jax.random.key(0), 20_000), state)
    row = np.asarray(samples.reward).astype(int).ravel()
    known = np.array([0.20776573, 0.31491396, 0.47732031])
    np.testing.assert_allclose(np.asarray(samples.probability).ravel(), 3 * known[row], rtol=1e-5)
    np.testing.assert_allclose(np.bincount(row) / len(row), known, atol=5e-3)


def test_importance_weights_undo_the_sampling() -> None:
    """Draws divided by their relative probability have the mean of uniform draws, also after the ring went round."""
    program = Program(10 * NUM_ENVS, 1, 2, 0.9)
    program.add(4)
    for turn in range(9):
        program.add(1)
        sample = program.sample(turn, 1)
        priority = np.random.default_rng(turn).exponential(size=12) ** 2 + 0.1
        program.state = program.buffer.update(program.state, jnp.asarray(sample.index), jnp.asarray(priority))
    samples = program.sample(20, 20_000)
    weight = 1 / samples.probability
    assert weight.std() > 0.5  # there is something to undo
    assert weight.mean() == pytest.approx(1.0, abs=0.02)
    rewards = [
        naive_sample(program.kept, row, env, 2)[0] for row in range(len(program.kept) - 1) for env in range(NUM_ENVS)
    ]
    assert (weight * samples.reward).mean() == pytest.approx(np.mean(rewards), abs=0.03)
    assert abs(np.mean(samples.reward) - np.mean(rewards)) > 0.06  # which the plain mean misses


def weights_of(program: Program) -> np.ndarray:
    """Of every kept row, [rows, B], oldest first."""
    leaves = np.asarray(program.state.tree[0]).ravel()[: program.capacity * NUM_ENVS].reshape(-1, NUM_ENVS)
    return np.roll(leaves, -int(program.state.head), axis=0)[program.capacity - len(program.kept) :]


@pytest.mark.parametrize("n", [1, 3])
def test_new_rows_weigh_as_much_as_the_heaviest_so_far_once_they_can_be_drawn(n: int) -> None:
    program = Program(8 * NUM_ENVS, 1, n, 0.5)
    expected: list[float] = []
    heaviest = 1.0
    for turn in range(20):
        program.add(2 if turn == 0 else 1)
        expected += [heaviest] * (2 if turn == 0 else 1)
        expected = expected[-program.capacity :]
        ready = max(len(expected) - n + 1, 0)
        # A row's weight is the heaviest at the time when it can first be drawn.
        if n > 1 and ready:
            expected[ready - 1] = heaviest
        np.testing.assert_allclose(weights_of(program)[:ready], np.tile(expected[:ready], (NUM_ENVS, 1)).T, rtol=1e-5)
        np.testing.assert_array_equal(weights_of(program)[ready:], 0.0)
        if turn == 5:
            # A row in the middle becomes four times as heavy as any, for all environments.
            row = (int(program.state.head) - len(program.kept) + 2) % program.capacity
            index = jnp.asarray(row * NUM_ENVS + np.arange(NUM_ENVS))
            program.state = program.buffer.update(program.state, index, jnp.full(NUM_ENVS, 16.0))
            expected[2] = heaviest = 4.0
    assert program.state.max_priority == pytest.approx(4.0, rel=1e-5)


def test_priorities_of_an_index_drawn_twice_do_not_depend_on_the_order() -> None:
    buffer, state = three_rows()
    index, priority = np.array([1, 0, 1, 1, 2, 0]), np.array([3.0, 1.0, 7.0, 0.5, 2.0, 4.0])
    results = []
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(6)
        updated = jax.jit(buffer.update)(state, jnp.asarray(index[order]), jnp.asarray(priority[order]))
        results.append(np.asarray(updated.tree[0][0, :3]))
    np.testing.assert_allclose(results[0], (np.array([4.0, 7.0, 2.0]) + 1e-6) ** 0.6, rtol=1e-6)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def test_updates_of_a_uniform_buffer_do_nothing() -> None:
    buffer = replay(8, 1, 1, 4, GAMMA)
    state = buffer.init(jax.tree.map(lambda leaf: leaf[0, 0], stacked(make_rows(np.random.default_rng(0), 0, 1, 1))))
    assert buffer.update(state, jnp.arange(2), jnp.ones(2)) is state
    assert jax.tree.leaves((state.tree, state.max_priority)) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((100, 4, 1, 128, GAMMA), "fewer than batch_size = 128; use a buffer_size of at least 128, or a smaller"),
        ((103, 10, 10, 101, GAMMA), r"holds 100 transitions .*fewer than batch_size = 101; use .* at least 200"),
        ((16, 4, 1, 8, GAMMA, 5), r"num_step_returns \+ num_steps = 6; use at least 28"),
        ((16, 4, 4, 8, GAMMA, 3), r"holds 4 steps of 4 environments, fewer than .* = 7; use at least 44"),
        ((16, 4, 1, 8, GAMMA, 0), "num_step_returns = 0: expected an integer >= 1"),
    ],
)
def test_buffers_that_are_too_small_say_what_would_do(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replay(*arguments)


def test_the_size_that_the_error_names_is_enough() -> None:
    for named, num_envs, num_steps, n, rows in ((28, 4, 1, 5, 7), (44, 4, 4, 3, 8)):
        buffer = replay(named, num_envs, num_steps, 8, GAMMA, n)
        item = jax.tree.map(lambda leaf: leaf[0, 0], stacked(make_rows(np.random.default_rng(0), 0, 1, 1)))
        assert buffer.init(item).data.reward.shape == (rows, num_envs)


@pytest.mark.parametrize("block", [3, 10])
def test_blocks_that_do_not_fit_are_refused(block: int) -> None:
    buffer = replay(8, 1, 2, 4, GAMMA)
    rows = stacked(make_rows(np.random.default_rng(0), 0, block, 1))
    state = buffer.init(jax.tree.map(lambda leaf: leaf[0, 0], rows))
    with pytest.raises(ValueError, match="add takes a multiple of 2 steps, at most 8"):
        buffer.add(state, rows)


@pytest.mark.quick("dqn-prioritised-2", "sac-uniform-1")
@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("prioritized", [False, True], ids=["uniform", "prioritised"])
@pytest.mark.parametrize("name", ["dqn", "sac", "td3", "dsac_t", "mdpo_off", "pmoe"])
def test_training_holds_the_buffer_once(name: str, prioritized: bool, seeds: int) -> None:
    """Of a donated state: no copy of the ring, whose megabytes would show among the program's temporaries."""
    if prioritized and name != "dqn":
        pytest.skip("only DQN draws by priority")
    settings = {"total_steps": 2_000, "num_envs": 4, "num_gradient_steps": 2, "batch_size": 16, "fill_steps": 16}
    more = {"prioritized": prioritized} if name == "dqn" else {}
    preset, probe = PRESETS[name], probes.termination_probe()
    config = dataclasses.replace(
        preset.config, **settings, buffer_size=400_000, num_step_returns=2, hidden_sizes=(4,), **more
    )
    if name != "dqn":
        probe = dataclasses.replace(probe, single_action_space=Box(-1.0, 1.0, (1,)))
    algorithm = preset.make(probe, config, preset.hparams)
    keys = jax.random.split(jax.random.key(0), seeds)

    def run(keys: jax.Array, state: Any) -> Any:
        return jax.vmap(lambda key, state: train(key, algorithm, 3, state))(keys, state)

    shapes = jax.eval_shape(jax.vmap(lambda key: init(key, algorithm)), keys)
    analysis = jax.jit(run, donate_argnums=1).lower(keys, shapes).compile().memory_analysis()
    ring = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes.buffer))
    assert ring > seeds * 6_000_000
    assert analysis.temp_size_in_bytes < 0.05 * ring
