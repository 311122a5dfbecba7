"""Learned rules as files: one npz with a JSON manifest, read without pickle and verified, that any actor-critic runs.

A rule is what was learnt (parameters), what shape it has (the configuration of its kind), and where it came from. A
new kind is a line in `KINDS`; a shipped rule is a file in `jaxrl/pretrained/`, and its name is the file's.
"""

from __future__ import annotations

import dataclasses
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import checkpoint, files
from jaxrl.objectives import OBJECTIVES, Make
from jaxrl.objectives.disco import DiscoConfig, disco_objective, init_disco, is_disco103, load_disco103
from jaxrl.objectives.lpg import LPGConfig, lpg_init, lpg_objective
from jaxrl.objectives.lpo import LPOConfig, lpo_drift, lpo_init, lpo_objective
from jaxrl.settings import suggest
from jaxrl.types import Key, Objective, Params

FORMAT_VERSION = 1
PRETRAINED = Path(__file__).with_name("pretrained")

# (log_ratio, advantage, n/N) -> what is taken off ratio * A, per element
Drift = Callable[[Any, Any, Any], jax.Array]


class RuleKind(NamedTuple):
    """What rules of one kind have in common.

    Attributes:
      config_class: a frozen dataclass that JSON can hold, which refuses bad values. A field added later must default to
        what held before it: files that do not know it get that default.
      init: `(key, config) -> params`, a pytree of float32 arrays; says which parameters fit a configuration.
      objective: `(params, rule_config, config, hp) -> Objective`; the last two are `PPOConfig` and `PPOHparams`.
      drift: `(params, rule_config) -> Drift`, for kinds that are one.
    """

    config_class: type[Any]
    init: Callable[[Key, Any], Params]
    objective: Callable[[Params, Any, Any, Any], Objective]
    drift: Callable[[Params, Any], Drift] | None = None


KINDS: dict[str, RuleKind] = {
    "lpo": RuleKind(
        LPOConfig,
        lpo_init,
        lambda params, rule, config, hp: lpo_objective(params, rule, hp, config.normalize_advantage, config.clip_value),
        lambda params, rule: lambda *sample: lpo_drift(params, rule, *sample),
    ),
    # Its targets are made once per rollout, so a run of several epochs just takes several steps towards them. Rules
    # are trained with one (`jaxrl train a2c` has one, `ppo` has 16).
    "lpg": RuleKind(LPGConfig, lpg_init, lambda params, rule, config, hp: lpg_objective(params, rule, hp)),
    "disco103": RuleKind(DiscoConfig, init_disco, lambda params, rule, config, hp: disco_objective(params, rule)),
}


class Rule(NamedTuple):
    """A learned rule.

    Attributes:
      kind: a name in `KINDS`.
      config: of the kind's class.
      params: as the kind's `init` gives them; may be traced, except in `save_rule`.
      provenance: how it was learnt, as JSON: by custom "summary" (one line), "command", "seeds", "commit", "device".
    """

    kind: str
    config: Any
    params: Params
    provenance: dict[str, Any]

    def objective(self, config: Any, hp: Any) -> Objective:
        """The rule as the objective of an actor-critic.

        Args:
          config, hp: the run's, as `PPOConfig` and `PPOHparams`; numbers may be traced.
        """
        return KINDS[self.kind].objective(jax.tree.map(jnp.asarray, self.params), self.config, config, hp)

    def drift(self) -> Drift:
        """What the rule takes off `ratio * A`, a function of log ratio, advantage and n/N.

        Raises:
          ValueError: for a kind that is no drift.
        """
        drift = KINDS[self.kind].drift
        if drift is None:
            drifts = [name for name, kind in KINDS.items() if kind.drift]
            raise ValueError(f"a rule of kind {self.kind!r} is no drift; expected one of {', '.join(drifts)}")
        return drift(self.params, self.config)


