"""A tree of sums over non-negative weights: draws an index in proportion to its weight, and changes weights in place.

Every node has `WIDTH` children, so a million leaves are four levels of a few wide operations instead of twenty of
many small ones.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

WIDTH = 32

SumTree = tuple[jax.Array, ...]  # levels from the leaves to the top one, each [nodes, WIDTH]


def init_tree(size: int) -> SumTree:
    """All weights zero.

    Args:
      size: leaves, >= 1.
    """
    levels = []
    while True:
        nodes = -(-size // WIDTH)
        levels.append(jnp.zeros((nodes, WIDTH)))
        if nodes == 1:
            return tuple(levels)
        size = nodes


def tree_total(tree: SumTree) -> jax.Array:
    """Scalar: the sum of all weights."""
    return tree[-1].sum()


def tree_get(tree: SumTree, index: jax.Array) -> jax.Array:
    """Weights [N] at `index` [N]."""
    return tree[0][index // WIDTH, index % WIDTH]


def tree_set(tree: SumTree, index: jax.Array, weight: jax.Array) -> SumTree:
    """Changes weights.

    Args:
      tree: updated in place where the caller gave it up.
      index: [N] int32; where one stands twice, the larger weight counts, so the result does not depend on an order.
      weight: [N], >= 0.
    """
    node, child = index // WIDTH, index % WIDTH
    # Zeros that wait for the weights: what reads the old tree to find these comes first, so that nothing is copied.
    leaves = tree[0].at[node, child].set(jnp.minimum(weight, 0.0))
    levels = [leaves.at[node, child].max(weight)]
    for above in tree[1:]:
        # Sums are taken afresh, so rounding does not pile up over updates.
        sums = levels[-1][node].sum(-1)
        node, child = node // WIDTH, node % WIDTH
        levels.append(above.at[node, child].set(sums))
    return tuple(levels)


def tree_find(tree: SumTree, target: jax.Array) -> jax.Array:
    """The first index at which the cumulative sum of weights exceeds `target`.

    Args:
      tree: with a positive total.
      target: [N] in [0, total).
    Returns:
      [N] int32; never an index of weight zero, whatever the rounding.
    """
    index = jnp.zeros(target.shape, jnp.int32)
    for level in reversed(tree):
        weights = level[index]
        cumulative = jnp.cumsum(weights, -1)
        # Sums round, and not upwards from child to child: a target may lie in a child that weighs nothing, or above
        # the last. Then it is the next child that weighs anything, or the last such.
        heavy = weights > 0.0
        inside = heavy & (cumulative > target[:, None])
        last = WIDTH - 1 - jnp.argmax(heavy[:, ::-1], -1)
        child = jnp.where(inside.any(-1), jnp.argmax(inside, -1), last)
        chosen = jnp.arange(WIDTH) == child[:, None]
        target = target - jnp.sum(jnp.where(chosen, cumulative - weights, 0.0), -1)
        index = index * WIDTH + child
    return index
