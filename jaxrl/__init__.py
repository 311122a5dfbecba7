"""jaxrl: reinforcement learning, meta-learned objectives and evolution as pure JAX functions.

Everything is loaded on first use, so `import jaxrl` costs little.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "Algorithm": "algorithm",
    "train": "algorithm",
    "sweep": "algorithm",
    "with_evaluation": "algorithm",
    "Environment": "env",
    "autoreset": "env",
    "frame_stack": "env",
    "time_limit": "env",
    "vectorize": "env",
    "make_env": "adapters",
    "list_envs": "adapters",
    "to_gymnax": "adapters",
    "check_environment": "env_checks",
    "evaluate": "evaluation",
    "ppo": "presets",
    "PPOConfig": "presets",
    "PPOHparams": "presets",
    "a2c": "presets",
    "dqn": "presets",
    "sac": "presets",
    "td3": "presets",
    "dsac_t": "presets",
    "mdpo_off": "presets",
    "pmoe": "presets",
    "pqn": "presets",
    "DQNConfig": "presets",
    "DQNHparams": "presets",
    "SACConfig": "presets",
    "SACHparams": "presets",
    "TD3Config": "presets",
    "TD3Hparams": "presets",
    "DSACTConfig": "presets",
    "DSACTHparams": "presets",
    "MDPOOffConfig": "presets",
    "MDPOOffHparams": "presets",
    "PMOEConfig": "presets",
    "PMOEHparams": "presets",
    "PQNConfig": "presets",
    "PQNHparams": "presets",
    "lpg": "presets",
    "deep_ga": "presets",
    "DeepGAConfig": "presets",
    "DeepGAHparams": "presets",
    "open_es": "presets",
    "OpenESConfig": "presets",
    "OpenESPolicyHparams": "presets",
    "ns_es": "presets",
    "NoveltyESConfig": "presets",
    "NoveltyESPolicyHparams": "presets",
    "evosax": "presets",
    "EvosaxConfig": "presets",
    "EvosaxHparams": "presets",
    "map_elites": "presets",
    "MapElitesConfig": "presets",
    "MapElitesHparams": "presets",
    "cma_map_elites": "presets",
    "CMAMapElitesConfig": "presets",
    "CMAMapElitesHparams": "presets",
    "dcrl_map_elites": "presets",
    "DCRLConfig": "presets",
    "DCRLHparams": "presets",
    "MetaConfig": "presets",
    "MetaHparams": "presets",
    "mfc_pg": "presets",
    "MFCPGConfig": "presets",
    "MFCPGHparams": "presets",
    "Rule": "rules",
    "load_rule": "rules",
    "save_rule": "rules",
    "list_rules": "rules",
    "Champion": "champions",
    "load_champion": "champions",
    "save_champion": "champions",
    "meta_test": "meta_testing",
    "run": "runs",
    "run_sweep": "runs",
    "resume": "runs",
    "load_run": "trained",
    "Run": "trained",
    "Results": "results",
    "report": "reports",
    "launch": "launcher",
    "Options": "execution",
    "use_all_cores": "runtime",
    "use_compilation_cache": "runtime",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        value = getattr(importlib.import_module(f"jaxrl.{_EXPORTS[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'jaxrl' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
