"""`Indexed`: what its elements are, and what it refuses. The other spaces are tested where they are used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.agents.common import check_normalizable
from jaxrl.presets import find_preset
from jaxrl.spaces import Indexed


def test_elements_are_an_index_and_features():
    space = Indexed(7, 2)
    assert (space.shape, space.dtype, Indexed(7).shape) == ((3,), jnp.float32, (1,))
    assert hash(space) == hash(Indexed(7, 2))
    x = jnp.array([[6.0, 0.5, -3.0], [0.0, 1.0, 2.0]])
    np.testing.assert_array_equal(space.index(x), [6, 0])
    assert space.index(x).dtype == jnp.int32
    np.testing.assert_array_equal(space.features(x), [[0.5, -3.0], [1.0, 2.0]])


def test_membership():
    space = Indexed(7, 1)
    elements = jnp.array([[0, 0], [6, 1e9], [7, 0], [-1, 0], [2.5, 0], [3, jnp.nan], [jnp.nan, 0]])
    expected = [True, True, False, False, False, False, False]
    np.testing.assert_array_equal(jax.vmap(space.contains)(elements), expected)
    samples = jax.vmap(space.sample)(jax.random.split(jax.random.key(0), 200))
    assert jax.vmap(space.contains)(samples).all()
    assert set(np.unique(space.index(samples))) == set(range(7))


def test_every_index_is_exact():
    last = Indexed(2**24 - 1)
    assert int(last.index(jnp.array([2**24 - 2], jnp.float32))) == 2**24 - 2
    for wrong in ({"n": 2**24}, {"n": 0}, {"n": 3, "num_features": -1}):
        with pytest.raises(ValueError, match="Indexed needs"):
            Indexed(**wrong)


def test_indices_are_not_normalised():
    config = find_preset("ppo").config
    with pytest.raises(ValueError, match="observations in a Box, got Indexed.*set it to False"):
        check_normalizable(type(config)(normalize_obs=True), Indexed(3, 1))
