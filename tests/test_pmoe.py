"""The mixture policy: how its gate learns, and a bandit with two best actions, of which one Gaussian finds one."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_agents import batch, differs, make, updates

from jaxrl.agents import pmoe, sac
from jaxrl.agents.pmoe import frequency_loss
from jaxrl.algorithm import train
from jaxrl.presets import PRESETS
from jaxrl.spaces import Box
from jaxrl.types import Progress
from jaxrl_envs import probes

KEY = jax.random.key(1)


def test_frequency_loss_by_hand() -> None:
    weights, values = jnp.array([[0.3, 0.7]]), jnp.array([[5.0, 1.0]])
    assert frequency_loss(weights, values) == pytest.approx(0.98, rel=1e-6)
    assert frequency_loss(jnp.tile(weights, (2, 1)), jnp.array([[5.0, 1.0], [0.0, 1.0]])) == pytest.approx(
        (0.98 + 0.18) / 2, rel=1e-6
    )
    gradient = jax.grad(frequency_loss, 1)(weights, values)
    np.testing.assert_array_equal(gradient, 0.0)


def test_the_gate_that_minimises_it_is_how_often_each_is_best() -> None:
    """Values a + noise and noise: descent on the gate's logits finds the frequencies, here counted."""
    values = jax.random.normal(KEY, (4000, 3)) + jnp.array([0.5, 0.0, -0.3])
    counted = np.bincount(np.argmax(values, -1), minlength=3) / 4000
    gradient = jax.grad(lambda logits: frequency_loss(jax.nn.softmax(logits)[None], values))

    def body(i: jax.Array, logits: jax.Array) -> jax.Array:
        return logits - 2.0 * gradient(logits)

    logits = jax.jit(lambda logits: jax.lax.fori_loop(0, 500, body, logits))(jnp.zeros(3))
    np.testing.assert_allclose(jax.nn.softmax(logits), counted, atol=1e-3)


def split(actor: Any, num: int) -> tuple[Any, Any]:
    """The head's numbers of the gate, and those of the primitives."""
    head = actor["params"]["head_policy"]
    leaves = [head["kernel"], head["bias"]]
    return [leaf[..., :num] for leaf in leaves], [leaf[..., num:] for leaf in leaves]


