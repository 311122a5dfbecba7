"""Checkpoints: a pytree of arrays and a JSON manifest in one npz file, written atomically and verified when read.

A file is complete or it is not there: it is written under another name, flushed to the disk and renamed. It holds no
pickles, so a checkpoint from a stranger cannot run code.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import files

FORMAT = "jaxrl-checkpoint"
FORMAT_VERSION = 1
_MANIFEST = "__manifest__"
_STEP_FILE = re.compile(r"checkpoint_(\d+)\.npz")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: missing, damaged, of a newer format, or of another structure."""


def save(path: str | os.PathLike[str], tree: Any, meta: dict[str, Any] | None = None) -> None:
    """Writes `tree` and `meta` to one file, atomically: a kill leaves the old file or the new one, never a part.

    Args:
      path: the file; its directory is made where it is missing. By custom it ends in `.npz`.
      tree: pytree of arrays, numbers, booleans and typed random keys; any numeric dtype of jax, bfloat16 among them.
      meta: whatever JSON can hold; numpy scalars and arrays become numbers and lists.
    Raises:
      ValueError: if a leaf is not numeric, or `meta` is not JSON.
    """
    path = Path(path)
    arrays, leaves = {}, []
    for name, leaf in _named_leaves(tree):
        arrays[name], entry = _encode(name, leaf)
        leaves.append(entry)
    try:
        meta = json.loads(json.dumps(meta or {}, default=_to_json))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"meta of checkpoint {path} must be JSON ({error}); use numbers, strings, lists, dicts"
        ) from None
    manifest = {"format": FORMAT, "version": FORMAT_VERSION, "writer": _version(), "leaves": leaves, "meta": meta}
    manifest["sha256"] = _digest(manifest, arrays)
    arrays[_MANIFEST] = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
    files.write_npz(path, arrays)


