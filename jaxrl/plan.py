"""What a user asks for, checked before anything is compiled, and cut into as few programs as its shapes allow."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import types
import typing
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

from jaxrl.presets import Preset, find_preset
from jaxrl.settings import suggest

ENV_PREFIX = "env."  # settings of the environment: "env.length=0.7"


class Program(NamedTuple):
    """Cells of the grid that share one compiled program.

    Attributes:
      config: static settings.
      cells: indices of the grid's cells.
      numbers: traced settings, {name: [len(cells)]}; names of the environment's start with "env.".
    """

    config: Any
    cells: tuple[int, ...]
    numbers: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Plan:
    """One run or sweep.

    Attributes:
      algorithm, env: names.
      seeds: one run per cell and seed.
      settings: fixed for all cells.
      grid: the swept settings; cells are their product, the last varying fastest.
    """

    algorithm: str
    env: str
    seeds: tuple[int, ...]
    settings: dict[str, Any]
    grid: dict[str, tuple[Any, ...]]

    @property
    def cells(self) -> list[dict[str, Any]]:
        """The swept settings of each cell."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            **dataclasses.asdict(self),
            "seeds": list(self.seeds),
            "grid": {k: list(v) for k, v in self.grid.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """The inverse of `to_json`."""

        def untuple(value: Any) -> Any:
            return tuple(value) if isinstance(value, list) else value

        settings = {name: untuple(value) for name, value in data["settings"].items()}
        grid = {name: tuple(untuple(v) for v in values) for name, values in data["grid"].items()}
        return cls(data["algorithm"], data["env"], tuple(data["seeds"]), settings, grid)


def make_plan(
    algorithm: str,
    env: str,
    seeds: int | Sequence[int],
    settings: Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]],
    env_params: Any,
) -> Plan:
    """Checks names, types and numbers.

    Args:
      algorithm: a preset's name.
      env: an environment's name; its family's published settings come before `settings`.
      seeds: how many, or which.
      settings: {name: value}; "env.<name>" sets a parameter of the environment.
      grid: {name: values}.
      env_params: the environment's defaults, for their names.
    Raises:
      ValueError: with what was expected, what came, and the fix.
    """
    preset = find_preset(algorithm)
    chosen = {name: value for name, (value, _) in suited(preset, env).items()} | dict(settings)
    fields = setting_kinds(preset, env_params)
    chosen = {name: _checked(fields, name, value) for name, value in chosen.items()}
    axes = {name: _axis(fields, name, values) for name, values in grid.items()}
    twice = sorted(set(settings) & set(axes))
    if twice:
        raise ValueError(f"{', '.join(twice)} is both fixed and in the grid; leave one of them out")
    plan = Plan(algorithm, env, _seeds(seeds), chosen, axes)
    for program in programs(plan, preset, env_params):  # the configurations' own checks
        of_agent = {field.name: program.numbers[field.name] for field in dataclasses.fields(preset.hparams)}
        for cell in range(len(program.cells)):
            preset.check(program.config, preset.hparams.replace(**{n: float(v[cell]) for n, v in of_agent.items()}))
    return plan


def programs(plan: Plan, preset: Preset, env_params: Any) -> list[Program]:
    """Groups the cells by configuration, in the order of their first cell."""
    static = {field.name for field in dataclasses.fields(preset.config)}
    groups: dict[Any, list[int]] = {}
    cells = [{**plan.settings, **cell} for cell in plan.cells]
    for index, cell in enumerate(cells):
        config = dataclasses.replace(preset.config, **{k: v for k, v in cell.items() if k in static})
        groups.setdefault(config, []).append(index)
    # Parameters of the environment that nobody names stay constants, which the compiler folds.
    named = {name for cell in cells for name in cell}
    defaults = {n: v for n, v in default_numbers(preset, env_params).items() if n in named or ENV_PREFIX not in n}
    result = []
    for config, members in groups.items():
        numbers = {
            name: np.asarray([cells[i].get(name, default) for i in members], np.asarray(default).dtype)
            for name, default in defaults.items()
        }
        result.append(Program(config, tuple(members), numbers))
    return result


def default_numbers(preset: Preset, env_params: Any) -> dict[str, Any]:
    """Every traced setting's default, as float32 or int32 scalars; the environment's with their prefix."""
    numbers = {f.name: np.float32(getattr(preset.hparams, f.name)) for f in dataclasses.fields(preset.hparams)}
    for name, value in env_numbers(env_params).items():
        numbers[ENV_PREFIX + name] = value
    return numbers


def env_numbers(env_params: Any) -> dict[str, Any]:
    """The scalar parameters of an environment, where its parameters are a dataclass."""
    if not dataclasses.is_dataclass(env_params):
        return {}
    values = {field.name: np.asarray(getattr(env_params, field.name)) for field in dataclasses.fields(env_params)}
    narrow = {"f": np.float32, "i": np.int32, "b": np.bool_}
    return {n: v.astype(narrow[v.dtype.kind])[()] for n, v in values.items() if v.ndim == 0 and v.dtype.kind in narrow}


