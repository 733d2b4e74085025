# BlobHub's commands. `make` prints this list.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
DOC ?=
PROTOBUF_7 := 7.36.2

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test check fix generate baseline migration bench clean

help: ## Print this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP) ## Make .venv with everything the project needs
$(STAMP): pyproject.toml clients/python/pyproject.toml tests/stranger/pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "BlobHub needs Python 3.11 or newer; set PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable clients/python --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable tests/stranger
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --no-deps --target .build/protobuf7 'protobuf==$(PROTOBUF_7)'
	$(BIN)/python tools/generate.py --image
	@touch $(STAMP)

demo: $(STAMP) ## Run the main job on a real document: DOC=path, the README unless given
	@$(BIN)/python -m demo $(DOC)

serve: $(STAMP) ## Serve on 127.0.0.1:7443 with data in .data; prints address, key and a line to try
	@$(BIN)/python tools/serve.py

test: $(STAMP) ## Run all tests
	$(BIN)/python tools/generate.py --image
	$(BIN)/python -m pytest

check: $(STAMP) ## Check format, lint, types, layers, protos and generated code; writes nothing
	$(BIN)/ruff format --check --quiet
	$(BIN)/ruff check --quiet
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/generate.py --image
	$(BIN)/buf format --diff --exit-code protos
	$(BIN)/buf lint .build/image.binpb --path blobhub
	$(BIN)/buf breaking .build/image.binpb --against protos/baseline.binpb --path blobhub
	$(BIN)/python tools/generate.py --check

fix: $(STAMP) ## Repair what check finds, where that can be done
	$(BIN)/ruff check --fix --quiet || true
	$(BIN)/ruff format --quiet
	$(BIN)/buf format --write protos
	$(MAKE) generate

generate: $(STAMP) ## Generate the Python stubs from protos/
	$(BIN)/python tools/generate.py

baseline: $(STAMP) ## At a release: make today's contract the one that `check` holds changes against
	$(BIN)/python tools/generate.py --image
	$(BIN)/buf build .build/image.binpb --exclude-source-info -o protos/baseline.binpb

migration: $(STAMP) ## Write the next migration: M="what changes"
	$(BIN)/python tools/make_migration.py "$(M)"

bench: $(STAMP) ## Measure beside the bare machine, as ratios
	cd tests && ../$(BIN)/python -m benchmarks

clean: ## Remove everything that was made
	rm -rf $(VENV) .build .data .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
