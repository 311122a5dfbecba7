"""Where a result comes from: versions, device, command, commit, date."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("jaxrl", "jax", "jaxlib", "flax", "optax", "distrax", "gymnax", "brax", "numpy")


def provenance() -> dict[str, Any]:
    """What a figure or table needs to be made again. Initialises the JAX backend, so configure devices first.

    Returns:
      `versions` {package: version, "python": …}, `device` {"platform", "kind", "count"}, `command`, `date` (ISO 8601,
      UTC), and where they exist `commit` of the checkout that jaxrl runs from ("+changes" where it differs from the
      commit) and `install_seconds` (from JAXRL_INSTALL_SECONDS).
    """
    import jax

    devices = jax.devices()
    result: dict[str, Any] = {
        "versions": versions(),
        "device": {"platform": devices[0].platform, "kind": devices[0].device_kind, "count": len(devices)},
        "command": command(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    commit = _commit()
    if commit:
        result["commit"] = commit
    seconds = os.environ.get("JAXRL_INSTALL_SECONDS")
    if seconds:
        result["install_seconds"] = float(seconds)
    return result


def versions() -> dict[str, str]:
    """Installed versions of jaxrl and what its numbers depend on, and of Python."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def command() -> str:
    """The command line of this process, as one would type it again."""
    if "ipykernel" in sys.modules:
        return "notebook"
    script, *arguments = sys.argv
    if Path(script).name == "jaxrl":
        return shlex.join(["jaxrl", *arguments])
    original = sys.orig_argv[1:]
    # `python -c` and the interactive prompt have no file to name, and their code does not belong in a caption.
    return shlex.join(["python", *original]) if original and "-c" not in original[:1] else "python"


def _commit() -> str | None:
    root = Path(__file__).resolve().parents[1]
    # A package installed below somebody else's repository is not part of that repository.
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
        # An experiment writes its results row by row: that the first has changed them does not taint the second.
        status = [*git, "status", "--porcelain", "--", ".", ":(exclude)experiments/results"]
        changes = subprocess.run(status, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")
