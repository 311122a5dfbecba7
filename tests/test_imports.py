"""What importing costs: nothing heavy or optional is loaded before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Each costs a tenth of a second to several seconds, or is not everybody's.
HEAVY = [
    "matplotlib", "pandas", "gymnasium", "gymnax", "tensorflow_probability", "distrax", "mujoco", "brax", "evosax",
    "wandb", "xarray", "scipy.stats", "PIL", "IPython", "tyro",
]  # fmt: skip
PUBLIC = "import jaxrl; [getattr(jaxrl, name) for name in jaxrl.__all__ if name not in {'to_gymnax'}]"


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("code", [PUBLIC, "import jaxrl; jaxrl.make_env('jaxrl/probe_truncation')"])
def test_nothing_heavy_is_imported(code: str) -> None:
    """By everything that is exported, all of the core among it, and by an environment of ours."""
    found = python(f"import sys; {code}; print([name for name in {HEAVY} if name in sys.modules])")
    assert found == "[]"


def test_importing_jaxrl_alone_does_not_even_import_jax() -> None:
    assert python("import sys, jaxrl; print('jax' in sys.modules, 'numpy' in sys.modules)") == "False False"


def test_import_costs_at_most_a_second_more_than_jax() -> None:
    """`import jaxrl`, and everything that it exports: processor time, the best of several on a busy machine."""
    best = dict.fromkeys(("import jax", "import jax, jaxrl", f"import jax; {PUBLIC}"), float("inf"))
    for _ in range(6):
        for code, fastest in best.items():
            timed = f"import time; began = time.process_time(); {code}; print(time.process_time() - began)"
            best[code] = min(fastest, float(python(timed)))
        alone, *ours = best.values()
        if max(ours) - alone <= 1.0:
            break
    assert max(ours) - alone <= 1.0


def test_every_export_exists() -> None:
    import jaxrl

    assert set(jaxrl.__all__) <= set(dir(jaxrl))
    for name in jaxrl.__all__:
        assert getattr(jaxrl, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'; it has .*ppo"):
        _ = jaxrl.nothing
