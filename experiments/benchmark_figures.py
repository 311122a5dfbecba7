"""Statistics and figures of `experiments.benchmark_agents`, from its rows and curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.benchmark_suite import AGENTS, GROUPS, REFERENCES, SHORTFALLS
from jaxrl.plotting import COLOURS
from jaxrl.reporting import Estimate, bootstrap, performance_profile, stratified_bootstrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Mapping[str, Mapping[str, Any]]  # {"<env>/<agent>": row of the table}

THRESHOLDS = np.linspace(0.0, 1.2, 121)
# An agent looks the same in every figure; those for discrete and for continuous actions share colours.
LOOKS: dict[str, tuple[str, Any]] = {
    "ppo": (COLOURS[0], "-"),
    "ppo_gru": (COLOURS[0], (0, (1, 1))),
    "a2c": (COLOURS[1], "--"),
    "mdpo": (COLOURS[2], "-."),
    "sac": (COLOURS[3], "-"),
    "pqn": (COLOURS[4], "-"),
    "td3": (COLOURS[4], "-"),
    "dqn": (COLOURS[5], "-"),
    "dsac_t": (COLOURS[5], "-"),
    "dqn_c51": (COLOURS[6], "--"),
    "mdpo_off": (COLOURS[6], "-."),
    "dqn_qr": (COLOURS[7], (0, (5, 1, 1, 1))),
    "pmoe": (COLOURS[7], (0, (5, 1, 1, 1))),
}


def normalized(env: str, returns: Any) -> np.ndarray:
    """Returns as scores: 0 and 1 are the environment's references. None is NaN: a seed without a return."""
    reference = REFERENCES[env]
    return (np.asarray(returns, np.float64) - reference.low) / (reference.high - reference.low)


def group_scores(rows: Rows) -> dict[str, dict[str, np.ndarray]]:
    """Scores [S, C] of each agent in each group of environments.

    A group's cells are those of its environments that the table has. An agent counts where it has all of them: over
    fewer it could not be compared. Of agents with different numbers of seeds the first ones are taken.
    """
    present = {row["env"] for row in rows.values()}
    result: dict[str, dict[str, np.ndarray]] = {}
    for group, members in GROUPS.items():
        envs = [env for env in members if env in present]
        for agent in AGENTS if envs else ():
            found = [rows[f"{env}/{agent}"] for env in envs if f"{env}/{agent}" in rows]
            if len(found) == len(envs):
                num = min(len(row["final_returns"]) for row in found)
                columns = [normalized(row["env"], row["final_returns"][:num]) for row in found]
                result.setdefault(group, {})[agent] = np.stack(columns, 1)
    return result


def aggregate(rows: Rows) -> dict[str, Any]:
    """IQM of normalised scores per group and agent, with stratified bootstrap intervals, as plain data."""
    result: dict[str, Any] = {}
    for group, agents in group_scores(rows).items():
        envs = [env for env in GROUPS[group] if any(row["env"] == env for row in rows.values())]
        estimates = {agent: stratified_bootstrap(scores) for agent, scores in agents.items()}
        result[group] = {"envs": envs} | {
            agent: {"iqm": float(e.point), "interval_95": [float(e.low), float(e.high)]}
            for agent, e in estimates.items()
        }
    return result


def profiles(rows: Rows, thresholds: np.ndarray = THRESHOLDS) -> dict[str, dict[str, Estimate]]:
    """Share of an agent's runs above each threshold of the normalised score, per group: arrays [N]."""
    return {
        group: {agent: performance_profile(scores, thresholds) for agent, scores in agents.items()}
        for group, agents in group_scores(rows).items()
    }


