"""Archives: cells by hand, insertion against one-by-one NumPy loops, and the faults of other implementations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_equal

from jaxrl.qd.archive import Archive, Container, annealed, elites, nearest_individual, select
from jaxrl.qd.novelty import dominated_novelty, novelty_of_dominated
from jaxrl.qd.tessellation import Tessellation, cvt_centroids, grid, nearest, voronoi

KEY = jax.random.key(0)
INF, NAN = np.inf, np.nan


def random_batch(rng: np.random.Generator, num: int, num_ids: int = 0) -> Any:
    """Genotypes whose every entry is the individual's number; fitness with many ties, NaN and inf; any descriptor."""
    ids = np.arange(num, dtype=np.float32) + num_ids
    genotypes = {"w": np.tile(ids[:, None, None], (1, 2, 3)), "b": ids.astype(np.int32), "c": np.stack([ids, -ids], 1)}
    fitness = rng.integers(-4, 5, num).astype(np.float32)
    descriptors = rng.uniform(-0.3, 1.3, (num, 2)).astype(np.float32)
    odd = rng.random(num)
    fitness[odd < 0.06] = NAN
    fitness[(odd > 0.06) & (odd < 0.1)] = INF
    fitness[(odd > 0.1) & (odd < 0.14)] = -INF
    descriptors[(odd > 0.14) & (odd < 0.18), 1] = NAN
    descriptors[(odd > 0.18) & (odd < 0.2), 0] = INF
    return genotypes, fitness, descriptors


def cell_by_hand(cells: Tessellation, descriptor: np.ndarray) -> int:
    return int(np.argmin(np.square((descriptor - cells.centroids) / (cells.high - cells.low)).sum(1)))


def one_by_one(cells: Tessellation, kept: dict[int, tuple[float, int]], batch: Any, first: int = 0) -> Any:
    """{cell: (fitness, who)} after the batch, in its order."""
    kept = dict(kept)
    for i, (value, descriptor) in enumerate(zip(batch[1], batch[2], strict=True)):
        if np.isfinite(value) and np.isfinite(descriptor).all():
            cell = cell_by_hand(cells, np.clip(descriptor, 0, 1))
            if cell not in kept or value > kept[cell][0]:
                kept[cell] = (float(value), first + i)
    return kept


def as_dict(archive: Archive) -> dict[int, tuple[float, int]]:
    """{cell: (fitness, who)}; asserts that everything in a cell is of one individual."""
    found = {}
    w, b, c = (np.asarray(archive.genotypes[name]) for name in ("w", "b", "c"))
    for cell in np.flatnonzero(np.asarray(archive.occupied)):
        who = int(b[cell])
        assert (w[cell] == who).all()
        np.testing.assert_array_equal(c[cell], [who, -who])
        found[int(cell)] = (float(archive.fitness[cell]), who)
    return found


CELLS = grid([0, 0], [1, 1], [3, 4])
CONTAINERS = {"elites": elites(CELLS), "annealed": annealed(CELLS, 0.4, -3.0)}

# --------------------------------------------------------------------------------------------------------- cells


def test_cells_of_a_grid_by_hand() -> None:
    """Row-major, the last axis fastest; edges go up, bounds into the last cell, what is outside to the border."""
    cells = grid([-1, 0], [1, 30], [2, 3])
    points = [[-0.5, 5], [-0.5, 15], [-0.5, 29], [0.5, 5], [0.0, 10.0], [1, 30], [5, 150], [-4, -3], [NAN, 1]]
    assert cells.cell_of(jnp.array(points)).tolist() == [0, 1, 2, 3, 4, 5, 5, 0, 0]
    np.testing.assert_allclose(cells.centroids[:4], [[-0.5, 5], [-0.5, 15], [-0.5, 25], [0.5, 5]])
    assert cells.cell_of(jnp.array([[INF, -INF], [3e38, -3e38]])).tolist() == [3, 3]
    np.testing.assert_array_equal(cells.cell_of(jnp.asarray(cells.centroids)), np.arange(6))


