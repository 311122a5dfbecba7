"""Names, the Gymnax adapter in both directions, and what importing it costs. Brax: test_adapters_brax.py."""

import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import gymnax
import gymnax.wrappers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces as gymnax_spaces

from jaxrl.adapters import GYMNAX_ENVS, full_name, list_envs, make_env, to_gymnax
from jaxrl.adapters.gymnax import GymnaxEnvironment, _import_without_plotting
from jaxrl.env import Environment, autoreset, time_limit, vectorize
from jaxrl.env_checks import check_environment
from jaxrl.plan import without_physics
from jaxrl.spaces import Box, Discrete, Indexed, MultiDiscrete

OFFLINE = [name for name in GYMNAX_ENVS if name != "MNISTBandit-bsuite"]


@pytest.mark.quick("CartPole-v1", "Pendulum-v1", "Breakout-MinAtar", "DeepSea-bsuite")
@pytest.mark.parametrize("name", OFFLINE)
def test_every_gymnax_environment_passes_check_environment(name):
    # Uncompiled, the hundreds of operations of a MinAtar step take longer than all the rest.
    report = check_environment(make_env(name), num_steps=100, num_eager_steps=0 if name.endswith("MinAtar") else 2)
    if name == "DeepSea-bsuite":  # both flags on every last step
        assert report.num_terminated == report.num_truncated > 0


# Names.


def test_the_table_equals_gymnax_s_registry():
    assert list(GYMNAX_ENVS) == gymnax.registered_envs


def test_a_family_may_be_left_out():
    """Where only one has the name; Breakout-MinAtar's is its own."""
    assert full_name("ant") == "brax/ant"
    assert full_name("probe_memory") == "jaxrl/probe_memory"
    assert full_name("CartPole-v1") == "CartPole-v1"
    assert full_name("nowhere") == "nowhere"
    assert make_env("probe_memory") is make_env("jaxrl/probe_memory")


def test_a_name_may_say_by_which_physics() -> None:
    assert make_env("brax/spring/inverted_pendulum") is make_env("brax/inverted_pendulum", backend="spring")
    assert make_env("brax/spring/inverted_pendulum") is not make_env("brax/inverted_pendulum")
    assert without_physics("brax/spring/ant") == "brax/ant"
    assert [without_physics(name) for name in ("brax/ant", "CartPole-v1")] == ["brax/ant", "CartPole-v1"]
    with pytest.raises(ValueError, match="positional"):
        make_env("brax/spring/inverted_pendulum", backend="positional")
    with pytest.raises(ValueError, match="expected backend to be one of .*, got 'sprung'"):
        make_env("brax/sprung/inverted_pendulum")
    with pytest.raises(ValueError, match="unknown environment 'brax/pendulam'"):
        make_env("brax/spring/pendulam")


def test_list_envs_covers_all_families():
    names = list_envs()
    assert {"CartPole-v1", "Breakout-MinAtar", "brax/ant", "brax/fast", "jaxrl/probe_memory"} <= set(names)
    assert len(set(names)) == len(names)
    with pytest.raises(ValueError, match="expected the name of an environment"):
        make_env(make_env("CartPole-v1"))


def test_the_same_arguments_give_the_same_object():
    assert make_env("CartPole-v1") is make_env("CartPole-v1")
    assert make_env("jaxrl/probe_action") is make_env("jaxrl/probe_action")
    assert make_env("DeepSea-bsuite", size=5) is make_env("DeepSea-bsuite", size=5)
    assert make_env("DeepSea-bsuite", size=5) is not make_env("DeepSea-bsuite", size=6)
    assert isinstance(make_env("CartPole-v1"), Environment)


