# Every target is described in the README. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help dev check test faults demo demo-down generate requirements format

# without byte code every process of the tests compiles thousands of files when it starts
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
PYTHON := $(VENV)/bin/python
COMPILE := $(VENV)/bin/uv pip compile --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-annotate --quiet \
	--custom-compile-command "make requirements"

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

$(VENV)/.installed: requirements/dev.txt requirements/uv.txt pyproject.toml
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --require-hashes -r requirements/uv.txt
	$(VENV)/bin/uv pip install --quiet --python $(PYTHON) --require-hashes --no-deps --compile-bytecode \
		-r requirements/dev.txt
	$(VENV)/bin/uv pip install --quiet --python $(PYTHON) --no-deps --editable .
	touch $@

VENDOR := api/discovery_api/web/static/vendor/htmx.min.js
$(VENDOR): web-assets/package-lock.json
	bash web-assets/build

dev: $(VENV)/.installed $(VENDOR) ## the development environment, from pinned packages alone

check: $(VENV)/.installed $(VENDOR) ## lint, types, layers, unit, store, API and crew tests (no root, no cluster)
	$(PYTHON) -m tests.run check

test: $(VENV)/.installed $(VENDOR) ## everything CI checks: also slow tests, images, chart, a real cluster, network isolation
	$(PYTHON) -m tests.run test

faults: $(VENV)/.installed $(VENDOR) ## every crash point, late writer, guard and fault on the wire, every alert (hours)
	$(PYTHON) -m tests.run faults

demo: ## a cluster, the product, a sample inventory up to its approval (APPROVE=yes, FILE=path)
	python3 examples/demo.py $(if $(FILE),--file "$(FILE)") $(if $(filter yes,$(APPROVE)),--approve)

demo-down: ## remove what `make demo` made
	python3 examples/demo.py --down

generate: $(VENV)/.installed ## rewrite the CRD and the state table in the docs from the models
	$(PYTHON) -m discovery_core.crd
	$(PYTHON) -m discovery_core.state_table

requirements: $(VENV)/.installed ## pin the dependencies anew, with hashes
	$(COMPILE) pyproject.toml --extra operator --extra api -o requirements/operator.txt
	$(COMPILE) pyproject.toml --extra crews --overrides requirements/overrides-crews.txt -o requirements/crews.txt
	$(COMPILE) pyproject.toml --extra dev --overrides requirements/overrides-dev.txt -o requirements/dev.txt
	echo uv | $(COMPILE) - -o requirements/uv.txt

format: $(VENV)/.installed ## format the code
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .
