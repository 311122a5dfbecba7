"""What the benchmarks' files say, key by key: which figures the README's table shows, and what they should be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from experiments.benchmarks.agents import PAIRS


class Bound(NamedTuple):
    """What a figure should be: at least or at most so much; on GPUs possibly another number."""

    at_least: bool
    number: float
    on_gpu: float | None = None


def at_least(number: float, on_gpu: float | None = None) -> Bound:
    """A lower bound."""
    return Bound(True, number, on_gpu)


def at_most(number: float) -> Bound:
    """An upper bound."""
    return Bound(False, number)


class Figure(NamedTuple):
    """One kind of row. All but `unit`, `who` and `bound` are templates, in which {0}, {1}, … are the pattern's groups.

    Attributes:
      pattern: a key that is there if the row is, as a regular expression of all of it.
      text: what was measured.
      unit: of ours and of the peer's.
      ours, peer, ratio: keys; "" for none. Ratios are ours over theirs, unless the text says otherwise.
      who: the peer, with its version.
      bound: of the ratio if there is one, else of ours; or {value of the first group: bound}.
    """

    pattern: str
    text: str
    unit: str = ""
    ours: str = ""
    peer: str = ""
    ratio: str = ""
    who: str = ""
    bound: Bound | Mapping[str, Bound] | None = None


def alone(key: str, text: str, unit: str = "", bound: Bound | None = None) -> Figure:
    """A figure without a peer."""
    return Figure(re.escape(key), text, unit, ours=key, bound=bound)


def ratio_only(key: str, text: str, who: str = "", bound: Bound | None = None) -> Figure:
    """A ratio whose two sides are not shown."""
    return Figure(re.escape(key), text, ratio=key, who=who, bound=bound)


_REJAX, _QDAX, _EVOSAX = "rejax 0.1.3", "qdax 0.5.0", "evosax 0.3"
_SINGLE = "PPO in a single file"
_FAST = {"1": at_least(1.2), "16": at_least(1.5), "64": at_least(1.5)}
AREAS: dict[str, tuple[Figure, ...]] = {
    "ppo": (
        Figure(r"speed_ratio_rejax_(\d+)_(.+)", "PPO, CartPole-v1, shape {1}, seeds: {0}; environment steps", "/s",
               "steps_per_second_ours_{0}_{1}", "steps_per_second_rejax_{0}_{1}", "speed_ratio_rejax_{0}_{1}", _REJAX,
               _FAST),
        Figure(r"compile_ratio_rejax_(\d+)_(.+)", "PPO, CartPole-v1, shape {1}, seeds: {0}; compilation", "s",
               "compile_seconds_ours_{0}_{1}", "compile_seconds_rejax_{0}_{1}", "compile_ratio_rejax_{0}_{1}", _REJAX,
               at_most(1.0)),
        Figure(r"memory_ratio_rejax_(\d+)_(.+)", "PPO, CartPole-v1, shape {1}, seeds: {0}; peak memory", "MB",
               "peak_megabytes_ours_{0}_{1}", "peak_megabytes_rejax_{0}_{1}", "memory_ratio_rejax_{0}_{1}", _REJAX),
        Figure("per_agent_end_to_end_48", "48 agents of 102,400 steps by one command, per agent, over one alone; start "
               "and compilation included", "s", "seconds_48", "seconds_1", "per_agent_end_to_end_48",
               "one agent of ours", at_most(0.2)),
        Figure("steady_ratio_48", "48 agents; environment steps of all together, compilation left out", "/s",
               "steps_per_second_48", "steps_per_second_1", "steady_ratio_48", "one agent of ours", at_least(2.0)),
    ),
    "agents": (
        *(Figure(rf"speed_ratio_rejax_({name})_(\d+)", f"`{name}`, {pair.env}, seeds: {{1}}; environment steps", "/s",
                 "steps_per_second_ours_{0}_{1}", "steps_per_second_rejax_{0}_{1}", "speed_ratio_rejax_{0}_{1}", _REJAX,
                 at_least(1.0)) for name, pair in PAIRS.items()),
        *(Figure(rf"compile_ratio_rejax_({name})_(\d+)", f"`{name}`, {pair.env}, seeds: {{1}}; compilation", "s",
                 "compile_seconds_ours_{0}_{1}", "compile_seconds_rejax_{0}_{1}", "compile_ratio_rejax_{0}_{1}", _REJAX,
                 at_most(1.0)) for name, pair in PAIRS.items()),
    ),
    "meta": (
        Figure("groove_over_lpg_step_ratio", "a meta-step of GROOVE, beside one of LPG", "s",
               "groove_seconds_per_meta_step", "lpg_seconds_per_meta_step", "groove_over_lpg_step_ratio", "LPG of ours",
               at_most(3.0)),
        alone("lpg_compile_seconds", "compilation of a meta-step of GROOVE, 8 lifetimes", "s", at_most(60.0)),
        alone("meta_gradient_temp_bytes", "temporary memory of a meta-step at the published size", "B",
              at_most(16.0 * 2**30)),
        alone("lpg_env_steps_per_second", "meta-training of LPG, environment steps", "/s"),
        alone("es_env_steps_per_second", "a generation of evolved TA-LPG, environment steps", "/s"),
    ),
    "qd": (
        alone("insert_ms_grid_4096_10000", "4,096 individuals enter 10,000 cells, lookup included", "ms",
              at_most(2.0)),
        Figure("insert_ratio_qdax", "4,096 individuals enter 10,000 cells: theirs over ours", "ms",
               "insert_ms_grid_4096_10000", "insert_ms_grid_4096_10000_qdax", "insert_ratio_qdax", _QDAX,
               at_least(100.0)),
        Figure("arm_evals_ratio_qdax", "MAP-Elites on the arm, evaluations", "/s", "arm_evals_per_second_ours",
               "arm_evals_per_second_qdax", "arm_evals_ratio_qdax", _QDAX, at_least(3.0)),
        Figure("arm_evals_ratio_ribs", "MAP-Elites on the arm, evaluations", "/s", "arm_evals_per_second_ours",
               "arm_evals_per_second_ribs", "arm_evals_ratio_ribs", "pyribs 0.12"),
        ratio_only("vmap8_over_8runs", "8 seeds of DCRL-MAP-Elites under one `vmap`, over 8 runs; seconds",
                   "8 runs of ours", at_most(1.0)),
        ratio_only("sweep8_over_8runs", "8 seeds of DCRL-MAP-Elites by one command, over 8 runs; seconds, compilation "
                   "left out", "8 runs of ours"),
        ratio_only("vmap8_over_8runs_compiling", "8 seeds of DCRL-MAP-Elites under one `vmap`, over 8 runs; with "
                   "compilation", "8 runs of ours"),
        Figure("dcrl_compile_ratio_qdax_mended", "compilation of an iteration of DCRL-MAP-Elites on walker2d_uni", "s",
               "dcrl_compile_seconds_ours", "dcrl_compile_seconds_qdax", "dcrl_compile_ratio_qdax_mended",
               f"{_QDAX}, mended to import", at_most(0.5)),
        Figure(r"evaluations_per_second_(.+)_(\d+)", "MAP-Elites on {0}, {1} offspring per iteration; episodes of 250 "
               "steps", "/s", "evaluations_per_second_{0}_{1}"),
        Figure("dcrl_iteration_seconds_ours", "an iteration of DCRL-MAP-Elites on walker2d_uni", "s",
               "dcrl_iteration_seconds_ours", "dcrl_iteration_seconds_qdax", "", f"{_QDAX}, mended to import"),
    ),
    "neuroevolution": (
        Figure(r"(ga|es)_(cartpole|hard_maze)_(\d+)", "{0} on {1}, population {2}; generations, ours on all cores; "
               "ratio at equal lengths of episodes", "/s", "{0}_{1}_{2}_generations_per_second", "", "{0}_{1}_{2}",
               _EVOSAX, at_least(1.5)),
        Figure(r"(ga|es)_one_core_(cartpole|hard_maze)_(\d+)", "{0} on {1}, population {2}; generations, on one core",
               ratio="{0}_one_core_{1}_{2}", who=_EVOSAX),
        Figure(r"reevaluation_cost_(cartpole|hard_maze)_(\d+)", "a generation with the elite evaluated again, over one "
               "without; {0}, population {1}", ratio="reevaluation_cost_{0}_{1}", who="ours without"),
        alone("peak_mb_d1e6_p1024", "peak memory of a generation of 1,024 individuals of 1,000,000 parameters", "MB",
              at_most(500.0)),
        alone("reconstruct_ms_4m_100", "4,052,658 parameters rebuilt from the seeds of 100 generations", "ms"),
    ),
    "mean_field": (
        Figure(r"agent_steps_per_second_(vicsek|kuramoto)_(1e\d)", "{1} agents of {0}, neighbours on a grid; agents "
               "times steps (on GPUs a hundred steps per call)", "/s", "agent_steps_per_second_{0}_{1}",
               bound=at_least(2e6, on_gpu=3e9)),
        Figure(r"peak_mb_(vicsek|kuramoto)_1e6", "1,000,000 agents of {0}; peak memory above what imports take", "MB",
               "peak_mb_{0}_1e6"),
        alone("grid_rms_4096_g256", "error of a grid of 256 x 256 cells against all pairs, 4,096 agents; root mean "
              "square", "", at_most(0.025)),
        Figure(r"train_peak_mb_(1e\d)", "training on Vicsek with {0} agents; peak memory above what imports take", "MB",
               "train_peak_mb_{0}"),
    ),
    "scale": (
        Figure(r"per_agent_speedup_(\d+)", "{0} PPO agents by one command: one alone over each of them, start "
               "and compilation included", "s", "seconds_{0}_agents", "seconds_1_agent", "per_agent_speedup_{0}",
               "one agent of ours", at_least(5.0)),
        Figure(r"steady_ratio_(\d+)", "{0} PPO agents; environment steps of all together, over one's",
               ratio="steady_ratio_{0}", who="one agent of ours"),
        Figure(r"agents_per_minute_(\d+)", "{0} PPO agents by one command; agents", "/min", "agents_per_minute_{0}"),
        alone("help_seconds", "`jaxrl --help`", "s", at_most(0.5)),
        alone("import_over_jax_seconds", "`import jaxrl`, above `import jax`", "s", at_most(1.0)),
        Figure("warm_start_seconds", "a short training whose programs are compiled already, beside the first", "s",
               "warm_start_seconds", "cold_start_seconds", "", "its first start"),
        Figure(r"speed_ratio_single_file_(\d+)", "PPO, CartPole-v1, seeds: {0}; environment steps", "/s",
               "steps_per_second_single_file_ours_{0}", "steps_per_second_single_file_single_file_{0}",
               "speed_ratio_single_file_{0}", _SINGLE),
        Figure(r"compile_ratio_single_file_(\d+)", "PPO, CartPole-v1, seeds: {0}; compilation", "s",
               "compile_seconds_single_file_ours_{0}", "compile_seconds_single_file_single_file_{0}",
               "compile_ratio_single_file_{0}", _SINGLE),
        alone("single_file_failed_at_seeds", "seeds with which one of the two sides did not come to an end"),
    ),
}  # fmt: skip
