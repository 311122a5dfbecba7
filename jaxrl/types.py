"""The data that flows between environments, agents and loops.

Axes, everywhere: T time, B parallel environments, N samples, A actions, H hyperparameter settings, S seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Key = jax.Array  # a typed key, `jax.random.key(0)`
Params = Any  # pytree of arrays
Metrics = dict[str, jax.Array]  # flat, scalars: {"loss/policy": …}
Step = jax.Array  # int32 scalar, the index of an update; never batched by `vmap`


class Timestep(NamedTuple):
    """What an environment answers to one action.

    Attributes:
      obs: the observation to act on next; after an automatic reset, that of the new episode.
      reward: float32 scalar, the environment's own units.
      terminated: bool, the episode ended for good: the future is worth zero.
      truncated: bool, the episode was cut: the future is worth V(final_obs). Both flags may be set; termination wins.
      final_obs: the true successor of the observation acted on, before any reset; equals `obs` where nothing ended.
      info: dict of arrays, for diagnosis only.
    """

    obs: Any
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    final_obs: Any
    info: dict[str, Any]


class Rollout(NamedTuple):
    """Consecutive on-policy experience, leaves [T, B, …].

    Attributes:
      obs, action, reward, terminated, truncated: as acted on and as answered.
      is_first: bool, `obs` opens an episode (the flag that came with it): recurrent memory is reset before it.
      extras: what `Agent.act` returned beside the action at `obs` (for actor-critics: every head's output).
      next_extras: the same at the true successor; meaningless where `terminated`, which every consumer masks, unless
        the agent `reads_terminal`.
      memory: the agent's memory before the first step, leaves [B, …]; `()` when feed-forward.
    """

    obs: Any
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    is_first: jax.Array
    extras: Any
    next_extras: Any
    memory: Any


class Transition(NamedTuple):
    """What a replay buffer stores, leaves [T, B, …]; `final_obs` is the successor before any reset."""

    obs: Any
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    final_obs: Any


class Sample(NamedTuple):
    """What an off-policy update learns from, leaves [N, …]: `target = reward + discount * V(final_obs)`.

    Attributes:
      obs, action: as acted on.
      reward: discounted sum over the m <= n steps that were taken, up to the first end of an episode.
      discount: `gamma^m`, and 0 where the last of them terminated; truncation leaves it alone.
      final_obs: the successor of the last of them, before any reset.
      probability: of being drawn, relative to uniform sampling; ones unless prioritised.
      index: where it is stored, for new priorities.
      weight: of its error in the critics' loss, whose mean is over all N; `()` is 1 for all. Critics that minimise a
        squared error read it (`off_policy.squared_error`).
    """

    obs: Any
    action: jax.Array
    reward: jax.Array
    discount: jax.Array
    final_obs: Any
    probability: jax.Array
    index: Any
    weight: Any = ()


class Evaluation(NamedTuple):
    """What became of individuals, leaves [N, …]; we maximise.

    Attributes:
      fitness: the higher the better; NaN where the evaluation failed.
      descriptor: [N, D], what they did; `()` where nobody asks.
      steps: environment steps that it took, float32: counts of one generation may exceed 2^31.
      gathered: whatever else was asked for, such as sums of observations or transitions; else `()`.
    """

    fitness: jax.Array
    descriptor: Any = ()
    steps: jax.Array | float = 0.0
    gathered: Any = ()


class Progress(NamedTuple):
    """How far a lifetime has come: updates done, and updates in all. Both may be traced."""

    update: jax.Array | int
    num_updates: jax.Array | int

    @property
    def fraction(self) -> jax.Array | float:
        """Share of the lifetime that is over, in [0, 1)."""
        return self.update / self.num_updates


class Agent(NamedTuple):
    """A learner without a loop: four pure functions. Loops are handed one and know nothing else of it.

    Attributes:
      init: `(key, obs_space, action_space) -> AgentState`.
      memory: `(num_envs) -> Memory`, leaves [B, …]; `()` when feed-forward. Carried by the loop.
      act: `(key, state, memory, obs [B, …], is_first [B], explore) -> (action [B, …], memory, extras)`. `explore` is
        a Python bool. The action is that of the policy; `to_action` turns it into what the environment takes.
      update: `(key, state, Rollout [T, B] | Sample [N], Progress) -> (AgentState, Metrics)`. Off-policy agents may
        add "priority" [N], which is for the buffer and not a metric.
      observe: `(state, Transition [T, B]) -> AgentState`, called once on all new experience of an off-policy loop:
        running moments are of what was met, not of what was drawn.
      reads_terminal: does `update` read `next_extras` where an episode terminated? The loop then asks `act` about
        those last observations, too.
    """

    init: Callable[..., Any]
    memory: Callable[[int], Any]
    act: Callable[..., tuple[jax.Array, Any, Any]]
    update: Callable[..., tuple[Any, Metrics]]
    observe: Callable[[Any, Transition], Any] = lambda state, experience: state
    reads_terminal: bool = False


class Objective(NamedTuple):
    """What an actor-critic optimises: five pure functions over the outputs of its network.

    `outputs` is a dict: "policy" holds a distribution (`jaxrl.ops.distributions`), "value" [...] a number, and every
    head that `heads` asks for an array [..., width]. The semi-gradient comes from the split: `prepare` runs outside
    the inner gradient.

    Attributes:
      heads: `(action_space) -> {name: width}`, beside "policy" and "value".
      init: `() -> ObjectiveState`; `()` if there is none.
      prepare: `(state, outputs, next_outputs, rollout [T, B], progress) -> (targets [T, B], state)`.
      loss: `(state, outputs [N], targets [N]) -> (scalar, Metrics)`; sees the whole minibatch.
      finish: `(state, outputs [N], targets [N]) -> state`, after the update; the outputs are those of the updated
        network over the whole rollout, and cost nothing where they are not used.
      action_heads: `(action_space) -> {name: width}`, [..., A, width], of a network that takes in each action; such a
        network has no "value", and its successors' outputs are known where an episode terminated, too.
      target_decay: if given, `outputs["target"]` are those of a moving average of the parameters, which keeps this
        share of itself per update and takes the rest from the parameters that collected the rollout.
    """

    heads: Callable[[Any], dict[str, int]]
    init: Callable[[], Any]
    prepare: Callable[..., tuple[Any, Any]]
    loss: Callable[..., tuple[jax.Array, Metrics]]
    finish: Callable[[Any, Any, Any], Any]
    action_heads: Callable[[Any], dict[str, int]] | None = None
    target_decay: float | None = None
