"""Evolution strategies that look for novelty: NS-ES, and with reward NSR-ES and NSRA-ES, over several policies."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from jaxrl.evo.evolve import Strategy
from jaxrl.evo.novelty import NoveltyArchive, NoveltySearch, add_to_archive, check_novelty, init_archive, novelty
from jaxrl.evo.open_es import OpenESHparams, Perturbation, centered_ranks, open_es
from jaxrl.types import Evaluation, Key, Metrics, Params

_WORST = float(np.finfo(np.float32).min)


class NoveltyESHparams(NamedTuple):
    """The numbers of `novelty_es` beside those of `open_es`; each may be traced.

    Attributes:
      reward_weight: share of the reward's ranks in the direction, the rest is the novelty's: 0 is NS-ES, 1/2 NSR-ES;
        with which NSRA-ES begins.
      weight_change: what NSRA-ES adds to it where the return is better than ever, and takes off after `patience`
        generations without; 0 keeps it.
      patience: in generations.
    """

    reward_weight: Any = 0.0
    weight_change: Any = 0.0
    patience: Any = 50


@struct.dataclass
class NoveltyESState:
    """State of `novelty_es`.

    Attributes:
      policies: M states of `open_es`.
      behaviours: [M, D], of each policy when it was last evaluated.
      returns: [M], likewise.
      archive: of the behaviours that policies have had.
      chosen: int32, the policy of this generation.
      weight: of the reward.
      best: the best return so far.
      waited: int32, generations since it got better.
      generation: int32, generations so far; the first only fills the archive.
      novelty_mean: of the last population.
      noise: of the pairs that are being evaluated, as in `OpenESState`.
    """

    policies: Any
    behaviours: jax.Array
    returns: jax.Array
    archive: NoveltyArchive
    chosen: jax.Array
    weight: jax.Array
    best: jax.Array
    waited: jax.Array
    generation: jax.Array
    novelty_mean: jax.Array
    noise: Any = ()


class Member(NamedTuple):
    """An individual: a perturbation of one of the policies, sign 0 for the policy itself."""

    policy: jax.Array
    perturbation: Perturbation


def novelty_es(  # noqa: PLR0913 - as `open_es`, and what novelty needs
    init_params: Callable[[Key], Params],
    tx: optax.GradientTransformation,
    hp: OpenESHparams,
    novelty_hp: NoveltyESHparams,
    num_pairs: int,
    search: NoveltySearch,
    num_policies: int = 3,
    noise_batch: int = 0,
) -> Strategy:
    """M policies, of which each generation improves one, chosen in proportion to its novelty.

    The direction is that of OpenAI-ES with weights `w ranks(return) + (1 - w) ranks(novelty)`, novelty being the mean
    distance to the nearest of the archive. The policy is then evaluated, and its behaviour archived. In the first
    generation nothing moves: the behaviours of all policies begin the archive.

    Args:
      init_params, tx, hp, num_pairs, noise_batch: as of `open_es`.
      novelty_hp: numbers of NS-ES, NSR-ES and NSRA-ES.
      search: novelty's sizes; individuals are not each other's neighbours.
      num_policies: M.
    Raises:
      ValueError: for sizes that do not fit.
    References:
      Conti et al. 2018, arXiv:1712.06560, algorithms 1 to 3. Differs: policies are evaluated in one more generation
      at first, and each generation all of them, of which one counts.
    """
    check_novelty(search.num_neighbours, search.metric)
    if num_policies < 1:
        raise ValueError(f"num_policies = {num_policies}: expected at least 1")
    es = open_es(init_params, tx, hp, num_pairs, lambda weights: weights, 1, noise_batch)

    design = _Design(es, novelty_hp, num_pairs, search, num_policies)
    return Strategy(
        init=functools.partial(_init, design),
        ask=functools.partial(_ask, design),
        decode=lambda state, member: es.decode(_asked(state, member.policy), member.perturbation),
        tell=functools.partial(_tell, design),
        groups=np.zeros(2 * num_pairs, np.int32),
        describe=_describe,
        again=functools.partial(_again, design),
        solution=lambda state: _policy(state, jnp.argmax(state.returns)).params,
    )


class _Design(NamedTuple):
    es: Strategy
    hp: NoveltyESHparams
    num_pairs: int
    search: NoveltySearch
    num_policies: int

    def novelty(self, behaviours: jax.Array, archive: NoveltyArchive) -> jax.Array:
        """Of the archive alone."""
        search = self.search
        return novelty(behaviours, archive, search.num_neighbours, search.metric, False, search.batch_size)


def _init(design: _Design, key: Key) -> NoveltyESState:
    num, search = design.num_policies, design.search
    zero, none = jnp.float32(0.0), jnp.int32(0)
    return NoveltyESState(
        policies=jax.vmap(design.es.init)(jax.random.split(key, num)),
        behaviours=jnp.zeros((num, search.size)),
        returns=jnp.zeros(num),
        archive=init_archive(search.capacity, search.size),
        chosen=none,
        weight=jnp.asarray(design.hp.reward_weight, jnp.float32),
        best=zero,
        waited=none,
        generation=none,
        novelty_mean=zero,
    )


def _ask(design: _Design, key: Key, state: NoveltyESState) -> tuple[Member, NoveltyESState]:
    key_choose, key_ask = jax.random.split(key)
    novelties = jnp.maximum(design.novelty(state.behaviours, state.archive), 0.0)
    chosen = jax.random.categorical(key_choose, jnp.log(novelties + 1e-8)).astype(jnp.int32)
    perturbations, asked = design.es.ask(key_ask, _policy(state, chosen))
    member = Member(jnp.full(2 * design.num_pairs, chosen), perturbations)
    return member, dataclasses.replace(state, chosen=chosen, noise=asked.noise)


def _again(
    design: _Design, key: Key, state: NoveltyESState, members: Member, evaluation: Evaluation
) -> tuple[Member, NoveltyESState]:
    novelties = design.novelty(evaluation.descriptor, state.archive)
    of_reward, of_novelty = centered_ranks(evaluation.fitness), centered_ranks(novelties)
    weights = state.weight * of_reward + (1.0 - state.weight) * of_novelty
    moved = design.es.tell(key, _asked(state, state.chosen), members.perturbation, Evaluation(weights))
    policies = jax.tree.map(
        lambda every, one: every.at[state.chosen].set(jnp.where(state.generation > 0, one, every[state.chosen])),
        state.policies,
        moved,
    )
    num = design.num_policies
    still = Perturbation(jnp.zeros(num, jnp.int32), jnp.zeros(num))
    state = dataclasses.replace(state, policies=policies, novelty_mean=jnp.maximum(novelties, 0.0).mean())
    return Member(jnp.arange(num), still), state


def _tell(  # noqa: PLR0913 - `Strategy.tell` of those who evaluate twice
    design: _Design,
    key: Key,
    state: NoveltyESState,
    members: Member,
    evaluation: Evaluation,
    few: Member,
    second: Evaluation,
) -> NoveltyESState:
    is_first = state.generation == 0
    counts = is_first | (jnp.arange(design.num_policies) == state.chosen)
    finite = jnp.isfinite(second.descriptor).all(-1)
    behaviours = jnp.where((counts & finite)[:, None], second.descriptor, state.behaviours)
    returns = jnp.where(counts, jnp.maximum(second.fitness, _WORST), state.returns)
    best_now = jnp.max(jnp.where(counts, returns, _WORST))
    better = is_first | (best_now > state.best)
    waited = jnp.where(better, 0, state.waited + 1)
    tired = waited >= design.hp.patience
    step = jnp.asarray(design.hp.weight_change, jnp.float32)
    change = jnp.where(tired, -step, jnp.where(better & ~is_first, step, 0.0))
    return dataclasses.replace(
        state,
        behaviours=behaviours,
        returns=returns,
        archive=add_to_archive(state.archive, behaviours, counts & finite),
        weight=jnp.clip(state.weight + change, 0.0, 1.0),
        best=jnp.where(better, best_now, state.best),
        waited=jnp.where(tired, 0, waited),
        generation=state.generation + 1,
        noise=(),
    )


def _describe(state: NoveltyESState) -> Metrics:
    return {
        "elite/fitness": state.returns.max(),
        "novelty/mean": state.novelty_mean,
        "archive/size": state.archive.count.astype(jnp.float32),
        "archive/dropped": state.archive.dropped.astype(jnp.float32),
        "strategy/reward_weight": state.weight,
    }


def _policy(state: NoveltyESState, index: jax.Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], state.policies)


def _asked(state: NoveltyESState, index: jax.Array) -> Any:
    """That policy, with the noise of the generation."""
    return dataclasses.replace(_policy(state, index), noise=state.noise)
