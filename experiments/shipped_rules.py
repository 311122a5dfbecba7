"""Do the rules that are shipped do no harm? Agents on CartPole-v1 with each of them, beside PPO and A2C.

    python -m experiments.shipped_rules [--seeds 5] [--env CartPole-v1]

Trains the agent of the preset `ppo` with every rule (`jaxrl train ppo CartPole-v1 --objective RULE`), and that of
`a2c`, which takes one step per rollout, with those of kind lpg, which are trained for that. Writes `<out>.json`: IQM
of the mean training return in the last tenth of updates, with 95 % bootstrap intervals over seeds, beside the return
in the first tenth, and which rules learn: those whose interval lies above the mean of their first tenth.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import tyro

import jaxrl
from experiments.ppo_learning import SETTINGS
from jaxrl.files import write_json
from jaxrl.provenance import provenance
from jaxrl.results import Results
from jaxrl.runtime import use_compilation_cache


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run.

    Attributes:
      env: one of `experiments.ppo_learning.SETTINGS`.
      seeds: how many.
      out: where to write, without suffix.
    """

    env: str = "CartPole-v1"
    seeds: int = 5
    out: Path = Path("experiments/results/shipped_rules")


def main(config: Config) -> dict[str, Any]:
    """Returns {"<preset>/<objective>": row}."""
    kinds = {name: jaxrl.load_rule(name).kind for name in jaxrl.list_rules()}
    of_kind_lpg = [name for name, kind in kinds.items() if kind == "lpg"]
    settings = {"ppo": SETTINGS[config.env], "a2c": {"total_steps": SETTINGS[config.env]["total_steps"]}}
    rows: dict[str, Any] = {}
    for preset, names in (("ppo", ["ppo", *kinds]), ("a2c", ["a2c", *of_kind_lpg])):
        asked = {"seeds": config.seeds, "settings": settings[preset], "grid": {"objective": names}}
        found = jaxrl.run_sweep(preset, config.env, **asked)
        rows |= {f"{preset}/{name}": row for name, row in zip(names, table(found), strict=True)}
    about = {"env": config.env, "settings": settings, "seeds": list(range(config.seeds)), "kinds": kinds}
    write_json(config.out.with_suffix(".json"), {**about, "rows": rows, **provenance()})
    for name, row in rows.items():
        print(f"{name:16} {row['iqm']:8.1f} {row['interval_95']} learns: {row['learns']}", flush=True)
    return rows


def table(results: Results) -> list[dict[str, Any]]:
    """A row for each setting."""
    estimate, final = results.iqm(), results.final()
    rows = []
    for cell, finals in enumerate(final):
        first = _first(results, cell)
        low, high = float(estimate.low[cell]), float(estimate.high[cell])
        rows.append({"iqm": float(estimate.point[cell]), "interval_95": [low, high], "first_tenth": first,
                     "learns": low > first, "returns": finals.tolist()})  # fmt: skip
    return rows


def _first(results: Results, cell: int) -> float:
    """Mean return of the episodes that ended in the first tenth of training, over seeds."""
    num = max(1, len(results.steps) // 10)
    values, weights = (x[cell, :, :num] for x in (results.metric("episode/return"), results.weights("episode/return")))
    return float((values * weights)[weights > 0].sum() / weights.sum())


if __name__ == "__main__":
    use_compilation_cache()
    main(tyro.cli(Config))
