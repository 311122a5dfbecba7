"""GROOVE beside LPG: the same meta-training on a curriculum of levels where A2C does better, and on uniform ones.

    python -m experiments.groove [--scale smoke|cpu|gpu|paper] [--minutes 8]

As `experiments.lpg`, for both presets with the same settings, levels and seeds; an LPG run of that experiment in the
same `--runs` is taken as it is. The published claim, for orientation: LPG stays below 75 % of A2C's return on 187 %
more unseen levels than GROOVE does (Jackson et al. 2023, fig. 5, by their measure and at their scale).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tyro

from experiments import lpg
from jaxrl.runtime import use_compilation_cache


@dataclasses.dataclass(frozen=True)
class Config(lpg.Config):
    """As of `experiments.lpg`, with results of its own."""

    out: Path = Path("experiments/results/groove")


if __name__ == "__main__":
    use_compilation_cache()
    lpg.main(tyro.cli(Config), {"groove": "GROOVE", "lpg": "LPG"})
