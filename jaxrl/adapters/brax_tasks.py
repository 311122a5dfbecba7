"""Brax's locomotion as tasks of quality-diversity: descriptors of episodes, and rewards that suit an archive."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from typing import Any
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.adapters.brax import BraxEnvironment, BraxParams, make_brax, quiet
from jaxrl.env import EnvState
from jaxrl.spaces import Box, Space
from jaxrl.types import Key, Timestep


@dataclasses.dataclass(frozen=True)
class BraxTaskSettings:
    """What makes a task of a Brax environment.

    Attributes:
      env: Brax's name, or "hexapod".
      num_steps: of an episode.
      feet: indices of the links whose contact with the ground is the descriptor; else it is the final position.
      links: their names; the ant's lower legs have none.
      reach: positions within [-reach, reach]^2.
      offset: added to each reward.
      scale_position: positions are observed as shares of `reach`.
      trap: walls in front of the ant.
    """

    env: str
    num_steps: int
    feet: tuple[int, ...] = ()
    links: tuple[str, ...] = ()
    reach: float = 0.0
    offset: float = 0.0
    scale_position: bool = False
    trap: bool = False


TASKS: dict[str, BraxTaskSettings] = {
    "walker2d_uni": BraxTaskSettings("walker2d", 1000, (3, 6), ("foot", "foot_left")),
    "halfcheetah_uni": BraxTaskSettings("halfcheetah", 1000, (3, 6), ("bfoot", "ffoot")),
    "hopper_uni": BraxTaskSettings("hopper", 1000, (3,), ("foot",)),
    "ant_uni": BraxTaskSettings("ant", 1000, (2, 4, 6, 8), ("", "", "", "")),
    "humanoid_uni": BraxTaskSettings("humanoid", 1000, (6, 4), ("left_shin", "right_shin")),
    "ant_omni": BraxTaskSettings("ant", 250, reach=30.0, offset=3.03, scale_position=True),
    "anttrap_omni": BraxTaskSettings("ant", 250, reach=30.0, offset=3.03, scale_position=True, trap=True),
    "humanoid_omni": BraxTaskSettings("humanoid", 1000, reach=10.0),
    "hexapod_omni": BraxTaskSettings("hexapod", 250, reach=2.0, offset=3.53, scale_position=True),
}
# x y z of both ends of each capsule's axis: a U that is open towards the origin.
_WALLS = ((12.0, -2.0, 12.0, 2.0), (7.0, 3.0, 12.0, 3.0), (7.0, -3.0, 12.0, -3.0))
_WALL_RADIUS = 0.5


@struct.dataclass
class BraxTaskState:
    """State of `BraxTask`: Brax's, int32 steps since the reset, and what was seen before the last step, [D]."""

    env_state: Any
    time: jax.Array
    seen: jax.Array


class BraxTask:
    """A Brax environment that says what its episodes are described by.

    Rewards are `max(r + offset, 0)`, without the part for running forward where the descriptor is a position. Observed
    is, beside what Brax gives, the share of the episode that is left. The descriptor is of the states that actions were
    taken in: the mean contact of each foot with the ground, in [0, 1], or the last position before the episode's end.

    Args:
      env: under which this is a task.
      settings: of the task.
    """

    compiles_slowly = True

    def __init__(self, env: BraxEnvironment, settings: BraxTaskSettings) -> None:
        self.brax = env
        self.settings = settings
        names = env.brax_env.sys.link_names
        found = tuple(names[i] if i < len(names) else None for i in settings.feet)
        if found != settings.links:
            raise ValueError(f"links {settings.feet} of {settings.env} are {found}: expected {settings.links}")

    def __repr__(self) -> str:
        return f"BraxTask({self.settings})"

    @property
    def behaviour_summary(self) -> str:
        """How the episode's descriptor comes from those of its steps: "average" or "final"."""
        return "average" if self.settings.feet else "final"

    @property
    def default_params(self) -> BraxParams:
        """The published physics."""
        return self.brax.default_params

    @functools.partial(jax.jit, static_argnums=0, inline=True)
    def reset(self, key: Key, params: BraxParams) -> tuple[BraxTaskState, jax.Array]:
        """A first state and its observation."""
        env_state, obs = self.brax.reset(key, params)
        state = BraxTaskState(env_state, jnp.int32(0), self._see(env_state))
        return state, self._observe(obs, state.time)

    @functools.partial(jax.jit, static_argnums=0, inline=True)
    def step(
        self, key: Key, state: BraxTaskState, action: jax.Array, params: BraxParams
    ) -> tuple[BraxTaskState, Timestep]:
        """The next state, and what the agent sees of it."""
        seen, time = self._see(state.env_state), state.time + 1
        env_state, timestep = self.brax.step(key, state.env_state, action, params)
        obs = self._observe(timestep.obs, time)
        reward = timestep.reward + self.settings.offset
        if not self.settings.feet:
            forward = "reward_forward" if "reward_forward" in timestep.info else "forward_reward"
            reward = reward - timestep.info[forward]
        timestep = timestep._replace(
            obs=obs,
            final_obs=obs,
            reward=jnp.maximum(reward, 0.0).astype(jnp.float32),
            truncated=(time >= self.settings.num_steps) & ~timestep.terminated,
        )
        return BraxTaskState(env_state, time, seen), timestep

    def observation_space(self, params: BraxParams) -> Space:
        """Brax's, and the share of the episode that is left."""
        return Box(-jnp.inf, jnp.inf, (self.brax.observation_space(params).shape[0] + 1,))

    def action_space(self, params: BraxParams) -> Space:
        """Space of `action`, [-1, 1] in every entry; static."""
        return self.brax.action_space(params)

    def behaviour(self, state: BraxTaskState, params: BraxParams) -> jax.Array:
        """[D]: contacts, or the position clipped to its bounds, before the step that led to `state`."""
        del params
        return state.seen

    def behaviour_bounds(self, params: BraxParams) -> tuple[np.ndarray, np.ndarray]:
        """The smallest and the largest behaviour, [D] each."""
        del params
        if self.settings.feet:
            num = len(self.settings.feet)
            return np.zeros(num, np.float32), np.ones(num, np.float32)
        return np.full(2, -self.settings.reach, np.float32), np.full(2, self.settings.reach, np.float32)

    def _see(self, env_state: EnvState) -> jax.Array:
        body = env_state.pipeline_state
        if not self.settings.feet:
            return jnp.clip(body.x.pos[0, :2], -self.settings.reach, self.settings.reach)
        return contacts(self.brax.brax_env.sys, body.x, self.settings.feet)

    def _observe(self, obs: jax.Array, time: jax.Array) -> jax.Array:
        if self.settings.scale_position:
            obs = obs.at[:2].divide(self.settings.reach)
        left = 1.0 - time / self.settings.num_steps
        return jnp.concatenate([obs, left[None].astype(obs.dtype)])


