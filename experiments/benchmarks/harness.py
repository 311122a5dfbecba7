"""What every benchmark of ours shares: sides in alternating subprocesses, ratios of medians, one JSON file."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def peer_python(name: str) -> str:
    """The interpreter of a peer's own environment, which `make bench-peers` builds.

    Raises:
      SystemExit: if it is not there.
    """
    path = ROOT / f".venv-{name}" / "bin" / "python"
    if not path.exists():
        sys.exit(f"{path.relative_to(ROOT)} is missing: `make bench-peers` builds it")
    return str(path)


def measure(python: str, script: str | Sequence[str], **arguments: Any) -> dict[str, Any]:
    """Runs one side in a process of its own, and returns the JSON of its last line.

    Default flags, no compilation cache.
    """
    return json.loads(_run([python, *([script] if isinstance(script, str) else script), json.dumps(arguments)]))


def timed(command: Sequence[str], **variables: str) -> float:
    """Seconds that a command takes, under the same conditions but for these environment variables."""
    began = time.perf_counter()
    _run(command, **variables)
    return time.perf_counter() - began


def _run(command: Sequence[str], **variables: str) -> str:
    """The last line that a command prints."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "envs")])
    environment["JAX_COMPILATION_CACHE_DIR"] = ""  # off: for JAX, and for our command line
    environment |= variables
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return (done.stdout.strip().splitlines() or [""])[-1]


def median(rows: Sequence[dict[str, Any]], name: str) -> float:
    """Median of one figure over repeats."""
    return statistics.median(row[name] for row in rows)


def spread(rows: Sequence[dict[str, Any]], name: str) -> str:
    """Smallest and largest of one figure over repeats."""
    values = [row[name] for row in rows]
    return f"{min(values):,.6g}–{max(values):,.6g}"


def peak_megabytes() -> float:
    """This process's largest resident size so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def show_and_write(path: str | None, figures: dict[str, Any]) -> None:
    """Prints flat figures, a line each, and `write`s them."""
    for name, value in figures.items():
        print(f"{name:48} {value:12.4g}")
    write(path, figures)


def write(path: str | None, figures: dict[str, Any]) -> None:
    """Writes figures and where they come from as flat JSON, where a path is given."""
    if path is None:
        return
    from jaxrl.files import write_json
    from jaxrl.provenance import provenance

    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_json(target, {**figures, **provenance()})
