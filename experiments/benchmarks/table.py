"""The README's table of benchmarks, made of the committed results: `python -m experiments.benchmarks.table`.

Reads `experiments/results/benchmark_<area>*.json` and `benchmark_agents/*.json`, whichever are there, and prints the
table; with `--write README.md` it replaces what stands there between the two comments `MARKERS`. A row says what was
measured, ours, a peer's, the ratio of the two, the bound that was set for it and whether it is met, where and when it
was measured, and by which command. Figures that explain others stay in the files.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tyro

from experiments.benchmarks.figures import AREAS, Bound, Figure
from jaxrl.files import read_json

RESULTS = Path("experiments/results")
MARKERS = ("<!-- made by: python -m experiments.benchmarks.table --write README.md -->", "<!-- end of what is made -->")
COLUMNS = ("area", "figure", "ours", "peer", "ratio", "bound", "measured on", "command")
_RIGHT = (2, 4)
_PLACES = ("--json", "--out", "--runs")  # where a command wrote, which changes no figure


@dataclasses.dataclass(frozen=True)
class Config:
    """What is made: of which results, and the file into which it is written; printed without one."""

    results: Path = RESULTS
    write: Path | None = None


def shown(value: float, unit: str = "") -> str:
    """A number in three digits, with its unit; bytes in GiB."""
    if unit == "B":
        return f"{value / 2**30:.3g} GiB"
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * (10 if size == 1e3 else 1):  # 2,992 as it is
            text = f"{value / size:.3g}{letter}" if abs(value) < 1e3 * size else f"{value / size:,.0f}{letter}"
            break
    return f"{text} {unit}" if unit and not unit.startswith("/") else text + unit


def shown_ratio(value: float) -> str:
    """Two places, or three digits where that is more or less."""
    return f"{value:.2f}" if 0.1 <= value < 10 else shown(value)


def verdict(bound: Bound, value: float, platform: str, unit: str) -> str:
    """The bound in words, and whether `value` meets it."""
    number = bound.number if platform == "cpu" or bound.on_gpu is None else bound.on_gpu
    met = value >= number if bound.at_least else value <= number
    return f"{'≥' if bound.at_least else '≤'} {shown(number, unit)}: {'met' if met else '**missed**'}"


def origin(found: Mapping[str, Any]) -> tuple[str, str]:
    """Device, versions and date of a result; and its command, without where it wrote."""
    device, versions = found["device"], found["versions"]
    kind = device["kind"] if device["kind"] != device["platform"] else device["platform"].upper()
    with_it = ", ".join(f"{name} {versions[name]}" for name in ("jaxrl", "jax") if name in versions)
    words, kept = iter(shlex.split(found["command"])), []
    for word in words:
        if word in _PLACES:
            next(words, None)
        else:
            kept.append(word)
    return f"{kind}, {with_it}, {found['date'][:10]}", f"`{shlex.join(kept)}`"


def rows_of(area: str, found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The rows of one file of flat figures, in the order of `AREAS`."""
    for figure in AREAS[area]:
        for key in found:
            match = re.fullmatch(figure.pattern, key)
            if match is not None and found[key] is not None:
                yield (area.replace("_", " "), *_cells(figure, match.groups(), found), *origin(found))


def _cells(figure: Figure, groups: tuple[str, ...], found: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """What was measured, ours, the peer's, the ratio, and the bound."""
    keys = (figure.ours, figure.peer, figure.ratio)
    ours, peer, ratio = (found.get(key.format(*groups)) if key else None for key in keys)
    bound = figure.bound.get(groups[0]) if isinstance(figure.bound, Mapping) else figure.bound
    value, unit = (ours, figure.unit) if ratio is None else (ratio, "")
    return (
        figure.text.format(*(group.replace("_", " ") for group in groups)),
        "" if ours is None else shown(ours, figure.unit),
        ": ".join(part for part in (figure.who, "" if peer is None else shown(peer, figure.unit)) if part),
        "" if ratio is None else shown_ratio(ratio),
        "" if bound is None or value is None else verdict(bound, value, found["device"]["platform"], unit),
    )


def learned_rows(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Of the suite that all agents learn on: the best return for each environment, and who reached the goal."""
    by_env: dict[str, list[Mapping[str, Any]]] = {}
    for row in found["rows"].values():
        by_env.setdefault(row["env"], []).append(row)
    for env, rows in by_env.items():
        best = max(rows, key=lambda row: row["final_return_iqm"])
        goal, judged = best["reference"].get("goal"), [row for row in rows if row["reached"] is not None]
        met = ""
        if goal is not None and judged:
            met = f"≥ {goal:g}: {sum(row['reached'] for row in judged)} of {len(judged)} agents"
        elif goal is not None:
            met = f"≥ {goal:g}, of runs of {best['reference']['goal_steps']:,} steps: not run"
        text = f"{env}: IQM return over {len(best['seeds'])} seeds, the best of {len(rows)} agents, `{best['agent']}`"
        yield "learning", text, f"{best['final_return_iqm']:.1f}", "", "", met, *origin(best)


def rows(results: Path) -> list[tuple[str, ...]]:
    """All rows, of the files that are there: areas in the order of `AREAS`, then what is learnt."""
    found: list[tuple[str, ...]] = []
    for area in AREAS:
        for file in sorted(results.glob(f"benchmark_{area}*.json")):
            found += rows_of(area, read_json(file))
    for file in sorted((results / "benchmark_agents").glob("*.json")):
        found += learned_rows(read_json(file))
    return found


def table(results: Path = RESULTS) -> str:
    """The table in Markdown."""
    rule = ["---:" if i in _RIGHT else "---" for i in range(len(COLUMNS))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (COLUMNS, rule, *rows(results)))


def written(text: str, results: Path = RESULTS) -> str:
    """`text` with the table between its two markers.

    Raises:
      ValueError: if they are not there, each once and in this order.
    """
    begin, end = MARKERS
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"expected the lines {begin!r} and {end!r}, each once and in this order")
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{table(results)}\n\n{end}{rest.split(end)[1]}"


def main(config: Config) -> None:
    """Prints the table, or writes it."""
    if config.write is None:
        print(table(config.results))
    else:
        config.write.write_text(written(config.write.read_text(), config.results))


if __name__ == "__main__":
    main(tyro.cli(Config))
