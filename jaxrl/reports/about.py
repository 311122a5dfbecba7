"""What a run was asked to do, and where its figures come from, as rows of text."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from jaxrl.plan import ENV_PREFIX, Plan, suited
from jaxrl.presets.base import Preset
from jaxrl.reports.numbers import spoken
from jaxrl.results import Results, format_value
from jaxrl.trained import Run


def headline(run: Run, results: Results, table: list[dict[str, Any]], metric: str) -> list[tuple[str, str]]:
    """What is worth knowing first, as (name, text)."""
    best, seeds = table[0], list(run.plan.seeds)
    rows = [(f"final {spoken(metric)}" + (", best setting" if len(table) > 1 else ""), _with_interval(best))]
    if len(table) > 1:
        rows += [("best setting", best["label"]), ("settings", f"{len(table):,}")]
    rows += [
        ("seeds", f"{len(seeds)} ({_seeds(seeds)})"),
        ("steps of each agent", f"{int(results.steps[-1]):,}" if len(results.steps) else "0"),
    ]
    lost = sum(row["diverged"] for row in table)
    return rows + ([("diverged", f"{lost} of {len(table) * len(seeds)} agents")] if lost else [])


def _seeds(seeds: list[int]) -> str:
    if len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds[:6])) + (" …" if len(seeds) > 6 else "")


def _with_interval(row: dict[str, Any]) -> str:
    return row["text"] + (f" [{row['interval']}]" if row["interval"] else "")


def settings(plan: Plan, preset: Preset, results: Results) -> list[dict[str, str]]:
    """Every setting: `name`, `value`, `origin` ("swept", "given", "for ENV" or "default"), and its `help`."""
    told = {field.name: field for part in (preset.config, preset.hparams) for field in dataclasses.fields(part)}
    suits = suited(preset, plan.env)
    first = results.config["programs"][0]
    used = {**first["config"], **{name: values[0] for name, values in first["numbers"].items()}}
    rows = []
    for name, value in used.items():
        field = told.get(name)
        if name in plan.grid:
            shown, origin = ", ".join(map(_text, plan.grid[name])), "swept"
        elif name in plan.settings:  # which hold what suits the environment, too
            shown, origin = _text(plan.settings[name]), "given"
            if name in suits and suits[name][0] == plan.settings[name]:
                origin = f"for {suits[name][1]}"
        else:
            shown, origin = _text(value), "default"
        meaning = f"parameter of {plan.env}" if name.startswith(ENV_PREFIX) else ""
        rows.append(
            {
                "name": name,
                "value": shown,
                "origin": origin,
                "help": str(field.metadata.get("help", "")) if field else meaning,
                "source": str(field.metadata.get("source", "")) if field and origin == "default" else "",
            }
        )
    order = ("swept", "given")
    return sorted(rows, key=lambda row: order.index(row["origin"]) if row["origin"] in order else len(order))


def _text(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return "x".join(map(str, value))
    return format_value(value)


def provenance_rows(path: Path, results: Results) -> list[tuple[str, str]]:
    """How the run was made, as (name, text); what is not known is left out."""
    info = results.info
    device, versions = info.get("device") or {}, info.get("versions") or {}
    known = {
        "command": info.get("command"),
        "directory": path,
        "date": info.get("date"),
        "commit": info.get("commit"),
        "device": f"{device.get('count')} x {device.get('kind')} ({device.get('platform')})" if device else None,
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "time": _seconds(info),
        "intervals": _intervals(results),
        "final values": "mean over the last tenth of each seed's training, then the interquartile mean over seeds",
    }
    return [(name, str(value)) for name, value in known.items() if value]


def _seconds(info: Any) -> str:
    texts = {
        "wall_seconds": "{:,.1f} s in all",
        "compile_seconds": "{:,.1f} s of it compiling",
        "steps_per_second": "{:,.0f} environment steps per second",
    }
    return ", ".join(
        text.format(info[name]) for name, text in texts.items() if isinstance(info.get(name), (int, float))
    )


def _intervals(results: Results) -> str:
    if len(results.seeds) == 1:
        return "one seed, hence none"
    return f"95 %, percentile bootstrap of the interquartile mean over {len(results.seeds)} seeds"
