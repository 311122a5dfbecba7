"""What the verbs of the command line take: arguments with their help, and values as they are written there."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

Algorithm = Annotated[Positional[str], arg(metavar="ALGORITHM", help="Name; `jaxrl list algorithms` shows all.")]
Env = Annotated[Positional[str], arg(metavar="ENV", help="Name, as CartPole-v1, brax/ant; `jaxrl list envs`.")]
RunPath = Annotated[Positional[Path], arg(metavar="RUN", help="A run directory.")]
Seeds = Annotated[int, arg(metavar="N", help="How many seeds: 0 … N-1, trained in one program.")]
FirstSeed = Annotated[int, arg(metavar="SEED", help="The first seed.")]
Settings = Annotated[
    UseAppendAction[tuple[str, ...]],
    arg(name="set", metavar="NAME=VALUE", help="A setting, repeatable; `jaxrl config ALGORITHM ENV` shows all."),
]
Steps = Annotated[int | None, arg(metavar="N", help="Environment steps of each run (short for --set total_steps=N).")]
Out = Annotated[Path | None, arg(metavar="DIR", help="Run directory; by default runs/ALGORITHM-ENV-TIME.")]
Evaluations = Annotated[int, arg(metavar="N", help="Greedy evaluations of 16 episodes, spread over the run.")]
Chunks = Annotated[int, arg(metavar="N", help="Checkpoints; a killed run loses at most one chunk's work.")]
Objective = Annotated[
    str | None,
    arg(
        metavar="NAME|FILE.npz",
        help="What is optimised: a name of `jaxrl list objectives`, as dpo, or the file of a rule that was learned "
        "(short for --set objective=NAME; --grid objective=ppo,dpo compares several).",
    ),
]
MaxMemory = Annotated[
    float | None,
    arg(
        metavar="GIB",
        help="Memory of each device that may be used: runs that do not fit side by side follow one after the other. By "
        "default most of an accelerator's, or half of the machine's.",
    ),
]
Distributed = Annotated[
    bool,
    arg(
        help="This is one of several processes of a job, on one machine or many: found by itself under Slurm, Open MPI "
        "and on TPU pods, elsewhere by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.",
    ),
]
Cell = Annotated[int | None, arg(metavar="I", help="Cell of the grid; by default the best.")]
Seed = Annotated[int | None, arg(metavar="SEED", help="Which of the run's seeds; by default the first.")]
Descriptor = Annotated[
    str | None,
    arg(
        metavar="X,Y,…",
        help="Of an archive the individual whose cell is nearest to this descriptor; by default the fittest.",
    ),
]


def parse_value(text: str) -> Any:
    """A setting's value as written on the command line: 3e-4, 64, 64x64, true, none, or a word."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    pieces = text.split("x")
    if len(pieces) > 1 and all(piece.isdigit() for piece in pieces):
        return tuple(int(piece) for piece in pieces)
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def parse_assignments(texts: tuple[str, ...]) -> dict[str, Any]:
    """`("learning_rate=1e-3", …)` as a dict.

    Raises:
      ValueError: for a text without "=", or a name that stands twice.
    """
    pairs: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise ValueError(f"{text!r}: expected NAME=VALUE, as in learning_rate=1e-3")
        if name in pairs:
            raise ValueError(f"{name} is given twice; give it once")
        pairs[name] = value
    return pairs


def parse_grid(texts: tuple[str, ...]) -> dict[str, list[Any]]:
    """`("learning_rate=1e-4,1e-3", …)` as lists of values; raises as `parse_assignments`."""
    return {
        name: [parse_value(value) for value in values.split(",") if value]
        for name, values in parse_assignments(texts).items()
    }


def parse_numbers(text: str | None) -> list[float] | None:
    """`"0.5,-0.25"` as a list; `None` stays.

    Raises:
      ValueError: for anything but numbers.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"descriptor = {text!r}: expected numbers, as in --descriptor 0.5,-0.25") from None
