# Everything a fresh machine needs is Python 3.11 or newer and make: `make test` sets up and checks all.
# Set-up leaves stamps in .venv, so that it is done once and again only when what it depends on has changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Pyright's wrapper asks the network at each start whether it is the newest.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

# What is set up, and for what: to run the package, to show it, to check it, and to test it.
RUN := $(VENV)/.run
SHOW := $(RUN) $(VENV)/.has-curl
CHECKS := $(RUN) $(VENV)/.dev
TESTS := $(CHECKS) $(VENV)/.has-curl $(VENV)/.has-chromium

WASM := src/enclave_broker/core/quickjs.wasm
ENGINE := hatch_build.py $(wildcard src/enclave_broker/core/engine.sha256) \
	$(shell find src/enclave_broker/core/build -type f -not -path '*/__pycache__/*')

# Pins are those of the public index: no pip configuration of the machine that makes them may add to them or stand there.
PIP_COMPILE := env -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL PIP_CONFIG_FILE=/dev/null \
	CUSTOM_COMPILE_COMMAND='make lock' ../.venv-lock/bin/pip-compile \
	--quiet --upgrade --generate-hashes --strip-extras --allow-unsafe \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options

.PHONY: help setup test lint types unit fmt docs demo bench lock clean
.DEFAULT_GOAL := help

help: ## What there is
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(TESTS) ## Everything that the checks need

test: $(TESTS) ## All checks, as in CI
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/pytest

lint: $(CHECKS) ## Only ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(CHECKS) ## Only pyright
	$(BIN)/pyright

unit: $(TESTS) ## Only the tests, without the slow ones
	$(BIN)/pytest -m 'not slow'

fmt: $(CHECKS) ## Format, and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(CHECKS) ## Write the pages that are made from the code
	$(BIN)/python -m tests.docs.events_page

demo: $(SHOW) ## A report, hostile scripts, and a stream that is cut and taken up, at this terminal
	$(BIN)/python examples/demo

bench: $(CHECKS) $(VENV)/.has-wrk ## How fast it is here
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

# From the system's packages, where we may take them. Nothing fails without: the demo has a stand-in for curl, and the
# test that needs a browser says that it has none.
APT := DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::http::Timeout=30
$(VENV)/.has-chromium: | $(VENV)/.has-curl
$(VENV)/.has-%: | $(VENV)/.venv
	@if command -v $* >/dev/null; then touch $@; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing $* from the system's packages"; \
	  if { $(APT) update && $(APT) install --no-install-recommends $*; } >$@.log 2>&1 </dev/null; then touch $@; \
	  else echo "$* couldn't be installed; $@.log says why"; fi; \
	fi