def test_a_grid_is_the_nearest_centre_away_from_edges() -> None:
    cells = grid([-2, 0, 5], [2, 1, 25], [4, 10, 5])
    points = jax.random.uniform(KEY, (3000, 3), minval=jnp.array([-3, -0.2, 0]), maxval=jnp.array([3, 1.2, 30]))
    scaled = (points - cells.low) / (cells.high - cells.low) * jnp.array([4, 10, 5])
    inside = np.asarray((jnp.abs(scaled - jnp.round(scaled)) > 1e-3).all(1))
    by_hand = np.array([cell_by_hand(cells, np.clip(p, cells.low, cells.high)) for p in np.asarray(points)])
    np.testing.assert_array_equal(np.asarray(cells.cell_of(points))[inside], by_hand[inside])
    assert inside.mean() > 0.98


@pytest.mark.parametrize("block", [1, 7 * 50, 2**22])
def test_nearest_is_exact_in_blocks_and_ties_go_to_the_lowest(block: int) -> None:
    rng = np.random.default_rng(0)
    points, centroids = rng.random((33, 2), np.float32), rng.random((50, 2), np.float32)
    centroids[7] = centroids[3]  # a tie wherever one of them is nearest
    distance = np.square(points[:, None].astype(np.float64) - centroids[None]).sum(-1)
    np.testing.assert_array_equal(nearest(jnp.array(points), jnp.array(centroids), block), distance.argmin(1))
    assert int(nearest(jnp.array([[0.5, 0.5]]), jnp.array([[0.0, 0.5], [1.0, 0.5], [0.5, 0.0]]))[0]) == 0


def test_cells_close_together_are_not_confused() -> None:
    """|c|^2 - 2 d c loses these neighbours to cancellation: 1e-4 apart, far from the origin."""
    centroids = np.stack([0.9 + 1e-4 * np.arange(100), np.full(100, 0.7)], 1).astype(np.float32)
    cells = voronoi(centroids, [0, 0], [1, 1])
    points = centroids + np.float32([2e-5, 1e-5])
    np.testing.assert_array_equal(cells.cell_of(jnp.array(points)), np.arange(100))


def test_axes_of_other_units_count_alike() -> None:
    """In raw units the second axis would decide alone."""
    cells = voronoi(np.array([[0.1, 400.0], [0.9, 600.0]]), [0, 0], [1, 1000])
    assert cells.cell_of(jnp.array([[0.15, 560.0]])).tolist() == [0]


def test_cvt_is_a_tessellation_of_the_box() -> None:
    """C distinct centroids inside, each its own cell, and no cell much larger or smaller than its share."""
    low, high = np.array([-30.0, 0.0]), np.array([30.0, 1.0])
    centroids = np.asarray(cvt_centroids(KEY, 64, low, high, 5000))
    assert len(np.unique(centroids, axis=0)) == 64
    assert (centroids > low).all()
    assert (centroids < high).all()
    cells = voronoi(centroids, low, high)
    np.testing.assert_array_equal(cells.cell_of(jnp.asarray(centroids)), np.arange(64))
    points = jax.random.uniform(jax.random.key(1), (100_000, 2), minval=low, maxval=high)
    share = np.bincount(cells.cell_of(points), minlength=64) / 1e5 * 64
    assert share.min() > 1 / 3
    assert share.max() < 3
    np.testing.assert_array_equal(centroids, cvt_centroids(KEY, 64, low, high, 5000))
    assert not np.array_equal(centroids, cvt_centroids(jax.random.key(1), 64, low, high, 5000))
    traced = jax.jit(lambda: cvt_centroids(KEY, 64, low, high, 5000))()
    np.testing.assert_array_equal(centroids, traced)


# ----------------------------------------------------------------------------------------------------- insertion


