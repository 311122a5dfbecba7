"""Checks of what a user hands to a swarm; numbers that are being traced pass, since nothing is known of them yet."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def require_agents(num_agents: int) -> None:
    """Raises ValueError unless there is at least one agent."""
    if isinstance(num_agents, bool) or not isinstance(num_agents, int | np.integer) or num_agents < 1:
        raise ValueError(f"a swarm needs num_agents >= 1, an integer, got {num_agents!r}")


def require_positive(**numbers: Any) -> None:
    """Raises ValueError for a number that is known and not above zero."""
    for name, value in numbers.items():
        if not isinstance(value, jax.core.Tracer) and not np.all(np.asarray(value) > 0):
            raise ValueError(f"expected {name} > 0, got {value}")


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError for a word that is not among those known."""
    if value not in choices:
        raise ValueError(f"{name} = {value!r}; expected one of {', '.join(choices)}")
