"""Foraging: agents that collect from patches and unload at a slow truck, the major agent."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.spaces import Box, Space
from jaxrl.types import Key
from jaxrl_envs.mean_field.checks import require_agents, require_positive
from jaxrl_envs.mean_field.led import HALF_WIDTH
from jaxrl_envs.mean_field.model import Swarm
from jaxrl_envs.mean_field.moves import split_votes

_TRUCK_TOP = -1.0  # the truck stays in the lower quarter of the box
_MOST_PER_STEP = 0.1  # of a patch


@struct.dataclass
class ForagingParams:
    """Numbers of the task; traced.

    Attributes:
      speed: of an agent's longest move.
      truck_speed: of the truck's.
      reach: within which agents collect and unload.
      arrivals: new patches per step, on average; those beyond the free places are lost.
      reward_scale: multiplies what is collected and what is unloaded.
      max_steps: after which an episode is truncated.
    """

    speed: float | jax.Array = 0.3
    truck_speed: float | jax.Array = 0.1
    reach: float | jax.Array = 0.5
    arrivals: float | jax.Array = 0.2
    reward_scale: float | jax.Array = 100.0
    max_steps: int | jax.Array = 200


@struct.dataclass
class Patches:
    """The truck [2], places of patches [P, 2], and what they hold [P], per agent; 0 where there is none."""

    truck: jax.Array
    place: jax.Array
    amount: jax.Array


@dataclasses.dataclass(frozen=True)
class Foraging:
    """Agents in [-2, 2]^2 with a load in [0, 1], patches that appear, and a truck.

    A patch gives at most 0.1 per step and agent: the mean of `1 - distance / reach` over agents in its reach, shared
    among them in proportion; what does not fit in is lost. Whoever is within reach of where the truck was unloads all.
    The team is paid for what is collected and for what is unloaded, in this very step. An action is the agent's move
    and its vote for the truck's, which does the mean of the votes. An agent sees its place and its load.

    Args:
      num_patches: P, places for patches.
    Raises:
      ValueError: for no place.
    References:
      Cui et al. 2023, arXiv:2303.10665, and its public code's numbers. Differs: the truck follows votes.
    """

    num_patches: int = 5

    def __post_init__(self) -> None:
        require_positive(num_patches=self.num_patches)

    @property
    def default_params(self) -> ForagingParams:
        """200 steps."""
        return ForagingParams()

    @property
    def periodic(self) -> tuple[bool, ...]:
        """None is."""
        return (False, False, False)

    def reset(self, key: Key, num_agents: int, params: ForagingParams) -> Swarm:
        """Agents uniform with nothing, no patches, the truck somewhere below."""
        require_agents(num_agents)
        require_positive(reach=params.reach)
        key_place, key_truck = jax.random.split(key)
        place = jax.random.uniform(key_place, (num_agents, 2), minval=-HALF_WIDTH, maxval=HALF_WIDTH)
        truck = _keep_truck(jax.random.uniform(key_truck, (2,), minval=-HALF_WIDTH, maxval=HALF_WIDTH))
        none = Patches(truck, jnp.zeros((self.num_patches, 2)), jnp.zeros(self.num_patches))
        return Swarm(jnp.concatenate([place, jnp.zeros((num_agents, 1))], axis=1), jnp.int32(0), none)

    def observe(self, key: Key, swarm: Swarm, params: ForagingParams) -> jax.Array:
        """[N, 3], place and load."""
        del key, params
        return swarm.x

    def step(
        self, key: Key, swarm: Swarm, action: jax.Array, params: ForagingParams
    ) -> tuple[Swarm, jax.Array, dict[str, jax.Array]]:
        """The swarm, the truck and the patches a step later; what this step earned; `collected` and `unloaded`."""
        num, shared, place = swarm.x.shape[0], swarm.shared, swarm.x[:, :2]
        move, vote = split_votes(action, num, 2)
        moved = jnp.clip(place + params.speed * move, -HALF_WIDTH, HALF_WIDTH)
        load, collected, amounts = swarm.x[:, 2], jnp.float32(0.0), []
        for i in range(self.num_patches):  # one after the other: a full agent takes no more
            distance = jnp.linalg.norm(place - shared.place[i], axis=1)
            weight = jnp.maximum(1 - distance / params.reach, 0.0)
            given = jnp.minimum(jnp.minimum(_MOST_PER_STEP, weight.mean()), shared.amount[i])
            filled = jnp.minimum(load + given * weight / (weight.mean() + 1e-10), 1.0)
            collected += jnp.mean(filled - load)
            load = filled
            amounts.append(shared.amount[i] - given)
        near = jnp.linalg.norm(moved - shared.truck, axis=1) <= params.reach
        unloaded = jnp.mean(jnp.where(near, load, 0.0))
        load = jnp.where(near, 0.0, load)
        truck = _keep_truck(shared.truck + params.truck_speed * vote)
        patches = self._appear(key, truck, shared.place, jnp.stack(amounts), params)
        reward = params.reward_scale * (collected + unloaded)
        x = jnp.concatenate([moved, load[:, None]], axis=1)
        return Swarm(x, swarm.time + 1, patches), reward, {"collected": collected, "unloaded": unloaded}

    def shared_features(self, swarm: Swarm, params: ForagingParams) -> jax.Array:
        """[2 + 3 P], the truck and each patch, in units of half the box, and what it holds."""
        del params
        shared = swarm.shared
        there = (shared.amount > 0)[:, None]
        patches = jnp.concatenate([there * shared.place / HALF_WIDTH, shared.amount[:, None]], axis=1)
        return jnp.concatenate([shared.truck / HALF_WIDTH, patches.ravel()])

    def state_space(self, params: ForagingParams) -> Space:
        """Place and load."""
        del params
        return Box((-HALF_WIDTH, -HALF_WIDTH, 0.0), (HALF_WIDTH, HALF_WIDTH, 1.0), (3,))

    def observation_space(self, params: ForagingParams) -> Space:
        """Place and load."""
        return self.state_space(params)

    def action_space(self, params: ForagingParams) -> Space:
        """The agent's move and its vote for the truck's, in units of the longest."""
        del params
        return Box(-1.0, 1.0, (4,))

    def image(self, swarm: Swarm, params: ForagingParams) -> np.ndarray:
        """Agents, hue by load; truck and patches as dark points; [height, width, 3] uint8, on the host."""
        del params
        from jaxrl_envs.mean_field.drawing import swarm_image

        x, shared = np.asarray(swarm.x), swarm.shared
        points = np.concatenate(
            [np.asarray(shared.truck)[None], np.asarray(shared.place)[np.asarray(shared.amount) > 0]]
        )
        place = np.concatenate([x[:, :2], points])
        hue = np.concatenate([np.pi * x[:, 2], np.full(len(points), 4.0)])
        return swarm_image(place, hue, HALF_WIDTH, marked=np.arange(len(place)) >= len(x), arrows=False)

    def _appear(
        self, key: Key, truck: jax.Array, place: jax.Array, amount: jax.Array, params: ForagingParams
    ) -> Patches:
        key_num, key_place, key_amount = jax.random.split(key, 3)
        # Poisson by its distribution function; more than P arrivals are as good as P.
        k = np.arange(self.num_patches)
        factorial = np.cumprod(np.maximum(k, 1))
        below = jnp.cumsum(jnp.exp(-params.arrivals) * jnp.asarray(params.arrivals, jnp.float32) ** k / factorial)
        num_new = jnp.sum(jax.random.uniform(key_num) >= below)
        empty = amount <= 0
        new = empty & (jnp.cumsum(empty) <= num_new)
        fresh = jax.random.uniform(key_place, place.shape, minval=-HALF_WIDTH, maxval=HALF_WIDTH)
        held = jax.random.uniform(key_amount, amount.shape, minval=0.5, maxval=1.5)
        return Patches(truck, jnp.where(new[:, None], fresh, place), jnp.where(new, held, amount))


def _keep_truck(truck: jax.Array) -> jax.Array:
    return jnp.clip(truck, jnp.array([-HALF_WIDTH, -HALF_WIDTH]), jnp.array([HALF_WIDTH, _TRUCK_TOP]))