@pytest.mark.parametrize("kind", ["grid", "voronoi"])
def test_a_batch_is_inserted_as_if_one_by_one(kind: str) -> None:
    cells = CELLS if kind == "grid" else voronoi(np.asarray(CELLS.centroids) + [[0.01, 0.02]], [0, 0], [1, 1])
    container = elites(cells)
    insert = jax.jit(container.insert)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        first, second = random_batch(rng, 60), random_batch(rng, 400, 60)
        archive, _ = insert(container.init(first[0], 2), *first)
        kept = one_by_one(cells, {}, first)
        assert as_dict(archive) == kept
        archive, insertion = insert(archive, *second)
        insertion = jax.tree.map(np.asarray, insertion)
        after = one_by_one(cells, kept, second, 60)
        assert as_dict(archive) == after
        # What is said of it: status against the archive before, and who is in it now.
        winners = {who for _, who in after.values()}
        for i, (value, descriptor) in enumerate(zip(second[1], second[2], strict=True)):
            valid = bool(np.isfinite(value) and np.isfinite(descriptor).all())
            cell = cell_by_hand(cells, np.clip(descriptor, 0, 1)) if valid else -1
            expected = 0 if not valid else 2 if cell not in kept else 1 if value > kept[cell][0] else 0
            assert int(insertion.status[i]) == expected
            assert bool(insertion.added[i]) == (60 + i in winners)
            gain = value - kept.get(cell, (0.0,))[0] if 60 + i in winners else 0.0
            assert gain == (insertion.margin[i] if insertion.added[i] else 0.0)


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_batch_may_be_cut_anywhere(name: str) -> None:
    container = CONTAINERS[name]
    batch = random_batch(np.random.default_rng(5), 90)
    insert = jax.jit(container.insert)
    whole, _ = insert(container.init(batch[0], 2), *batch)
    for cuts in ((0, 1, 2, 90), (0, 44, 88, 89, 90), (0, 88, 90)):
        archive = container.init(batch[0], 2)
        for start, stop in zip(cuts, cuts[1:], strict=False):
            archive, _ = insert(archive, *jax.tree.map(lambda leaf: leaf[start:stop], batch))  # noqa: B023
        assert_trees_equal(archive, whole)


def test_the_order_decides_nothing_but_ties() -> None:
    container, rng = elites(CELLS), np.random.default_rng(2)
    insert = jax.jit(container.insert)
    genotypes, fitness, descriptors = random_batch(rng, 200)
    order = rng.permutation(200)
    for distinct in (False, True):
        values = fitness + np.arange(200, dtype=np.float32) * 1e-3 if distinct else fitness
        batch = (genotypes, values, descriptors)
        shuffled = jax.tree.map(lambda leaf: leaf[order], batch)
        a, b = (insert(container.init(genotypes, 2), *x)[0] for x in (batch, shuffled))
        np.testing.assert_array_equal(a.fitness, b.fitness)
        if distinct:
            assert_trees_equal(a, b)
        else:
            assert as_dict(a) != as_dict(b)


def test_one_nan_blocks_nobody_and_infinity_is_not_for_ever() -> None:
    """Of an implementation that is in wide use: NaN took the cell's maximum, NaN descriptors fell into cell 0, and
    an infinite fitness could never be beaten."""
    container = elites(grid([0], [1], [2]))
    genotypes = jnp.arange(6.0)
    fitness = jnp.array([NAN, 1.0, INF, 0.5, 7.0, -INF])
    descriptors = jnp.array([[0.1], [0.1], [0.1], [0.8], [NAN], [0.9]])
    archive, insertion = container.insert(container.init(genotypes, 1), genotypes, fitness, descriptors)
    np.testing.assert_array_equal(archive.fitness, [1.0, 0.5])
    np.testing.assert_array_equal(archive.genotypes, [1.0, 3.0])
    assert insertion.status.tolist() == [0, 2, 0, 2, 0, 0]
    assert insertion.added.tolist() == [False, True, False, True, False, False]
    archive, insertion = container.insert(archive, genotypes[:1], jnp.array([1.0]), descriptors[:1])
    np.testing.assert_array_equal(archive.genotypes, [1.0, 3.0])  # who was there wins the tie
    assert not insertion.added[0]


def test_nothing_gets_worse() -> None:
    container = elites(CELLS)
    insert = jax.jit(container.insert)
    rng = np.random.default_rng(0)
    archive = container.init(random_batch(rng, 1)[0], 2)
    for _ in range(15):
        after, _ = insert(archive, *random_batch(rng, 10))
        assert (after.fitness >= archive.fitness).all()
        archive = after
    assert 6 <= int(archive.occupied.sum()) <= 12


def test_seeds_side_by_side_and_without_jit() -> None:
    container = elites(CELLS)
    batches = [random_batch(np.random.default_rng(seed), 50) for seed in range(3)]
    archives, insert = [container.init(batch[0], 2) for batch in batches], jax.jit(container.insert)
    stacked = [jax.tree.map(lambda *leaves: np.stack(leaves), *parts) for parts in (archives, batches)]
    together, _ = jax.jit(jax.vmap(lambda archive, batch: container.insert(archive, *batch)))(*stacked)
    for seed in range(3):
        single, _ = insert(archives[seed], *batches[seed])
        assert_trees_equal(jax.tree.map(lambda leaf: leaf[seed], together), single)  # noqa: B023
    with jax.disable_jit():
        assert_trees_equal(container.insert(archives[2], *batches[2])[0], single)


# ----------------------------------------------------------------------------------------------- other containers


def test_thresholds_by_hand() -> None:
    """One cell, a = 0.5, from 0: 4 passes (2), 3 passes (2.5), 2 fails, 2.6 passes (2.55), though it is the worst."""
    container = annealed(grid([0], [1], [1]), 0.5, 0.0)
    genotypes, zeros = jnp.arange(5.0), jnp.zeros((5, 1))
    archive = container.init(genotypes, 1)
    archive, insertion = container.insert(archive, genotypes, jnp.array([-1.0, 4.0, 3.0, 2.0, 2.6]), zeros)
    assert float(archive.thresholds[0]) == pytest.approx(2.55)
    assert float(archive.fitness[0]) == pytest.approx(2.6)
    assert insertion.added.tolist() == [False, False, False, False, True]
    assert insertion.status.tolist() == [0, 2, 2, 2, 2]
    np.testing.assert_allclose(insertion.margin, [-1.0, 4.0, 3.0, 2.0, 2.6])
    archive, insertion = container.insert(archive, genotypes[:1], jnp.array([2.57]), zeros[:1])
    assert float(archive.fitness[0]) == pytest.approx(2.57)
    assert insertion.status.tolist() == [1]


def test_thresholds_that_follow_at_once_are_map_elites() -> None:
    plain, follows = elites(CELLS), annealed(CELLS, 1.0, -INF)
    for seed in range(5):
        batch = random_batch(np.random.default_rng(seed), 100)
        a, of_a = plain.insert(plain.init(batch[0], 2), *batch)
        b, of_b = jax.jit(follows.insert)(follows.init(batch[0], 2), *batch)
        np.testing.assert_array_equal(b.thresholds, a.fitness)
        assert_trees_equal(b.replace(thresholds=()), a)
        assert_trees_equal(of_b, of_a)


