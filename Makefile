# Two commands for a newcomer: `make run` and `make test`. `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
# Which extras are installed is remembered by a stamp each, so that a second run starts at once.
RUN_STAMP := $(VENV)/run.stamp
DEV_STAMP := $(VENV)/dev.stamp

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: $(RUN_STAMP) ## start the service on the embedded database, mails to the console
	@exec $(BIN)/identity serve

.PHONY: test
test: $(DEV_STAMP) ## run the tests
	$(BIN)/pytest $(ARGS)

.PHONY: faults
faults: $(DEV_STAMP) ## break what the service stands on, and count what is lost (ARGS=--short)
	$(BIN)/python -W 'ignore:XDG_RUNTIME_DIR' -m tests.faults $(ARGS)

# A load generator that costs little beside what it measures; without Go, Python processes do.
GHZ := github.com/bojand/ghz/cmd/ghz@v0.120.0

.PHONY: bench
bench: $(DEV_STAMP) ## measure the service against references in the same run (ARGS=--short)
	@command -v ghz >/dev/null || test -x build/bin/ghz || ! command -v go >/dev/null || \
	  GOBIN="$(CURDIR)/build/bin" go install $(GHZ)
	$(BIN)/python -W 'ignore:XDG_RUNTIME_DIR' -m tests.bench $(ARGS)

.PHONY: check
check: $(DEV_STAMP) ## format, lint, types, proto lint, drift of the stubs, dangers of migrations, names of metrics, the Dockerfile
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/buf lint
	$(BIN)/python -m scripts.stubs --check
	$(BIN)/python -m scripts.migrations
	$(BIN)/python -m scripts.metrics
	$(BIN)/hadolint deploy/Dockerfile

.PHONY: format
format: $(DEV_STAMP) ## format the code and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: proto
proto: $(DEV_STAMP) ## generate identity/v1 from protos/
	$(BIN)/python -m scripts.stubs

.PHONY: migrate
migrate: $(RUN_STAMP) ## bring the database in IDENTITY_DATABASE_URL to the newest schema
	$(BIN)/identity migrate

.PHONY: constraints
constraints: ## resolve the dependencies anew and pin them in constraints.txt
	rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip install --quiet --editable '.[dev]'
	{ echo '# The exact set that is tested. Made by `make constraints`; names no index.'; \
	  build/constraints/bin/python -m pip freeze --exclude-editable; } > constraints.txt
	rm -rf build/constraints

.PHONY: package
package: $(RUN_STAMP) ## build the wheel, install it elsewhere, and migrate a database with it
	rm -rf dist build/package
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(PYTHON) -m venv build/package
	build/package/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	cd build/package && IDENTITY_DATABASE_URL=sqlite:///try.db bin/identity migrate
	rm -rf build/package

.PHONY: clean
clean: ## remove what was built and installed; the embedded database in var/ stays
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(RUN_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[postgres,ses,valkey,metrics]'
	@touch $@

$(DEV_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(RUN_STAMP)