@pytest.mark.quick("frequency")
@pytest.mark.parametrize("routing", ["frequency", "score", "gumbel"])
def test_the_gates_loss_moves_the_gate_alone(routing: str) -> None:
    """And nothing else moves it: without hidden layers, the head tells them apart."""
    settings: dict[str, Any] = {"routing": routing, "num_primitives": 3, "actor_learning_rate": 0.01}
    agent, state = make("pmoe", gate_coef=0.0, **settings)
    gate, primitives = split(updates(agent, state, batch(16), 1).params["actor"], 3)
    first_gate, first_primitives = split(state.params["actor"], 3)
    assert not differs(gate, first_gate)
    assert differs(primitives, first_primitives)
    agent, state = make("pmoe", gate_coef=1.0, max_grad_norm=1e9, **settings)
    both_gate, both_primitives = split(updates(agent, state, batch(16), 1).params["actor"], 3)
    assert differs(both_gate, first_gate)
    for a, b in zip(both_primitives, primitives, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_primitives_begin_apart() -> None:
    agent, state = make("pmoe", num_primitives=3)
    obs, first = jnp.zeros((500, 1)), jnp.zeros(500, bool)
    action, _, _ = agent.act(KEY, state, (), obs, first, True)
    assert np.std(action) > np.std(make("sac")[0].act(KEY, make("sac")[1], (), obs, first, True)[0])


def hills(action: jax.Array, heights: tuple[float, float]) -> jax.Array:
    """Values [...] of actions [..., 1]: two Gaussian hills at -.6 and .6."""
    return (jnp.array(heights) * jnp.exp(-((action - jnp.array([-0.6, 0.6])) ** 2) / 0.1)).sum(-1)


def climb(name: str, heights: tuple[float, float], monkeypatch: pytest.MonkeyPatch, **settings: Any) -> np.ndarray:
    """Actions [seeds, 4000] of an actor that has climbed critics who know the hills."""
    module = {"pmoe": pmoe, "sac": sac}[name]
    monkeypatch.setattr(
        module,
        "apply_ensemble",
        lambda network, params, obs, action: jnp.stack([hills(action, heights)[..., None]] * 2),
    )
    agent, _ = make(
        name, Box(-1.0, 1.0, (1,)), actor_learning_rate=0.01, alpha_learning_rate=0.0, initial_alpha=0.1, **settings
    )
    sample = batch(64)._replace(obs=jnp.zeros((64, 1)))

    def run(key: jax.Array) -> jax.Array:
        state = agent.init(key, Box(0.0, 1.0, (1,)), Box(-1.0, 1.0, (1,)))

        def body(state: Any, i: jax.Array) -> Any:
            return agent.update(jax.random.fold_in(key, i), state, sample, Progress(i, 1500))[0], ()

        state, _ = jax.lax.scan(body, state, jnp.arange(1500))
        return agent.act(key, state, (), jnp.zeros((4000, 1)), jnp.zeros(4000, bool), True)[0][:, 0]

    return np.asarray(jax.jit(jax.vmap(run))(jax.random.split(KEY, 4)))


@pytest.mark.parametrize(("heights", "weighting"), [((1.0, 1.0), "gate"), ((0.95, 1.0), "uniform")])
@pytest.mark.thorough
def test_primitives_specialise_where_one_gaussian_cannot(
    heights: tuple[float, float], weighting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each primitive takes a hill, and the gate chooses a hill as often as its action is the better of the two."""
    for actions in climb("pmoe", heights, monkeypatch, num_primitives=2, weighting=weighting):
        shares = on_hills(actions[None])[0]
        assert shares.sum() > 0.9
        left, right = (np.asarray(hills(jnp.asarray(part)[:, None], heights)) for part in
                       (actions[actions < 0], actions[actions > 0]))  # fmt: skip
        often = (left[:, None] < right).mean()
        assert 0.4 < often < 0.85
        assert (actions > 0).mean() == pytest.approx(often, abs=0.08)


def test_one_gaussian_takes_one_hill_or_misses_both(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = on_hills(climb("sac", (1.0, 1.0), monkeypatch))
    assert np.all((shares.min(1) < 0.1) | (shares.sum(1) < 0.75))


def bandit(heights: tuple[float, float]) -> Any:
    """One step, rewarded with the hills."""

    def answer(state: Any, action: jax.Array, params: Any) -> Any:
        return params.reward * hills(action, heights), True, False

    return dataclasses.replace(probes.continuous_probe(), answer=answer)


def learn(env: Any, **settings: Any) -> np.ndarray:
    """Actions [seeds, 2000] of the policy that was learnt, as it explores."""
    preset = PRESETS["pmoe"]
    config = dataclasses.replace(
        preset.config, total_steps=256 + 16 * 150, num_envs=16, num_gradient_steps=4, batch_size=128, buffer_size=4096,
        fill_steps=256, hidden_sizes=(32,), activation="tanh", **settings,
    )  # fmt: skip
    hparams = preset.hparams.replace(
        actor_learning_rate=5e-3, critic_learning_rate=1e-2, alpha_learning_rate=0.0, initial_alpha=0.02, tau=0.1
    )
    agent = preset.agent(env, config, hparams)

    def run(key: jax.Array) -> jax.Array:
        state, _ = train(key, preset.make(env, config, hparams), config.num_updates)
        return agent.act(key, state.agent, (), jnp.zeros((2000, 1)), jnp.zeros(2000, bool), True)[0][:, 0]

    return np.asarray(jax.jit(jax.vmap(run))(jax.random.split(KEY, 3)))


def on_hills(actions: np.ndarray) -> np.ndarray:
    """Shares of actions near each hill, [seeds, 2]."""
    return np.stack([(np.abs(actions - place) < 0.3).mean(1) for place in (-0.6, 0.6)], 1)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("routing", "weighting"), [("frequency", "gate"), ("frequency", "best"), ("score", "gate"), ("gumbel", "gate")]
)
def test_the_gate_prefers_the_higher_hill(routing: str, weighting: str) -> None:
    """With critics that learn."""
    shares = on_hills(learn(bandit((0.3, 1.0)), num_primitives=2, routing=routing, weighting=weighting))
    assert shares[:, 1].min() > 0.8
