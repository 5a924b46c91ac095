# Everything that one does here. Each command sets up what it needs first: on a fresh clone, `make demo` is all there is to type.

PYTHON ?= python3
MODEL ?= stapes-base
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test check docs
.NOTPARALLEL:

help:
	@echo "make demo               transcribe the example sentences; make demo FILE=talk.m4a transcribes yours"
	@echo "make setup              $(VENV) with everything that development needs; $(BIN)/stapes is the command line"
	@echo "make test               all tests"
	@echo "make check              lint, formatting, types, and that imports go one way"
	@echo "make docs               docs/adapters.md, papers.md and recipes.md, out of docstrings and docs/papers.toml"
	@echo "PYTHON=/path/to/python  before or after any of them: the Python to make $(VENV) with, 3.11 or newer"

setup: $(VENV)/.development

demo: $(VENV)/.runtime
	@$(BIN)/stapes fetch $(MODEL) > /dev/null
ifdef FILE
	@$(BIN)/stapes transcribe "$(FILE)" --model $(MODEL)
else
	@$(BIN)/python examples/transcribe.py $(MODEL)
endif

test: $(VENV)/.development
	$(BIN)/python -m pytest

check: $(VENV)/.development
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.runtime
	$(BIN)/python docs/generate.py

# The two stamps are written last, so that an interrupted installation goes on at the next call and a finished one costs nothing.
$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) -e .
	@touch $@

$(VENV)/.development: pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) -e ".[annotate,dev]"
	@touch $(VENV)/.runtime $@

# `pip` is the last file that `venv` makes.
$(BIN)/pip:
	@command -v "$(PYTHON)" > /dev/null || \
		{ echo "make: no $(PYTHON) on this machine, expected Python 3.11 or newer; install it, or add PYTHON=/path/to/python" >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $(PYTHON) is $$("$(PYTHON)" -V 2>&1), expected Python 3.11 or newer; add PYTHON=/path/to/python" >&2; exit 2; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2> /dev/null || \
		{ echo "make: $(PYTHON) cannot make virtual environments, expected its module venv; on Debian or Ubuntu: apt install python3-venv" >&2; exit 2; }
	"$(PYTHON)" -m venv $(VENV)