def test_novelty_of_dominated_by_hand() -> None:
    """On a line at 0, 1, 3, 10 with fitness 4, 3, 2, 1: each looks at those before it."""
    fitness, places = jnp.array([4.0, 3.0, 2.0, 1.0, -INF]), jnp.array([[0.0], [1.0], [3.0], [10.0], [4.0]])
    np.testing.assert_allclose(novelty_of_dominated(fitness, places, 1), [INF, 1, 2, 7, -INF])
    np.testing.assert_allclose(novelty_of_dominated(fitness, places, 2), [INF, 1, 2.5, 8, -INF])
    # Copies of the best: one of them stays the best.
    np.testing.assert_allclose(novelty_of_dominated(jnp.ones(3), jnp.zeros((3, 2)), 2), [INF, 0, 0])


def test_dominated_novelty_keeps_the_far_and_the_fit() -> None:
    container = dominated_novelty(3, 1)
    genotypes, places = jnp.arange(4.0), jnp.array([[0.0], [1.0], [3.0], [10.0]])
    archive, insertion = container.insert(container.init(genotypes, 1), genotypes, jnp.array([4.0, 3, 2, 1]), places)
    np.testing.assert_array_equal(archive.genotypes, [0, 3, 2])
    assert insertion.added.tolist() == [True, False, True, True]
    assert insertion.status.tolist() == [2, 0, 2, 2]
    # A better one beside the farthest takes its place; NaN is nobody.
    archive, insertion = container.insert(
        archive, jnp.array([9.0, 8.0]), jnp.array([1.5, NAN]), jnp.array([[10.1], [40.0]])
    )
    assert set(np.asarray(archive.genotypes).tolist()) == {0.0, 2.0, 9.0}
    assert insertion.added.tolist() == [True, False]
    assert insertion.status.tolist() == [1, 0]
    few = dominated_novelty(5, 2)
    archive, _ = few.insert(few.init(genotypes[:2], 1), genotypes[:2], jnp.array([NAN, 2.0]), places[:2])
    np.testing.assert_array_equal(archive.fitness, [2.0, -INF, -INF, -INF, -INF])
    np.testing.assert_array_equal(archive.descriptors[:, 0], [1.0, 0.0, 0.0, 0.0, 0.0])


# ----------------------------------------------------------------------------------------------------- selection


def test_selection_is_uniform_over_occupied_cells_and_of_one_individual() -> None:
    container = elites(CELLS)
    genotypes = {"a": jnp.arange(4.0), "b": jnp.arange(4) * 10}
    spots = jnp.asarray(CELLS.centroids)[jnp.array([0, 5, 6, 11])]
    archive, _ = container.insert(container.init(genotypes, 2), genotypes, jnp.arange(4.0) - 2, spots)
    chosen, fitness, descriptors = jax.jit(select, static_argnums=2)(KEY, archive, 40_000)
    counts = np.bincount(np.asarray(chosen["a"], int), minlength=4)
    assert np.square(counts - 1e4).sum() / 1e4 < 16.3  # chi-square, 3 degrees of freedom, p = 0.001
    np.testing.assert_array_equal(chosen["b"], chosen["a"] * 10)
    np.testing.assert_array_equal(fitness, chosen["a"] - 2)
    np.testing.assert_array_equal(descriptors, spots[chosen["a"].astype(int)])


@pytest.mark.parametrize("cell", [0, 11])
def test_a_single_individual_is_all_that_is_selected(cell: int) -> None:
    container = elites(CELLS)
    one = jnp.array([7.0])
    archive, _ = container.insert(container.init(one, 2), one, one, jnp.asarray(CELLS.centroids)[cell : cell + 1])
    np.testing.assert_array_equal(select(KEY, archive, 100)[0], 7.0)


def test_nobody_is_selected_from_an_empty_archive() -> None:
    container = elites(CELLS)
    archive = container.init({"a": jnp.ones((2, 3)), "n": jnp.ones(2, jnp.int32)}, 2)
    with pytest.raises(ValueError, match="archive is empty"):
        select(KEY, archive, 3)
    chosen, fitness, descriptors = jax.jit(select, static_argnums=2)(KEY, archive, 3)
    assert np.isnan(chosen["a"]).all()
    assert np.isnan(fitness).all()
    assert np.isnan(descriptors).all()
    assert (chosen["n"] < 0).all()


