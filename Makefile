# Every target is described in the README. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help check test faults demo demo-down generate requirements format

# without byte code every process of the tests compiles thousands of files when it starts
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
PYTHON := $(VENV)/bin/python
PYTEST := DISCOVERY_STRICT_SKIPS=1 $(PYTHON) -m pytest -q
CLUSTER := python3 -m tests.cluster.provision
COMPILE := $(VENV)/bin/uv pip compile pyproject.toml --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-annotate --quiet \
	--custom-compile-command "make requirements"

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

$(VENV)/.installed: requirements/dev.txt pyproject.toml
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet uv
	$(VENV)/bin/uv pip install --quiet --python $(PYTHON) --require-hashes --no-deps --compile-bytecode \
		-r requirements/dev.txt
	$(VENV)/bin/uv pip install --quiet --python $(PYTHON) --no-deps --editable .
	touch $@

VENDOR := api/discovery_api/web/static/vendor/htmx.min.js
$(VENDOR): web-assets/package-lock.json
	bash web-assets/build

# what a check draws is the same each time; FAULTS_SEED=N draws something else
FAULTS_SEED ?= 1

# what needs more than this checkout and its virtual environment
MORE := cluster or netns or browser or faults

check: $(VENV)/.installed $(VENDOR) ## lint, types, layers, unit, store, API and crew tests (no root, no cluster)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PYTHON) -m discovery_core.crd --check
	FAULTS_SEED=$(FAULTS_SEED) $(PYTEST) -n 2 -m "not slow and not ($(MORE))" tests

test: check ## everything CI checks: also slow tests, images, chart, a real cluster, network isolation
	FAULTS_SEED=$(FAULTS_SEED) $(PYTEST) -n 2 -m "slow and not ($(MORE))" tests
	FAULTS_SEED=$(FAULTS_SEED) bash tests/run-on-cluster

faults: $(VENV)/.installed ## every crash point, late writer, guard and fault on the wire, the long state machine (hours)
	$(PYTHON) -m tests.faults.crash_points
	$(PYTHON) -m tests.faults.faults_on_the_wire
	$(PYTHON) -m tests.faults.mutate_guards
	FAULTS=full $(PYTEST) tests/faults/test_state_machine.py
	FAULTS=full $(PYTEST) -m faults tests/faults

demo: ## a cluster, the product, a sample inventory up to its approval (APPROVE=yes, FILE=path)
	python3 examples/demo.py $(if $(FILE),--file "$(FILE)") $(if $(filter yes,$(APPROVE)),--approve)

demo-down: ## remove what `make demo` made
	python3 examples/demo.py --down

generate: $(VENV)/.installed ## rewrite the CRD and the state table in the docs from the models
	$(PYTHON) -m discovery_core.crd
	$(PYTHON) -m discovery_core.state_table

requirements: $(VENV)/.installed ## pin the dependencies anew, with hashes
	$(COMPILE) --extra operator --extra api -o requirements/operator.txt
	$(COMPILE) --extra crews --overrides requirements/overrides-crews.txt -o requirements/crews.txt
	$(COMPILE) --extra dev --overrides requirements/overrides-dev.txt -o requirements/dev.txt

format: $(VENV)/.installed ## format the code
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .
