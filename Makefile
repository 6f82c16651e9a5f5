# Every target works on a fresh clone: it installs what it needs first.
.DEFAULT_GOAL := help
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Checkers that no test imports. They have a separate environment, since their dependencies slow down every start of
# Python (cyclonedx-bom) or pin other versions (semgrep).
TOOLS := .venv-tools
# Helm as a library, and Kubernetes' schemas: 400 MB that nothing else needs.
CHART := .venv-chart
# Started processes end with make, even if it is killed by SIGKILL, and with the process that set AAM_TIED_TO_PID.
TIED := AAM_TIED_TO_PID="$$AAM_TIED_TO_PID $$PPID"
# `make up` starts a dozen processes, and the tests hundreds: they share compiled bytecode.
unexport PYTHONDONTWRITEBYTECODE
# Arguments for pytest: make test T="tests/unit -k merge"
T ?=

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

# CONNECTORS="source-faker source-x==1.2.3" and MANIFESTS="path/to/manifest.yaml" add sources. SAMPLE_API=1 starts an
# HTTP API whose schema can be changed, and adds two manifests that read it.
UP := $(if $(REPLICAS),AAM_REPLICAS=$(REPLICAS)) $(if $(CONNECTORS),AAM_CONNECTORS="$(CONNECTORS)") \
	$(if $(MANIFESTS),AAM_MANIFESTS="$(MANIFESTS)") $(if $(SAMPLE_API),AAM_SAMPLE_API=$(SAMPLE_API))
up: $(VENV)/.local ## Run everything on this machine until Ctrl-C; REPLICAS=2 runs two replicas of each service
	@exec env $(TIED) $(UP) $(BIN)/python -m local up

demo: $(VENV)/.local ## Run the main workflow from start to end in a temporary environment, and check each step
	@exec env $(TIED) $(BIN)/python -m local demo

# Tests mostly wait, so there are more workers than cores. The tests of a module run in one process, since they may
# share services. With T="..." pytest gets these arguments instead.
PARALLEL := -n 4 --dist loadfile --no-loadscope-reorder
SUITE := -m "not process" $(PARALLEL)
test: $(VENV)/.dev install-connectors ## Run the tests, in random order; T="..." passes arguments to pytest
	@exec env $(TIED) $(BIN)/python -m pytest $(or $(T),$(SUITE))

test-processes: $(VENV)/.dev install-connectors ## Run the tests that start processes of their own: services, commands, connectors, servers; CI does so, too
	@exec env $(TIED) $(BIN)/python -m pytest $(or $(T),-m process $(PARALLEL))

test-all: $(VENV)/.dev install-connectors ## Run all tests, then each part at depth: faults, histories, requests, bodies, lossy, clients, mutants, corpus, scale
	@exec env $(TIED) $(BIN)/python -m tests.full $(PARALLEL)

# The image's name in docker-compose.yml. PYTHON_IMAGE="..." replaces the base image, BUILD="--network host ..." adds
# options of docker build. Two builds from one base image print the same digest.
IMAGE := adaptive-api-mesh:0.1.0
image: ## Build the container image, and print its size and a digest of its layers
	@docker build --quiet $(if $(PYTHON_IMAGE),--build-arg PYTHON=$(PYTHON_IMAGE)) $(BUILD) --tag $(IMAGE) . >/dev/null
	@docker image inspect --format '{{.Size}}' $(IMAGE) | awk '{printf "%s: %.0f MB\n", "$(IMAGE)", $$1 / 1e6}'
	@docker image inspect --format '{{range .RootFS.Layers}}{{println .}}{{end}}' $(IMAGE) | sha256sum | sed 's/ .*//; s/^/layers sha256:/'

# They share one installation and go on where the one before ended, so their order is fixed. T="..." passes arguments.
test-containers: $(VENV)/.dev install-connectors ## Run docker-compose.yml with a container engine: starts, a healed drift, kills, an upgrade (as root it starts an engine)
	@exec env $(TIED) AAM_CONTAINERS=1 AAM_DEEP=1 $(BIN)/python -m pytest -p no:randomly tests/containers $(T)

test-repeat: $(VENV)/.dev install-connectors ## Run the tests N=10 times in different orders, and print a line for each run
	@exec env $(TIED) $(BIN)/python -m tests.repeat $(or $(N),10) $(or $(T),$(SUITE))

