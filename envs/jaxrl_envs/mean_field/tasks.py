"""Finite tasks with known answers: what swarms, mean-field control and its solvers are tested on."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_envs.mean_field.tabular import TabularModel


@struct.dataclass
class TaskParams:
    """Numbers of a task without others; traced.

    Attributes:
      max_steps: of an episode.
    """

    max_steps: int | jax.Array = 1


@struct.dataclass
class TwoRoomParams:
    """Numbers of `two_room`; traced.

    Attributes:
      accuracy: q, with which an agent sees the room that it is in.
      share: rho, of agents that should be in the second room.
      max_steps: of an episode.
    """

    accuracy: float | jax.Array = 0.8
    share: float | jax.Array = 0.7
    max_steps: int | jax.Array = 10


def two_room() -> TabularModel:
    """Agents stay or switch rooms, and are paid `-(mu(1) - rho)^2`; each sees its room rightly with probability q.

    From an even start, `mu'(1) = 1/2 + (2 q - 1) (a0 - a1) / 2`, a_y the probability of switching that sees y: with
    q = 0.8 and rho = 0.7 every rule with a0 - a1 = 2/3 is exact, and no deterministic one. The first step pays -0.04
    whatever is done, all others 0 at best: the optimum of an episode is -0.04.
    """
    move = np.zeros((2, 2, 2), np.float32)
    for x in range(2):
        move[x, 0, x] = move[x, 1, 1 - x] = 1.0

    def observation(params: TwoRoomParams) -> jax.Array:
        right = jnp.asarray(params.accuracy, float)
        return jnp.stack([jnp.stack([right, 1.0 - right]), jnp.stack([1.0 - right, right])])

    def reward(time: jax.Array, mu: jax.Array, joint: jax.Array, params: TwoRoomParams) -> jax.Array:
        return -jnp.square(mu[1] - params.share)

    return TabularModel(
        "two_room", TwoRoomParams(), (2, 2, 2), _even(2), observation, lambda t, mu, p: jnp.asarray(move), reward
    )


def anti_crowding() -> TabularModel:
    """Each agent chooses one of two rooms; paid is `-sum(share^2)` of the rooms chosen.

    The best rule is uniform, -1/2 per step (of N agents -1/2 - 1/(2N)); any deterministic rule that all share has -1.
    """

    def reward(time: jax.Array, mu: jax.Array, joint: jax.Array, params: TaskParams) -> jax.Array:
        return -jnp.square(joint.sum(0)).sum()

    return TabularModel("anti_crowding", TaskParams(), (2, 2, 2), _even(2), _seen(2), _go_where_chosen(2), reward)


def pigou() -> TabularModel:
    """Two roads: the first costs its share of the traffic, the second always 1.

    At the equilibrium all take the first, mean cost 1; the team's best is half of them, mean cost 3/4.
    """

    def individual(time: jax.Array, mu: jax.Array, joint: jax.Array, params: TaskParams) -> jax.Array:
        return -jnp.broadcast_to(jnp.stack([joint.sum(0)[0], jnp.ones(())]), (2, 2))

    def reward(time: jax.Array, mu: jax.Array, joint: jax.Array, params: TaskParams) -> jax.Array:
        return jnp.sum(joint * individual(time, mu, joint, params))

    return TabularModel("pigou", TaskParams(), (2, 2, 2), _even(2), _seen(2), _go_where_chosen(2), reward, individual)


_MF3_BASE = np.array(
    [
        [[0.8, 0.2, 0.0], [0.1, 0.6, 0.3]],
        [[0.3, 0.5, 0.2], [0.0, 0.4, 0.6]],
        [[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]],
    ]
)
_MF3_SEEN = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])


def tabular_mf3() -> TabularModel:
    """Three states that draw agents into the third the more, the more are there; paid is `-mu(2)^2`."""

    def transition(time: jax.Array, mu: jax.Array, params: TaskParams) -> jax.Array:
        pull = 0.2 * mu[2]
        return (1.0 - pull) * jnp.asarray(_MF3_BASE, float) + pull * jnp.array([0.0, 0.0, 1.0])

    def reward(time: jax.Array, mu: jax.Array, joint: jax.Array, params: TaskParams) -> jax.Array:
        return -jnp.square(mu[2])

    return TabularModel(
        "tabular_mf3",
        TaskParams(max_steps=5),
        (3, 2, 2),
        lambda params: jnp.array([0.5, 0.3, 0.2]),
        lambda params: jnp.asarray(_MF3_SEEN, float),
        transition,
        reward,
    )


def crowd_modelling() -> TabularModel:
    """A ring of ten places, of which the sixth is the best and crowds are avoided; ten decisions.

    Moves -1, 0, 1, then noise of -1, 0 or 1 with a third each. At (x, t) an agent has
    `1 - |x - 5| / 5 - log(mu(x) + 1e-25) - |previous move| / 10`. The cost of a move is written at the move here, which
    changes nothing but that states need not remember it; that of the last one is never paid.

    References:
      Perrin et al. 2020, arXiv:2007.03458; the numbers as OpenSpiel's `crowd_modelling`.
    """
    size = 10
    place = np.arange(size)
    move = np.zeros((size, 3, size))
    for x in range(size):
        for u in range(3):
            for noise in (-1, 0, 1):
                move[x, u, (x + u - 1 + noise) % size] += 1.0 / 3.0
    closeness = 1.0 - np.abs(place - size // 2) / (size // 2)
    cost = np.array([1.0, 0.0, 1.0]) / size

    def individual(time: jax.Array, mu: jax.Array, joint: jax.Array, params: TaskParams) -> jax.Array:
        here = jnp.asarray(closeness, float) - jnp.log(mu + 1e-25)
        paid = jnp.where(time + 1 < params.max_steps, 1.0, 0.0)
        return here[:, None] - paid * jnp.asarray(cost, float)

    def reward(time: jax.Array, mu: jax.Array, joint: jax.Array, params: TaskParams) -> jax.Array:
        # x log x is 0 at 0, and so is what an empty place has to say about its crowd.
        return jnp.sum(joint * individual(time, mu, joint, params))

    return TabularModel(
        "crowd_modelling",
        TaskParams(max_steps=10),
        (size, size, 3),
        _even(size),
        _seen(size),
        lambda time, mu, params: jnp.asarray(move, float),
        reward,
        individual,
    )


def _even(num: int) -> Any:
    return lambda params: jnp.full(num, 1.0 / num)


def _seen(num: int) -> Any:
    return lambda params: jnp.eye(num)


def _go_where_chosen(num: int) -> Any:
    return lambda time, mu, params: jnp.broadcast_to(jnp.eye(num), (num, num, num))
