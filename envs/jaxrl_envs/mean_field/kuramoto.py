"""Kuramoto: oscillators that stay where they are and may pull their phases together."""

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

FREQUENCIES = ("none", "normal", "lorentz")
_MOST = 10.0  # the largest natural frequency, in units of the scale


@struct.dataclass
class KuramotoParams:
    """Numbers of the task; traced.

    Attributes:
      step_size: dt, multiplies natural frequencies (and the sine coupling).
      turn_rate: omega_0, the largest controlled change of phase in a step, radians.
      noise: standard deviation of each step's change of phase, radians.
      radius: of the disc in which an agent sees others.
      frequency_scale: standard deviation of normal natural frequencies, half-width of Lorentzian ones; radians per
        unit of time.
      coupling: K of the sine coupling, per unit of time.
      action_cost: c_a, per unit of |u|.
      max_steps: after which an episode is truncated.
    """

    step_size: float | jax.Array = 1.0
    turn_rate: float | jax.Array = 0.2
    noise: float | jax.Array = 0.02
    radius: float | jax.Array = 0.25
    frequency_scale: float | jax.Array = 0.1
    coupling: float | jax.Array = 1.0
    action_cost: float | jax.Array = 0.0
    max_steps: int | jax.Array = 200


@dataclasses.dataclass(frozen=True)
class Kuramoto:
    """Oscillators at fixed random places: `theta <- theta + dt omega + omega_0 u + noise`.

    Observed and paid as in `Vicsek`: (S, C) of the phases within the radius, relative to the own one; minus the mean
    angle between two phases, and minus the cost of actions. Places and phases start uniform.

    Args:
      surface: where the places are.
      hood: who sees whom; mode "all" couples everybody.
      normalise: see `headings.mean_direction`.
      pairs: see `pairs.mean_geodesic`.
      frequencies: "none", or how natural frequencies are distributed, "normal" or "lorentz": a fourth number of the
        state, in units of `frequency_scale`, clipped to [-10, 10].
      sine: the physical model instead of actions, which are ignored: `omega_0 u` is `dt K S`, S the mean sine of the
        neighbours' phases relative to the own one; with everybody coupled, K r sin(psi - theta).
    Raises:
      ValueError: for an unknown word.
    References:
      Kuramoto 1975; Acebrón et al. 2005, Rev. Mod. Phys. 77; the task after Cui et al. 2024, arXiv:2307.06175, with our
      numbers.
    """

    surface: Surface = Surface("torus")
    hood: Neighbourhood = Neighbourhood("exact")
    normalise: str = "count"
    pairs: str = "auto"
    frequencies: str = "none"
    sine: bool = False

    def __post_init__(self) -> None:
        require_choice("normalise", self.normalise, NORMALISE)
        require_choice("pairs", self.pairs, PAIRS)
        require_choice("frequencies", self.frequencies, FREQUENCIES)

    @property
    def default_params(self) -> KuramotoParams:
        """200 steps of unit length."""
        return KuramotoParams()

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Plainly joined axes, and phases."""
        x, y = (edge == "wrap" for edge in self.surface.edges)
        return (x, y, True) + (False,) * (self.frequencies != "none")

    def reset(self, key: Key, num_agents: int, params: KuramotoParams) -> Swarm:
        """Places, phases and natural frequencies, drawn independently."""
        require_agents(num_agents)
        if self.hood.mode != "all":
            require_positive(radius=params.radius)
        key_place, key_phase, key_frequency = jax.random.split(key, 3)
        length = self.surface.half_width
        columns = [
            jax.random.uniform(key_place, (num_agents, 2), minval=-length, maxval=length),
            jax.random.uniform(key_phase, (num_agents, 1), maxval=2 * np.pi),
        ]
        if self.frequencies != "none":
            draw = jax.random.normal if self.frequencies == "normal" else jax.random.cauchy
            columns.append(jnp.clip(draw(key_frequency, (num_agents, 1)), -_MOST, _MOST))
        return Swarm(jnp.concatenate(columns, axis=1), jnp.int32(0))

    def observe(self, key: Key, swarm: Swarm, params: KuramotoParams) -> jax.Array:
        """[N, 2] (S, C). Nothing is random."""
        del key
        return mean_direction(self.hood, self.surface, swarm.x[:, :2], swarm.x[:, 2], params.radius, self.normalise)

    def step(
        self, key: Key, swarm: Swarm, action: jax.Array, params: KuramotoParams
    ) -> tuple[Swarm, jax.Array, dict[str, jax.Array]]:
        """The swarm one step later; its reward; `order_parameter` and `num_missing` of the swarm before."""
        num = swarm.x.shape[0]
        place, phase = swarm.x[:, :2], swarm.x[:, 2]
        push = clip_action(action, num)
        reward = -disagreement(phase, self.pairs) - params.action_cost * jnp.abs(push).mean()
        info = {
            "order_parameter": order_parameter(phase),
            "num_missing": num_missing(self.hood, self.surface, place, params.radius),
        }
        if self.sine:
            change = params.step_size * params.coupling * self.observe(key, swarm, params)[:, 0]
        else:
            change = params.turn_rate * push
        if self.frequencies != "none":
            change += params.step_size * params.frequency_scale * swarm.x[:, 3]
        moved = jnp.mod(phase + change + params.noise * jax.random.normal(key, (num,)), 2 * np.pi)
        x = jnp.concatenate([place, moved[:, None], swarm.x[:, 3:]], axis=1)
        return swarm.replace(x=x, time=swarm.time + 1), reward, info  # type: ignore[attr-defined]

    def state_space(self, params: KuramotoParams) -> Space:
        """Place, phase in [0, 2 pi], and the natural frequency in units of its scale."""
        del params
        length, more = self.surface.half_width, int(self.frequencies != "none")
        low = (-length, -length, 0.0) + (-_MOST,) * more
        return Box(low, (length, length, 2 * np.pi) + (_MOST,) * more, (3 + more,))

    def observation_space(self, params: KuramotoParams) -> Space:
        """Means of sines and cosines."""
        del params
        return Box(-1.0, 1.0, (2,))

    def action_space(self, params: KuramotoParams) -> Space:
        """Change of phase, in units of the largest."""
        del params
        return Box(-1.0, 1.0, (1,))

    def image(self, swarm: Swarm, params: KuramotoParams) -> np.ndarray:
        """The picture of a concrete swarm, [height, width, 3] uint8; on the host."""
        del params
        from jaxrl_envs.mean_field.drawing import swarm_image

        x = np.asarray(swarm.x)
        return swarm_image(x[:, :2], x[:, 2], self.surface.half_width, arrows=False)
