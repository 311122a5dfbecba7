"""A robot with six legs of three servos each, for `hexapod_omni`: the body is our own, the physics Brax's."""

from __future__ import annotations

import importlib
import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.adapters.brax import quiet

_base: Any = importlib.import_module("brax.envs.base")

NUM_LEGS = 6
HEIGHTS = (0.05, 0.19)  # of the torso, in metres, outside of which an episode ends
_RADIUS, _COXA, _FEMUR, _TIBIA, _FOOT = 0.1, 0.05, 0.07, 0.1, 0.015  # metres
_START = _TIBIA + _FOOT
_ACTION_COST, _NOISE = 0.25, 0.01
_SETTINGS = {
    "constraint_limit_stiffness": 1000, "constraint_stiffness": 4000, "constraint_ang_damping": 10,
    "constraint_vel_damping": 20, "joint_scale_pos": 0.5, "joint_scale_ang": 0.2, "ang_damping": 0,
    "spring_mass_scale": 1, "spring_inertia_scale": 1, "solver_maxls": 15,
}  # fmt: skip


def hexapod_xml() -> str:
    """The body as MJCF: a torso, and around it legs of coxa, femur and tibia, stretched out and standing at angle 0."""
    numbers = {"init_qpos": f"0 0 {_START} 1 0 0 0" + " 0" * 3 * NUM_LEGS, **_SETTINGS}
    custom = "".join(f'<numeric data="{data}" name="{name}"/>' for name, data in numbers.items())
    legs = "".join(_leg(i) for i in range(NUM_LEGS))
    servo = 'gainprm="40" biastype="affine" biasprm="0 -60 -10" ctrllimited="true" ctrlrange="-1 1"'
    servos = "".join(f'<general joint="{n}_{i}" {servo}/>' for i in range(NUM_LEGS) for n in ("coxa", "femur", "tibia"))
    return f"""<mujoco model="hexapod">
      <compiler angle="degree" coordinate="local" inertiafromgeom="true"/>
      <option timestep="0.005"/>
      <custom>{custom}</custom>
      <default>
        <joint armature="1" damping="1" limited="true" range="-45 45" type="hinge"/>
        <geom contype="0" conaffinity="0" condim="3" density="500" friction="1 0.5 0.5" rgba="0.3 0.4 0.5 1"/>
      </default>
      <worldbody>
        <geom name="floor" type="plane" size="40 40 40" conaffinity="1" rgba="0.5 0.5 0.5 1"/>
        <body name="torso" pos="0 0 {_START}">
          <geom name="torso_geom" type="capsule" fromto="-0.04 0 0 0.04 0 0" size="0.05"/>
          <joint name="root" type="free" armature="0" damping="0" limited="false"/>
          {legs}
        </body>
      </worldbody>
      <actuator>{servos}</actuator>
    </mujoco>"""


def _leg(i: int) -> str:
    angle = 2.0 * math.pi * (i + 0.5) / NUM_LEGS
    x, y = math.cos(angle), math.sin(angle)

    def along(length: float) -> str:
        return f"{length * x:.6f} {length * y:.6f} 0"

    bone, raising = 'type="capsule" size="0.012"', f'axis="{y:.6f} {-x:.6f} 0"'
    return f"""<body name="coxa_{i}" pos="{along(_RADIUS)}">
      <joint name="coxa_{i}" axis="0 0 1"/>
      <geom {bone} fromto="0 0 0 {along(_COXA)}"/>
      <body name="femur_{i}" pos="{along(_COXA)}">
        <joint name="femur_{i}" {raising}/>
        <geom {bone} fromto="0 0 0 {along(_FEMUR)}"/>
        <body name="tibia_{i}" pos="{along(_FEMUR)}">
          <joint name="tibia_{i}" {raising}/>
          <geom {bone} fromto="0 0 0 0 0 {-_TIBIA}"/>
          <geom name="foot_{i}" type="sphere" size="{_FOOT}" pos="0 0 {-_TIBIA}" contype="1" mass="0"/>
        </body>
      </body>
    </body>"""


class Hexapod(_base.PipelineEnv):
    """Six legs on a plane. A step of 0.05 s pays `1 - 0.25 |a|^2`; an episode ends where the torso leaves `HEIGHTS`.

    Actions are the servos' targets, [18] in [-1, 1], for coxa, femur and tibia of one leg after the other: 1 is held at
    two thirds of a radian. Observed are positions, the torso's x and y included, and velocities.

    Args:
      backend: of the physics: "spring".
    Raises:
      ValueError: for another backend, for which the body's constants do not hold.
    References:
      The task of Faldor et al. 2023, arXiv:2303.03832, whose body went with Brax's first physics. Differs: the body,
      and there is no cost of contacts, which today's physics do not report.
    """

    def __init__(self, backend: str = "spring") -> None:
        if backend != "spring":
            raise ValueError(f"hexapod: backend = {backend!r}, expected 'spring'")
        with quiet():
            system = importlib.import_module("brax.io.mjcf").loads(hexapod_xml())
            super().__init__(sys=system, backend=backend, n_frames=10)

    def reset(self, rng: jax.Array) -> Any:
        """Standing, with a little noise."""
        key_q, key_qd = jax.random.split(rng)
        noise = jax.random.uniform(key_q, (self.sys.q_size(),), minval=-_NOISE, maxval=_NOISE)
        qd = _NOISE * jax.random.normal(key_qd, (self.sys.qd_size(),))
        body = self.pipeline_init(self.sys.init_q + noise.at[:7].set(0.0), qd)
        zero = jnp.zeros(())
        metrics = {"forward_reward": zero, "reward_survive": zero, "reward_ctrl": zero}
        return _base.State(body, self._observe(body), zero, zero, metrics)

    def step(self, state: Any, action: jax.Array) -> Any:
        """The next state."""
        body = self.pipeline_step(state.pipeline_state, action)
        cost = _ACTION_COST * jnp.square(action).sum()
        height = body.x.pos[0, 2]
        done = jnp.where((height < HEIGHTS[0]) | (height > HEIGHTS[1]), 1.0, 0.0)
        # Nothing is paid for running in any direction.
        metrics = {"forward_reward": jnp.zeros(()), "reward_survive": jnp.ones(()), "reward_ctrl": -cost}
        obs = self._observe(body)
        return state.replace(pipeline_state=body, obs=obs, reward=1.0 - cost, done=done, metrics=metrics)

    @staticmethod
    def _observe(body: Any) -> jax.Array:
        return jnp.concatenate([body.q, body.qd])
