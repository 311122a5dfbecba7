"""One measurement of ours in a process of its own: `python -m experiments.benchmarks.ours '{"algorithm": …}'`."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np


def main(
    algorithm: str,
    env: str,
    seeds: int,
    total_steps: int,
    chunks: int,
    settings: dict[str, Any],
    layout: list[int] | None = None,
) -> dict[str, Any]:
    """Trains through the runner `chunks` times over, and says what it cost.

    Args:
      algorithm, env: names.
      seeds: agents.
      total_steps: environment steps of each in one measured piece; `fill_steps` of `settings` come before it, and
        outside of what is timed.
      chunks: measured pieces.
      settings: of the algorithm.
      layout: devices, and runs side by side on each (0 is all); chosen for the hardware by default.
    Returns:
      `compile_seconds` (of the initial state and of the update, and what making the initial states takes),
      `steps_per_second` (median of the pieces), `best_steps_per_second`, `peak_megabytes`, `layout`, and, as the final
      states have counted them, `env_steps` and `updates` of one agent in one piece.
    """
    from experiments.benchmarks.harness import peak_megabytes
    from jaxrl import make_env
    from jaxrl.execution import Options
    from jaxrl.plan import make_plan
    from jaxrl.runner import executions
    from jaxrl.runtime import use_all_cores

    use_all_cores()
    environment = make_env(env)
    whole = {**settings, "total_steps": settings.get("fill_steps", 0) + total_steps}
    plan = make_plan(algorithm, env, seeds, whole, {}, environment.default_params)
    num_devices, batch = layout or (None, None)
    options = Options(num_chunks=1, num_devices=num_devices, batch=batch)
    [execution] = executions(plan, environment, options, None)
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
        **counted(outcomes[-1], settings.get("fill_steps", 0)),
    }


def counted(outcome: Any, fill_steps: int) -> dict[str, int]:
    """What the first agent has done, from what its state and its metrics say, not from what was asked.

    Off-policy, environment steps are those that the buffer holds (it must not have been full) less the filling;
    on-policy, the lengths of all episodes, ended and under way. Updates are those of the (critic's) optimiser.
    """
    state = outcome.state
    adam = getattr(state.agent, "critic_opt", None) or state.agent.opt_state
    updates = {int(np.asarray(part.count)[0]) for part in adam if "count" in getattr(part, "_fields", ())}
    if hasattr(state, "buffer"):
        rows = int(np.asarray(state.buffer.size)[0])
        steps = rows * state.buffer.data.reward.shape[2] - fill_steps
    else:
        ended = {name: np.asarray(outcome.metrics[f"episode/{name}"])[0, 0] for name in ("length", "count")}
        now = state.interaction
        under_way = np.where(np.asarray(now.is_first)[0], 0, np.asarray(now.episode_length)[0]).sum()
        steps = round(float(np.nansum(ended["length"] * ended["count"]) + under_way))
    return {"env_steps": steps, "updates": updates.pop()}


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))
