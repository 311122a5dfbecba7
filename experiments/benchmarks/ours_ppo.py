"""One measurement of our PPO in a process of its own: `python -m experiments.benchmarks.ours_ppo '{"seeds": 1, …}'`."""

from __future__ import annotations

import json
import sys
import time

PROCESS_START = time.perf_counter()


def main(
    seeds: int, total_steps: int, chunks: int, settings: dict, grid: dict | None = None, layout: list | None = None
) -> dict:
    """Trains through the runner, and says what it cost."""
    from experiments.benchmarks.harness import peak_megabytes
    from jaxrl import make_env
    from jaxrl.plan import make_plan
    from jaxrl.runner import Options, executions
    from jaxrl.runtime import use_all_cores

    use_all_cores()
    env = make_env("CartPole-v1")
    settings = {**settings, "total_steps": total_steps * chunks}
    plan = make_plan("ppo", "CartPole-v1", seeds, settings, grid or {}, env.default_params)
    num_devices, batch = layout or (None, None)
    [execution] = executions(plan, env, Options(num_chunks=chunks, num_devices=num_devices, batch=batch), None)
    rates = []
    outcome = execution.run(lambda steps, seconds, rows: rates.append(steps / seconds))
    rates.sort()
    return {
        "compile_seconds": outcome.compile_seconds,
        "steps_per_second": rates[len(rates) // 2],
        "best_steps_per_second": rates[-1],
        "process_seconds": time.perf_counter() - PROCESS_START,
        "peak_megabytes": peak_megabytes(),
        "layout": list(execution.layout),
    }


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))
