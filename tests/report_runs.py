"""Tiny runs for the tests of reports: a sweep of PPO, an archive of MAP-Elites, a swarm; and a page, parsed."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from helpers import TINY

import jaxrl

GRID = {"learning_rate": [1e-4, 1e-2], "clip_eps": [0.1, 0.2], "gamma": [0.9, 0.99]}
SEEDS = [3, 5]
ARCHIVE: dict[str, Any] = {
    "total_steps": 2 * 32 * 20, "num_initial": 32, "num_ga": 32, "iso_sigma": 0.5, "hidden_sizes": (4,),
    "episode_steps": 20, "grid_shape": (40, 40),
}  # fmt: skip
SWARM: dict[str, Any] = {
    "num_envs": 2, "num_steps": 4, "total_steps": 32, "hidden_sizes": (4,), "num_minibatches": 2, "env.max_steps": 6,
}  # fmt: skip


def make_sweep(folder: Path) -> Path:
    """Eight settings of PPO, two seeds each."""
    settings = {**TINY, "total_steps": 160}
    jaxrl.run_sweep("ppo", "CartPole-v1", grid=GRID, seeds=SEEDS, settings=settings, out=folder, progress=False)
    return folder


def make_other(folder: Path) -> Path:
    """One setting of A2C in the same environment, one seed."""
    jaxrl.run(
        "a2c", "CartPole-v1", settings={**TINY, "num_epochs": 1, "num_minibatches": 1}, out=folder, progress=False
    )
    return folder


def make_archive(folder: Path) -> Path:
    """Two seeds of MAP-Elites on PointMass."""
    jaxrl.run("map_elites", "point_mass", seeds=2, settings=ARCHIVE, out=folder, progress=False)
    return folder


def make_swarm(folder: Path) -> Path:
    """One seed of Dec-POMFPPO, for episodes of six steps."""
    jaxrl.run("dec_pomfppo", "jaxrl/mean_field_vicsek", settings=SWARM, out=folder, progress=False)
    return folder


VOID = {"meta", "input", "br", "hr", "img", "link", "source", "path"}


class Page(HTMLParser):
    """What an HTML page is made of; raises if elements are not closed in the order in which they were opened.

    Attributes:
      elements: (tag, attributes) in order.
      tables: of each table its rows of cells' texts.
      scripts: {id: text}, "" for the one without an id.
      texts: {tag: the texts of its elements}, for headings and the like.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.scripts: dict[str, str] = {}
        self.texts: dict[str, list[str]] = {}
        self.open: list[tuple[str, list[str]]] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, []))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])

    def handle_endtag(self, tag: str) -> None:
        last, texts = self.open.pop()
        assert last == tag, f"</{tag}> closes <{last}>"
        text = " ".join("".join(texts).split())
        self.texts.setdefault(tag, []).append(text)
        if tag in ("td", "th"):
            self.tables[-1][-1].append(text)
        if tag == "script":
            self.scripts[str(next(a for t, a in reversed(self.elements) if t == "script").get("id", ""))] = "".join(
                texts
            )
        elif self.open:
            self.open[-1][1].append(f"{text} ")

    def handle_data(self, data: str) -> None:
        if self.open:
            self.open[-1][1].append(data)

    def data(self, name: str) -> Any:
        """What a script element of JSON holds."""
        return json.loads(self.scripts[name])
