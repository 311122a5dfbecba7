"""Off-policy mirror descent: its fixed points, its special case, and when the older policy is renewed."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_agents import KEY, batch, constant, differs, make, updates

from jaxrl.agents import mdpo
from jaxrl.ops.distributions import DiagNormal, TanhNormal
from jaxrl.presets import PRESETS, MDPOOffConfig
from jaxrl.spaces import Box
from jaxrl.types import Progress

UNIT = Box(-1.0, 1.0, (1,))


def test_with_equal_weights_the_actors_gradient_is_that_of_soft_actor_critic(monkeypatch: pytest.MonkeyPatch) -> None:
    """kl_coef = entropy_coef takes the older policy out; one critic, and no regulariser."""
    monkeypatch.setattr(mdpo, "_REGULARISATION", 0.0)
    settings: dict[str, Any] = {"hidden_sizes": (6,), "num_critics": 1, "max_grad_norm": 1e9}
    mirror, state = make("mdpo_off", kl_coef=0.3, entropy_coef=0.3, **settings)
    soft, soft_state = make("sac", initial_alpha=0.3, alpha_learning_rate=0.0, **settings)
    assert not differs(state.params, soft_state.params)
    # An older policy of its own, which must not matter.
    state = state.replace(extra=jax.tree.map(lambda leaf: leaf + 0.3, state.extra))
    for old, new in zip(updates(mirror, state, batch(8), 2).actor_opt, updates(soft, soft_state, batch(8), 2).actor_opt,
                        strict=True):  # fmt: skip
        for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-7)
    moments: Any = updates(mirror, state, batch(8), 1).actor_opt
    assert np.abs(moments[1].mu).max() > 1e-3


OLD_MEAN, OLD_STD = 0.3, 0.5


@pytest.mark.parametrize(
    ("kl_coef", "entropy_coef"),
    [(0.5, 0.0), (1.0, 0.0), (1.0, 0.5), (0.6, 0.6)],
    ids=["t=2", "t=1", "with entropy", "entropy alone"],
)
def test_the_policy_settles_where_mirror_descent_says(
    kl_coef: float, entropy_coef: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pi is proportional to old^(1 - lambda/c) exp(Q/c), the entropy being linearised at the older policy.

    Q is chosen such that this is a squashed Gaussian: with u the action before squashing, Q = -(u - m)^2 minus lambda
    times the log-det; then the precision is (1 - lambda/c) / old_std^2 + 2/c.
    """
    goal = -0.4

    def value(action: jax.Array) -> jax.Array:
        u = jnp.arctanh(jnp.clip(action, -0.999999, 0.999999))
        log_det = TanhNormal(DiagNormal(u, u), jnp.array([-1.0]), jnp.array([1.0])).log_det(u)
        return -((u[:, 0] - goal) ** 2) - entropy_coef * log_det

    real = mdpo.apply_network
    monkeypatch.setattr(
        mdpo,
        "apply_network",
        lambda network, params, *x: value(x[1])[:, None] if len(x) == 2 else real(network, params, *x),
    )
    agent, state = make(
        "mdpo_off",
        UNIT,
        kl_coef=kl_coef,
        entropy_coef=entropy_coef,
        actor_learning_rate=0.02,
        old_policy_period=100_000,
    )
    state = state.replace(extra=constant(state.extra, [OLD_MEAN, float(np.log(OLD_STD))]))
    sample = batch(256)

    def body(state: Any, i: jax.Array) -> Any:
        state = agent.update(jax.random.fold_in(KEY, i), state, sample, Progress(i, 2000))[0]
        head = state.params["actor"]["params"]["head_policy"]
        return state, head["bias"]

    _, outputs = jax.jit(lambda state: jax.lax.scan(body, state, jnp.arange(1000)))(state)
    mean, log_std = np.asarray(outputs[-300:]).mean(0)
    keep = 1 - entropy_coef / kl_coef
    precision = keep / OLD_STD**2 + 2 / kl_coef
    assert mean == pytest.approx((keep * OLD_MEAN / OLD_STD**2 + 2 * goal / kl_coef) / precision, abs=0.02)
    assert np.exp(log_std) == pytest.approx(precision**-0.5, rel=0.03)
    if keep not in (0.0, 1.0):
        # With the entropy of the new policy instead, the exponents were c / (c + lambda) and 1 / (c + lambda).
        weight, share = 1 / (kl_coef + entropy_coef), kl_coef / (kl_coef + entropy_coef) / OLD_STD**2
        assert abs((share * OLD_MEAN + 2 * weight * goal) / (share + 2 * weight) - mean) > 0.08


def test_the_older_policy_is_renewed_every_period() -> None:
    agent, state = make("mdpo_off", old_policy_period=4, policy_delay=2, actor_learning_rate=0.01)
    renewed = []
    first = state.params["actor"]
    for i in range(12):
        after = updates(agent, state, batch(6), 1, i)
        if differs(after.extra, state.extra):
            renewed.append(i)
            assert not differs(after.extra, after.params["actor"])
        elif not renewed:
            assert not differs(after.extra, first)
        state = after
    # After the actor's last update of each period: the first period is as long as the others.
    assert renewed == [2, 6, 10]


def test_the_state_can_be_donated_after_a_renewal() -> None:
    """The older policy is no second name of the newer one's memory."""
    agent, state = make("mdpo_off", old_policy_period=1)
    step = jax.jit(lambda state, i: agent.update(KEY, state, batch(4), Progress(i, 9))[0], donate_argnums=0)
    for i in range(3):
        state = step(state, i)
    assert np.isfinite(state.params["actor"]["params"]["head_policy"]["bias"]).all()


def test_a_period_that_misses_the_actors_updates_is_refused() -> None:
    with pytest.raises(ValueError, match="old_policy_period = 5 is not a multiple of policy_delay = 2; use 4 or 6"):
        MDPOOffConfig(old_policy_period=5, policy_delay=2)
    with pytest.raises(ValueError, match="old_policy_period = 1 is not a multiple of policy_delay = 2; use 2 or 4"):
        MDPOOffConfig(old_policy_period=1, policy_delay=2)
    assert PRESETS["mdpo_off"].config.old_policy_period % PRESETS["mdpo_off"].config.policy_delay == 0