def markdown(rows: Rows, command: str) -> str:
    """The table as a page: one line per environment and agent, best first."""
    lines = [
        f"Made by `{command}`: returns of training episodes, exploration included, mean over the last",
        "tenth of updates; interquartile mean over seeds and its 95 % bootstrap interval. Settings: of `preset`, as",
        "`jaxrl config AGENT ENV` shows them; `ours`, found by small sweeps with other seeds; or published ones.",
        "",
        "| environment | agent | steps | IQM return | 95 % interval | seeds | goal | settings |",
        "| --- | --- | ---: | ---: | --- | ---: | --- | --- |",
    ]
    for env in dict.fromkeys(row["env"] for row in rows.values()):
        mine = [row for row in rows.values() if row["env"] == env]
        for row in sorted(mine, key=lambda row: -np.nan_to_num(_number(row["final_return_iqm"]), nan=-np.inf)):
            iqm, low, high = (_number(value) for value in (row["final_return_iqm"], *row["interval_95"]))
            lines.append(
                f"| {env} | `{row['agent']}` | {row['num_env_steps']:,} | {iqm:.2f} | {low:.2f} to {high:.2f} | "
                f"{len(row['seeds'])} | {_verdict(row)} | {row['source']} |"
            )
    missed = [f"{row['env']}/{row['agent']}" for row in rows.values() if row["reached"] is False]
    notes = [f"- `{key}`: {SHORTFALLS[key]}" for key in missed if key in SHORTFALLS]
    if notes:
        lines += ["", "Where a goal was not met:", "", *notes]
    return "\n".join(lines) + "\n"


def _verdict(row: Mapping[str, Any]) -> str:
    reference = REFERENCES[row["env"]]
    if reference.goal is None:
        return ""
    if row["reached"] is None:
        return f"{reference.goal:g} at {reference.goal_steps:,}"
    return f"{reference.goal:g}: {'met' if row['reached'] else 'not met'}"


def draw(rows: Rows, arrays: Mapping[str, np.ndarray], directory: Path, prefix: str) -> list[Path]:
    """Writes `<prefix>_<env>.png` for each environment, `<prefix>_iqm.png` and `<prefix>_profiles.png`."""
    caption = _caption(rows)
    written = []
    for env in dict.fromkeys(row["env"] for row in rows.values()):
        path = directory / f"{prefix}_{env.replace('/', '_')}.png"
        _save(_learning_curves(env, rows, arrays), caption, path)
        written.append(path)
    for name, figure in (("iqm", _iqms(rows)), ("profiles", _profiles(rows))):
        if figure is not None:
            path = directory / f"{prefix}_{name}.png"
            _save(figure, caption, path)
            written.append(path)
    return written


def _learning_curves(env: str, rows: Rows, arrays: Mapping[str, np.ndarray]) -> Figure:
    figure, (axes,) = _panels(1, (8.6, 4.6))
    agents = [agent for agent in AGENTS if f"{env}/{agent}" in rows]
    finals = {
        agent: np.nan_to_num(_number(rows[f"{env}/{agent}"]["final_return_iqm"]), nan=-np.inf) for agent in agents
    }
    lengths = []
    for agent in sorted(agents, key=lambda name: -finals[name]):
        steps, returns = (arrays[f"{env}/{agent}/{name}"] for name in ("steps", "returns"))
        row = rows[f"{env}/{agent}"]
        low, high = (_number(bound) for bound in row["interval_95"])
        interval = "" if np.isnan(low) else f" [{low:.4g}, {high:.4g}]"
        estimate = bootstrap(returns, num_resamples=500)
        _line(axes, agent, steps, estimate, f"{agent}\n{_number(row['final_return_iqm']):.4g}{interval}")
        lengths.append(steps[-1])
    reference = REFERENCES[env]
    axes.axhline(reference.high, color="#909090", linewidth=0.8, linestyle=":", zorder=1)
    axes.axhline(reference.low, color="#909090", linewidth=0.8, linestyle=":", zorder=1)
    if max(lengths) > 4 * min(lengths):
        axes.set_xscale("log")
    _ticks(axes)
    axes.set_title(f"{env}: training returns", loc="left", fontsize=11)
    axes.set(xlabel="environment steps", ylabel="episode return")
    _legend(figure, axes, "final: IQM [95 % interval]")
    return figure


