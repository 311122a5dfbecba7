"""Vicsek: agents of constant speed that turn, and see the mean heading around them; a swarm that may flock."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.spaces import Box, Space
from jaxrl.types import Key
from jaxrl_envs.mean_field.checks import require_agents, require_choice, require_positive
from jaxrl_envs.mean_field.headings import NORMALISE, PAIRS, clip_action, disagreement, mean_direction
from jaxrl_envs.mean_field.model import Swarm
from jaxrl_envs.mean_field.neighbours import Neighbourhood, num_missing
from jaxrl_envs.mean_field.pairs import order_parameter
from jaxrl_envs.mean_field.topology import Surface


@struct.dataclass
class VicsekParams:
    """Numbers of the task; traced. Lengths in units of the square, angles in radians, rates per step.

    Attributes:
      speed: v_0.
      turn_rate: omega_0, the largest turn.
      noise: standard deviation of each turn.
      radius: of the disc in which an agent sees others.
      action_cost: c_a, per unit of |u|.
      informed_share: probability that an agent knows the goal (models with `informed`).
      goal: heading that informed agents know.
      goal_weight: share of the reward that is for heading to the goal.
      obstacle_radius: of the disc in the middle (models with `obstacle`).
      max_steps: after which an episode is truncated.
    """

    speed: float | jax.Array = 0.075
    turn_rate: float | jax.Array = 0.2
    noise: float | jax.Array = 0.02
    radius: float | jax.Array = 0.25
    action_cost: float | jax.Array = 0.0
    informed_share: float | jax.Array = 0.1
    goal: float | jax.Array = 0.0
    goal_weight: float | jax.Array = 0.5
    obstacle_radius: float | jax.Array = 0.5
    max_steps: int | jax.Array = 200


@dataclasses.dataclass(frozen=True)
class Vicsek:
    """Agents with a place and a heading, `theta <- theta + omega_0 u + noise; p <- p + v_0 (cos theta, sin theta)`.

    An agent sees (S, C), the mean sine and cosine of the headings within `radius`, relative to its own, itself
    included. The team is paid minus the mean angle between two agents, and minus `action_cost` times the mean |u|.
    Places and headings start uniform.

    Args:
      surface: what crossing the square's edges does; the observation sees reflected headings past a reversing edge, the
        reward compares headings as they are.
      hood: how neighbours are found; "grid" for many agents.
      normalise: see `headings.mean_direction`.
      pairs: how angles between pairs are summed, see `pairs.mean_geodesic`.
      informed: a fourth number of the state, 1 for agents that know the goal and 0 for others. Those who know also see
        sine and cosine of the goal relative to their heading, the others zeros; the reward becomes a mixture of
        agreement and of minus the mean angle to the goal.
      obstacle: a disc in the middle off which agents bounce. Nobody starts in it.
    Raises:
      ValueError: for an unknown word.
    References:
      Vicsek et al. 1995, PRL 75; the task after Cui et al. 2024, arXiv:2307.06175, with our numbers.
    """

    surface: Surface = Surface("torus")
    hood: Neighbourhood = Neighbourhood("exact")
    normalise: str = "count"
    pairs: str = "auto"
    informed: bool = False
    obstacle: bool = False

    def __post_init__(self) -> None:
        require_choice("normalise", self.normalise, NORMALISE)
        require_choice("pairs", self.pairs, PAIRS)

    @property
    def default_params(self) -> VicsekParams:
        """200 steps."""
        return VicsekParams()

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Plainly joined axes, and headings; an axis that flips does not close to a ring."""
        x, y = (edge == "wrap" for edge in self.surface.edges)
        return (x, y, True) + (False,) * self.informed

    def reset(self, key: Key, num_agents: int, params: VicsekParams) -> Swarm:
        """Places, headings and (if there are such) who is informed, drawn independently."""
        require_agents(num_agents)
        require_positive(radius=params.radius)
        key_place, key_heading, key_informed = jax.random.split(key, 3)
        length = self.surface.half_width
        place = jax.random.uniform(key_place, (num_agents, 2), minval=-length, maxval=length)
        if self.obstacle:
            place = _outside(place, params.obstacle_radius)
        heading = jax.random.uniform(key_heading, (num_agents, 1), maxval=2 * np.pi)
        columns = [place, heading]
        if self.informed:
            knows = jax.random.uniform(key_informed, (num_agents, 1)) < params.informed_share
            columns.append(knows.astype(jnp.float32))
        return Swarm(jnp.concatenate(columns, axis=1), jnp.int32(0))

    def observe(self, key: Key, swarm: Swarm, params: VicsekParams) -> jax.Array:
        """[N, 2] (S, C); of models with `informed` [N, 4]. Nothing is random."""
        del key
        heading = swarm.x[:, 2]
        seen = mean_direction(self.hood, self.surface, swarm.x[:, :2], heading, params.radius, self.normalise)
        if not self.informed:
            return seen
        to_goal = params.goal - heading
        return jnp.concatenate([seen, swarm.x[:, 3:] * jnp.stack([jnp.sin(to_goal), jnp.cos(to_goal)], axis=1)], axis=1)

    def step(
        self, key: Key, swarm: Swarm, action: jax.Array, params: VicsekParams
    ) -> tuple[Swarm, jax.Array, dict[str, jax.Array]]:
        """The swarm after one turn and one move; its reward; `polarisation` and `num_missing` of the swarm before."""
        num = swarm.x.shape[0]
        place, before = swarm.x[:, :2], swarm.x[:, 2]
        turn = clip_action(action, num)
        reward = -disagreement(before, self.pairs)
        if self.informed:
            off_goal = jnp.abs(jnp.mod(before - params.goal + np.pi, 2 * np.pi) - np.pi).mean()
            reward = (1 - params.goal_weight) * reward - params.goal_weight * off_goal
        reward -= params.action_cost * jnp.abs(turn).mean()
        info = {
            "polarisation": order_parameter(before),
            "num_missing": num_missing(self.hood, self.surface, place, params.radius),
        }
        heading = before + params.turn_rate * turn + params.noise * jax.random.normal(key, (num,))
        way = params.speed * jnp.stack([jnp.cos(heading), jnp.sin(heading)], axis=1)
        if self.obstacle:
            way, heading = _bounce(place, way, heading, params.obstacle_radius)
        place, heading = self.surface.move(place, heading, way)
        x = jnp.concatenate([place, heading[:, None], swarm.x[:, 3:]], axis=1)
        return swarm.replace(x=x, time=swarm.time + 1), reward, info  # type: ignore[attr-defined]

    def state_space(self, params: VicsekParams) -> Space:
        """Place, heading in [0, 2 pi], and whether the agent is informed."""
        del params
        length, more = self.surface.half_width, self.informed
        low = (-length, -length, 0.0) + (0.0,) * more
        return Box(low, (length, length, 2 * np.pi) + (1.0,) * more, (3 + more,))

    def observation_space(self, params: VicsekParams) -> Space:
        """Means of sines and cosines."""
        del params
        return Box(-1.0, 1.0, (4 if self.informed else 2,))

    def action_space(self, params: VicsekParams) -> Space:
        """Turn, in units of the largest."""
        del params
        return Box(-1.0, 1.0, (1,))

    def image(self, swarm: Swarm, params: VicsekParams) -> np.ndarray:
        """The picture of a concrete swarm, [height, width, 3] uint8; on the host."""
        from jaxrl_envs.mean_field.drawing import swarm_image

        x = np.asarray(swarm.x)
        hole = float(params.obstacle_radius) if self.obstacle else 0.0
        marked = x[:, 3] > 0 if self.informed else None
        return swarm_image(x[:, :2], x[:, 2], self.surface.half_width, marked=marked, obstacle=hole)


def _outside(place: jax.Array, radius: jax.Array | float) -> jax.Array:
    """Places in the disc are spread evenly over the ring around it, out to twice the radius."""
    distance = jnp.linalg.norm(place, axis=1, keepdims=True)
    pushed = place * jnp.sqrt(radius**2 + 3 * distance**2) / jnp.maximum(distance, 1e-6)
    return jnp.where(distance < radius, pushed, place)


def _bounce(
    place: jax.Array, way: jax.Array, heading: jax.Array, radius: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
    """Moves that would end in the disc are mirrored at its edge, and their headings with them."""
    end = place + way
    distance = jnp.linalg.norm(end, axis=1)
    normal = end / jnp.maximum(distance, 1e-6)[:, None]
    inside = distance < radius
    mirrored = normal * (2 * radius - distance)[:, None]
    inwards = jnp.sum(way * normal, axis=1) < 0
    turned = 2 * jnp.arctan2(normal[:, 1], normal[:, 0]) + np.pi - heading
    way = jnp.where(inside[:, None], mirrored - place, way)
    return way, jnp.where(inside & inwards, turned, heading)
