"""What every benchmark of ours shares: sides in alternating subprocesses, ratios of medians, one JSON file."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_TURN = "JAXRL_BENCHMARK_TURN"  # the descriptor of a lock that a process shares until it measures
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


def measure_together(works: Mapping[str, tuple[Sequence[str], Mapping[str, Any]]]) -> dict[str, dict[str, Any] | None]:
    """Several of our sides: all compile at once, and then each has the machine for itself, in no order.

    For machines with many cores and one accelerator. What is measured has to call `my_turn` first; seconds of compiling
    are those of a busy machine.

    Args:
      works: {name: (script, arguments)} as `measure` takes them.
    Returns:
      {name: answer}; `None` and a line on stderr where a process failed.
    """
    # An accelerator's memory is taken as it is needed: the others need some, too.
    shared = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(len(works)) as pool,
        contextlib.ExitStack() as files,
    ):
        turns = {}
        for name in works:  # all before the first process begins, so that none can have its turn too soon
            turns[name] = files.enter_context((Path(folder) / "turn").open("w"))
            fcntl.flock(turns[name], fcntl.LOCK_SH)

        def one(name: str) -> dict[str, Any] | None:
            script, arguments = works[name]
            turn = turns[name].fileno()
            try:
                command = [sys.executable, *script, json.dumps(dict(arguments))]
                answer = _run(command, turn, **{**shared, _TURN: str(turn)})
                print(f"{name}: {answer}", file=sys.stderr, flush=True)
                return json.loads(answer)
            except (RuntimeError, ValueError) as error:
                print(f"{name}: {error}", file=sys.stderr, flush=True)
                return None
            finally:
                turns[name].close()

        return dict(zip(works, pool.map(one, works), strict=True))


def my_turn() -> None:
    """Waits, in a process of `measure_together`, until all others have compiled or are done; else returns at once."""
    if turn := os.environ.get(_TURN):
        fcntl.flock(int(turn), fcntl.LOCK_EX)  # the descriptor is inherited, and the lock ends with its last holder


def timed(command: Sequence[str], **variables: str) -> float:
    """Seconds that a command takes, under the same conditions but for these environment variables."""
    began = time.perf_counter()
    _run(command, **variables)
    return time.perf_counter() - began


def _run(command: Sequence[str], *descriptors: int, **variables: str) -> str:
    """The last line that a command prints, which inherits some file descriptors."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    here = [str(ROOT), str(ROOT / "envs")]
    if command[0] == sys.executable:  # a peer's environment has its own versions of everything
        here += filter(None, [os.environ.get("PYTHONPATH")])
    environment["PYTHONPATH"] = os.pathsep.join(here)
    environment["JAX_COMPILATION_CACHE_DIR"] = ""  # off: for JAX, and for our command line
    environment |= variables
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, pass_fds=descriptors
    )
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
