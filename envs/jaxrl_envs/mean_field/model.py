"""What a swarm is: N exchangeable agents that see, act and move by one law, paid as a team.

Axis N: agents. Noise is drawn for all agents at once from one key (`jax.random.normal(key, (N,))` hashes the key and
each index), so two swarms of different size share the noise of the agents that both have: sweeps over N are paired.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np
from flax import struct

from jaxrl.spaces import Space
from jaxrl.types import Key

SwarmParams = Any


@struct.dataclass
class Swarm:
    """State of a swarm.

    Attributes:
      x: [N, dx] float (continuous) or [N] int32 (finite state spaces): the agents' own states.
      time: int32 scalar, steps since the start.
      shared: pytree of what all agents have in common (a target, a major agent); `()` if nothing.
    """

    x: jax.Array
    time: jax.Array
    shared: Any = ()


class SwarmModel(Protocol):
    """The law of a swarm of any size. Pure; `params` is a pytree of numbers, traced."""

    @property
    def default_params(self) -> SwarmParams:
        """Numbers of the task; `max_steps` among them."""
        ...

    def reset(self, key: Key, num_agents: int, params: SwarmParams) -> Swarm:
        """A first swarm of `num_agents` (static) agents, drawn independently from the initial distribution."""
        ...

    def observe(self, key: Key, swarm: Swarm, params: SwarmParams) -> jax.Array:
        """[N, dy] float or [N] int32, what each agent sees."""
        ...

    def step(
        self, key: Key, swarm: Swarm, action: jax.Array, params: SwarmParams
    ) -> tuple[Swarm, jax.Array, dict[str, jax.Array]]:
        """The next swarm; the team's reward (of `swarm` before the step, and of the actions); scalars for diagnosis.

        `action` is [N, du] float or [N] int32.
        """
        ...

    def state_space(self, params: SwarmParams) -> Space:
        """Space of one agent's `x`; static. Periodic coordinates are listed in `periodic`."""
        ...

    def observation_space(self, params: SwarmParams) -> Space:
        """Space of what one agent sees; static."""
        ...

    def action_space(self, params: SwarmParams) -> Space:
        """Space of one agent's action; static."""
        ...

    @property
    def periodic(self) -> tuple[bool, ...]:
        """For each coordinate of `x`: does its interval close to a ring? `()` for finite spaces."""
        ...


def num_shared(model: Any) -> int:
    """How many numbers describe what all agents have in common, `shared_features` of a model that has them; else 0."""
    if not hasattr(model, "shared_features"):
        return 0
    params = model.default_params
    found = jax.eval_shape(lambda key: model.shared_features(model.reset(key, 1, params), params), jax.random.key(0))
    return int(found.shape[0])


def picture_of(model: Any, swarm_of: Callable[[Any], Swarm]) -> Callable[[Any, Any], np.ndarray] | None:
    """`(state, params) -> [H, W, 3]` for states that hold a swarm, drawn by its model; `None` if that draws nothing."""
    image = getattr(model, "image", None)
    return None if image is None else lambda state, params: image(swarm_of(state), params)
