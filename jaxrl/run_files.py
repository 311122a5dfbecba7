"""What a run directory says of itself: `run.json`, written before anything is trained, and read again to go on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl import checkpoint
from jaxrl.adapters import make_env
from jaxrl.execution import Execution, Options
from jaxrl.files import read_json, to_json
from jaxrl.plan import Plan
from jaxrl.provenance import provenance
from jaxrl.runner import executions
from jaxrl.runtime import Layout

_FORMAT = 1


class Opened(NamedTuple):
    """A run directory, read: what was asked, what carries it out, and where it came from (versions, command, date)."""

    directory: Path
    plan: Plan
    env: Any
    parts: list[Execution]
    origin: dict[str, Any]


def all_settings(parts: list[Execution]) -> list[dict[str, Any]]:
    """Every setting of every program, defaults included, as plain data."""
    return [
        {
            "cells": part.program.cells,
            "config": dataclasses.asdict(part.program.config),
            "numbers": part.program.numbers,
            "layout": part.layout,
            **({"rule_sha256": part.rule_sha256} if part.rule_sha256 else {}),
        }
        for part in parts
    ]


def description(plan: Plan, options: Options, parts: list[Execution], origin: dict[str, Any]) -> dict[str, Any]:
    """What `run.json` holds."""
    asked = {"plan": plan.to_json(), "options": dataclasses.asdict(options), "programs": all_settings(parts)}
    return {"format": _FORMAT, **asked, **origin}


def open_run(directory: Path) -> Opened:
    """Reads a run directory.

    Raises:
      ValueError: if it holds no run, or one of other defaults, or of another rule.
      CheckpointError: if `run.json` is damaged.
    """
    file = directory / "run.json"
    if not file.exists():
        raise ValueError(f"{directory} holds no run: {_why(directory)}")
    try:
        data = read_json(file)
        if data["format"] != _FORMAT:
            raise ValueError(f"{file} has format {data['format']}, and this jaxrl reads {_FORMAT}; update jaxrl")
        plan, options = Plan.from_json(data["plan"]), Options(**data["options"])
        layouts = [Layout(*program["layout"]) for program in data["programs"]]
        origin = {name: data[name] for name in provenance() if name in data}
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise checkpoint.CheckpointError(f"{file} is damaged: {error!r}") from error
    env = make_env(plan.env)
    parts = executions(plan, env, options, directory, layouts)
    for then, now in zip(data["programs"], to_json(all_settings(parts)), strict=True):
        _refuse_other_rule(file, then, now)
        for kind in ("config", "numbers"):
            changed = [name for name in {**then[kind], **now[kind]} if then[kind].get(name) != now[kind].get(name)]
            if changed:
                differences = "; ".join(f"{n}: {then[kind].get(n)} then, {now[kind].get(n)} now" for n in changed)
                made = data["versions"].get("jaxrl", "another version")
                raise ValueError(
                    f"{file} was made by jaxrl {made} with other defaults ({differences}); open it with that"
                )
    return Opened(directory, plan, env, parts, origin)


def _why(directory: Path) -> str:
    """Why there is no run, and what to do."""
    if not directory.exists():
        return "there is no such directory"
    if not directory.is_dir():
        return "it is a file, and runs are directories"
    inside = sorted(str(file.parent) for file in directory.glob("*/run.json"))
    if inside:
        return f"but there are runs in it, {', '.join(inside[:4])}{' …' if len(inside) > 4 else ''}; name those"
    return "run.json is missing; `jaxrl train` and `jaxrl sweep` make runs"


def _refuse_other_rule(file: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    before, after = (program.get("rule_sha256") for program in (then, now))
    if before != after:
        raise ValueError(
            f"{file} was made with another rule {now['config'].get('objective')!r}: its sha256 was {before} then, "
            f"and is {after} now; put that file back, or start a new run"
        )


def refuse_other_run(directory: Path) -> None:
    """Raises ValueError for a directory that holds a run, or anything else."""
    if (directory / "run.json").exists():
        raise ValueError(
            f"{directory} holds another run; `jaxrl resume {directory}` continues it, or choose another directory"
        )
    # What a kill within the first write leaves behind is nobody's.
    if directory.exists() and (not directory.is_dir() or set(directory.iterdir()) - set(directory.glob(".*.tmp"))):
        raise ValueError(f"{directory} exists and is no run; choose an empty or a new directory")
