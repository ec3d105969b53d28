# Every command of this project. Needs Python >= 3.10 and make; `make help` lists the targets.

PYTHON ?= python3
VENV ?= .venv
VENV_LOWEST ?= .venv-lowest
# More arguments for pytest, as in: make test PYTEST_ARGS="tests/test_house.py -x"
PYTEST_ARGS ?=

READY := $(VENV)/.installed
READY_LOWEST := $(VENV_LOWEST)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-lowest check format

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-20s %s\n", $$1, $$2}'

quickstart: $(READY) ## distil a small model on this machine, and show what it gained
	$(VENV)/bin/hf-distill quickstart

test: $(READY) ## run the whole test suite
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

test-lowest: $(READY_LOWEST) ## run the whole test suite on the oldest supported versions
	$(VENV_LOWEST)/bin/python -m pytest $(PYTEST_ARGS)

check: $(READY) ## lint, formatting, types, import directions
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(READY) ## repair what lint and formatting can repair
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# torch comes first and by itself: a requirement that is met already is not resolved again, and cannot bring in the
# packages of another build.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "PYTHON must be Python 3.10 or newer, got $(PYTHON) ($$($(PYTHON) --version 2>&1)). Name one: make PYTHON=python3.12 <target>." >&2; \
	  exit 1; }
	test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install $$(grep '^torch==' $(2))
	$(1)/bin/python -m pip install --quiet -c $(2) -e '.[quickstart,dev]'
	@touch $@
endef

$(READY): pyproject.toml constraints.txt
	$(call install,$(VENV),constraints.txt)

$(READY_LOWEST): pyproject.toml constraints-lowest.txt
	$(call install,$(VENV_LOWEST),constraints-lowest.txt)
