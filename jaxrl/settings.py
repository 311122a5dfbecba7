"""Fields of configurations: a default that says what it means and where it comes from.

`Config` classes are frozen and hashable: what changes a shape or a branch. `Hparams` classes are `flax.struct`
pytrees of numbers, which may be traced.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable
from typing import Any


def setting(default: Any, help: str, source: str = "", low: float = -math.inf, high: float = math.inf) -> Any:
    """A dataclass field with its meaning, the source of its default, and the closed range of a number."""
    return dataclasses.field(default=default, metadata={"help": help, "source": source, "low": low, "high": high})


def same_setting(config: Any, name: str) -> Any:
    """The field of that name of another configuration class: its default, meaning, source and range."""
    field = next(field for field in dataclasses.fields(config) if field.name == name)
    return dataclasses.field(default=field.default, metadata=field.metadata)


def suggest(kind: str, name: str, known: Iterable[str], hint: str = "") -> str:
    """The message for a name that does not exist: the nearest names, or all of them when there are few."""
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    lower = {n.lower(): n for n in names}
    if name.lower() in lower:
        nearest = [lower[name.lower()]]
    elif initials := [n for n in names if "".join(word[0] for word in n.split("_") if word) == name.lower()]:
        nearest = initials[:3]  # lr
    offer = f"did you mean {' or '.join(nearest)}?" if nearest else f"known: {', '.join(names[:20])}"
    return f"unknown {kind} {name!r}; {offer}{' ' + hint if hint else ''}"


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raises ValueError unless `value` is one of `choices`."""
    options = tuple(choices)
    if value not in options:
        raise ValueError(f"{name} = {value!r}: expected one of {', '.join(options)}")


def check_at_least(config: Any, minimum: int, *names: str) -> None:
    """Raises ValueError unless each named integer field of `config` is at least `minimum`."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise ValueError(f"{name} = {value!r}: expected an integer >= {minimum}")


def check_below(hp: Any, low: str, high: str, equal: bool = False) -> None:
    """Raises ValueError unless the number named `low` is below the one named `high`, or `equal` to it."""
    a, b = getattr(hp, low), getattr(hp, high)
    if not (a <= b if equal else a < b):
        raise ValueError(f"{low} = {a:g} and {high} = {b:g}: expected {low} {'<=' if equal else '<'} {high}")
