"""Meta-gradients: agents live in slots, their rule is improved by differentiating through a few of their updates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.algorithm import Algorithm, train
from jaxrl.meta.levels import LevelSampler
from jaxrl.types import Key, Metrics, Params, Step

META_LOSS = "loss/meta"


class Lifetime(NamedTuple):
    """One agent's life on one level, under one rule.

    Attributes:
      algorithm: its updates, of which it has `num_updates`.
      num_updates: scalar; may be traced.
      examine: `(key, state, t) -> (state, Metrics)`, after some updates: "loss/meta" is what the rule shall descend,
        differentiable in whatever the state depends on.
      companion: an algorithm that lives beside it on the same level, as long, and is never differentiated; or `None`.
      final: `(key, state, companion's state) -> (score, Metrics)` at its end.
    """

    algorithm: Algorithm
    num_updates: jax.Array | int
    examine: Callable[[Key, Any, Step], tuple[Any, Metrics]]
    companion: Algorithm | None
    final: Callable[[Key, Any, Any], tuple[jax.Array, Metrics]]


@struct.dataclass
class Slots:
    """L lifetimes under way, leaves [L, …]: level, updates done (int32), the algorithm's state, its companion's."""

    level: Any
    age: jax.Array
    state: Any
    companion: Any


@struct.dataclass
class MetaState:
    """State of `meta_gradient`: meta-parameters, their optimiser's state, the sampler's, and the lifetimes."""

    params: Params
    opt_state: Any
    levels: Any
    slots: Slots


def frozen_after(algorithm: Algorithm, num_updates: jax.Array | int) -> Algorithm:
    """From update `num_updates` on nothing changes any more, to the bit; lifetimes then share one scan length."""

    def step(key: Key, state: Any, t: Step) -> tuple[Any, Metrics]:
        after, metrics = algorithm.step(key, state, t)
        alive = t < num_updates
        return jax.tree.map(lambda new, old: jnp.where(alive, new, old), after, state), metrics

    return Algorithm(algorithm.init, step)


def meta_gradient(
    inner: Callable[[Params, Any], Lifetime],
    init_params: Callable[[Key], Params],
    tx: optax.GradientTransformation,
    levels: LevelSampler,
    config: Any,
    regularizers: dict[str, Any],
) -> Algorithm:
    """Each step: K updates of every lifetime, one meta-update from all of them, and new lives where one has ended.

    The meta-loss of a lifetime is what `examine` says after the K updates, plus `regularizers`: their weights times the
    metrics of these names, averaged over those of the K updates that took place. Its gradient goes through the
    updates, not through what was experienced.

    Args:
      inner: `(meta_params, level) -> Lifetime`, called under tracing.
      init_params: `(key) -> meta_params`.
      tx: the meta-optimiser, with its learning rate.
      levels: for `config.num_lifetimes` slots.
      config: has `num_lifetimes` (L), `lifetime_batch` (how many are differentiated at once; divides L), `num_inner`
        (K), `ended_batch` (how many ended lifetimes are scored and replaced at once).
      regularizers: {metric of the algorithm's step: weight}; weights may be traced.
    Returns:
      An `Algorithm`; its metrics are means over lifetimes, and of those that ended "lifetime/…", NaN if none did.
    References:
      Oh et al. 2020, arXiv:2007.08794, sec. 3.3; Jackson et al. 2023, arXiv:2310.02782, sec. 3.
    """
    num, batch = config.num_lifetimes, config.lifetime_batch

    def begin(key: Key, params: Params, level: Any) -> Slots:
        life = inner(params, level)
        key_state, key_companion = jax.random.split(key)
        companion = life.companion.init(key_companion) if life.companion else ()
        return Slots(level, jnp.int32(0), life.algorithm.init(key_state), companion)

    def live(params: Params, key: Key, slot: Slots) -> tuple[jax.Array, tuple[Slots, Metrics]]:
        life = inner(params, slot.level)
        key_train, key_examine, key_companion = jax.random.split(key, 3)
        after = slot.age + config.num_inner
        algorithm = frozen_after(life.algorithm, life.num_updates)
        state, rows = train(key_train, algorithm, config.num_inner, slot.state, slot.age)
        state, outcome = life.examine(key_examine, state, after)
        happened = slot.age + jnp.arange(config.num_inner) < life.num_updates
        means = {name: jnp.where(happened, row, 0.0).sum() / happened.sum() for name, row in rows.items()}
        loss = outcome[META_LOSS] + sum(weight * means[name] for name, weight in regularizers.items())
        companion = slot.companion
        if life.companion:
            rival = frozen_after(life.companion, life.num_updates)
            companion, _ = train(key_companion, rival, config.num_inner, slot.companion, slot.age)
        slot = jax.lax.stop_gradient(Slots(slot.level, after, state, companion))
        return loss, (slot, means | outcome)

    def batch_loss(params: Params, keys: Key, slots: Slots) -> tuple[jax.Array, tuple[Slots, Metrics]]:
        losses, rest = jax.vmap(live, (None, 0, 0))(params, keys, slots)
        return losses.sum() / num, rest

    def all_gradients(params: Params, keys: Key, slots: Slots) -> tuple[Params, Slots, Metrics]:
        def body(total: Params, part: tuple[Key, Slots]) -> tuple[Params, tuple[Slots, Metrics]]:
            grad, rest = jax.grad(batch_loss, has_aux=True)(params, *part)
            return jax.tree.map(jnp.add, total, grad), rest

        parts = jax.tree.map(lambda leaf: leaf.reshape(num // batch, batch, *leaf.shape[1:]), (keys, slots))
        grad, rest = jax.lax.scan(body, jax.tree.map(jnp.zeros_like, params), parts)
        slots, metrics = jax.tree.map(lambda leaf: leaf.reshape(num, *leaf.shape[2:]), rest)
        return grad, slots, metrics

    def init(key: Key) -> MetaState:
        key_params, key_levels, key_sample, key_begin = jax.random.split(key, 4)
        params = init_params(key_params)
        drawn, sampler = levels.sample(key_sample, levels.init(key_levels), jnp.arange(num))
        slots = jax.vmap(begin, (0, None, 0))(jax.random.split(key_begin, num), params, drawn)
        return MetaState(params, tx.init(params), sampler, slots)

    def step(key: Key, state: MetaState, t: Step) -> tuple[MetaState, Metrics]:
        key_live, key_renew = jax.random.split(key)
        grad, slots, metrics = all_gradients(state.params, jax.random.split(key_live, num), state.slots)
        change, opt_state = tx.update(grad, state.opt_state, state.params)
        params = optax.apply_updates(state.params, change)
        state = MetaState(params, opt_state, state.levels, slots)
        state, ended = _renew(key_renew, state, inner, begin, levels, config.ended_batch)
        metrics = {name: jnp.nanmean(value) for name, value in metrics.items()}
        return state, metrics | ended | {"meta/grad_norm": optax.tree.norm(grad)}

    return Algorithm(init, step)


def _renew(
    key: Key,
    state: MetaState,
    inner: Callable[[Params, Any], Lifetime],
    begin: Callable[[Key, Params, Any], Slots],
    levels: LevelSampler,
    size: int,
) -> tuple[MetaState, Metrics]:
    """Scores the lifetimes that have ended and begins new ones in their slots, `size` at a time, as often as needed.

    A loop rather than a branch: where lifetimes are staggered, some end at nearly every meta-step, and each turn of
    the loop plays out only `size` of them.
    """
    num = state.slots.age.shape[0]
    params = state.params

    def num_updates(level: Any) -> jax.Array:
        return jnp.asarray(inner(params, level).num_updates)

    over = state.slots.age >= jax.vmap(num_updates)(state.slots.level)

    def final(key: Key, slot: Slots) -> tuple[jax.Array, Metrics]:
        return inner(params, slot.level).final(key, slot.state, slot.companion)

    def body(carry: Any) -> Any:
        turn, over, sampler, slots, totals = carry
        key_final, key_sample, key_begin = jax.random.split(jax.random.fold_in(key, turn), 3)
        index = jnp.nonzero(over, size=size, fill_value=num)[0]
        ended = jax.tree.map(lambda leaf: leaf.at[index].get(mode="clip"), slots)
        scores, metrics = jax.vmap(final)(jax.random.split(key_final, size), ended)
        sampler = levels.update(sampler, index, scores)
        drawn, sampler = levels.sample(key_sample, sampler, index)
        fresh = jax.vmap(begin, (0, None, 0))(jax.random.split(key_begin, size), params, drawn)
        slots = jax.tree.map(lambda leaf, new: leaf.at[index].set(new, mode="drop"), slots, fresh)
        rows = metrics | {"score": scores}
        totals = {name: totals[name] + jnp.where(index < num, rows[name], 0.0).sum() for name in totals}
        return turn + 1, over.at[index].set(False, mode="drop"), sampler, slots, totals

    shapes = jax.eval_shape(final, key, jax.tree.map(lambda leaf: leaf[0], state.slots))
    totals = {name: jnp.zeros(()) for name in (*shapes[1], "score")}
    count = over.sum()
    start = (jnp.int32(0), over, state.levels, state.slots, totals)
    _, _, sampler, slots, totals = jax.lax.while_loop(lambda carry: carry[1].any(), body, start)
    means = {f"lifetime/{name}": jnp.where(count > 0, total / count, jnp.nan) for name, total in totals.items()}
    state = dataclasses.replace(state, levels=sampler, slots=slots)
    return state, means | {"lifetime/count": count.astype(jnp.float32)}