check: $(VENV)/.dev $(TOOLS)/.made ## Check format, lint, types, imports, own rules, migrations, secrets, image, compose file and licences
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m tests.semgrep $(TOOLS)/bin/semgrep
	@$(TIED) $(BIN)/python -m local check-migrations
	@AAM_DEEP=1 $(BIN)/python -m pytest -q tests/security/test_secret_scan.py -k tree
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/check-jsonschema -q --builtin-schema vendor.compose-spec docker-compose.yml
	@$(BIN)/check-jsonschema -q --schemafile tests/compose/policy.schema.yaml docker-compose.yml
	@$(BIN)/pip-licenses --packages $$(sed -nE 's/^([A-Za-z0-9._-]+)==.*/\1/p' requirements.txt) >/dev/null
	@cat $(SHIPPED) | $(TOOLS)/bin/cyclonedx-py $(SBOM) >/dev/null 2>&1
	@if docker compose version >/dev/null 2>&1; then docker compose config -q; \
	else echo "No docker compose here: docker-compose.yml was not checked by it."; fi

# Helm's library is used on Linux on x86_64 alone: other machines have no wheel of it, or one that was not tried.
test-chart: $(VENV)/.dev ## Render and lint the Helm chart with Helm, validate every object for two versions of Kubernetes, and check it
	@if [ "$$(uname -sm)" != "Linux x86_64" ]; then echo "The chart was not checked: that needs Linux on x86_64, for the wheel of the Helm library."; \
	else $(MAKE) --silent $(CHART)/.made && exec $(CHART)/bin/python -m pytest -c tests/chart/pytest.ini $(or $(T),tests/chart); fi

guides: $(VENV)/.dev install-connectors ## Run the commands of the README and of every guide against one mesh
	@exec env $(TIED) AAM_DEEP=1 $(BIN)/python -m pytest tests/journeys/test_readme.py

faults: $(VENV)/.dev ## Run the whole fault matrix and 200 random histories
	@AAM_FAULTS=all AAM_DEEP=1 $(BIN)/python -m pytest -n 4 --dist load tests/faults/test_fault_matrix.py tests/faults/test_histories.py

lossy: $(VENV)/.dev ## Run the services' tests with 5 % of Airbyte's calls lost (AAM_SEED=... for another run)
	@AAM_FAULT_RATE=0.05 $(BIN)/python -m pytest -n 4 --dist load tests/integration --ignore tests/integration/local $(T)

corpus: $(VENV)/.dev ## Compare, rate and heal every step between releases of seven real connectors (downloaded)
	@$(BIN)/python -m tests.corpus

clients: $(VENV)/.dev install-connectors ## Run four clients of Airbyte by other authors, each in its own environment, against the local Airbyte
	@exec env $(TIED) $(BIN)/python -m tests.clients $(T)

mutants: $(VENV)/.dev ## Apply each mutant to a copy of the code; the test that it names must fail
	@$(BIN)/python -m tests.mutants $(M)

browser: $(VENV)/.dev ## Find or install the Chromium that the browser journeys of the tests drive
	@$(BIN)/python -m tests.browser

# RUNNING=1 takes the mesh of `make up`, ALL=1 every page, TO=folder and WIDTHS="1280 390" set the folder and widths.
SCREENSHOTS := $(if $(RUNNING),--running) $(if $(ALL),--all) $(foreach width,$(WIDTHS),--width $(width)) $(if $(TO),--to $(TO))
screenshots: $(VENV)/.dev install-connectors ## Write the screenshots of docs/images from a temporary mesh with the sample org
	@exec env $(TIED) $(BIN)/python -m tests.browser.screenshots $(SCREENSHOTS)

docs: $(VENV)/.dev ## Generate the pages of docs/ that come from the code: api, configuration, errors
	@$(BIN)/python -m tests.docs

SHIPPED := requirements.txt services/console/assets.txt
SBOM := requirements - --pyproject pyproject.toml --sv 1.6 --output-reproducible
sbom: $(TOOLS)/.made ## Write the software bill of materials: sbom.json, CycloneDX
	@cat $(SHIPPED) | $(TOOLS)/bin/cyclonedx-py $(SBOM) -o sbom.json

fix: $(VENV)/.dev ## Format, and apply the fixes of lint
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.dev ## Run the benchmarks; results are ratios to a baseline of the same run
	@$(BIN)/python -m tests.bench

# N=100000 takes an hour or more, and 14 GB; THIN=9 gives only one in nine connections its syncs, which are most of it.
scale: $(VENV)/.dev ## Simulate a fleet of N=1000 connections with two years of history, and print what it costs and where it breaks
	@exec env $(TIED) $(BIN)/python -m tests.scale $(or $(N),1000) $(if $(THIN),--thin $(THIN))

migrate: $(VENV)/.local ## Migrate the registry at SUPABASE_DB_URL with the login of MIGRATION_DB_URL (or that of `make up`)
	@if [ -z "$$SUPABASE_DB_URL" ] && [ -f .aam/env ]; then source .aam/env; source .aam/env.owner; fi; $(BIN)/alembic upgrade head

