"""Checkpoints: exact round trips, refusals by name, and kills in mid-write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxrl import checkpoint
from jaxrl.checkpoint import CheckpointError


class Pair(NamedTuple):
    first: Any
    second: Any


@struct.dataclass
class State:
    params: Any
    key: Any
    memory: Any


def make_tree(seed: int = 0) -> State:
    """One leaf of every kind that a run can hold."""
    x = np.arange(6, dtype=np.float32).reshape(2, 3) + seed
    params = {
        "float32": jnp.array(x),
        "bfloat16": jnp.array(x, jnp.bfloat16),
        "float16": jnp.array(x, jnp.float16),
        "float8": jnp.array(x, jnp.float8_e4m3fn),
        "int4": jnp.array(x, jnp.int4),
        "bool": jnp.array(x > 2),
        "int32": jnp.int32(7),
        "empty": jnp.zeros((0, 3)),
        "numpy float64": np.linspace(0, 1, 3),
        "big endian": np.arange(3, dtype=">i4"),
        "python": [3, 0.1, True],
        "special": jnp.array([jnp.nan, jnp.inf, -0.0]),
    }
    keys = Pair(jax.random.split(jax.random.key(seed), 4), jax.random.key(seed, impl="rbg"))
    return State(params, keys, ())


def assert_identical(actual: Any, expected: Any) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert isinstance(a, jax.Array) == isinstance(b, jax.Array)
        if isinstance(b, jax.Array) and jax.dtypes.issubdtype(b.dtype, jax.dtypes.prng_key):
            assert a.dtype == b.dtype
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype.newbyteorder("=")
        assert a.shape == b.shape
        assert a.tobytes() == b.astype(a.dtype).tobytes()


def test_round_trip_is_bitwise(tmp_path: Path) -> None:
    path = tmp_path / "new" / "c.npz"
    tree, meta = make_tree(), {"update": 3, "mean": np.float32(0.5), "list": np.arange(2), "nested": {"a": None}}
    checkpoint.save(path, tree, meta)
    assert_identical(checkpoint.load(path, make_tree(seed=1)), tree)
    assert checkpoint.load_meta(path) == {"update": 3, "mean": 0.5, "list": [0, 1], "nested": {"a": None}}
    assert os.listdir(path.parent) == ["c.npz"]


def test_loads_onto_abstract_structure(tmp_path: Path) -> None:
    tree = {"w": jnp.ones((2, 3), jnp.bfloat16), "key": jax.random.key(1)}
    checkpoint.save(tmp_path / "c.npz", tree)
    like = jax.eval_shape(lambda: {"w": jnp.zeros((2, 3), jnp.bfloat16), "key": jax.random.key(0)})
    assert_identical(checkpoint.load(tmp_path / "c.npz", like), tree)


def test_loaded_key_continues_the_stream(tmp_path: Path) -> None:
    key = jax.random.key(5)
    checkpoint.save(tmp_path / "c.npz", key)
    loaded = checkpoint.load(tmp_path / "c.npz", jax.random.key(0))
    assert float(jax.random.normal(loaded)) == float(jax.random.normal(key))


def test_file_is_npz_without_pickle(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c.npz", {"w": jnp.arange(3.0)}, {"env": "CartPole-v1"})
    with np.load(tmp_path / "c.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["tree['w']"], [0.0, 1.0, 2.0])
        manifest = json.loads(file["__manifest__"].tobytes())
    assert manifest["meta"] == {"env": "CartPole-v1"}
    assert manifest["leaves"] == [{"path": "tree['w']", "dtype": "float32", "shape": [3]}]


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"w": jnp.zeros((2, 4)), "b": jnp.zeros(3)}, r"tree\['w'\] has shape \[2, 3\] in the file, expected \[2, 4\]"),
        ({"w": jnp.zeros((2, 3)), "b": jnp.zeros(3, jnp.int32)}, "dtype float32 in the file, expected int32"),
        ({"w": jnp.zeros((2, 3))}, r"tree\['b'\] is in the file but not expected"),
        ({"w": jnp.zeros((2, 3)), "b": jnp.zeros(3), "c": jnp.zeros(1)}, r"tree\['c'\] is missing from the file"),
        ([jnp.zeros((2, 3)), jnp.zeros(3)], r"tree\[0\] is missing from the file"),
        ({"w": jnp.zeros((2, 3)), "b": jax.random.key(0)}, r"dtype float32 in the file, expected key<fry>"),
    ],
)
def test_other_structure_is_refused(tmp_path: Path, like: Any, message: str) -> None:
    path = tmp_path / "c.npz"
    checkpoint.save(path, {"w": jnp.zeros((2, 3)), "b": jnp.zeros(3)})
    with pytest.raises(CheckpointError, match=message) as error:
        checkpoint.load(path, like)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_truncated_file_is_refused_by_name(tmp_path: Path, share: float) -> None:
    path = tmp_path / "c.npz"
    checkpoint.save(path, make_tree())
    contents = path.read_bytes()
    path.write_bytes(contents[: int(len(contents) * share)])
    with pytest.raises(CheckpointError, match="damaged") as error:
        checkpoint.load(path, make_tree())
    assert str(path) in str(error.value)


def test_no_flipped_byte_goes_unnoticed(tmp_path: Path) -> None:
    path, tree = tmp_path / "c.npz", {"w": np.arange(4.0), "key": jax.random.key(0)}
    checkpoint.save(path, tree, {"update": 3})
    contents = path.read_bytes()
    refusals = []
    for position in range(0, len(contents), 3):
        path.write_bytes(contents[:position] + bytes([contents[position] ^ 0x41]) + contents[position + 1 :])
        try:
            loaded, meta = checkpoint.load(path, tree), checkpoint.load_meta(path)
        except CheckpointError as error:
            refusals.append(str(error))
        else:  # bytes without meaning, such as the zip time stamps
            assert_identical(loaded, tree)
            assert meta == {"update": 3}
    assert all(str(path) in refusal for refusal in refusals)
    assert len(refusals) > len(contents) / 3 / 2


def rewrite(path: Path, change: Any) -> None:
    """Changes arrays and writes a sound zip file again, as a program would that knows npz but not checkpoints."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    change(arrays)
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def set_manifest(arrays: dict[str, np.ndarray], **changes: Any) -> None:
    manifest = {**json.loads(arrays["__manifest__"].tobytes()), **changes}
    arrays["__manifest__"] = np.frombuffer(json.dumps(manifest).encode(), np.uint8)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.update({"tree['w']": np.zeros(3, np.float32)}),
        lambda arrays: arrays.update(extra=np.zeros(1)),
        lambda arrays: arrays.pop("tree['w']"),
        lambda arrays: set_manifest(arrays, meta={"update": 4}),
    ],
)
def test_altered_contents_are_refused(tmp_path: Path, change: Any) -> None:
    path = tmp_path / "c.npz"
    checkpoint.save(path, {"w": jnp.ones(3)}, {"update": 3})
    rewrite(path, lambda arrays: None)
    assert_identical(checkpoint.load(path, {"w": jnp.zeros(3)}), {"w": jnp.ones(3)})
    rewrite(path, change)
    with pytest.raises(CheckpointError, match="altered"):
        checkpoint.load(path, {"w": jnp.zeros(3)})
    with pytest.raises(CheckpointError, match="altered"):
        checkpoint.load_meta(path)