def _iqms(rows: Rows) -> Figure | None:
    groups = aggregate(rows)
    if not groups:
        return None
    most = max(len(values) - 1 for values in groups.values())
    figure, panels = _panels(len(groups), (3.0 * len(groups) + 1.2, 1.6 + 0.3 * most))
    for axes, (group, values) in zip(panels, groups.items(), strict=True):
        names = sorted((n for n in values if n != "envs"), key=lambda name: _number(values[name]["iqm"]))
        for height, agent in enumerate(names):
            colour, _ = LOOKS[agent]
            low, high = (_number(bound) for bound in values[agent]["interval_95"])
            axes.plot([low, high], [height, height], color=colour, linewidth=6, alpha=0.35, solid_capstyle="butt")
            axes.plot(values[agent]["iqm"], height, "|", color=colour, markersize=13, markeredgewidth=2.2)
        axes.axvline(1.0, color="#909090", linewidth=0.8, linestyle=":", zorder=1)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - most - 0.7, len(names) - 0.3)
        axes.set_title(f"{group} ({len(values['envs'])})", loc="left", fontsize=10)
        axes.set_xlabel("normalised score, IQM")
        axes.grid(axis="x", color="#E4E4E4", linewidth=0.7)
    return figure


def _profiles(rows: Rows) -> Figure | None:
    groups = profiles(rows)
    if not groups:
        return None
    figure, panels = _panels(len(groups), (3.4 * len(groups) + 1.4, 3.9), sharey=True)
    for axes, (group, agents) in zip(panels, groups.items(), strict=True):
        for agent, estimate in agents.items():
            _line(axes, agent, THRESHOLDS, estimate, agent)
        axes.axvline(1.0, color="#909090", linewidth=0.8, linestyle=":", zorder=1)
        axes.set_title(group, loc="left", fontsize=10)
        axes.set(xlabel="normalised score τ", ylim=(-0.03, 1.03), xlim=(THRESHOLDS[0], THRESHOLDS[-1]))
        axes.legend(frameon=False, fontsize=7, loc="lower left", handlelength=2.8)
    panels[0].set_ylabel("share of runs with a score above τ")
    return figure


def _panels(num: int, size: tuple[float, float], sharey: bool = False) -> tuple[Figure, list[Axes]]:
    # Without pyplot no window system is touched and no figure is kept alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(1, num, squeeze=False, sharey=sharey)[0])
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
    return figure, panels


def _line(axes: Axes, agent: str, x: np.ndarray, estimate: Estimate, label: str) -> None:
    colour, style = LOOKS[agent]
    axes.fill_between(x, estimate.low, estimate.high, color=colour, alpha=0.09, linewidth=0)
    axes.plot(x, estimate.point, color=colour, linestyle=style, linewidth=1.6, label=label)


def _ticks(axes: Axes) -> None:
    from matplotlib.ticker import EngFormatter

    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.7)


def _legend(figure: Figure, axes: Axes, title: str) -> None:
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside right upper",
        frameon=False,
        fontsize=8,
        handlelength=2.8,
        labelspacing=0.6,
        title=title,
        title_fontsize=8,
        alignment="left",
    )


def _caption(rows: Rows) -> str:
    """What all figures say of where they come from."""
    seeds = sorted({len(row["seeds"]) for row in rows.values()})
    devices = sorted({str(row["device"]["kind"]) for row in rows.values() if "device" in row})
    found = {tuple(row["commit"].partition("+")) for row in rows.values() if "commit" in row}
    commits = sorted(f"{name[:10]}{plus}{changes}" for name, plus, changes in found)
    parts = [
        f"IQM and 95 % bootstrap intervals over {' or '.join(map(str, seeds))} seeds",
        "dotted: the reference scores",
        *([f"on {', '.join(devices)}"] if devices else []),
        *([f"commit {', '.join(commits)}"] if len(commits) in (1, 2) else []),
        "python -m experiments.benchmark_agents",
    ]
    return "; ".join(parts)


def _save(figure: Figure, caption: str, path: Path) -> None:
    figure.supxlabel(caption, x=0.01, ha="left", fontsize=6, color="#666666")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _number(value: Any) -> float:
    """Of a JSON file: null is NaN, and infinities are strings."""
    return float("nan") if value is None else float(value)