# ----------------------------------------------------------------------------------------------------- bad input


def test_bad_input_is_named() -> None:
    for low, high, message in (
        ([0, 1], [1, 0], "low < high"), ([0], [1, 1], "one length"), ([0, 0], [1, INF], "finite bounds"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            grid(low, high, [2, 2])
    with pytest.raises(ValueError, match="number of cells"):
        grid([0, 0], [1, 1], [2])
    with pytest.raises(ValueError, match=r"expected \[cells, 2\]"):
        voronoi(np.zeros((4, 3)), [0, 0], [1, 1])
    with pytest.raises(ValueError, match="num_samples = 5"):
        cvt_centroids(KEY, 6, [0], [1], 5)
    with pytest.raises(ValueError, match=r"expected \[N, 2\]"):
        CELLS.cell_of(jnp.zeros((4, 3)))
    with pytest.raises(ValueError, match="finite threshold"):
        annealed(CELLS, 0.5, -INF)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        annealed(CELLS, 1.5, 0.0)
    with pytest.raises(ValueError, match=">= 1"):
        dominated_novelty(0)


@pytest.mark.parametrize("container", [elites(CELLS), dominated_novelty(4)])
def test_batches_that_do_not_fit_are_refused(container: Container) -> None:
    archive = container.init({"a": jnp.zeros((5, 3))}, 2)
    good = ({"a": jnp.zeros((5, 3))}, jnp.zeros(5), jnp.zeros((5, 2)))
    with pytest.raises(ValueError, match="descriptors"):
        container.insert(archive, good[0], good[1], jnp.zeros((5, 3)))
    with pytest.raises(ValueError, match="same structure"):
        container.insert(archive, {"b": good[0]["a"]}, *good[1:])
    with pytest.raises(ValueError, match="as in the archive"):
        container.insert(archive, {"a": jnp.zeros((5, 2))}, *good[1:])
    with pytest.raises(ValueError, match="fitness"):
        container.insert(archive, good[0], jnp.zeros((5, 1)), good[2])


def test_dimensions_of_cells_and_descriptors_must_agree() -> None:
    with pytest.raises(ValueError, match="3 numbers"):
        elites(CELLS).init(jnp.zeros((1, 2)), 3)


def test_the_nearest_individual_by_hand() -> None:
    """By centroid, in shares of the bounds; empty cells are nobody's; without cells by the descriptors themselves."""
    low, high = [0.0, 0.0], [1.0, 10.0]
    rows = jnp.zeros((2, 1))
    fitness, descriptors = jnp.zeros(2), jnp.array([[0.2, 9.0], [0.6, 1.0]])
    cells = elites(
        grid(low, high, [2, 2])
    )  # centroids (.25, 2.5), (.25, 7.5), (.75, 2.5), (.75, 7.5); 1 and 2 are full
    archive, _ = cells.insert(cells.init(rows, 2), rows, fitness, descriptors)
    assert nearest_individual(archive, [0.3, 9.0], low, high) == 1
    assert nearest_individual(archive, [0.7, 3.0], low, high) == 2
    assert nearest_individual(archive, [0.9, 6.0], low, high) == 2  # 3 is empty: (.15, .35) from 2, (.65, .15) from 1
    free = dominated_novelty(4)
    archive, _ = free.insert(free.init(rows, 2), rows, fitness, descriptors)
    found = nearest_individual(archive, [0.5, 0.0], low, high)
    np.testing.assert_allclose(archive.descriptors[found], [0.6, 1.0], rtol=1e-6)
    with pytest.raises(ValueError, match="expected 2 finite numbers"):
        nearest_individual(archive, [0.5], low, high)
    with pytest.raises(ValueError, match="the archive is empty"):
        nearest_individual(free.init(rows, 2), [0.5, 0.0], low, high)
