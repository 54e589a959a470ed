# Everything a developer or CI does here. `make` alone lists the targets. GNU make 3.81 and a POSIX shell are enough.
#
#   make demo DEMO_ARGS="--seconds 60 --rate 500"
#   make test TEST_ARGS="tests/unit -x"
#   make test TEST_JOBS=0 TEST_ARGS="tests/unit/test_engine.py -s"
#   make chaos MINUTES=30 SEED=7
#   make bench BENCH=benchmarks/bench_store.py BENCH_ARGS="--batch 512"
#   make setup PYTHON=/opt/python3.12/bin/python3

SHELL := /bin/sh
.DEFAULT_GOAL := help

VENV ?= .venv
PEERS_VENV ?= .venv-peers
PYTHON ?=
DEMO_ARGS ?=
TEST_ARGS ?=
# Processes side by side, each with a Kafka and a Redis of its own: see tests/conftest.py. 0: all in one, as for -s.
TEST_JOBS ?= auto
# bench_path.py wants a registry: make bench BENCH=benchmarks/bench_path.py BENCH_ARGS="--registry registry"
BENCH ?= $(filter-out benchmarks/bench_path.py,$(sort $(wildcard benchmarks/bench_*.py)))
BENCH_ARGS ?=
MINUTES ?= 0
SEED ?=
CHAOS_ARGS ?=

# onnxruntime 1.29 and newer reports to its publisher from Linux as well, unless this is set before it is loaded.
export ORT_DISABLE_TELEMETRY := 1

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# The build backend is installed first and then used as it is: with everything in place a reinstall needs no network.
BUILD := hatchling editables
INSTALL = $(PIP) install --quiet --constraint constraints.txt
INSTALL_EDITABLE = $(INSTALL) $(BUILD) && $(INSTALL) --no-build-isolation --editable

# Versions the constraints are known to hold for. A newer Python is taken, with a word, when none of these is there.
TESTED_PYTHONS := 3.11 3.12 3.13

.PHONY: help setup demo test lint check chaos bench bench-report peers format docs-render constraints clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/.installed-dev ## Create .venv with everything for demo, tests and checks

demo: $(VENV)/.installed-embedded ## Run the whole system on this machine, no Docker; DEMO_ARGS passes options
	@echo "make demo: a broker, Redis, a model, simulated cards and a worker, all on loopback; Ctrl-C ends it"
	@$(BIN)/fraudstream demo $(DEMO_ARGS)

