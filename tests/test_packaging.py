"""The distribution's declarations agree with each other."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PEERS = ROOT / "experiments" / "benchmarks" / "peers"
PINS = [ROOT / "constraints.txt", PEERS / "rejax.txt", PEERS / "qdax.txt"]
PINNED_EXTRAS = ("dev", "notebooks", "results")


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {normalised(line.split("==")[0]): line.split("==")[1] for line in lines}


@pytest.mark.parametrize("path", PINS, ids=lambda path: path.name)
def test_pins_are_names_and_versions_only(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"https?:|git\+|://|--(index|extra|find|trusted)|/(home|root|opt|tmp|work)/", text)
    for line in text.splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line), line


def test_every_direct_dependency_is_pinned_within_its_range() -> None:
    requirements = pytest.importorskip("packaging.requirements")
    pins = read_pins(ROOT / "constraints.txt")
    declared = list(PROJECT["dependencies"])
    for extra in PINNED_EXTRAS:
        declared += PROJECT["optional-dependencies"][extra]
    for text in declared:
        requirement = requirements.Requirement(text)
        assert normalised(requirement.name) in pins, f"constraints.txt has no pin for {requirement.name}"
        version = pins[normalised(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), f"{text} excludes the pinned {version}"


def test_benchmark_peers_are_the_announced_versions() -> None:
    assert read_pins(PEERS / "rejax.txt")["rejax"] == "0.1.3"
    held = read_pins(PEERS / "qdax.txt")
    assert (held["qdax"], held["ribs"]) == ("0.5.0", "0.12.0")
    # Both sides of that comparison run on the same JAX and Brax.
    ours = read_pins(ROOT / "constraints.txt")
    assert [held[name] for name in ("jax", "jaxlib", "brax")] == [ours[name] for name in ("jax", "jaxlib", "brax")]


def test_version_is_stated_once_and_the_same() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {PROJECT['version']}\n" in citation
    assert PROJECT["requires-python"] == ">=3.11"


def test_makefile_offers_what_the_readme_and_ci_call() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test", "lint", "types", "doctest", "notebooks", "wheel-test", "bench-peers", "clean"} <= targets
    stages = re.search(r"for name in ([a-z -]+);", (ROOT / ".ci" / "run").read_text())
    assert stages is not None
    assert set(stages.group(1).split()) <= targets


@pytest.mark.parametrize("script", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda path: path.stem)
def test_notebook_is_paired_with_its_script(script: Path) -> None:
    jupytext = pytest.importorskip("jupytext")
    notebook = jupytext.read(script.with_suffix(".ipynb"))
    sources = [
        [cell.source for cell in book.cells if cell.cell_type == "code"] for book in (jupytext.read(script), notebook)
    ]
    assert sources[0] == sources[1], f"run: jupytext --sync {script.name}, then execute it again"


def test_shipped_rules_and_the_page_of_reports_are_in_the_wheel(tmp_path: Path) -> None:
    """Neither the ignore file, which the build honours, nor the build's own settings leave one out."""
    wheel = pytest.importorskip("hatchling.builders.wheel")
    for name in ("pyproject.toml", ".gitignore", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    page = {f"jaxrl/reports/page/{file.name}" for file in (ROOT / "jaxrl" / "reports" / "page").iterdir()}
    assert {Path(name).suffix for name in page} == {".html", ".css", ".js"}
    for name in ("jaxrl/__init__.py", "jaxrl/pretrained/a_rule.npz", "envs/jaxrl_envs/__init__.py", *page):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    # The builder looks for an ignore file up to the root of a repository.
    (tmp_path / ".git").mkdir()
    included = {file.distribution_path for file in wheel.WheelBuilder(str(tmp_path)).recurse_included_files()}
    assert included == {"jaxrl/__init__.py", "jaxrl/pretrained/a_rule.npz", "jaxrl_envs/__init__.py"} | page
