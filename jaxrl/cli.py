"""The command line: the same verbs for every algorithm. JAX is imported only by the verbs that compute."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, UseAppendAction, arg

from jaxrl.arguments import (
    Algorithm,
    Cell,
    Chunks,
    Descriptor,
    Distributed,
    Env,
    Evaluations,
    FirstSeed,
    MaxMemory,
    Objective,
    Out,
    RunPath,
    Seed,
    Seeds,
    Settings,
    Steps,
    parse_assignments,
    parse_grid,
    parse_numbers,
    parse_value,
)


def train(
    algorithm: Algorithm,
    env: Env,
    seeds: Seeds = 1,
    first_seed: FirstSeed = 0,
    settings: Settings = (),
    steps: Steps = None,
    objective: Objective = None,
    out: Out = None,
    evaluations: Evaluations = 0,
    chunks: Chunks = 20,
    max_memory: MaxMemory = None,
    distributed: Distributed = False,
) -> None:
    """Train one setting, with one seed or many.

    Example: jaxrl train ppo CartPole-v1 --seeds 8 --set learning_rate=1e-3 --steps 200000
    """
    _sweep(
        algorithm,
        env,
        (),
        seeds,
        first_seed,
        settings,
        steps,
        objective,
        out,
        evaluations,
        chunks,
        max_memory,
        distributed,
    )


def sweep(
    algorithm: Algorithm,
    env: Env,
    grid: Annotated[
        UseAppendAction[tuple[tuple[str, ...], ...]],
        arg(
            metavar="NAME=V1,V2,…", help="Swept settings; the cells are their product. Tuples: hidden_sizes=64x64,256."
        ),
    ] = (),
    seeds: Seeds = 8,
    first_seed: FirstSeed = 0,
    settings: Settings = (),
    steps: Steps = None,
    objective: Objective = None,
    out: Out = None,
    evaluations: Evaluations = 0,
    chunks: Chunks = 20,
    max_memory: MaxMemory = None,
    distributed: Distributed = False,
) -> None:
    """Train every cell of a grid with every seed; numbers are swept inside one compiled program.

    Example: jaxrl sweep ppo CartPole-v1 --grid learning_rate=1e-4,3e-4,1e-3 clip_eps=0.1,0.2 --seeds 8
    """
    if not grid:
        raise ValueError("sweep needs a grid, as in --grid learning_rate=1e-4,1e-3; `jaxrl train` runs one setting")
    how = (out, evaluations, chunks, max_memory, distributed)
    _sweep(algorithm, env, sum(grid, ()), seeds, first_seed, settings, steps, objective, *how)


def launch(
    algorithms: Annotated[Positional[str], arg(metavar="A1,A2,…", help="Names of `jaxrl list algorithms`.")],
    envs: Annotated[Positional[str], arg(metavar="E1,E2,…", help="Names of `jaxrl list envs`.")],
    out: Annotated[Path, arg(metavar="DIR", help="The folder of the run directories.")],
    grid: Annotated[
        UseAppendAction[tuple[tuple[str, ...], ...]],
        arg(
            metavar="NAME=V1,V2,…",
            help="Swept settings: numbers inside a run, others in a run each. With an algorithm before it, "
            "ppo.clip_eps=0.1,0.2, for that one only.",
        ),
    ] = (),
    seeds: Seeds = 8,
    settings: Settings = (),
    steps: Steps = None,
    chunks: Chunks = 20,
    max_memory: MaxMemory = None,
    jobs: Annotated[int, arg(metavar="N", help="Runs at once; here each uses all cores.")] = 1,
    cluster: Annotated[
        Literal["local", "slurm"], arg(help="Where: processes of this machine, or jobs of Slurm.")
    ] = "local",
    cluster_options: Annotated[
        UseAppendAction[tuple[tuple[str, ...], ...]],
        arg(metavar="NAME=VALUE", help="Of submitit, as slurm_partition=gpu gpus_per_node=1 timeout_min=240."),
    ] = (),
) -> None:
    """Train several algorithms on several environments, each in its own process; again: only what is missing.

    Example: jaxrl launch ppo,dqn CartPole-v1,Acrobot-v1 --grid hidden_sizes=64x64,256 --out runs/suite
    """
    from rich.console import Console

    from jaxrl.launcher import launch as launch_runs

    fixed = {name: parse_value(value) for name, value in parse_assignments(settings).items()}
    if steps is not None:
        fixed["total_steps"] = steps
    found = launch_runs(
        [name for name in algorithms.split(",") if name],
        [name for name in envs.split(",") if name],
        out=out,
        seeds=seeds,
        grid=parse_grid(sum(grid, ())),
        settings=fixed,
        options={"num_chunks": chunks, "max_memory": max_memory},
        jobs=jobs,
        cluster=cluster,
        cluster_options={n: parse_value(v) for n, v in parse_assignments(sum(cluster_options, ())).items()},
    )
    Console().print(found.table())
    for name, why in found.failures.items():
        print(f"jaxrl: {name} failed: {why}", file=sys.stderr)
    if found.failures:
        sys.exit(1)


def resume(run: RunPath, distributed: Distributed = False) -> None:
    """Finish an interrupted run; the result equals that of an uninterrupted one bit for bit."""
    _start(distributed)
    import jaxrl

    _show(jaxrl.resume(run), run)


def evaluate(
    run: RunPath,
    episodes: Annotated[int, arg(metavar="N", help="Greedy episodes.")] = 32,
    cell: Cell = None,
    seed: Seed = None,
    descriptor: Descriptor = None,
) -> None:
    """Play a trained policy, without exploration, and print its returns."""
    _start()
    import jaxrl

    played = jaxrl.load_run(run).evaluate(episodes, cell, seed, descriptor=parse_numbers(descriptor))
    ended = "" if played.ended.all() else f"; {(~played.ended).sum()} did not end"
    print(
        f"{episodes} greedy episodes: return mean {played.returns.mean():.2f}, std {played.returns.std():.2f}, "
        f"min {played.returns.min():.2f}, max {played.returns.max():.2f}; "
        f"length mean {played.lengths.mean():.1f}{ended}"
    )


def render(
    run: RunPath,
    out: Annotated[Path | None, arg(metavar="FILE", help=".gif, or .html with a player.")] = None,
    cell: Cell = None,
    seed: Seed = None,
    max_steps: Annotated[int, arg(metavar="N", help="Longest episode shown.")] = 500,
    descriptor: Descriptor = None,
) -> None:
    """Write a replay of one greedy episode.

    Example: jaxrl render runs/archive --descriptor 10,-5 --out there.html
    """
    _start()
    import jaxrl

    print(jaxrl.load_run(run).render(out, cell, seed, max_steps=max_steps, descriptor=parse_numbers(descriptor)))


def rule(
    run: RunPath,
    out: Annotated[Path, arg(metavar="FILE.npz", help="The rule file to write.")],
    cell: Cell = None,
    seed: Seed = None,
) -> None:
    """Write the rule that a run of meta-training has learned to a file, for `--objective`.

    Example: jaxrl rule runs/lpg --out my_rule.npz && jaxrl train a2c CartPole-v1 --objective my_rule.npz
    """
    _start()
    import jaxrl

    jaxrl.save_rule(out, jaxrl.load_run(run).rule(cell, seed))
    print(f"{out}: {jaxrl.load_rule(out).provenance['summary']}")


def champion(
    run: RunPath,
    out: Annotated[Path, arg(metavar="FILE.npz", help="The file to write: a few kilobytes.")],
    cell: Cell = None,
    seed: Seed = None,
) -> None:
    """Write the policy that a genetic algorithm has found to a file, as the list of its seeds.

    Example: jaxrl champion runs/ga --out champion.npz; in Python, jaxrl.load_champion("champion.npz").policy()
    """
    _start()
    import jaxrl

    found = jaxrl.load_run(run).champion(cell, seed)
    jaxrl.save_champion(out, found)
    print(f"{out}: {len(found.genome.seeds)} seeds, {found.codec['size']} parameters, fitness {found.fitness:g}")


def plot(
    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN", help="Run directories.")],
    out: Annotated[Path | None, arg(metavar="FILE", help="PNG; with one run by default in its figures/.")] = None,
    metric: Annotated[
        str | None, arg(metavar="NAME", help="A metric of the run; by default what it is judged by.")
    ] = None,
) -> None:
    """Draw learning curves: the IQM over seeds with its interval. Several runs share one picture.

    Of one run that evolved a population, its fitness over generations, too: best, elite and median.
    """
    from jaxrl.fitness_plots import has_fitness, plot_fitness
    from jaxrl.plotting import compare
    from jaxrl.results import Results

    if not runs:
        raise ValueError("plot needs at least one run directory, as in `jaxrl plot runs/demo`")
    loaded = {str(path): Results.load(path) for path in runs}
    target = out or (runs[0] / "figures" / "learning_curves.png" if len(runs) == 1 else Path("learning_curves.png"))
    if len(loaded) == 1:
        results = loaded[str(runs[0])]
        results.plot(target, metric=metric)
        if has_fitness(results):
            name = "fitness" if out is None else f"{out.stem}_fitness"
            plot_fitness(results, target.with_name(name + target.suffix))
            print(target.with_name(name + target.suffix))
    else:
        compare(loaded, target, metric=metric)
    print(target)


def report(
    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN", help="Run directories.")],
    out: Annotated[
        Path | None, arg(metavar="FILE.html", help="The page; of one run by default report.html in its directory.")
    ] = None,
    replays: Annotated[
        int | None,
        arg(metavar="N", help="Episodes to record of each run; by default 4, or 40 cells of an archive. 0: none."),
    ] = None,
    metric: Annotated[str | None, arg(metavar="NAME", help="What to judge by; by default what each run is.")] = None,
    max_steps: Annotated[int, arg(metavar="N", help="Longest episode shown.")] = 500,
) -> None:
    """Write one page about finished runs, with charts and replays inside, that needs no network.

    Example: jaxrl report runs/demo runs/other --out report.html
    """
    if not runs:
        raise ValueError("report needs at least one run directory, as in `jaxrl report runs/demo`")
    _start()
    import jaxrl

    page = jaxrl.report(runs, out, replays=replays, metric=metric, max_steps=max_steps)
    print(f"{page} ({page.stat().st_size / 1e6:.1f} MB)")


def list_(
    what: Annotated[
        Positional[Literal["algorithms", "agents", "envs", "objectives"]], arg(metavar="WHAT", help="What to list.")
    ],
) -> None:
    """List algorithms (with the actions that each takes), environments, or objectives and shipped rules."""
    if what == "envs":
        from jaxrl.adapters import list_envs

        print("\n".join(list_envs()))
        return
    from jaxrl.objectives import OBJECTIVES
    from jaxrl.presets import PRESETS

    if what == "objectives":
        from jaxrl.rules import describe_rule, list_rules

        print("\n".join([*sorted(OBJECTIVES), *(f"{name:16} {describe_rule(name)}" for name in list_rules())]))
        return
    for name, preset in PRESETS.items():
        print(f"{name:9} {preset.action_spaces:29} {preset.summary}  [{preset.reference}]")


def config(algorithm: Algorithm, env: Env) -> None:
    """Print every setting with its value for an environment, its meaning and its source."""
    import rich.box
    from rich.console import Console
    from rich.table import Table

    from jaxrl.adapters import full_name, make_env
    from jaxrl.plan import ENV_PREFIX, env_numbers, suited
    from jaxrl.presets import find_preset

    preset, env = find_preset(algorithm), full_name(env)
    chosen = suited(preset, env)
    table = Table("setting", "value", "kind", "meaning", "source", box=rich.box.SIMPLE_HEAD)
    for kind, defaults in (("number, swept in one program", preset.hparams), ("fixes the program", preset.config)):
        for field in dataclasses.fields(defaults):
            value, suits = chosen.get(field.name, (getattr(defaults, field.name), ""))
            source = f"for {suits}" if suits else field.metadata["source"]
            table.add_row(field.name, _shown(value), kind, field.metadata["help"], source)
    for name, value in env_numbers(make_env(env).default_params).items():
        table.add_row(ENV_PREFIX + name, f"{value:g}", "number, swept in one program", f"parameter of {env}", env)
    console = Console()
    console.print(table) if console.is_terminal else Console(width=160).print(table)


def main(args: list[str] | None = None) -> None:
    """Entry point of the command `jaxrl`."""
    verbs: dict[str, Any] = {
        "train": train,
        "sweep": sweep,
        "launch": launch,
        "resume": resume,
        "evaluate": evaluate,
        "render": render,
        "rule": rule,
        "champion": champion,
        "plot": plot,
        "report": report,
        "list": list_,
        "config": config,
    }
    description = "jaxrl: reinforcement learning that runs whole on the accelerator. `jaxrl VERB --help` says more."
    try:
        tyro.extras.subcommand_cli_from_dict(verbs, prog="jaxrl", description=description, args=args)
    except ValueError as error:  # the user's mistakes, which say what to do; all else keeps its traceback
        print(f"jaxrl: {error}", file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        from jaxrl.hosts import ProcessLostError

        if not isinstance(error, ProcessLostError):
            raise
        print(f"jaxrl: {error}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(3)  # JAX would wait for the lost process before it ends this one
    except KeyboardInterrupt:
        print("jaxrl: interrupted; `jaxrl resume RUN` goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)


def _sweep(
    algorithm: str,
    env: str,
    grid: tuple[str, ...],
    seeds: int,
    first_seed: int,
    settings: tuple[str, ...],
    steps: int | None,
    objective: str | None,
    out: Path | None,
    evaluations: int,
    chunks: int,
    max_memory: float | None,
    distributed: bool,
) -> None:
    fixed = {name: parse_value(value) for name, value in parse_assignments(settings).items()}
    for name, given in (("total_steps", steps), ("objective", objective)):
        if given is not None:
            if name in fixed:
                raise ValueError(f"{name} is given twice; give it once")
            fixed[name] = given
    axes = parse_grid(grid)
    if seeds < 1:
        raise ValueError(f"seeds = {seeds}: expected at least one seed, as in --seeds 8")
    _start(distributed)
    import jaxrl
    from jaxrl.execution import Options

    directory = out or _default_directory(algorithm, env)
    results = jaxrl.run_sweep(
        algorithm,
        env,
        seeds=range(first_seed, first_seed + seeds),
        grid=axes,
        settings=fixed,
        out=directory,
        options=Options(num_chunks=chunks, evaluations=evaluations, max_memory=max_memory),
    )
    _show(results, directory)


def _start(distributed: bool = False) -> None:
    from jaxrl.runtime import use_compilation_cache

    if distributed:
        from jaxrl.hosts import use_all_hosts
        from jaxrl.runtime import use_all_cores

        use_all_cores()
        use_all_hosts()
    use_compilation_cache()


def _default_directory(algorithm: str, env: str) -> Path:
    import datetime

    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{algorithm}-{env.replace('/', '_')}-{stamp}"


def _show(results: Any, directory: Path) -> None:
    from rich.console import Console

    Console().print(results.table())
    info = results.info
    print(
        f"{info['steps_per_second']:,.0f} steps/s, compiled in {info['compile_seconds']:.1f} s, "
        f"{info['wall_seconds']:.1f} s in all\n{directory}: summary.json, results.npz, figures/learning_curves.png"
    )


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