def family(env: str) -> str:
    """Which of a preset's `overrides` suits an environment: "minatar", "brax", or "" for none."""
    return "minatar" if env.endswith("-MinAtar") else env.split("/")[0] if "/" in env else ""


def without_physics(env: str) -> str:
    """The name by which presets know an environment: "brax/ant" of "brax/spring/ant"."""
    return "/".join(env.split("/")[::2]) if env.count("/") == 2 else env


def suited(preset: Preset, env: str) -> dict[str, tuple[Any, str]]:
    """{setting: (value, the environment or family that it suits)} of a preset's `overrides`, the family's first."""
    names = (family(env), without_physics(env))
    return {setting: (value, name) for name in names for setting, value in preset.overrides.get(name, {}).items()}


def setting_kinds(preset: Preset, env_params: Any) -> dict[str, Any]:
    """{name: its type, or the number's field} of everything that `settings` and `grid` take."""
    hints = typing.get_type_hints(type(preset.config))
    kinds: dict[str, Any] = {field.name: hints[field.name] for field in dataclasses.fields(preset.config)}
    kinds |= {field.name: field for field in dataclasses.fields(preset.hparams)}
    kinds |= {ENV_PREFIX + name: type(value) for name, value in env_numbers(env_params).items()}
    return kinds


def _axis(fields: dict[str, Any], name: str, values: Sequence[Any]) -> tuple[Any, ...]:
    listed = isinstance(values, Sequence | np.ndarray) and not isinstance(values, str | bytes)
    if not listed or getattr(values, "ndim", 1) == 0 or not len(values):
        raise ValueError(f"grid {name} = {values!r}: expected a non-empty list of values, as in [1e-4, 3e-4]")
    checked = tuple(_checked(fields, name, value) for value in values)
    if len(set(checked)) < len(checked):
        raise ValueError(f"grid {name} = {list(values)}: a value stands twice; list each once")
    return checked


def _checked(fields: dict[str, Any], name: str, value: Any) -> Any:
    if name not in fields:
        raise ValueError(suggest("setting", name, fields, "`jaxrl config ALGORITHM ENV` shows all"))
    kind = fields[name]
    if isinstance(kind, dataclasses.Field):
        return _number(name, value, kind.metadata.get("low", -math.inf), kind.metadata.get("high", math.inf))
    if isinstance(kind, type) and issubclass(kind, np.generic):
        if issubclass(kind, np.bool_):
            return _static(name, value, bool)
        if issubclass(kind, np.integer):
            number = _int32(name, _static(name, value, int))
            if name.startswith(ENV_PREFIX + "max_steps") and number < 1:
                raise ValueError(f"{name} = {number}: expected an integer >= 1")
            return number
        return _number(name, value, -math.inf, math.inf)
    return _static(name, value, kind)


def _number(name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name} = {value!r}: expected a number, got {type(value).__name__}")
    number = float(value)
    if not abs(number) <= float(np.finfo(np.float32).max):  # NaN neither
        raise ValueError(f"{name} = {number:g}: expected a finite number of type float32")
    if not low <= number <= high:
        raise ValueError(f"{name} = {number:g}: expected a number in [{low:g}, {high:g}]")
    return number


def _int32(name: str, value: int) -> int:
    if not -(2**31) <= value < 2**31:
        raise ValueError(f"{name} = {value}: expected an integer in [-2^31, 2^31)")
    return value


def _static(name: str, value: Any, kind: Any) -> Any:
    """`value` as the static type `kind`: bool, int, str, a tuple of ints or floats, or one of these or None."""
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    for option in options:
        if option is type(None) and value is None:
            return None
        if option is bool and isinstance(value, bool | np.bool_):
            return bool(value)
        if option is str and isinstance(value, str | os.PathLike):
            return os.fspath(value)
        if option is int and _is_integral(value):
            return int(value)
        if typing.get_origin(option) is tuple:
            items = value if isinstance(value, tuple | list) else (value,)
            if typing.get_args(option)[0] is float:
                return tuple(_number(name, item, -math.inf, math.inf) for item in items)
            if all(_is_integral(item) for item in items):
                return tuple(int(item) for item in items)
    words = {int: "an integer", bool: "true or false", str: "a word", type(None): "none"}
    expected = " or ".join(words.get(option, "integers, as in (64, 64)") for option in options)
    raise ValueError(f"{name} = {value!r}: expected {expected}, got {type(value).__name__}")


def _is_integral(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return isinstance(value, Integral) or float(value).is_integer()


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(seeds, bool) or not isinstance(seeds, int | np.integer | Sequence | np.ndarray):
        raise ValueError(f"seeds = {seeds!r}: expected a count, or a list of integers")
    listed = tuple(range(seeds)) if isinstance(seeds, int | np.integer) else tuple(seeds)
    if not listed:
        raise ValueError(f"seeds = {seeds!r}: expected at least one seed, as in seeds=8 or seeds=[0, 1, 2]")
    if not all(_is_integral(s) and 0 <= s < 2**32 for s in listed) or len(set(listed)) < len(listed):
        raise ValueError(f"seeds = {list(listed)}: expected different integers in [0, 2^32)")
    return tuple(int(s) for s in listed)
