"""What the experiments `drift` and `temporally_aware` share: how large the evolution of a rule is, and its curve.

`trained` of `experiments.meta_training` begins a run of an `EvolvedScale`, goes on with it, or only opens it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import jaxrl
from experiments.meta_training import saved_rules, trained
from jaxrl.presets import find_preset
from jaxrl.reporting import Estimate, bootstrap


@dataclasses.dataclass(frozen=True)
class EvolvedScale:
    """How large the evolution of a rule is.

    Attributes:
      env: what agents live on.
      settings: of the preset.
      generations: of OpenES.
      meta_seeds: rules, evolved independently.
      chunks: checkpoints of a run.
      preset: whose configuration has the settings.
    """

    env: str
    settings: dict[str, Any]
    generations: int
    meta_seeds: int
    chunks: int
    preset: str

    @property
    def all_settings(self) -> dict[str, Any]:
        """Settings of a run, with its length."""
        return {**self.settings, "total_steps": self.generations * self.config.steps_per_update}

    @property
    def config(self) -> Any:
        """The preset's configuration with these settings, but not with this length."""
        return _with(find_preset(self.preset).config, self.settings)

    @property
    def hparams(self) -> Any:
        """The preset's numbers with these settings."""
        return _with(find_preset(self.preset).hparams, self.settings)

    def changed(self, preset: str | None = None, **settings: Any) -> EvolvedScale:
        """The same evolution of another rule."""
        return dataclasses.replace(self, preset=preset or self.preset, settings={**self.settings, **settings})


class Evolved(NamedTuple):
    """A finished evolution, and the files of its rules."""

    run: jaxrl.Run
    rules: list[Path]

    def about(self) -> dict[str, Any]:
        """For a file of results."""
        names = ("compile_seconds", "train_seconds", "steps_per_second", "device")
        asked = {"env": self.run.plan.env, "settings": self.run.plan.settings, "meta_seeds": list(self.run.plan.seeds)}
        return asked | {name: self.run.results.info[name] for name in names}


def evolved_rules(scale: EvolvedScale, seeds: int | None, folder: Path) -> Evolved:
    """The rules of a scale: evolved, gone on with, or only opened; `seeds` stands in for its `meta_seeds`."""
    run = trained(scale.preset, scale, scale.meta_seeds if seeds is None else seeds, folder)
    return Evolved(run, saved_rules(run))


def settings_of(config_class: type[Any], settings: dict[str, Any], **fixed: Any) -> Any:
    """A configuration of another class with those of the settings that it knows."""
    return _with(config_class(), {**settings, **fixed})


def _with(base: Any, settings: dict[str, Any]) -> Any:
    known = {field.name for field in dataclasses.fields(base)}
    return dataclasses.replace(base, **{name: value for name, value in settings.items() if name in known})


def fitness_curve(results: jaxrl.Results, num_points: int = 40) -> tuple[np.ndarray, Estimate]:
    """Generations [P], and the mean fitness of populations, averaged over stretches; intervals over meta-seeds."""
    fitness = np.asarray(results.metric("fitness/mean")[0], np.float64)
    parts = np.array_split(np.arange(fitness.shape[-1]), min(num_points, fitness.shape[-1]))
    means = np.stack([np.nanmean(fitness[:, part], axis=1) for part in parts], axis=1)
    return np.array([part[-1] + 1 for part in parts]), bootstrap(means, np.mean)
