# Every target works on a fresh clone by itself: it makes what it needs first.
.DEFAULT_GOAL := help
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Programs that check, but that no test imports: an environment of their own, since what they need
# would slow down every start of Python beside them (cyclonedx-bom), or pins other versions (semgrep).
TOOLS := .venv-tools
# What is started ends when make is gone, even by kill -9, and when whoever tied make is gone.
TIED := AAM_TIED_TO_PID="$$AAM_TIED_TO_PID $$PPID"
# A mesh starts a dozen processes, and the tests hundreds: none compiles what another has compiled.
unexport PYTHONDONTWRITEBYTECODE
# Arguments for pytest: make test T="tests/unit -k merge"
T ?=

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

up: $(VENV)/.local ## Run the whole mesh on this machine, until Ctrl-C; REPLICAS=2: two of each service
	@exec env $(TIED) $(if $(REPLICAS),AAM_REPLICAS=$(REPLICAS)) $(BIN)/python -m local up

demo: $(VENV)/.local ## The main job from start to end on a throw-away mesh, each step checked
	@exec env $(TIED) $(BIN)/python -m local demo

# The tests mostly wait, so more of them run side by side than there are cores. A module stays in
# one process, since it may share a mesh. With arguments pytest runs as they say.
SUITE := -n 3 --dist loadfile --no-loadscope-reorder
test: $(VENV)/.dev install-connectors ## What every change must pass, in random order; T="..." passes arguments to pytest
	@exec env $(TIED) $(BIN)/python -m pytest $(or $(T),$(SUITE))

test-all: $(VENV)/.dev install-connectors ## That, then each part at depth: faults, histories, requests, bodies, lossy, mutants, corpus
	@exec env $(TIED) $(BIN)/python -m tests.full $(SUITE)

test-repeat: $(VENV)/.dev install-connectors ## The suite N=10 times in other orders, a line each
	@exec env $(TIED) $(BIN)/python -m tests.repeat $(or $(N),10) $(or $(T),$(SUITE))

check: $(VENV)/.dev $(TOOLS)/.made ## Format, lint, types, imports, own rules, migrations, image, compose, licences
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m tests.semgrep $(TOOLS)/bin/semgrep
	@$(TIED) $(BIN)/python -m local check-migrations
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/check-jsonschema -q --builtin-schema vendor.compose-spec docker-compose.yml
	@$(BIN)/check-jsonschema -q --schemafile tests/compose/policy.schema.yaml docker-compose.yml
	@$(BIN)/pip-licenses --packages $$(sed -nE 's/^([A-Za-z0-9._-]+)==.*/\1/p' requirements.txt) >/dev/null
	@$(TOOLS)/bin/cyclonedx-py $(SBOM) >/dev/null 2>&1
	@if docker compose version >/dev/null 2>&1; then docker compose config -q; \
	else echo "No docker compose here: docker-compose.yml was not checked by it."; fi

faults: $(VENV)/.dev ## The whole fault matrix and 200 random histories
	@AAM_FAULTS=all AAM_DEEP=1 $(BIN)/python -m pytest -n 4 --dist load tests/faults/test_matrix.py tests/faults/test_histories.py

lossy: $(VENV)/.dev ## The services' tests again, with 5 % of Airbyte's calls lost (AAM_SEED=... for another run)
	@AAM_FAULT_RATE=0.05 $(BIN)/python -m pytest -n 4 --dist load tests/integration --ignore tests/integration/local $(T)

corpus: $(VENV)/.dev ## Diff, judge and heal every step between releases of seven real connectors (fetched)
	@$(BIN)/python -m tests.corpus

mutants: $(VENV)/.dev ## Plant each known fault in a copy: the test that it names must turn red
	@$(BIN)/python -m tests.mutants $(M)

docs: $(VENV)/.dev ## Write the pages of docs/ that are made from the code: api, configuration, errors
	@$(BIN)/python -m tests.docs

SBOM := requirements requirements.txt --pyproject pyproject.toml --sv 1.6 --output-reproducible
sbom: $(TOOLS)/.made ## The bill of materials of what is shipped: sbom.json, CycloneDX
	@$(TOOLS)/bin/cyclonedx-py $(SBOM) -o sbom.json

