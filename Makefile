# `make demo` and `make test` need only Python 3.11 or newer; everything goes into .venv.

PYTHON ?= python3
VENV := .venv
PEER_NAMES := rejax qdax
WHEEL_VENV := .venv-wheel
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
JOBS ?= 2
# Small budgets are bound by compilation, so the notebooks are compiled quickly rather than well.
QUICK_COMPILE := --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false

DEMO_OUT := runs/demo
DEMO_ARGS := sweep ppo CartPole-v1 \
	--grid learning_rate=3e-4,1e-3,3e-3 clip_eps=0.1,0.2 \
	--seeds 8 --steps 102400 --out $(DEMO_OUT)

CREATED := $(VENV)/.created
CORE := $(VENV)/.installed-core
DEV := $(VENV)/.installed-dev
NOTEBOOKS := $(VENV)/.installed-notebooks
PEERS := $(PEER_NAMES:%=.venv-%/.installed)

.DELETE_ON_ERROR:
.PHONY: help demo test thorough slow lint format types doctest notebooks execute-notebooks wheel-test bench-peers clean

help:
	@echo "make demo         install, then sweep PPO on CartPole-v1: 3 learning rates x 2 clip ranges x 8 seeds"
	@echo "make test         install what tests need, then run the quick tests"
	@echo "make thorough     the same checks for every agent, objective and environment (make slow: learning thresholds)"
	@echo "make lint         ruff check and format check (make format: apply)"
	@echo "make types        mypy"
	@echo "make doctest      the examples in the docstrings"
	@echo "make notebooks    run the notebooks' scripts on a small budget"
	@echo "make execute-notebooks  write each script into its .ipynb and execute that in full, outputs included"
	@echo "make wheel-test   build the wheel, install it into a fresh environment, use it there"
	@echo "make bench-peers  build .venv-rejax and .venv-qdax, in which benchmarks run rejax, qdax and pyribs"
	@echo "make clean        remove environments, builds and caches; runs/ stays"

# A directory that venv left half made has no stamp, so it is built again from nothing.
$(CREATED):
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "jaxrl needs Python 3.11 or newer, got %s: make PYTHON=/path/to/python3.11" % sys.version.split()[0])'
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The stamp is written last, and holds the seconds that the installation took.
$(CORE): $(CREATED) pyproject.toml constraints.txt
	@echo "installing jaxrl into $(VENV) (a minute or two, once)"
	@start=$$(date +%s); $(PIP) -c constraints.txt -e . && echo $$(( $$(date +%s) - start )) > $@

$(DEV): $(CORE)
	@echo "installing what the tests need into $(VENV)"
	@$(PIP) -c constraints.txt -e '.[dev]' && touch $@

$(NOTEBOOKS): $(CORE)
	@echo "installing what the notebooks need into $(VENV)"
	@$(PIP) -c constraints.txt -e '.[notebooks]' && touch $@

# The demonstration's own directory is made anew each time; any other would be refused while it holds a run.
demo: $(CORE)
	rm -rf $(DEMO_OUT)
	JAXRL_INSTALL_SECONDS=$$(cat $(CORE)) $(BIN)/jaxrl $(DEMO_ARGS)
	$(BIN)/jaxrl evaluate $(DEMO_OUT)
	$(BIN)/jaxrl render $(DEMO_OUT)

test: $(DEV)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

thorough: $(DEV)
	$(BIN)/python -m pytest -n $(JOBS) --dist load -m thorough

slow: $(DEV)
	$(BIN)/python -m pytest -m slow

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(DEV)
	$(BIN)/mypy

doctest: $(DEV)
	$(BIN)/python -m pytest --doctest-modules jaxrl envs/jaxrl_envs

notebooks: $(NOTEBOOKS)
	@set -e; for script in notebooks/*.py; do \
		echo "== $$script"; \
		JAXRL_FAST=1 MPLBACKEND=Agg XLA_FLAGS="$(QUICK_COMPILE)" $(BIN)/python "$$script"; \
	done

# The cells' sources come from the scripts, which are what is edited; the outputs are of this machine.
execute-notebooks: $(NOTEBOOKS)
	@set -e; for script in notebooks/*.py; do \
		$(BIN)/jupytext --quiet --update --to ipynb "$$script"; \
		$(BIN)/jupyter-execute --inplace --timeout=3600 "$${script%.py}.ipynb"; \
	done

# Used from another directory and with -I, so that the checkout cannot stand in for what the wheel forgot.
wheel-test: $(CREATED)
	rm -rf build/wheel $(WHEEL_VENV)
	$(BIN)/python -m pip wheel --disable-pip-version-check --quiet --no-deps -w build/wheel .
	$(PYTHON) -m venv $(WHEEL_VENV)
	$(WHEEL_VENV)/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt build/wheel/*.whl
	cd $(WHEEL_VENV) && bin/python -I -c 'import jaxrl, jaxrl_envs; print(jaxrl.__file__, jaxrl_envs.__file__)'
	cd $(WHEEL_VENV) && bin/jaxrl --help

$(PEERS): .venv-%/.installed: experiments/benchmarks/peers/%.txt
	rm -rf .venv-$*
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --disable-pip-version-check --quiet -r $<
	@touch $@

bench-peers: $(PEERS)
	@for name in $(PEER_NAMES); do \
		echo ".venv-$$name holds $$(.venv-$$name/bin/python -m pip freeze | grep -iE "^($$name|ribs)==" | xargs)"; \
	done

clean:
	rm -rf $(VENV) $(PEER_NAMES:%=.venv-%) $(WHEEL_VENV) build dist .jax_cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
