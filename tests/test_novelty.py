"""Novelty by hand and against NumPy, and the archive's order and overflow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.evo.novelty import NoveltyArchive, add_to_archive, init_archive, novelty, sequence_distance

KEY = jax.random.key(0)
TABLE = jnp.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
POINT = jnp.array([[3.0, 0.0]])


def archive_of(rows: jax.Array, capacity: int) -> NoveltyArchive:
    return add_to_archive(init_archive(capacity, rows.shape[1]), rows, jnp.ones(len(rows), bool))


@pytest.mark.parametrize("capacity", [3, 7])
def test_by_hand(capacity: int) -> None:
    """Oracle 5: distances 3, 4 and the root of 73; room that is empty is no neighbour at the origin."""
    archive = archive_of(TABLE, capacity)
    for k, metric, expected in ((2, "euclidean", 3.5), (2, "sqeuclidean", 12.5), (9, "euclidean", (7 + 73**0.5) / 3)):
        np.testing.assert_allclose(novelty(POINT, archive, k, metric), [expected], rtol=1e-6)
        np.testing.assert_allclose(novelty(POINT, archive, k, metric, contemporaries=False), [expected], rtol=1e-6)
    np.testing.assert_array_equal(novelty(POINT, init_archive(capacity, 2), 2), [0.0])


def test_duplicates_count_and_oneself_does_not() -> None:
    twice = jnp.concatenate([POINT, POINT])
    np.testing.assert_allclose(novelty(twice, archive_of(TABLE, 3), 2), [1.5, 1.5])
    np.testing.assert_allclose(novelty(POINT, archive_of(POINT, 3), 2), [0.0])
    np.testing.assert_allclose(novelty(jnp.array([[0.0], [1.0], [3.0]]), init_archive(4, 1), 1), [1.0, 1.0, 2.0])


def test_against_numpy() -> None:
    people, old = jax.random.normal(KEY, (30, 3)), jax.random.normal(jax.random.key(1), (11, 3))
    archive = archive_of(old, 20)
    everyone = np.concatenate([people, old]).astype(np.float64)
    distances = np.linalg.norm(np.asarray(people, np.float64)[:, None] - everyone, axis=-1)
    distances[np.arange(30), np.arange(30)] = np.inf
    expected = np.sort(distances, 1)[:, :5].mean(1)
    for batch_size in (0, 7, 30):
        np.testing.assert_allclose(novelty(people, archive, 5, batch_size=batch_size), expected, rtol=1e-5)


def test_failures_are_nobodys_neighbours() -> None:
    people = jnp.array([[0.0, 0.0], [jnp.nan, 0.0], [3.0, 4.0]])
    np.testing.assert_array_equal(novelty(people, init_archive(2, 2), 2), [5.0, -np.inf, 5.0])


def test_archive() -> None:
    """Oracle 6: everyone in order, nobody, and what does not fit is dropped and counted."""
    rows = jnp.arange(10.0).reshape(5, 2)
    everyone, nobody = jnp.ones(5, bool), jnp.zeros(5, bool)
    full = add_to_archive(init_archive(6, 2), rows, everyone)
    np.testing.assert_array_equal(full.entries[:5], rows)
    assert (int(full.count), int(full.dropped)) == (5, 0)
    same = add_to_archive(full, rows + 100, nobody)
    np.testing.assert_array_equal(same.entries, full.entries)
    assert int(same.count) == 5
    over = add_to_archive(full, rows + 100, jnp.array([False, True, False, True, True]))
    np.testing.assert_array_equal(over.entries, jnp.concatenate([rows, rows[1:2] + 100]))
    assert (int(over.count), int(over.dropped)) == (6, 2)
    again = add_to_archive(over, rows, everyone)
    assert (int(again.count), int(again.dropped)) == (6, 7)
    np.testing.assert_array_equal(again.entries, over.entries)


def test_sequences_of_different_lengths() -> None:
    """Oracle 13, and the released formula: |x - y[:n]|^2 + |x_last - y[n:]|^2."""
    np.testing.assert_allclose(sequence_distance(jnp.array([[0.0]]), jnp.array([[0.0], [3.0]])), 3.0)
    x, y = jax.random.normal(KEY, (3, 2)), jax.random.normal(jax.random.key(1), (5, 2))
    expected = np.sqrt(np.square(x - y[:3]).sum() + np.square(x[-1] - y[3:]).sum())
    np.testing.assert_allclose(sequence_distance(x, y), expected, rtol=1e-6)
    np.testing.assert_allclose(sequence_distance(y, x), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: novelty(POINT, init_archive(3, 2), 0), "num_neighbours = 0"),
        (lambda: novelty(POINT, init_archive(3, 2), 2, "cosine"), "metric = 'cosine'"),
        (lambda: init_archive(0, 2), "capacity = 0"),
    ],
)
def test_what_does_not_fit_is_refused(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()
