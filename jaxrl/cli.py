"""The command line: the same verbs for every algorithm. JAX is imported only by the verbs that compute."""

from __future__ import annotations

import ast
import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
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
Cell = Annotated[int | None, arg(metavar="I", help="Cell of the grid; by default the best.")]
Seed = Annotated[int | None, arg(metavar="SEED", help="Which of the run's seeds; by default the first.")]


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
) -> None:
    """Train one setting, with one seed or many.

    Example: jaxrl train ppo CartPole-v1 --seeds 8 --set learning_rate=1e-3 --steps 200000
    """
    _sweep(algorithm, env, (), seeds, first_seed, settings, steps, objective, out, evaluations, chunks)


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
) -> None:
    """Train every cell of a grid with every seed; numbers are swept inside one compiled program.

    Example: jaxrl sweep ppo CartPole-v1 --grid learning_rate=1e-4,3e-4,1e-3 clip_eps=0.1,0.2 --seeds 8
    """
    if not grid:
        raise ValueError("sweep needs a grid, as in --grid learning_rate=1e-4,1e-3; `jaxrl train` runs one setting")
    _sweep(algorithm, env, sum(grid, ()), seeds, first_seed, settings, steps, objective, out, evaluations, chunks)


def resume(run: RunPath) -> None:
    """Finish an interrupted run; the result equals that of an uninterrupted one bit for bit."""
    _start()
    import jaxrl

    _show(jaxrl.resume(run), run)


def evaluate(
    run: RunPath,
    episodes: Annotated[int, arg(metavar="N", help="Greedy episodes.")] = 32,
    cell: Cell = None,
    seed: Seed = None,
) -> None:
    """Play a trained policy, without exploration, and print its returns."""
    _start()
    import jaxrl

    played = jaxrl.load_run(run).evaluate(episodes, cell, seed)
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
) -> None:
    """Write a replay of one greedy episode."""
    _start()
    import jaxrl

    print(jaxrl.load_run(run).render(out, cell, seed, max_steps=max_steps))


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
    from jaxrl.plan import ENV_PREFIX, env_numbers, family
    from jaxrl.presets import find_preset

    preset, env = find_preset(algorithm), full_name(env)
    chosen = {**preset.overrides.get(family(env), {}), **preset.overrides.get(env, {})}
    suited = env if env in preset.overrides else family(env)
    table = Table("setting", "value", "kind", "meaning", "source", box=rich.box.SIMPLE_HEAD)
    for kind, defaults in (("number, swept in one program", preset.hparams), ("fixes the program", preset.config)):
        for field in dataclasses.fields(defaults):
            value = chosen.get(field.name, getattr(defaults, field.name))
            source = f"for {suited}" if field.name in chosen else field.metadata["source"]
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
        "resume": resume,
        "evaluate": evaluate,
        "render": render,
        "rule": rule,
        "champion": champion,
        "plot": plot,
        "list": list_,
        "config": config,
    }
    description = "jaxrl: reinforcement learning that runs whole on the accelerator. `jaxrl VERB --help` says more."
    try:
        tyro.extras.subcommand_cli_from_dict(verbs, prog="jaxrl", description=description, args=args)
    except ValueError as error:  # the user's mistakes, which say what to do; all else keeps its traceback
        print(f"jaxrl: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("jaxrl: interrupted; `jaxrl resume RUN` goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)


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
) -> None:
    fixed = {name: parse_value(value) for name, value in parse_assignments(settings).items()}
    for name, given in (("total_steps", steps), ("objective", objective)):
        if given is not None:
            if name in fixed:
                raise ValueError(f"{name} is given twice; give it once")
            fixed[name] = given
    axes = {
        name: [parse_value(value) for value in values.split(",") if value]
        for name, values in parse_assignments(grid).items()
    }
    if seeds < 1:
        raise ValueError(f"seeds = {seeds}: expected at least one seed, as in --seeds 8")
    _start()
    import jaxrl
    from jaxrl.runner import Options

    directory = out or _default_directory(algorithm, env)
    results = jaxrl.run_sweep(
        algorithm,
        env,
        seeds=range(first_seed, first_seed + seeds),
        grid=axes,
        settings=fixed,
        out=directory,
        options=Options(num_chunks=chunks, evaluations=evaluations),
    )
    _show(results, directory)


def _start() -> None:
    from jaxrl.runtime import use_compilation_cache

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
