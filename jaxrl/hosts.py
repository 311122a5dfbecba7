"""Several processes, on one machine or many, as one run: JAX's own multi-controller runtime, and who writes files.

Every process runs the same program on the devices of all; what each has of a result is gathered on all hosts, and the
first process alone writes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


class ProcessLostError(RuntimeError):
    """Another process of the job has ended, so that the rest of it cannot go on."""


def use_all_hosts(environ: Mapping[str, str] = os.environ) -> None:
    """Joins the other processes of the job; to be called before anything is computed.

    On clusters that JAX knows (Slurm, Open MPI, TPU pods, Kubernetes) nothing need be said. Elsewhere the environment
    variables JAX_COORDINATOR_ADDRESS ("host:port" of the first process), JAX_NUM_PROCESSES and JAX_PROCESS_ID do.

    Raises:
      ValueError: if only some of the variables are set, one is no number, or no cluster is found.
    """
    given = {name: environ[name] for name in _VARIABLES if name in environ}
    missing = [name for name in _VARIABLES if name not in given]
    if given and missing:
        raise ValueError(f"{', '.join(given)} is set, and {', '.join(missing)} is not: set all three or none")
    address, num, number = (given.get(name) for name in _VARIABLES)
    if given and not (str(num).isdigit() and str(number).isdigit() and int(str(number)) < int(str(num))):
        raise ValueError(f"JAX_NUM_PROCESSES = {num}, JAX_PROCESS_ID = {number}: expected integers, the second in "
                         f"[0, JAX_NUM_PROCESSES)")  # fmt: skip
    counts: dict[str, Any] = {"num_processes": int(num), "process_id": int(number)} if num and number else {}
    try:
        # A process that has lost another need not wait minutes for it when it ends.
        jax.distributed.initialize(address, **counts, heartbeat_timeout_seconds=30, shutdown_timeout_seconds=30)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"the processes of this job did not find each other ({error}); set {', '.join(_VARIABLES)}, "
                         f"or run without --distributed") from error  # fmt: skip


def writes() -> bool:
    """Is this the process that writes files and shows progress?"""
    return jax.process_index() == 0


def fetch(tree: Any) -> Any:
    """What all processes have of the arrays of a tree, on every host; of a single process, the tree itself.

    Raises:
      ProcessLostError: if another process has ended.
    """
    if jax.process_count() == 1:
        return tree
    from jax.experimental import multihost_utils

    return _together(lambda: jax.tree.map(np.asarray, multihost_utils.process_allgather(tree, tiled=True)))


def from_first(number: int) -> int:
    """The first process' number, in every process.

    Raises:
      ProcessLostError: if another process has ended.
    """
    if jax.process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    return int(_together(lambda: multihost_utils.broadcast_one_to_all(np.int32(number))))


def wait_for_all(name: str) -> None:
    """Returns when every process has come here; at once, if there is but one.

    Raises:
      ProcessLostError: if another process has ended.
    """
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        _together(lambda: multihost_utils.sync_global_devices(name))


def _together(collective: Any) -> Any:
    try:
        return collective()
    except (RuntimeError, ValueError) as error:  # which of them depends on the transport
        said = str(error).splitlines()[0]
        raise ProcessLostError(
            f"a process of this job was lost ({said}); the last checkpoint is complete: start all processes again with "
            f"`jaxrl resume RUN --distributed`"
        ) from error