fix: $(VENV)/.dev ## Format, and repair what lint can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.dev ## The benchmarks, as ratios to floors of the same run
	@$(BIN)/python -m tests.bench

migrate: $(VENV)/.local ## Bring SUPABASE_DB_URL's registry up to date, as MIGRATION_DB_URL (or the running mesh's)
	@if [ -z "$$SUPABASE_DB_URL" ] && [ -f .aam/env ]; then source .aam/env; source .aam/env.owner; fi; $(BIN)/alembic upgrade head

# SCOPES="connections:read repairs:decide" says what it may; without, everything.
key: $(VENV)/.local ## Make a key for a caller, OWNER=ada@example.com, and print it once
	@if [ -z "$(OWNER)" ]; then echo 'Whose is it? make key OWNER=ada@example.com [SCOPES="connections:read ..."]'; exit 2; fi; \
	if [ -z "$$SUPABASE_DB_URL" ] && [ -f .aam/env ]; then source .aam/env; fi; \
	exec $(BIN)/python -m services.orchestrator.manage_api_keys make --owner "$(OWNER)" $(foreach scope,$(SCOPES),--scope $(scope))

# DRY_RUN=1 tells what would be done, and does nothing.
sweep: $(VENV)/.local ## Delete from Airbyte what ended operations left there (DRY_RUN=1: tell)
	@if [ -z "$$SUPABASE_DB_URL" ] && [ -f .aam/env ]; then source .aam/env; fi; \
	exec $(BIN)/python -m services.orchestrator.maintenance sweep $(if $(DRY_RUN),--dry-run)

reconcile: $(VENV)/.local ## Compare every head with what Airbyte holds (DRY_RUN=1: tell)
	@if [ -z "$$SUPABASE_DB_URL" ] && [ -f .aam/env ]; then source .aam/env; fi; \
	exec $(BIN)/python -m services.orchestrator.maintenance reconcile $(if $(DRY_RUN),--dry-run)

events: $(VENV)/.local ## Follow the lifecycle events of the running mesh (ONCE=1: print the latest 20 and end)
	@exec $(BIN)/python -m local events $(if $(ONCE),--once)

psql: $(VENV)/.local ## Open psql on the warehouse of the running mesh (SQL='...': run one statement)
	@exec $(BIN)/python -m local psql $(if $(SQL),--sql "$$SQL")

install-connectors: $(VENV)/.local ## Install the connectors ahead of their first use
	@$(BIN)/python -m local.airbyte install source-salesforce source-hardcoded-records

clean: ## Delete what a stopped mesh keeps (.aam/)
	@if [ -e $(VENV)/.local ]; then $(BIN)/python -m local clean; else rm -rf .aam; fi


.PHONY: help up key demo test test-all test-repeat check faults lossy corpus mutants docs sbom fix bench migrate sweep reconcile events psql install-connectors clean

# The interpreter is checked before anything is made: the Salesforce connector has no release for 3.14.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "AAM needs Python 3.11, 3.12 or 3.13; $(PYTHON) is %d.%d. Name another one: make PYTHON=python3.12 ..." % v)'
	@$(PYTHON) -m venv $(VENV)

# uv installs the same pins faster where it is there; nothing needs it.
install = if command -v uv >/dev/null 2>&1; then uv pip install --quiet --compile-bytecode --python $(1)/bin/python --require-hashes -r $(2); \
	else $(1)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(2); fi

$(VENV)/.local: local/requirements.txt | $(BIN)/python
	@echo "Installing what runs ..." && $(call install,$(VENV),$<) && touch $@

$(VENV)/.dev: requirements-dev.txt | $(BIN)/python
	@echo "Installing what runs and what checks ..." && $(call install,$(VENV),$<) && touch $@ $(VENV)/.local

$(TOOLS)/.made: tests/tools/requirements.txt | $(BIN)/python
	@echo "Installing semgrep and cyclonedx-bom ..." && $(BIN)/python -m venv $(TOOLS) && $(call install,$(TOOLS),$<) && touch $@
