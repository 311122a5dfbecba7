"""Champions as files: the seeds of an evolved policy and what they mean, a few kilobytes whatever its size.

A file names the algorithm, the environment and the settings that differ from the algorithm's defaults, so that the
network is known, and the codec by which seeds become its parameters. Both are checked before anything is rebuilt.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import checkpoint, files
from jaxrl.adapters import make_env
from jaxrl.agents.policy import PolicyState
from jaxrl.evo.seeds import SeedCodec, SeedGenome
from jaxrl.presets import find_preset
from jaxrl.presets.neuroevolution import DeepGAConfig, network_codec
from jaxrl.types import Agent, Params

_KIND = "champion"


class Champion(NamedTuple):
    """An evolved policy.

    Attributes:
      genome: its seeds, powers and their number, NumPy arrays of exactly that length.
      algorithm, env: names.
      settings: {setting: value} of its network, where it differs from the algorithm's defaults.
      codec: the header of the codec that its seeds were drawn for.
      fitness: its mean return when it was last evaluated again.
    """

    genome: SeedGenome
    algorithm: str
    env: str
    settings: dict[str, Any]
    codec: dict[str, Any]
    fitness: float

    def config(self) -> DeepGAConfig:
        """The configuration that its network is made by."""
        fields = {field.name for field in dataclasses.fields(DeepGAConfig)}
        settings = {name: tuple(v) if isinstance(v, list) else v for name, v in self.settings.items()}
        return dataclasses.replace(
            find_preset(self.algorithm).config, **{name: value for name, value in settings.items() if name in fields}
        )

    def params(self, codec: SeedCodec | None = None) -> Params:
        """The parameters of its network, rebuilt bit for bit.

        Args:
          codec: of the network that is to have them; `None` is the champion's own.
        Raises:
          ValueError: if that is another network, or genomes mean something else in this version of jaxrl.
        """
        env = make_env(self.env)
        own = network_codec(env, self.config()) if codec is None else codec
        differing = [name for name in own.header if own.header[name] != self.codec.get(name)]
        if differing:
            pairs = "; ".join(f"{n}: here {own.header[n]}, in the genome {self.codec.get(n)}" for n in differing)
            raise ValueError(
                f"this genome was saved by another network ({pairs}); use the settings that it has: {self}"
            )
        genome = jax.tree.map(jnp.asarray, self.genome)
        return own.to_params(jax.jit(own.rebuild)(genome))

    def policy(self) -> tuple[Agent, PolicyState, Any, Any]:
        """The agent, its state, the environment and its parameters, as `jaxrl.evaluate` takes them."""
        env, preset = make_env(self.env), find_preset(self.algorithm)
        agent = preset.agent(env, self.config(), preset.hparams, env.default_params)
        return agent, PolicyState(self.params()), env, env.default_params


def save_champion(path: str | os.PathLike[str], champion: Champion) -> None:
    """Writes a champion to one file, atomically.

    Args:
      path: ends in `.npz`.
      champion: its genome complete.
    Raises:
      ValueError: for another ending, or a genome that is not as long as it says.
    """
    if Path(path).suffix != ".npz":
        raise ValueError(f"{path}: expected a name that ends in .npz")
    seeds, powers = np.asarray(champion.genome.seeds, np.uint32), np.asarray(champion.genome.powers, np.float32)
    if not 1 <= int(champion.genome.length) == len(seeds) == len(powers):
        raise ValueError(f"expected a genome of {int(champion.genome.length)} seeds and powers, got {len(seeds)}")
    mutations = powers[1:]
    constant = len(mutations) > 0 and bool((mutations == mutations[0]).all())
    about = champion._asdict() | {"kind": _KIND}
    del about["genome"]
    kept = mutations[:1] if constant else mutations
    checkpoint.save(path, {"seeds": seeds, "powers": kept}, files.to_json(about))


def load_champion(path: str | os.PathLike[str]) -> Champion:
    """Reads a champion; nothing is rebuilt yet.

    Raises:
      CheckpointError: if the file is missing or damaged.
      ValueError: if it holds no champion.
    """
    meta = checkpoint.load_meta(path)
    if meta.pop("kind", None) != _KIND:
        raise ValueError(f"{path} holds no champion; `jaxrl champion RUN --out {path}` writes one")
    arrays = files.read_npz(path)
    seeds, powers = (next(v for name, v in arrays.items() if key in name) for key in ("seeds", "powers"))
    mutations = np.broadcast_to(powers, len(seeds) - 1) if len(powers) == 1 else powers
    powers = np.concatenate([np.zeros(1, np.float32), mutations])
    return Champion(SeedGenome(seeds, powers, np.int32(len(seeds))), **meta)  # type: ignore[arg-type]