def contacts(system: Any, x: Any, links: tuple[int, ...]) -> jax.Array:
    """[D] float32: 1 for each link that touches what belongs to the world, else 0.

    Args:
      system: Brax's.
      x: poses of the links in the world.
      links: indices.
    """
    with quiet():
        found = importlib.import_module("brax.contact").get(system, x)
    if found is None:
        raise ValueError("the system has no contacts to see; its geometries never collide")
    one, other = found.link_idx
    with_world = jnp.where(one == -1, other, jnp.where(other == -1, one, -1))
    touching = (found.dist <= 0.0)[None] & (with_world[None] == jnp.asarray(links)[:, None])
    return touching.any(1).astype(jnp.float32)


def make_brax_task(name: str, backend: str = "spring", **constructor_kwargs: Any) -> BraxTask:
    """The task `name`; `make_env("brax/…")` calls this.

    Args:
      name: one of `TASKS`.
      backend: of the physics.
      **constructor_kwargs: of the Brax environment.
    """
    settings = TASKS[name]
    if settings.env == "hexapod":  # a body of our own
        own = importlib.import_module("jaxrl.adapters.hexapod").Hexapod(backend=backend, **constructor_kwargs)
        return BraxTask(BraxEnvironment(own), settings)
    if not settings.feet:
        constructor_kwargs = {"exclude_current_positions_from_observation": False, **constructor_kwargs}
    env: Any = make_brax(settings.env, backend=backend, **constructor_kwargs)
    inner: BraxEnvironment = env.unwrapped_env  # an episode's length is the task's
    if settings.trap:
        inner.brax_env.sys = _with_walls(inner.brax_env.sys)
    return BraxTask(inner, settings)


def _with_walls(system: Any) -> Any:
    """The ant's system with walls that feet and torso run into; nothing else changes."""
    path = importlib.import_module("etils.epath").resource_path("brax") / "envs/assets/ant.xml"
    tree = ElementTree.fromstring(path.read_text())
    world = tree.find("worldbody")
    torso = tree.find(".//geom[@name='torso_geom']")
    assert world is not None
    assert torso is not None
    # A kind of contact of their own, so that the torso meets the walls and goes on missing the floor.
    torso.set("contype", "2")
    for x, y, to_x, to_y in _WALLS:
        ends = f"{x} {y} {_WALL_RADIUS} {to_x} {to_y} {_WALL_RADIUS}"
        wall = {"type": "capsule", "fromto": ends, "size": str(_WALL_RADIUS), "conaffinity": "3"}
        ElementTree.SubElement(world, "geom", wall)
    with quiet():
        walled = importlib.import_module("brax.io.mjcf").loads(ElementTree.tostring(tree, encoding="unicode"))
    return walled.tree_replace({"opt.timestep": system.opt.timestep}).replace(actuator=system.actuator)
