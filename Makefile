# `make help` lists what can be made. The environment is .venv; the first target that needs it
# makes it (about two minutes), later ones find it ready. ARGS adds words to a command:
#   make train ARGS="trainer.max_epochs=5"

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile
ARGS ?=

# torch is installed first. Without a GPU it is pinned to one exact version: pip then prefers
# that version's CPU build (2.13.0+cpu) wherever it can find one, while a range like >=2.13
# would take the newest build, and on Linux that one needs gigabytes of CUDA packages.
TORCH ?= $(if $(shell command -v nvidia-smi),torch>=2.13,torch==2.13.0)

.DEFAULT_GOAL := help
.PHONY: help setup scatter train test test-all lint fmt type arch bench bench-long docs doctor clean
# a target whose recipe failed half-way is not ready
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## make the environment: torch and the package, editable

# its build does not use ninja: one extension per core, without debug symbols
scatter: $(VENV)/.ready ## build torch-scatter into the environment (optional, minutes)
	$(PIP) setuptools wheel
	printf '[build_ext]\nparallel = %s\n' "$$(nproc)" > $(VENV)/build.cfg
	CFLAGS=-g0 DIST_EXTRA_CONFIG=$(abspath $(VENV))/build.cfg $(PIP) --no-build-isolation torch-scatter

train: $(VENV)/.ready ## train ELCT on the shipped graphene set, test it, write figures
	$(BIN)/python -m deeph_lightning.train model=elct data=graphene $(ARGS)

# one process for each core, one thread for each process
test: $(VENV)/.ready-dev ## run the tests, but for those marked slow
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow" $(ARGS)

test-all: $(VENV)/.ready-dev ## run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto $(ARGS)

lint: $(VENV)/.ready-dev ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

fmt: $(VENV)/.ready-dev ## format, repair what can be repaired, update the tables of the docs
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python scripts/make_configuration_tables.py

type: $(VENV)/.ready-dev ## check types
	$(BIN)/mypy

arch: $(VENV)/.ready-dev ## check the direction of imports
	$(BIN)/lint-imports

bench: $(VENV)/.ready ## time networks and layers, write docs/benchmarks.md
	$(BIN)/python scripts/bench_training.py --json docs/measured/training.json $(ARGS)
	$(BIN)/python scripts/bench_layers.py --json docs/measured/layers.json
	$(BIN)/python scripts/bench_ddp.py --json docs/measured/ddp.json
	$(BIN)/python scripts/make_benchmark_tables.py

bench-long: $(VENV)/.ready ## train the networks side by side, hours, write docs/benchmarks.md
	$(BIN)/python scripts/bench_accuracy.py --json docs/measured/accuracy.json
	$(BIN)/python scripts/bench_accuracy.py --runs elct deeph_e3 --minutes 10 \
	  --structures 1 2 4 8 16 32 57 --json docs/measured/structures.json
	$(BIN)/python scripts/make_benchmark_tables.py

docs: $(VENV)/.ready-docs ## build the documentation into site/, warnings are errors
	$(BIN)/mkdocs build --strict --quiet

doctor: $(VENV)/.ready ## print versions and devices, run a self-test
	$(BIN)/python -m deeph_lightning.doctor

clean: ## remove caches and built files; .venv, outputs and data stay
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

# --no-compile: Python compiles what is imported, and most of the packages never are
$(VENV)/.ready: pyproject.toml
	@echo "Making the environment $(VENV), about two minutes ..."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) "$(TORCH)"
	$(PIP) --editable .
	@touch $@

# dependency groups need pip 25.1
$(VENV)/.ready-dev: $(VENV)/.ready
	$(PIP) "pip>=25.1"
	$(PIP) --group dev
	@touch $@

$(VENV)/.ready-docs: $(VENV)/.ready
	$(PIP) "pip>=25.1"
	$(PIP) --group docs
	@touch $@
