"""Ready-made algorithms: a configuration, its numbers, and fifteen lines that wire the parts together."""

from __future__ import annotations

from jaxrl.presets import (
    archive_strategies,
    continuous,
    evolved,
    mean_field,
    meta,
    neuroevolution,
    on_policy,
    q_learning,
    quality_diversity,
    strategies,
)
from jaxrl.presets.archive_strategies import CMAMapElitesConfig, CMAMapElitesHparams, cma_map_elites
from jaxrl.presets.base import Preset
from jaxrl.presets.continuous import (
    DSACTConfig,
    DSACTHparams,
    MDPOOffConfig,
    MDPOOffHparams,
    PMOEConfig,
    PMOEHparams,
    SACConfig,
    SACHparams,
    TD3Config,
    TD3Hparams,
    dsac_t,
    mdpo_off,
    pmoe,
    sac,
    td3,
)
from jaxrl.presets.evolved import (
    EvolvedDriftConfig,
    EvolvedDriftHparams,
    TALPGConfig,
    TALPGHparams,
    lpo,
    ta_lpg,
)
from jaxrl.presets.mean_field import MFCPGConfig, MFCPGHparams, ippo, mappo, mfc_pg, mfc_ppo
from jaxrl.presets.meta import MetaConfig, MetaHparams, lpg
from jaxrl.presets.neuroevolution import DeepGAConfig, DeepGAHparams, deep_ga
from jaxrl.presets.on_policy import PPOConfig, PPOHparams, a2c, on_policy_agent, ppo
from jaxrl.presets.pqn import PRESETS as PQN_PRESETS
from jaxrl.presets.pqn import PQNConfig, PQNHparams, pqn, pqn_agent
from jaxrl.presets.q_learning import DQNConfig, DQNHparams, dqn
from jaxrl.presets.quality_diversity import (
    DCRLConfig,
    DCRLHparams,
    MapElitesConfig,
    MapElitesHparams,
    dcrl_map_elites,
    map_elites,
)
from jaxrl.presets.strategies import (
    EvosaxConfig,
    EvosaxHparams,
    NoveltyESConfig,
    NoveltyESPolicyHparams,
    OpenESConfig,
    OpenESPolicyHparams,
    evosax,
    ns_es,
    open_es,
)
from jaxrl.settings import suggest

PRESETS: dict[str, Preset] = {
    **on_policy.PRESETS,
    **PQN_PRESETS,
    **q_learning.PRESETS,
    **continuous.PRESETS,
    **meta.PRESETS,
    **evolved.PRESETS,
    **quality_diversity.PRESETS,
    **archive_strategies.PRESETS,
    **neuroevolution.PRESETS,
    **strategies.PRESETS,
    **mean_field.PRESETS,
}

__all__ = [
    "CMAMapElitesConfig",
    "CMAMapElitesHparams",
    "DCRLConfig",
    "DCRLHparams",
    "DQNConfig",
    "DQNHparams",
    "DSACTConfig",
    "DSACTHparams",
    "DeepGAConfig",
    "DeepGAHparams",
    "EvolvedDriftConfig",
    "EvolvedDriftHparams",
    "EvosaxConfig",
    "EvosaxHparams",
    "MDPOOffConfig",
    "MDPOOffHparams",
    "MFCPGConfig",
    "MFCPGHparams",
    "MapElitesConfig",
    "MapElitesHparams",
    "MetaConfig",
    "MetaHparams",
    "NoveltyESConfig",
    "NoveltyESPolicyHparams",
    "OpenESConfig",
    "OpenESPolicyHparams",
    "PMOEConfig",
    "PMOEHparams",
    "PPOConfig",
    "PPOHparams",
    "PQNConfig",
    "PQNHparams",
    "PRESETS",
    "Preset",
    "SACConfig",
    "SACHparams",
    "TALPGConfig",
    "TALPGHparams",
    "TD3Config",
    "TD3Hparams",
    "a2c",
    "cma_map_elites",
    "dcrl_map_elites",
    "deep_ga",
    "dqn",
    "dsac_t",
    "evosax",
    "find_preset",
    "ippo",
    "lpg",
    "lpo",
    "map_elites",
    "mappo",
    "mdpo_off",
    "mfc_pg",
    "mfc_ppo",
    "ns_es",
    "on_policy_agent",
    "open_es",
    "pmoe",
    "ppo",
    "pqn",
    "pqn_agent",
    "sac",
    "ta_lpg",
    "td3",
]


def find_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
      ValueError: if there is none, with the nearest names.
    """
    if name not in PRESETS:
        raise ValueError(suggest("algorithm", name, PRESETS, "`jaxrl list algorithms` shows all"))
    return PRESETS[name]
