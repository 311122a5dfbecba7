"""Files that are complete or absent: written under another name, flushed to the disk, then renamed."""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary file that takes the name `path` when the block ends without an exception, and vanishes otherwise.

    A process killed in between leaves `.<name>.<pid>.tmp` behind, and `path` as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":
        # The rename itself is only safe once the directory is on the disk.
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an npz file, atomically and without pickle.

    Raises:
      ValueError: if an array holds Python objects.
    """
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All arrays of an npz file, pickle disabled."""
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as members:
        return {name: members[name] for name in members.files}


def sha256(path: str | os.PathLike[str]) -> str:
    """Of a file's bytes."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def write_json(path: str | os.PathLike[str], data: Any) -> None:
    """Writes strict, indented JSON, atomically: NaN becomes null, infinities the strings "inf" and "-inf"."""
    with atomic_write(path) as file:
        file.write((json.dumps(to_json(data), indent=2, allow_nan=False) + "\n").encode())


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file."""
    return json.loads(Path(path).read_text("utf-8"))


def to_json(value: Any) -> Any:
    """`value` in the types that strict JSON has: arrays become lists, tuples too, paths and other objects strings."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Mapping):
        return {str(name): to_json(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_json(item) for item in value]
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None if math.isnan(value) else str(float(value))
    if hasattr(value, "tolist"):  # NumPy and jax arrays and scalars
        return to_json(np.asarray(value).tolist())
    return str(value)
