"""One measurement of our PPO in a process of its own: `python -m experiments.benchmarks.ours_ppo '{"seeds": 1, …}'`."""

from __future__ import annotations

import json
import sys


def main(seeds: int, total_steps: int, chunks: int, settings: dict, layout: list | None = None) -> dict:
    """Trains through the runner, and says what it cost."""
    from experiments.benchmarks.harness import peak_megabytes
    from jaxrl import make_env
    from jaxrl.plan import make_plan
    from jaxrl.runner import Options, executions
    from jaxrl.runtime import use_all_cores

    use_all_cores()
    env = make_env("CartPole-v1")
    plan = make_plan("ppo", "CartPole-v1", seeds, {**settings, "total_steps": total_steps}, {}, env.default_params)
    num_devices, batch = layout or (None, None)
    options = Options(num_chunks=1, num_devices=num_devices, batch=batch)
    [execution] = executions(plan, env, options, None)
    rates: list[float] = []
    # Every piece begins with untrained agents, as the peer's does: trained ones balance, and reset less.
    outcomes = [execution.run(lambda steps, seconds, *_: rates.append(steps / seconds)) for _ in range(chunks)]
    rates.sort()
    return {
        "compile_seconds": outcomes[0].compile_seconds,
        "steps_per_second": rates[len(rates) // 2],
        "best_steps_per_second": rates[-1],
        "peak_megabytes": peak_megabytes(),
        "layout": list(execution.layout),
    }


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))