# SCOPES="connections:read repairs:decide" limits it; the default is all scopes.
key: $(VENV)/.local ## Create an API key for OWNER=ada@example.com, and print it once
	@if [ -z "$(OWNER)" ]; then echo 'OWNER is missing: make key OWNER=ada@example.com [SCOPES="connections:read ..."] [LABELS="team=sales ..."]'; exit 2; fi; \
	if [ -z "$$SUPABASE_DB_URL" ] && [ -f .aam/env ]; then source .aam/env; fi; \
	exec $(BIN)/python -m services.orchestrator.manage_api_keys make --owner "$(OWNER)" $(foreach scope,$(SCOPES),--scope $(scope)) $(foreach label,$(LABELS),--label "$(label)")

# DRY_RUN=1 only reports.
sweep: $(VENV)/.local ## Delete objects from Airbyte that ended operations left there (DRY_RUN=1 only reports)
	@if [ -z "$$SUPABASE_DB_URL" ] && [ -f .aam/env ]; then source .aam/env; fi; \
	exec $(BIN)/python -m services.orchestrator.maintenance_command sweep $(if $(DRY_RUN),--dry-run)

reconcile: $(VENV)/.local ## Compare each connection's catalog with Airbyte's (DRY_RUN=1 only reports)
	@if [ -z "$$SUPABASE_DB_URL" ] && [ -f .aam/env ]; then source .aam/env; fi; \
	exec $(BIN)/python -m services.orchestrator.maintenance_command reconcile $(if $(DRY_RUN),--dry-run)

# The link works once and for a minute.
sign-in: $(VENV)/.local ## Print a link that signs in at the console of `make up`
	@exec $(BIN)/python -m local sign-in

health: $(VENV)/.local ## Derive the health of every connection again, as the orchestrator does every hour
	@if [ -z "$$SUPABASE_DB_URL" ] && [ -f .aam/env ]; then source .aam/env; fi; \
	exec $(BIN)/python -m services.orchestrator.maintenance_command health

events: $(VENV)/.local ## Print lifecycle events of `make up` as they occur (ONCE=1 prints the latest 20 and ends)
	@exec $(BIN)/python -m local events $(if $(ONCE),--once)

psql: $(VENV)/.local ## Open psql in the warehouse of `make up` (SQL='...' runs one statement)
	@exec $(BIN)/python -m local psql $(if $(SQL),--sql "$$SQL")

install-connectors: $(VENV)/.local ## Install connectors ahead of their first use (CONNECTORS="source-faker ..." installs these)
	@$(BIN)/python -m local.airbyte install $(or $(CONNECTORS),source-salesforce source-hardcoded-records source-declarative-manifest)

clean: ## Delete the data of a stopped `make up` (.aam/)
	@if [ -e $(VENV)/.local ]; then $(BIN)/python -m local clean; else rm -rf .aam; fi


.PHONY: help up key demo test test-all image test-containers test-repeat test-chart check faults lossy corpus clients mutants browser screenshots docs sbom fix bench scale migrate sweep reconcile health sign-in events psql install-connectors clean

# The interpreter is checked before anything is made: the Salesforce connector has no release for 3.14.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "AAM needs Python 3.11, 3.12 or 3.13; $(PYTHON) is %d.%d. Name another one: make PYTHON=python3.12 ..." % v)'
	@$(PYTHON) -m venv $(VENV)

# uv installs the same pins faster where it is there; nothing needs it.
install = if command -v uv >/dev/null 2>&1; then uv pip install --quiet --compile-bytecode --python $(1)/bin/python --require-hashes -r $(2); \
	else $(1)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(2); fi

# The one script that is not ours: a file of a pinned package, without the package (docs/decisions/0127).
HTMX := $(VENV)/share/aam/htmx-2.min.js
$(HTMX): services/console/assets.txt | $(BIN)/python
	@rm -rf $(VENV)/assets && $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
		--require-hashes --target $(VENV)/assets -r $< && mkdir -p $(@D) && \
	cp $(VENV)/assets/django_htmx/static/django_htmx/htmx-2.min.js $@ && rm -rf $(VENV)/assets

$(VENV)/.local: local/requirements.txt | $(BIN)/python $(HTMX)
	@echo "Installing what runs ..." && $(call install,$(VENV),$<) && touch $@

$(VENV)/.dev: requirements-dev.txt | $(BIN)/python $(HTMX)
	@echo "Installing what runs and what checks ..." && $(call install,$(VENV),$<) && touch $@ $(VENV)/.local

$(TOOLS)/.made: tests/tools/requirements.txt | $(BIN)/python
	@echo "Installing semgrep and cyclonedx-bom ..." && $(BIN)/python -m venv $(TOOLS) && $(call install,$(TOOLS),$<) && touch $@

$(CHART)/.made: tests/chart/requirements.txt | $(BIN)/python
	@echo "Installing Helm's library and Kubernetes' schemas ..." && $(BIN)/python -m venv $(CHART) && $(call install,$(CHART),$<) && touch $@
