# Everything a fresh machine needs is Python 3.11 or newer and make: `make test` sets up and checks all.
# Set-up leaves stamps in .venv, so that it is done once and again only when what it depends on has changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Pyright's wrapper asks the network at each start whether it is the newest.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

# What is set up, and for what: to run the package, and to check it.
RUN := $(VENV)/.run
CHECKS := $(VENV)/.run $(VENV)/.dev

WASM := src/enclave_broker/core/quickjs.wasm
ENGINE := hatch_build.py $(wildcard src/enclave_broker/core/engine.sha256) \
	$(shell find src/enclave_broker/core/build -type f -not -path '*/__pycache__/*')

# Pins are those of the public index: no pip configuration of the machine that makes them may add to them or stand there.
PIP_COMPILE := env -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL PIP_CONFIG_FILE=/dev/null \
	CUSTOM_COMPILE_COMMAND='make lock' ../.venv-lock/bin/pip-compile \
	--quiet --upgrade --generate-hashes --strip-extras --allow-unsafe \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options

.PHONY: help setup test lint types unit fmt demo bench lock clean
.DEFAULT_GOAL := help

help: ## What there is
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(CHECKS) ## Everything that the checks need

test: $(CHECKS) ## All checks, as in CI
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/pytest

lint: $(CHECKS) ## Only ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(CHECKS) ## Only pyright
	$(BIN)/pyright

unit: $(CHECKS) ## Only the tests, without the slow ones
	$(BIN)/pytest -m 'not slow'

fmt: $(CHECKS) ## Format, and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(RUN) ## A script, its tool calls and its events, at this terminal
	$(BIN)/python examples/demo.py

bench: $(RUN) ## How fast it is here
	$(BIN)/python bench/run.py

# By the oldest Python that is supported: a newer one leaves out what only that one needs.
lock: ## Pin the newest releases anew
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet -r requirements/lock.txt
	cd requirements && $(PIP_COMPILE) --output-file base.txt ../pyproject.toml
	cd requirements && $(PIP_COMPILE) --output-file dev.txt dev.in

clean: ## As after a clone
	rm -rf $(VENV) .venv-lock build dist bench/results .pytest_cache .ruff_cache .hypothesis $(WASM)
	find src tests bench examples -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# --- Set-up ----------------------------------------------------------------------------------------------------------

# The module is no target of its own: it comes with the editable install, and is made again when it has gone.
ifeq ($(wildcard $(WASM)),)
$(VENV)/.run: FORCE
endif
.PHONY: FORCE
FORCE:

$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "enclave-broker needs Python 3.11 or newer, and $(PYTHON) isn't: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) can't make virtual environments here. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.base: $(VENV)/.venv requirements/base.txt
	$(PIP) install --quiet --require-hashes -r requirements/base.txt
	@touch $@

# The package itself, editable; its build hook makes quickjs.wasm, unless it lies in the user's cache already.
$(VENV)/.run: $(VENV)/.base pyproject.toml $(ENGINE)
	$(PIP) install --quiet --no-deps --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.base requirements/dev.txt
	$(PIP) install --quiet --require-hashes -r requirements/dev.txt
	@touch $@