def save_rule(path: str | os.PathLike[str], rule: Rule) -> None:
    """Writes a rule to one file, atomically.

    Args:
      path: ends in `.npz`.
      rule: its parameters finite and of the shapes and types of its kind's `init`, its provenance JSON.
    Raises:
      ValueError: naming what does not fit.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"{path}: the name of a rule file ends in .npz")
    if rule.kind not in KINDS:
        raise ValueError(suggest("kind of rule", rule.kind, KINDS))
    config_class = KINDS[rule.kind].config_class
    if not isinstance(rule.config, config_class):
        name = type(rule.config).__name__
        raise ValueError(f"the config of a rule of kind {rule.kind!r} is a {config_class.__name__}, got a {name}")
    params = jax.tree.map(np.asarray, rule.params)
    expected, got = (_described(tree) for tree in (_like(rule.kind, rule.config), params))
    if got != expected:
        differing = {name for name, _ in set(expected.items()) ^ set(got.items())}
        shown = "; ".join(f"{n}: expected {expected.get(n)}, got {got.get(n)}" for n in sorted(differing)[:5])
        raise ValueError(f"the parameters do not fit {rule.config} ({shown}); they are those of another config")
    _check_finite(path, params)
    about = {"version": FORMAT_VERSION, "kind": rule.kind, "config": dataclasses.asdict(rule.config)}
    checkpoint.save(path, params, {"rule": {**about, "provenance": dict(rule.provenance)}})


def load_rule(name_or_path: str | os.PathLike[str]) -> Rule:
    """Reads a rule; everything is verified before anything is returned.

    Args:
      name_or_path: of a shipped rule (`list_rules`), or the path of a rule file; `disco_103.npz` as published is one.
    Returns:
      The `Rule`, its parameters NumPy arrays.
    Raises:
      ValueError: if there is no such rule, with the nearest names; or if the file is damaged, altered, no rule, of a
        newer format or an unknown kind, or its parameters do not fit its configuration: with the file and the fix.
    """
    path = find_rule(name_or_path)
    if _is_published_disco(path):
        return Rule("disco103", DiscoConfig(), load_disco103(path), {"summary": f"Disco103 as published, {path.name}"})
    try:
        about = checkpoint.load_meta(path).get("rule")
        if about is None:
            raise ValueError("it is a checkpoint and no rule; rules are written by `jaxrl.save_rule`")
        if about["version"] != FORMAT_VERSION:
            raise ValueError(f"it has rule format {about['version']}, this jaxrl reads {FORMAT_VERSION}; update jaxrl")
        if about["kind"] not in KINDS:
            raise ValueError(suggest("kind of rule", about["kind"], KINDS, "(a newer jaxrl may know it)"))
        config = _config(KINDS[about["kind"]].config_class, about["config"])
        rule = Rule(about["kind"], config, checkpoint.load(path, _like(about["kind"], config)), about["provenance"])
    except (ValueError, TypeError, KeyError) as error:
        reason = f"{error} is missing from its description" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"rule file {path} cannot be used: {reason}") from error
    _check_finite(path, rule.params)
    return rule


def list_rules() -> list[str]:
    """Names of the rules that are shipped with jaxrl."""
    return sorted(path.stem for path in PRETRAINED.glob("*.npz"))


def describe_rule(name: str) -> str:
    """One line: the kind, and the "summary" of the provenance or else its "command"."""
    rule = load_rule(name)
    origin = rule.provenance.get("summary") or rule.provenance.get("command") or "of unknown origin"
    return f"rule of kind {rule.kind}: {' '.join(str(origin).split())}"


def find_rule(name_or_path: str | os.PathLike[str]) -> Path:
    """The file of a rule, unread: of a shipped one by name, or any by path, which ends in .npz or has a directory.

    Raises:
      ValueError: if there is none.
    """
    text = os.fspath(name_or_path)
    if text in list_rules():
        return PRETRAINED / f"{text}.npz"
    if not _is_path(text):
        raise ValueError(suggest("rule", text, list_rules(), "(the path of a rule file ends in .npz)"))
    if not Path(text).is_file():
        raise ValueError(f"there is no rule file {text} (looked for from {Path.cwd()}); `jaxrl.save_rule` writes one")
    return Path(text)


def check_objective(name: str) -> None:
    """Raises ValueError unless `name` is one of `OBJECTIVES`, a shipped rule, or the path of a file."""
    if name in OBJECTIVES or name in list_rules():
        return
    if not _is_path(name):
        hint = "`jaxrl list objectives` shows all; the path of a rule file ends in .npz"
        raise ValueError(suggest("objective", name, [*OBJECTIVES, *list_rules()], hint))
    find_rule(name)


def find_objective(name: str) -> Make:
    """`(config, hp) -> Objective` of a name in `OBJECTIVES`, a shipped rule, or a rule file.

    Raises:
      ValueError: as from `check_objective` and `load_rule`.
    """
    check_objective(name)
    return OBJECTIVES[name] if name in OBJECTIVES else load_rule(name).objective


def rule_sha256(objective: str | None) -> str | None:
    """The verified checksum of the rule that an objective's name stands for; `None` if it stands for no rule."""
    if objective is None or objective in OBJECTIVES:
        return None
    path = find_rule(objective)
    return files.sha256(path) if _is_published_disco(path) else checkpoint.load_sha256(path)


def _is_published_disco(path: Path) -> bool:
    """By the names of its arrays; a file that cannot be read is not, and what else it may be says so itself."""
    try:
        with zipfile.ZipFile(path) as members:
            return is_disco103(dict.fromkeys(name.removesuffix(".npy") for name in members.namelist()))
    except (OSError, zipfile.BadZipFile):
        return False


def _is_path(text: str) -> bool:
    return text.endswith(".npz") or os.sep in text or "/" in text


def _like(kind: str, config: Any) -> Params:
    """Arrays of the shapes and types that fit a configuration; none of them takes memory."""
    shapes = jax.eval_shape(lambda: KINDS[kind].init(jax.random.key(0), config))
    return jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), shapes)


def _described(tree: Params) -> dict[str, str]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in flat}


def _config(config_class: type[Any], data: dict[str, Any]) -> Any:
    known = {field.name for field in dataclasses.fields(config_class)}
    unknown = sorted(set(data) - known)
    if unknown:
        raise ValueError(f"{config_class.__name__} has no {', '.join(unknown)}; a newer jaxrl wrote it: update jaxrl")
    return config_class(**{n: tuple(v) if isinstance(v, list) else v for n, v in data.items()})


def _check_finite(path: Path, params: Params) -> None:
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
        raise ValueError(
            f"rule file {path}: the parameters hold NaN or infinity; the rule diverged, use an earlier one"
        )
