# The ways in. Each recipe is short; the logic is in Python (tools/, local/, bench/).
.DEFAULT_GOAL := help
PYTHON ?= python3.11
BIN := .venv/bin
RUN := $(BIN)/python -m
# The folders with a cluster first, one for each process; the rest fills up behind them.
PYTEST := $(RUN) pytest -n 2 --dist loadscope --no-loadscope-reorder tests/e2e/test_*.py tests/integration tests/e2e/laptop tests/unit tests/property

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## the Python environment (minutes the first time on a machine, a second after that)
	@$(PYTHON) tools/environment.py

demo: setup ## a real cluster on this machine: train, cap, refuse, judge, promote (Ctrl-C leaves nothing behind)
	@$(RUN) tollgate_local.demo $(ARGS)

test: setup ## what CI runs: unit, property, integration (real control plane), e2e (real kubelet, real torch)
	@$(BIN)/tollgate local build
	@$(PYTEST) -m "not full" $(ARGS)

test-quick: setup ## the pure parts only, seconds
	@$(RUN) pytest tests/unit tests/property -q $(ARGS)

test-full: setup ## every cell of every matrix; before a release
	@$(BIN)/tollgate local build
	@$(PYTEST) $(ARGS)

lint: setup ## ruff, mypy strict, import-linter, CRDs in sync
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(RUN) tollgate.crd --check
	@$(RUN) tollgate.reference --check

crds: setup ## writes crds/ from the models
	@$(RUN) tollgate.crd --write

bench: setup ## figures into bench/results/: API calls per run, CPU per event, overshoot of the cap
	@$(RUN) bench

lock: setup ## resolves pyproject.toml again into requirements/*.txt
	@$(PYTHON) tools/environment.py --lock

.PHONY: help setup demo test test-quick test-full lint crds bench lock
