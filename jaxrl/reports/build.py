"""From run directories to one page: what is said of each run, and the template with everything that it needs inside."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl.files import atomic_write, to_json
from jaxrl.plotting import COLOURS
from jaxrl.provenance import provenance
from jaxrl.reports import about, numbers
from jaxrl.reports.archives import archives
from jaxrl.reports.replays import Recorder, policies
from jaxrl.trained import Run

_SCRIPTS = ("common.js", "charts.js", "sweep.js", "players.js", "archive.js", "page.js")
_NUM_REPLAYS, _NUM_OF_ARCHIVE = 4, 40


def report(
    runs: str | Path | Sequence[str | Path],
    path: str | Path | None = None,
    *,
    replays: int | None = None,
    metric: str | None = None,
    max_steps: int = 500,
) -> Path:
    """Writes a page about finished runs that opens from the disk, without a network.

    Of each run: configuration, learning curves, of a sweep what its settings do, replays of its final policies, of an
    archive its map, and where it comes from. Of runs in one environment also their curves in one chart. All intervals
    are those of `Results`: 95 %, by the bootstrap over seeds.

    Args:
      runs: run directories, one or several.
      path: ends in ".html"; by default `report.html` in the directory of a single run, or else here.
      replays: of each run, episodes to record; by default 4, or of an archive 40 of its cells. 0 leaves them out.
      metric: what runs are judged by; by default each by its own.
      max_steps: longest episode recorded.
    Returns:
      `path`.
    Raises:
      ValueError: for what is no run, is unfinished or damaged, for an unknown metric, or numbers out of range.
    """
    folders = [Path(run) for run in ([runs] if isinstance(runs, (str, Path)) else runs)]
    target = _target(folders, path)
    for name, value, least in (("replays", replays, 0), ("max_steps", max_steps, 1)):
        if value is not None and value < least:
            raise ValueError(f"{name} = {value}: expected at least {least}")
    opened = [Run(folder) for folder in folders]
    names = _names(folders)
    recorder = Recorder(max_steps, sum(_num_replays(run, replays) for run in opened))
    told = [
        _of_run(f"run-{i}", name, run, (_num_replays(run, replays), metric, recorder))
        for i, (name, run) in enumerate(zip(names, opened, strict=True))
    ]
    page = _page(
        told, numbers.comparisons({name: run.results for name, run in zip(names, opened, strict=True)}, metric)
    )
    with atomic_write(target) as file:
        file.write(page.encode())
    return target


def _target(folders: list[Path], path: str | Path | None) -> Path:
    if not folders:
        raise ValueError("report needs at least one run directory, as in `jaxrl report runs/demo`")
    repeated = {str(folder) for folder in folders if folders.count(folder) > 1}
    if repeated:
        raise ValueError(f"{', '.join(sorted(repeated))} is given twice; give it once")
    target = Path(path) if path is not None else (folders[0] if len(folders) == 1 else Path()) / "report.html"
    if target.suffix.lower() != ".html":
        raise ValueError(f"a report is an .html file, got {target.name!r}; rename it to {target.stem}.html")
    if target.is_dir():
        raise ValueError(f"{target} is a directory; choose the name of a file")
    return target


def _num_replays(run: Run, asked: int | None) -> int:
    if run.preset.rule is not None:  # many agents have lived, and none of them is the run's policy
        return 0
    default = _NUM_REPLAYS if run.preset.individual is None else _NUM_OF_ARCHIVE
    return default if asked is None else asked


def _names(folders: list[Path]) -> list[str]:
    """Last parts of the paths where these differ, else the paths."""
    short = [folder.resolve().name for folder in folders]
    return [name if short.count(name) == 1 else str(folder) for name, folder in zip(short, folders, strict=True)]


def _of_run(identity: str, name: str, run: Run, how: tuple[int, str | None, Recorder]) -> dict[str, Any]:
    """What the template and the page's script are told of one run."""
    num_replays, metric, recorder = how
    results = run.results
    judged = metric or results.judged_by
    results.metric(judged)
    found: dict[str, Any] = {"archives": [], "replays": []}
    if run.preset.individual is not None:
        found = archives(run, judged, num_replays, recorder)
    elif num_replays:
        found["replays"] = policies(run, judged, num_replays, recorder)
    table = numbers.table(results, judged)
    data = {
        "name": name,
        "metric": judged,
        "seeds": results.seeds,
        "settings": table,
        "swept": numbers.swept(results),
        "curves": numbers.curves(results, judged),
        "heat": numbers.heat_maps(results, judged),
        "sensitivity": numbers.sensitivity(results, judged),
        "fitness": numbers.fitness(results),
        "archives": found["archives"],
        "replays": [{k: v for k, v in replay.items() if k != "film"} for replay in found["replays"]],
    }
    return {
        "id": identity,
        "name": name,
        "title": f"{run.plan.algorithm} on {run.plan.env}",
        "metric": numbers.spoken(judged),
        "head": about.headline(run, results, table, judged),
        "settings": about.settings(run.plan, run.preset, results),
        "provenance": about.provenance_rows(run.path, results),
        "table": table[:60],
        "num_settings": len(table),
        "diverged": any(row["diverged"] for row in table),
        "varied": list(data["swept"]),
        "learns_rule": run.preset.rule is not None,
        "data": data,
        "films": [replay["film"] for replay in found["replays"]],
    }


def _page(runs: list[dict[str, Any]], comparisons: list[dict[str, Any]]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    files = resources.files("jaxrl.reports") / "page"
    script = "\n".join((files / name).read_text("utf-8") for name in _SCRIPTS)
    made = provenance()
    everything = {
        "colours": COLOURS,
        "scales": {"viridis": _scale("viridis"), "cividis": _scale("cividis")},
        "comparisons": comparisons,
        "runs": [run["id"] for run in runs],
    }
    names = [run["name"] for run in runs]
    env = Environment(
        loader=PackageLoader("jaxrl.reports", "page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    env.filters["data"] = data_text
    return env.get_template("page.html").render(
        title=f"jaxrl: {names[0]}" if len(names) == 1 else f"jaxrl: {len(names)} runs",
        runs=runs,
        comparisons=comparisons,
        everything=everything,
        style=(files / "page.css").read_text("utf-8"),
        script=f"\n{script}\n",
        # Nothing but this very script may run, and nothing may be loaded.
        script_hash=base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode(),
        made=made,
    )


def data_text(value: Any) -> str:
    """JSON that may stand inside a `<script>` element: nothing in it can end that element."""
    from markupsafe import Markup

    text = json.dumps(to_json(value), separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _scale(name: str) -> list[str]:
    """33 colours of one of matplotlib's colour maps."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in colormaps[name](np.linspace(0, 1, 33))]