def test_arguments_that_cannot_be_hashed_are_taken():
    action_map_key = jax.random.key(3)
    env = make_env("DeepSea-bsuite", size=4, action_mapping_key=action_map_key)
    assert env.observation_space(env.default_params).shape == (4, 4)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("CartPol-v1", {}, "did you mean CartPole-v1.*list_envs"),
        ("cartpole-v1", {}, "did you mean CartPole-v1"),
        ("brax/aunt", {}, "brax/ant"),
        ("jaxrl/probe_acton", {}, "jaxrl/probe_action"),
        ("aunt", {}, "list_envs"),
        ("CartPole-v1", {"size": 3}, "CartPole-v1 takes the arguments .*size"),
        ("DeepSea-bsuite", {"sise": 3}, "DeepSea-bsuite takes the arguments .*size: int = 8.*sise"),
        ("jaxrl/probe_action", {"size": 3}, "jaxrl/probe_action: .*size"),
    ],
)
def test_mistakes_name_the_fix(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_env(name, **kwargs)


def test_a_failed_download_says_so(monkeypatch):
    from gymnax.utils import load_mnist

    def no_network(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(load_mnist, "load_mnist", no_network)
    with pytest.raises(ValueError, match="MNISTBandit-bsuite downloads MNIST.*no route to host.*connect"):
        make_env("MNISTBandit-bsuite")


def test_environments_registered_in_gymnax_have_names_too(monkeypatch):
    registration = sys.modules["gymnax.registration"]
    monkeypatch.setattr(registration, "_registry", dict(registration._registry))
    monkeypatch.setattr(registration, "registered_envs", list(registration.registered_envs))
    registration.register("Mine-v0", type(gymnax.make("Catch-bsuite")[0]))
    assert "Mine-v0" in list_envs()
    assert make_env("Mine-v0", rows=7).observation_space(None).shape == (7, 5)


# Ours from Gymnax's.


def test_transitions_are_gymnax_s_own():
    raw, params = gymnax.make("Catch-bsuite")
    env, key = make_env("Catch-bsuite"), jax.random.key(1)
    state, obs = env.reset(key, params)
    expected_obs, expected_state = raw.reset_env(key, params)
    np.testing.assert_array_equal(obs, expected_obs)
    step, raw_step = jax.jit(env.step), jax.jit(raw.step_env)
    rewards = []
    for _ in range(9):
        state, t = step(key, state, 1, params)
        expected_obs, expected_state, reward, terminated, _ = raw_step(key, expected_state, 1, params)
        np.testing.assert_array_equal(t.obs, expected_obs)
        assert (t.reward, t.terminated, t.truncated) == (reward, terminated, False)
        rewards.append(float(reward))
    assert terminated
    assert rewards[:-1] == [0.0] * 8


@pytest.mark.parametrize(
    ("name", "obs_space", "action_space"),
    [
        ("FrozenLake-misc", Discrete(16), Discrete(4)),
        ("FourRooms-misc", Box(1, 11, (4,), jnp.int32), Discrete(4)),  # declared float32, returned as int32
        ("Catch-bsuite", Box(0, 1, (10, 5)), Discrete(3)),  # declared int32, returned as float32
        ("MountainCarContinuous-v0", Box((-1.2, -0.07), (0.6, 0.07), (2,)), Box(-1, 1, (1,))),
        ("GaussianBandit-misc", Box((-np.inf, 0, 0, -1), (np.inf, 1, 1, 100), (4,)), Discrete(2)),
        ("Breakout-MinAtar", Box(0, 1, (10, 10, 4)), Discrete(3)),
    ],
)
def test_spaces_are_converted(name, obs_space, action_space):
    env = make_env(name)
    got = env.observation_space(env.default_params)
    assert (type(got), got.shape, got.dtype) == (type(obs_space), obs_space.shape, obs_space.dtype)
    if isinstance(got, Box):
        np.testing.assert_allclose(got.bounds(), obs_space.bounds(), rtol=1e-6)
    assert env.action_space(env.default_params) == action_space


def test_spaces_follow_concrete_params_and_are_static_under_tracing():
    env = make_env("Pendulum-v1")
    default = env.default_params
    assert env.action_space(default.replace(max_torque=5.0)) == Box(-5, 5, (1,))
    seen = []
    jax.jit(lambda params: seen.append(env.action_space(params)))(default.replace(max_torque=5.0))
    batch = default.replace(max_torque=jnp.array([5.0, 6.0]))
    check_environment(env, params=default.replace(max_torque=5.0), num_steps=4, num_envs=2, num_eager_steps=0)
    assert [*seen, env.action_space(batch), env.action_space(default)] == [Box(-2, 2, (1,))] * 3


def test_spaces_of_other_kinds_are_refused():
    class WithDict(type(gymnax.make("Catch-bsuite")[0])):
        def action_space(self, params=None):
            return gymnax_spaces.Dict({"a": gymnax_spaces.Discrete(2)})

    with pytest.raises(ValueError, match="Discrete or Box, got Dict"):
        GymnaxEnvironment(WithDict()).action_space(None)


def test_the_native_time_limit_is_a_traced_parameter():
    env = make_env("Pendulum-v1")

    def flags(max_steps):
        params = env.default_params.replace(max_steps_in_episode=max_steps)
        state, _ = env.reset(jax.random.key(0), params)
        step = lambda state, _: env.step(jax.random.key(0), state, jnp.zeros(1), params)  # noqa: E731
        timesteps = jax.lax.scan(step, state, length=4)[1]
        return timesteps.terminated, timesteps.truncated

    terminated, truncated = jax.vmap(flags)(jnp.array([2, 4]))
    assert not terminated.any()
    np.testing.assert_array_equal(truncated, [[False, True, True, True], [False, False, False, True]])


# CartPole, beside Gymnasium's.


@pytest.fixture(scope="module")
def cartpole_episodes():
    """Five episodes of 510 steps without resets: two of random actions, three of a controller that balances."""
    env = make_env("CartPole-v1")

    def episode(key, is_random):
        key_reset, key_actions = jax.random.split(key)
        state, obs = env.reset(key_reset, env.default_params)

        def step(carry, key):
            state, obs = carry
            balance = jnp.dot(obs, jnp.array([0.1, 0.3, 1.0, 0.4])) > 0
            action = jnp.where(is_random, jax.random.bernoulli(key), balance).astype(jnp.int32)
            state, t = env.step(key, state, action, env.default_params)
            return (state, t.obs), (action, t)

        return obs, *jax.lax.scan(step, (state, obs), jax.random.split(key_actions, 510))[1]

    keys = jax.random.split(jax.random.key(2), 5)
    return jax.device_get(jax.jit(jax.vmap(episode))(keys, jnp.array([True, True, False, False, False])))


@pytest.mark.parametrize("episode", range(5))
def test_cartpole_equals_gymnasium_s(cartpole_episodes, episode):
    """Random episodes run freely from the same start; balanced ones, where roundings would grow, are put into step."""
    first_obs, actions, t = jax.tree.map(lambda leaf: leaf[episode], cartpole_episodes)
    balanced = episode >= 2
    reference = gymnasium.make("CartPole-v1")
    reference.reset(seed=0)
    reference.unwrapped.state = np.asarray(first_obs, np.float64)
    for i in range(510):
        obs, reward, terminated, truncated, _ = reference.step(int(actions[i]))
        np.testing.assert_allclose(t.obs[i], obs, rtol=1e-5, atol=1e-6 if balanced else 1e-5)
        assert (t.reward[i], t.terminated[i], t.truncated[i]) == (reward, terminated, truncated)
        if terminated or truncated:
            break
        if balanced:
            reference.unwrapped.state = np.asarray(t.obs[i], np.float64)
    assert (i == 499) == balanced
    assert truncated == balanced


# Gymnax's from ours.


def test_to_gymnax_of_a_gymnax_environment_is_that_environment():
    raw, params = gymnax.make("CartPole-v1")
    theirs = gymnax.wrappers.LogWrapper(raw)
    ours = gymnax.wrappers.LogWrapper(to_gymnax(make_env("CartPole-v1")))

    def rollout(env):
        def step(carry, key):
            obs, state = carry
            action = (obs[2] > 0).astype(jnp.int32) ^ jax.random.bernoulli(key, 0.3)
            obs, state, reward, terminated, truncated, info = env.step(key, state, action, params)
            kept = {name: info[name] for name in ("final_observation", "returned_episode_returns", "returned_episode")}
            return (obs, state), (obs, reward, terminated, truncated, kept)

        start = env.reset(jax.random.key(0), params)
        return jax.lax.scan(step, start, jax.random.split(jax.random.key(1), 200))[1]

    expected, got = rollout(theirs), rollout(ours)
    assert expected[2].sum() > 1
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_to_gymnax_resets_itself_and_keeps_the_last_observation():
    env = to_gymnax(time_limit(make_env("jaxrl/probe_termination"), 2))
    params = env.default_params
    obs, state = env.reset(jax.random.key(0), params)
    seen = []
    for _ in range(3):
        obs, state, reward, terminated, truncated, info = env.step(jax.random.key(1), state, 0, params)
        seen.append((float(obs[0]), float(info["final_observation"][0]), bool(terminated), bool(truncated)))
    np.testing.assert_allclose(np.array(seen, float), [[0.2, 0.2, 0, 0], [0.0, 0.4, 0, 1], [0.2, 0.2, 0, 0]], atol=1e-6)
    assert reward == 1.0


def test_to_gymnax_converts_spaces():
    env = to_gymnax(make_env("jaxrl/probe_continuous"))
    box = env.action_space(env.default_params)
    assert isinstance(box, gymnax_spaces.Box)
    assert (box.shape, box.dtype) == ((1,), jnp.float32)
    assert box.contains(box.sample(jax.random.key(0)))
    discrete = to_gymnax(make_env("jaxrl/probe_action")).action_space()
    assert isinstance(discrete, gymnax_spaces.Discrete)
    assert discrete.n == 2
    assert to_gymnax(make_env("jaxrl/probe_action")).num_actions == 2
    pairs = env._to_space(MultiDiscrete((2, 5)))
    assert isinstance(pairs, gymnax_spaces.Space)
    assert pairs.sample(jax.random.key(0)).shape == (2,)
    indexed = env._to_space(Indexed(5, 1))
    assert isinstance(indexed, gymnax_spaces.Box)
    assert (indexed.shape, indexed.dtype) == ((2,), jnp.float32)
    np.testing.assert_array_equal([indexed.low, indexed.high], [[0, -np.inf], [4, np.inf]])


@pytest.mark.parametrize("wrap", [lambda env: vectorize(env, 2), lambda env: autoreset(vectorize(env, 2))])
def test_to_gymnax_refuses_vectorised_environments(wrap):
    with pytest.raises(ValueError, match="one instance"):
        to_gymnax(wrap(make_env("jaxrl/probe_action")))


# What it costs.

QUIET = """
import sys
from jaxrl.adapters import list_envs, make_env
assert "brax/ant" in list_envs()
try:
    make_env("CartPole")
except ValueError as error:
    assert "CartPole-v1" in str(error)
loaded = {"gymnax", "brax", "mujoco", "jaxrl_envs.probes"} & set(sys.modules)
assert not loaded, loaded

make_env("CartPole-v1")
plotting = {"seaborn", "pandas", "scipy.stats", "matplotlib", "matplotlib.pyplot", "matplotlib.colors"}
assert not plotting & set(sys.modules), plotting & set(sys.modules)

import matplotlib.pyplot as plt
from matplotlib import colors
from gymnax.environments.misc import pong
assert type(plt).__name__ == type(colors).__name__ == "module"
assert plt.figure() is not None and colors.to_rgb("red") == (1, 0, 0)
assert pong.plt.figure is plt.figure and pong.colors.ListedColormap is colors.ListedColormap

make_env("brax/halfcheetah")  # MuJoCo warns about its file, MJX about a missing library
"""


def test_imports_are_cheap_print_nothing_and_leave_no_file(tmp_path):
    root = Path(__file__).resolve().parents[1]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "envs")]), "MPLBACKEND": "Agg"}
    command = [sys.executable, "-W", "error::UserWarning", "-c", QUIET]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environ)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


def test_modules_that_are_imported_already_are_left_alone(tmp_path, monkeypatch):
    import matplotlib.pyplot

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "seaborn", raising=False)
    source = "import matplotlib.pyplot as plt\nimport seaborn as sns\nfrom matplotlib import colors\n"
    (tmp_path / "plots.py").write_text(source)
    before = {name: module for name, module in sys.modules.items() if name.startswith("matplotlib")}
    plots = _import_without_plotting("plots")
    assert plots.plt is matplotlib.pyplot
    assert plots.colors is sys.modules["matplotlib.colors"]
    assert all(sys.modules[name] is module for name, module in before.items())
    assert "seaborn" not in sys.modules
    with pytest.raises(AttributeError, match="__wrapped__"):
        _ = plots.sns.__wrapped__
