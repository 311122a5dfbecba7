"""What must be set before JAX is imported, and the fixtures that several files share."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Everything here is inherited by the processes that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
# Two devices, so that sharding is tried; and a third of the compile time, which is most of what the tests take. XLA
# ends the process at a flag that it does not know, so the last one goes only to the version that it was tried with.
FLAGS = [
    "--xla_force_host_platform_device_count=2", "--xla_backend_optimization_level=0",
    "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=1048576",  # as `runtime.use_all_cores` does
]  # fmt: skip
if version("jaxlib").startswith("0.10."):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join([given, *(flag for flag in FLAGS if flag.split("=")[0] not in given)]).strip()
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".jax_cache")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

import hypothesis  # noqa: E402
import pytest  # noqa: E402

from jaxrl_envs.probes import Probe, truncation_probe  # noqa: E402

# Compiled code has no fair deadline; the same examples every time, so that a failure is nobody's bad luck.
hypothesis.settings.register_profile("jaxrl", deadline=None, derandomize=True, max_examples=60, database=None)
hypothesis.settings.load_profile("jaxrl")


@pytest.fixture(scope="session")
def probe() -> Probe:
    """Reward 1 at every step, truncated after 5, observation 0: no gymnax to import."""
    return truncation_probe()


def pytest_configure(config: pytest.Config) -> None:
    # Two workers share the compilation cache, whose files JAX does not write atomically: half a file is compiled again.
    config.addinivalue_line("filterwarnings", "ignore:Error reading persistent compilation cache entry:UserWarning")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The cases of a parametrised test that its mark `quick` does not name are thorough: CI runs them, later."""
    for item in items:
        mark, case = item.get_closest_marker("quick"), item.name.partition("[")[2].rstrip("]")
        if mark and not any(f"{case}-".startswith(f"{name}-") for name in mark.args):
            item.add_marker(pytest.mark.thorough)