def test_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    checkpoint.save(path, {"w": jnp.ones(3)})
    rewrite(path, lambda arrays: set_manifest(arrays, version=2, writer="9.1"))
    with pytest.raises(CheckpointError, match=r"format version 2, written by jaxrl 9\.1.*reads version 1"):
        checkpoint.load(path, {"w": jnp.ones(3)})


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        checkpoint.load(tmp_path / "none.npz", {})
    np.savez(tmp_path / "plain.npz", w=np.ones(3))
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.load(tmp_path / "plain.npz", {})
    np.save(tmp_path / "pickle.npz", np.array([{}], object), allow_pickle=True)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.load(tmp_path / "pickle.npz.npy", {})
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.load_meta(tmp_path / "other.npz")


def test_unsavable_input_is_refused_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    checkpoint.save(path, {"w": jnp.ones(1)})
    with pytest.raises(ValueError, match=r"tree\['name'\] has dtype <U3"):
        checkpoint.save(path, {"name": "ppo"})
    with pytest.raises(ValueError, match="must be JSON"):
        checkpoint.save(path, {}, {"call": print})
    assert_identical(checkpoint.load(path, {"w": jnp.zeros(1)}), {"w": jnp.ones(1)})
    assert os.listdir(tmp_path) == ["c.npz"]


def test_last_two_are_kept_and_leftovers_removed(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None
    (tmp_path / "checkpoint_best.npz").write_bytes(b"not ours")
    (tmp_path / ".checkpoint_000000000004.npz.1.tmp").write_bytes(b"half")
    for step in (0, 5, 9, 10):
        path = checkpoint.save_step(tmp_path, step, {"step": step})
        assert checkpoint.latest(tmp_path) == path
    names = ["checkpoint_000000000009.npz", "checkpoint_000000000010.npz", "checkpoint_best.npz"]
    assert sorted(os.listdir(tmp_path)) == names
    assert checkpoint.load(path, {"step": 0}) == {"step": 10}

    path.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="delete it to go on from checkpoint_000000000009.npz"):
        checkpoint.load(path, {"step": 0})

    again = checkpoint.save_step(tmp_path, 3, {"step": 3})
    assert checkpoint.latest(tmp_path) == again
    assert checkpoint.load_meta(again) == {}
    with pytest.raises(ValueError, match="keep >= 1"):
        checkpoint.save_step(tmp_path, 1, {}, keep=0)


WRITER = """
import sys, itertools
from jaxrl import checkpoint
import numpy as np
for step in itertools.count(1):
    checkpoint.save_step(sys.argv[1], step, {"w": np.full(400_000, step)}, {"step": step})
"""


def test_kill_in_mid_write_loses_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], env=dict(os.environ, JAX_PLATFORMS="cpu"))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        path = checkpoint.latest(tmp_path)
        half_written = list(tmp_path.glob(".checkpoint_*.tmp"))
        if path is not None and half_written and path.name > "checkpoint_000000000003":
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    path = checkpoint.latest(tmp_path)
    assert path is not None
    step = checkpoint.load_meta(path)["step"]
    assert step >= 3
    np.testing.assert_array_equal(checkpoint.load(path, {"w": np.zeros(400_000, int)})["w"], np.full(400_000, step))