test: $(VENV)/.installed-dev ## Run all tests; TEST_ARGS passes options to pytest
	@echo "make test: every level, with a real Kafka and Redis started here where there is none; a skip says why"
	@$(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder $(TEST_ARGS)

lint: $(VENV)/.installed-dev ## Run the static checks: ruff, mypy, import layers
	@echo "make lint: ruff check, ruff format --check, mypy --strict, import layers"
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy
	@$(BIN)/lint-imports --no-logo

check: lint ## Exactly what CI runs: lint, then test
	@$(MAKE) --no-print-directory test

chaos: $(VENV)/.installed-dev ## Kill, freeze and restart workers, Redis and Kafka in the flow; MINUTES of rounds, SEED of the first
	@echo "make chaos: rounds of 300,000 transactions against one sequential pass; a failure prints the seed that replays it"
	@$(BIN)/python -m tests.support.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(CHAOS_ARGS)

bench: $(VENV)/.installed-dev ## Measure, with nothing else running; BENCH names one benchmark, BENCH_ARGS its options
	@echo "make bench: $(BENCH)"
	@set -e; for script in $(BENCH); do echo "== $$script"; PYTHONPATH=. $(BIN)/python "$$script" $(BENCH_ARGS); done

bench-report: $(VENV)/.installed-dev ## Measure every figure of the pages on performance, with nothing else running
	@$(BIN)/python -m benchmarks.report $(BENCH_ARGS)

peers: $(PEERS_VENV)/.installed ## Measure fraudstream beside Faust alone, Quix Streams, Bytewax and a bare loop, in one run
	@$(BIN)/python -m benchmarks.peers.run --python $(PEERS_VENV)/bin/python $(BENCH_ARGS)

format: $(VENV)/.installed-dev ## Rewrite the code as ruff wants it
	@$(BIN)/python -m ruff check --fix-only .
	@$(BIN)/python -m ruff format .

docs-render: $(VENV)/.installed-dev ## Write anew what docs/reference renders from the code: schemas, AsyncAPI
	@$(BIN)/python -m fraudstream.codec --write

constraints: $(VENV)/.installed-dev ## Write constraints.txt anew: the versions in .venv, only what is declared
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && set -e; \
	$(PIP) freeze --exclude-editable | grep '==' > "$$scratch/tested.txt"; \
	$(BIN)/python -m venv "$$scratch/venv"; \
	pip="$$scratch/venv/bin/python -m pip --disable-pip-version-check"; \
	$$pip install --quiet --constraint "$$scratch/tested.txt" $(BUILD); \
	$$pip install --quiet --constraint "$$scratch/tested.txt" --no-build-isolation --editable '.[embedded,dev]'; \
	$$pip freeze --exclude-editable > "$$scratch/frozen.txt"; \
	if grep -vE '^[A-Za-z0-9._-]+==[A-Za-z0-9.]+$$' "$$scratch/frozen.txt"; then \
		echo "make constraints: the lines above pin no published version" >&2; exit 1; \
	fi; \
	{ sed -n '/^#/p' constraints.txt; cat "$$scratch/frozen.txt"; } > "$$scratch/constraints.txt"; \
	cp "$$scratch/constraints.txt" constraints.txt; \
	echo "make constraints: $$(grep -c == constraints.txt) versions"

clean: ## Remove caches and build results; .venv stays
	@rm -rf dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find src producers tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp per set of extras: pip runs again only when what is declared or pinned has changed. The larger set has all of
# the smaller one, so it sets both stamps.
$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "make setup: installing fraudstream for development into $(VENV); the first time takes a few minutes"
	@$(INSTALL_EDITABLE) '.[embedded,dev]'
	@touch $(VENV)/.installed-embedded $@

$(VENV)/.installed-embedded: pyproject.toml constraints.txt | $(BIN)/python
	@echo "make setup: installing fraudstream and its demo into $(VENV); the first time takes a few minutes"
	@$(INSTALL_EDITABLE) '.[embedded]'
	@touch $@

# An environment of their own: Quix Streams wants an older confluent-kafka than we pin.
$(PEERS_VENV)/.installed: benchmarks/peers/requirements.txt | $(VENV)/.installed-dev
	@echo "make peers: installing the peers into $(PEERS_VENV)"
	@$(BIN)/python -m venv --clear $(PEERS_VENV)
	@$(PEERS_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --requirement benchmarks/peers/requirements.txt
	@touch $@

$(BIN)/python:
	@found=; newer=; without_pip=; seen=; \
	for candidate in $(if $(PYTHON),$(PYTHON),python3 python3.13 python3.12 python3.11); do \
		version=$$("$$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
		seen="$$seen $$candidate=$$version"; \
		"$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || continue; \
		"$$candidate" -c 'import venv, ensurepip' 2>/dev/null || { without_pip=$${without_pip:-$$version}; continue; }; \
		case " $(TESTED_PYTHONS) " in \
			*" $$version "*) found=$$candidate; break ;; \
			*) newer=$${newer:-$$candidate} ;; \
		esac; \
	done; \
	if [ -z "$$found" ] && [ -n "$$newer" ]; then \
		found=$$newer; echo "make setup: no Python of $(TESTED_PYTHONS) here; trying the newer $$newer"; \
	fi; \
	if [ -n "$$found" ]; then \
		echo "make setup: creating $(VENV) with $$found"; "$$found" -m venv --clear $(VENV); exit; \
	fi; \
	if [ -n "$$without_pip" ]; then \
		echo "make setup: Python $$without_pip is here, but without the module ensurepip that makes virtual environments." >&2; \
		echo "On Debian or Ubuntu: apt-get install python$$without_pip-venv. Then run make again." >&2; exit 1; \
	fi; \
	echo "make setup: Python 3.11 or newer is needed and not on PATH (found:$${seen:- none})." >&2; \
	echo "Install one (Debian 12, Ubuntu 24.04: apt-get install python3 python3-venv; macOS: brew install python@3.12)," >&2; \
	echo "or name it: make setup PYTHON=/path/to/python3.12" >&2; exit 1