def load(path: str | os.PathLike[str], like: Any) -> Any:
    """Reads a checkpoint into the structure of `like`; everything is verified before anything is returned.

    Args:
      path: a file written by `save`.
      like: pytree of the same structure, shapes and dtypes; `jax.ShapeDtypeStruct` leaves, from `jax.eval_shape`, do.
    Returns:
      A tree like `like`: NumPy arrays and Python numbers stay what they are there, all other leaves are jax arrays.
    Raises:
      CheckpointError: naming the file and what is wrong with it or differs from `like`.
    """
    path = Path(path)
    manifest, arrays = _read(path)
    entries = {entry["path"]: entry for entry in manifest["leaves"]}
    wanted = dict(_named_leaves(like))
    differences = _differences(entries, wanted)
    if differences:
        shown = "; ".join(differences[:5]) + (f"; and {len(differences) - 5} more" if len(differences) > 5 else "")
        raise CheckpointError(
            f"checkpoint {path} does not fit: {shown}. Load it with the algorithm and settings that wrote it"
        )
    leaves = [_decode(arrays[name], entries[name], leaf) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def load_meta(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The `meta` of a checkpoint, verified like the rest.

    Raises:
      CheckpointError: if the file is missing, damaged or of a newer format.
    """
    return _read(Path(path))[0]["meta"]


def load_sha256(path: str | os.PathLike[str]) -> str:
    """The checksum of a checkpoint's contents, verified; equal contents have equal ones, whenever they were written.

    Raises:
      CheckpointError: if the file is missing, damaged or of a newer format.
    """
    return _read(Path(path))[0]["sha256"]


def save_step(
    directory: str | os.PathLike[str], step: int, tree: Any, meta: dict[str, Any] | None = None, keep: int = 2
) -> Path:
    """Writes `checkpoint_<step>.npz`, then removes what is older than the last `keep`.

    Removed with them: checkpoints of a later step, which a run that went back has abandoned, and the unfinished files
    of killed writers.

    Args:
      directory: of one run; one process writes to it.
      step: updates done, >= 0; names the file.
      tree, meta: as for `save`.
      keep: how many to keep, >= 1.
    Returns:
      The file written.
    Raises:
      ValueError: if `step` or `keep` is too small, or from `save`.
    """
    if step < 0 or keep < 1:
        raise ValueError(f"save_step needs step >= 0 and keep >= 1, got step = {step}, keep = {keep}")
    directory = Path(directory)
    path = directory / f"checkpoint_{step:012d}.npz"
    save(path, tree, meta)
    others = _checkpoints(directory)
    kept = [other for other in others if _step(other) <= step][-keep:]
    for other in [*(o for o in others if o not in kept), *directory.glob(".*.npz.*.tmp")]:
        other.unlink()
    return path


def latest(directory: str | os.PathLike[str]) -> Path | None:
    """The checkpoint with the highest step that `save_step` completed in `directory`, or None."""
    found = _checkpoints(Path(directory))
    return found[-1] if found else None


def _checkpoints(directory: Path) -> list[Path]:
    return sorted((p for p in directory.glob("checkpoint_*.npz") if _STEP_FILE.fullmatch(p.name)), key=_step)


def _step(path: Path) -> int:
    match = _STEP_FILE.fullmatch(path.name)
    assert match is not None
    return int(match.group(1))


def _named_leaves(tree: Any) -> list[tuple[str, Any]]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [("tree" + jax.tree_util.keystr(path), leaf) for path, leaf in flat]


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _encode(name: str, leaf: Any) -> tuple[np.ndarray, dict[str, Any]]:
    if _is_key(leaf):
        data = np.asarray(jax.random.key_data(leaf))
        return data, {**_describe(name, leaf), "impl": str(jax.random.key_impl(leaf))}
    array = np.asarray(leaf)
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == np.bool_):
        raise ValueError(f"{name} has dtype {array.dtype}; a checkpoint holds numbers, booleans and typed keys only")
    array = array.astype(array.dtype.newbyteorder("="), order="C", copy=False)
    entry = _describe(name, array)
    # The npy format has no name for bfloat16 and its kin: their bits are stored, the manifest knows what they are.
    return array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "V" else array, entry


def _decode(array: np.ndarray, entry: dict[str, Any], like: Any) -> Any:
    if "impl" in entry:
        return jax.random.wrap_key_data(jnp.array(array), impl=entry["impl"])
    array = array.view(jnp.dtype(entry["dtype"]))
    if isinstance(like, (bool, int, float, complex)):
        return type(like)(array.item())
    return array if isinstance(like, (np.ndarray, np.generic)) else jnp.array(array)


def _describe(name: str, leaf: Any) -> dict[str, Any]:
    array = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return {"path": name, "dtype": array.dtype.name, "shape": list(array.shape)}


def _differences(entries: dict[str, dict[str, Any]], wanted: dict[str, Any]) -> list[str]:
    found = [f"{name} is missing from the file" for name in wanted if name not in entries]
    found += [f"{name} is in the file but not expected" for name in entries if name not in wanted]
    for name in wanted.keys() & entries.keys():
        expected = _describe(name, wanted[name])
        for what in ("shape", "dtype"):
            if entries[name][what] != expected[what]:
                found.append(f"{name} has {what} {entries[name][what]} in the file, expected {expected[what]}")
    return sorted(found)


def _digest(manifest: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    """sha256 over the manifest without its checksum, then over dtype, shape and bytes of every array as stored."""
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for entry in manifest["leaves"]:
        array = arrays[entry["path"]]
        digest.update(f"{entry['path']} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    try:
        arrays = files.read_npz(path)
        manifest = json.loads(arrays.pop(_MANIFEST).tobytes())
        if manifest["format"] != FORMAT:
            raise ValueError(f"its format is {manifest['format']!r}, expected {FORMAT!r}")
        version = int(manifest["version"])
        damaged = version == FORMAT_VERSION and (
            sorted(arrays) != sorted(entry["path"] for entry in manifest["leaves"])
            or _digest(manifest, arrays) != manifest["sha256"]
        )
    # Damage surfaces as almost any exception of zipfile, zlib, json and NumPy's header parser.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"checkpoint {path} is damaged or no checkpoint ({reason}); {_advice(path)}") from error
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"checkpoint {path} has format version {version}, written by jaxrl {manifest.get('writer')}; this jaxrl, "
            f"{_version()}, reads version {FORMAT_VERSION}: install the version that wrote it, or a newer one"
        )
    if damaged:
        raise CheckpointError(f"checkpoint {path} was altered: its contents do not match its sha256; {_advice(path)}")
    return manifest, arrays


def _advice(path: Path) -> str:
    others = [other.name for other in _checkpoints(path.parent) if other != path]
    return f"delete it to go on from {others[-1]}" if others else "restore it from a copy, or start again"


def _to_json(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return np.asarray(value).tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _version() -> str:
    try:
        return metadata.version("jaxrl")
    except metadata.PackageNotFoundError:
        return "unknown"
