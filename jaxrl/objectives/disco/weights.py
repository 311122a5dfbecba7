"""The published meta-parameters of Disco103, read from the file that the user has."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrl.files import read_npz
from jaxrl.objectives.disco.config import DiscoConfig
from jaxrl.objectives.disco.network import Layer, build
from jaxrl.types import Params


def array_shapes(config: DiscoConfig = DiscoConfig()) -> dict[str, tuple[int, ...]]:
    """{name: shape} of the arrays in the published file; layers over actions are convolutions of width 1."""
    shapes: dict[str, tuple[int, ...]] = {}

    def make(name: str, layer: Layer) -> None:
        matrix = (layer.num_in, layer.num_out)
        shapes[f"{name}/w"] = (1, *matrix) if "conv1_d" in name else matrix
        shapes[f"{name}/b"] = (layer.num_out,)

    build(make, config)
    return shapes


def is_disco103(arrays: Mapping[str, Any]) -> bool:
    """Do the names of these arrays say that they are the published meta-parameters?"""
    return set(arrays) == set(array_shapes())


def disco103_params(arrays: Mapping[str, np.ndarray], config: DiscoConfig = DiscoConfig()) -> Params:
    """Our tree of meta-parameters from the arrays of the published file.

    Args:
      arrays: {name: array}.
      config: static.
    Returns:
      As `init_disco`.
    Raises:
      ValueError: for arrays that are missing, too many, of another shape, or not finite.
    """
    expected = array_shapes(config)
    missing, unknown = sorted(set(expected) - set(arrays)), sorted(set(arrays) - set(expected))
    if missing or unknown:
        raise ValueError(
            f"expected the {len(expected)} arrays of disco_103.npz; missing: {missing[:3] or 'none'}, "
            f"unknown: {unknown[:3] or 'none'}; download the file again from github.com/google-deepmind/disco_rl"
        )
    for name, shape in expected.items():
        array = np.asarray(arrays[name])
        if array.shape != shape:
            raise ValueError(
                f"{name}: expected the shape {shape}, got {array.shape}; does the DiscoConfig fit the file?"
            )
        if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite floats; the file is damaged, download it again")

    def make(name: str, layer: Layer) -> dict[str, jnp.ndarray]:
        kernel = np.asarray(arrays[f"{name}/w"], np.float32).reshape(layer.num_in, layer.num_out)
        return {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(arrays[f"{name}/b"], jnp.float32)}

    return build(make, config)


def load_disco103(path: str | os.PathLike[str], config: DiscoConfig = DiscoConfig()) -> Params:
    """The published meta-parameters, from a `disco_103.npz` on this machine.

    Args:
      path: of the file, as in github.com/google-deepmind/disco_rl under `disco_rl/update_rules/weights`.
      config: static.
    Returns:
      As `init_disco`: 42 arrays, 754,778 numbers.
    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is no npz file, or another one.
    """
    try:
        arrays = read_npz(path)
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{os.fspath(path)}: expected an npz file of arrays, the published disco_103.npz: {error}"
        ) from error
    return disco103_params(arrays, config)
