"""What a run shows while it works: one line between chunks."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

import numpy as np


class Progress:
    """A bar with steps, steps per second, return and time left; plain lines where the output is no terminal."""

    def __init__(self, visible: bool = True, hint: str | None = None) -> None:
        self._visible = visible
        self._hint = hint

    @contextlib.contextmanager
    def start(self, title: str, total: int) -> Iterator[Progress]:
        """Shows the bar for as long as the context lasts; `total` in environment steps of all runs."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        console = Console(stderr=True, quiet=not self._visible)
        self._console, self._title, self._total, self._done = console, title, total, 0
        self._began = time.perf_counter()
        if self._hint:
            console.print(f"[yellow]{self._hint}[/yellow]", highlight=False)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("steps {task.fields[speed]} {task.fields[score]}"),
            TimeRemainingColumn(),
        )
        self._live = console.is_terminal and self._visible
        self._bar = Bar(*columns, console=console, disable=not self._live)
        if not self._live:
            console.print(f"{title}: compiling, then {total:,} steps", highlight=False)
        with self._bar:
            self._task = self._bar.add_task(title, total=total, speed="", score="compiling")
            yield self
        sys.stderr.flush()

    def skip(self, steps: int) -> None:
        """Counts steps that an earlier process did."""
        self._done += steps
        self._bar.update(self._task, completed=self._done)

    def report(self, steps: int, seconds: float, rows: dict[str, np.ndarray], names: list[str]) -> None:
        """After each chunk: its steps, its seconds, its metrics [R, n], and the names of the R runs."""
        self._done += steps
        score = _score(rows, names)
        speed = f"{steps / max(seconds, 1e-9):,.0f}/s"
        self._bar.update(self._task, completed=self._done, speed=speed, score=score)
        if not self._live:
            share = self._done / self._total
            self._console.print(f"{self._title}: {share:4.0%}  {speed:>12}  {score}", highlight=False)


def _score(rows: dict[str, np.ndarray], names: list[str]) -> str:
    """The mean return of the chunk's episodes over all runs, or what became of archives; and how many runs have lost
    finite losses."""
    parts = []
    if "episode/return" in rows:
        returns = rows["episode/return"]
        counts = np.where(np.isfinite(returns), rows["episode/count"], 0.0)
        if counts.sum() > 0:
            parts.append(f"return {np.nansum(returns * counts) / counts.sum():.1f}")
    if "archive/coverage" in rows:
        coverage, score, best = (rows[f"archive/{n}"][:, -1].mean() for n in ("coverage", "qd_score", "max_fitness"))
        parts = [f"coverage {100 * coverage:.1f} %, QD score {score:,.0f}, max fitness {best:.1f}"]
    ends = rows.get("lifetime/return")
    if ends is not None and np.isfinite(ends).any():
        counts = np.where(np.isfinite(ends), rows["lifetime/count"], 0.0)
        parts.append(f"at the end of lifetimes {np.nansum(ends * counts) / counts.sum():.2f}")
    losses = [values for name, values in rows.items() if name.startswith("loss/")]
    if losses:
        broken = np.any([~np.isfinite(values[:, -1]) for values in losses], axis=0)
        if broken.any():
            runs = ", ".join(names[run] for run in np.flatnonzero(broken)[:5])
            parts.append(f"non-finite losses in {broken.sum()} of {broken.size} runs ({runs})")
    used = rows.get("policy/used_fraction")
    if used is not None and not used.any():
        parts.append("no episode fits into num_steps: the policy learns nothing")
    return ", ".join(parts) or "no episode ended yet"
