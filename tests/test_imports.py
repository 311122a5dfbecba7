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


@pytest.mark.parametrize(
    "code",
    [
        "import jaxrl",
        "import jaxrl.presets, jaxrl.runs, jaxrl.algorithm, jaxrl.evaluation",
        PUBLIC,
        "import jaxrl; jaxrl.make_env('jaxrl/probe_truncation'); jaxrl.list_envs()",
    ],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    found = python(f"import sys; {code}; print([name for name in {HEAVY} if name in sys.modules])")
    assert found == "[]"


def test_importing_jaxrl_alone_does_not_even_import_jax() -> None:
    assert python("import sys, jaxrl; print('jax' in sys.modules, 'numpy' in sys.modules)") == "False False"


def seconds(code: str, attempts: int = 3) -> float:
    """The fastest of several processes."""
    timed = f"import time; began = time.perf_counter(); {code}; print(time.perf_counter() - began)"
    return min(float(python(timed)) for _ in range(attempts))


def test_import_costs_at_most_a_second_more_than_jax() -> None:
    """`import jaxrl`, and everything that it exports."""
    jax = seconds("import jax")
    assert seconds("import jax, jaxrl") - jax <= 1.0
    assert seconds(PUBLIC) - jax <= 1.0


def test_every_export_exists() -> None:
    import jaxrl

    assert set(jaxrl.__all__) <= set(dir(jaxrl))
    for name in jaxrl.__all__:
        assert getattr(jaxrl, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'; it has .*ppo"):
        _ = jaxrl.nothing
