# Every target works on a fresh clone by itself: it makes what it needs first.
.DEFAULT_GOAL := help
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: help

# The interpreter is checked before anything is made: the Salesforce connector has no release for 3.14.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "AAM needs Python 3.11, 3.12 or 3.13; $(PYTHON) is %d.%d. Name another one: make PYTHON=python3.12 ..." % v)'
	@$(PYTHON) -m venv $(VENV)

# uv installs the same pins faster where it is there; nothing needs it.
install = if command -v uv >/dev/null 2>&1; then uv pip install --quiet --python $(BIN)/python --require-hashes -r $(1); \
	else $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(1); fi

$(VENV)/.local: local/requirements.txt | $(BIN)/python
	@echo "Installing what runs ..." && $(call install,$<) && touch $@

$(VENV)/.dev: requirements-dev.txt | $(BIN)/python
	@echo "Installing what runs and what checks ..." && $(call install,$<) && touch $@ $(VENV)/.local
