"""Imports point one way, and nothing grows too large (design sections 1 and 5); read from the source, not run."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {"jaxrl": ROOT / "jaxrl", "jaxrl_envs": ROOT / "envs" / "jaxrl_envs"}
MAX_FILE_LINES, MAX_FUNCTION_LINES = 500, 90


def modules() -> dict[str, Path]:
    """{dotted name: file} of everything that is shipped."""
    found = {}
    for package, folder in SOURCES.items():
        for file in sorted(folder.rglob("*.py")):
            parts = [package, *file.relative_to(folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = modules()


def imports(tree: ast.AST, deep: bool = True) -> set[str]:
    """Dotted names that a module imports, at any depth or at its top level; names of modules only."""
    found: set[str] = set()
    for node in ast.walk(tree) if deep else ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            base = node.module or ""
            submodules = {f"{base}.{alias.name}" for alias in node.names} & set(MODULES)
            found |= submodules
            if len(submodules) < len(node.names):
                found.add(base)
    return found


def dynamic_imports(tree: ast.AST) -> set[str]:
    """Names that stand as text in a call of `import_module` or `__import__`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__"):
                found.add(str(node.args[0].value))
    return found


TREES = {name: ast.parse(file.read_text()) for name, file in MODULES.items()}
IMPORTS = {name: imports(tree) for name, tree in TREES.items()}

# layer -> the layers that it may import. `host` is what runs outside of jit, on top of everything.
ALLOWED = {
    "types": set(),
    "spaces": {"types"},
    "settings": set(),
    "files": set(),
    "ops": {"types", "spaces"},
    "env": {"types", "spaces"},
    "networks": {"types", "spaces", "ops"},
    "value_networks": {"types", "spaces", "ops", "networks"},
    "objectives": {"types", "spaces", "ops", "networks", "settings", "files"},
    "checkpoint": {"files"},
    "rules": {"types", "settings", "objectives", "checkpoint", "files"},
    "buffers": {"types", "spaces", "ops"},
    "policy_networks": {"types", "spaces", "networks"},
    "agents": {
        "types", "spaces", "ops", "networks", "value_networks", "policy_networks", "objectives", "buffers", "settings",
    },
    "algorithm": {"types", "env", "buffers"},
    "loops": {"types", "spaces", "ops", "env", "buffers", "algorithm"},
    "meta": {"types", "spaces", "ops", "env", "buffers", "algorithm", "loops"},
    "evo": {"types", "spaces", "ops", "env", "buffers", "algorithm", "loops", "evaluation"},
    "qd": {"types", "spaces", "ops", "env", "buffers", "algorithm", "loops", "evaluation", "evo", "settings"},
    "evaluation": {"types", "env", "ops", "loops"},
    "analytic": {"types", "env", "ops", "evaluation", "algorithm"},
    "adapters": {"types", "spaces", "env", "settings", "evo"},
    "env_checks": {"types", "spaces", "env"},
    "presets": {
        "types", "spaces", "ops", "env", "networks", "policy_networks", "value_networks", "objectives", "buffers",
        "agents", "algorithm", "loops", "meta", "evo", "qd", "settings", "rules", "evaluation", "adapters",
        "analytic",
    },
}  # fmt: skip
LEARNING = set(ALLOWED)  # what may be traced; the host's modules may import all of it, and not the reverse


def layer(module: str) -> str:
    """`jaxrl.ops.returns` -> ops; what checks environments is one layer of several files, `jaxrl.env_…`."""
    name = module.split(".")[1] if "." in module else ""
    return "env_checks" if name.startswith("env_") else name


@pytest.mark.parametrize("module", [name for name in MODULES if layer(name) in ALLOWED and name.startswith("jaxrl.")])
def test_imports_point_one_way(module: str) -> None:
    own = layer(module)
    used = {layer(name) for name in IMPORTS[module] if name.startswith("jaxrl.")} - {own}
    assert used <= ALLOWED[own], f"{module} may not import {sorted(used - ALLOWED[own])}"


def test_the_rules_are_about_something() -> None:
    """The parser sees the imports, and the table the layers; else the tests here would pass for nothing."""
    assert {"jaxrl.agents.actor_critic", "jaxrl.presets.base"} <= IMPORTS["jaxrl.presets.on_policy"]
    assert "jaxrl.loops.on_policy" in IMPORTS["jaxrl.presets.base"]
    assert "jaxrl.ops.returns" in IMPORTS["jaxrl.objectives.common"]
    assert "jaxrl_envs.probes" in MODULES
    assert "brax.envs" in dynamic_imports(TREES["jaxrl.adapters.brax"])
    present = {layer(name) for name in MODULES if name.startswith("jaxrl.")}
    assert {"types", "spaces", "ops", "env", "networks", "objectives", "agents", "algorithm", "loops"} <= present


@pytest.mark.parametrize("module", [name for name in MODULES if layer(name) in ("loops", "meta", "evo", "qd")])
def test_loops_are_handed_agents_and_objectives(module: str) -> None:
    assert not {name for name in IMPORTS[module] if layer(name) in ("agents", "objectives", "networks", "presets")}


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("jaxrl_envs")])
def test_environments_know_only_the_protocol(module: str) -> None:
    ours = {name for name in IMPORTS[module] if name.split(".")[0] == "jaxrl"}
    assert ours <= {"jaxrl.env", "jaxrl.spaces", "jaxrl.types"}


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[0] == "jaxrl"])
def test_the_library_does_not_import_its_environments(module: str) -> None:
    assert not {name for name in IMPORTS[module] if name.split(".")[0] == "jaxrl_envs"}


# package -> modules that may import it, at any depth of a function.
FOREIGN = {
    "gymnax": {"jaxrl.adapters"},
    "brax": {"jaxrl.adapters"},
    "evosax": {"jaxrl.adapters"},
    "mujoco": {"jaxrl.adapters"},
    "distrax": set(),
    "gymnasium": set(),
    "tensorflow_probability": set(),
    "torch": set(),
    "pickle": set(),
}


@pytest.mark.parametrize("package", FOREIGN)
def test_only_adapters_import_foreign_packages(package: str) -> None:
    reached = {name: IMPORTS[name] | dynamic_imports(tree) for name, tree in TREES.items()}
    users = {name for name, used in reached.items() if any(other.split(".")[0] == package for other in used)}
    allowed = {name for name in users if any(name == a or name.startswith(f"{a}.") for a in FOREIGN[package])}
    assert users == allowed


def test_adapters_are_lazy() -> None:
    """The package that names every environment imports none of their families at its top level."""
    top = imports(TREES["jaxrl.adapters"], deep=False)
    assert not {name for name in top if name.split(".")[0] in FOREIGN or name.startswith("jaxrl.adapters.")}


@pytest.mark.parametrize("module", MODULES)
def test_sizes(module: str) -> None:
    lines = MODULES[module].read_text().count("\n")
    assert lines <= MAX_FILE_LINES
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES, f"{module}.{node.name}"


def test_no_state_of_the_library_prints() -> None:
    """No printing below `train`: only the host's modules talk."""
    for module, tree in TREES.items():
        if layer(module) in LEARNING or module.startswith("jaxrl_envs"):
            calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
            assert not [call for call in calls if call.func.id == "print"], module  # type: ignore[attr-defined]
