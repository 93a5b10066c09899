# Every target sets up .venv by itself; a second call finds it ready.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready
ARGS   ?=

.PHONY: demo demo-deploy test check bench docs setup clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) or sys.version_info >= (3, 14))' \
	  || { echo "Calyx needs Python 3.11, 3.12 or 3.13; set PYTHON=/path/to/python3.x"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) (a minute or two, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/calyx simulate $(ARGS)

demo-deploy: $(STAMP)
	@PATH="$(abspath $(BIN)):$$PATH" examples/deploy/demo.sh $(ARGS)

# Deployments by themselves: they have processes enough. One thread each, as the product computes.
test: $(STAMP)
ifeq ($(strip $(ARGS)),)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m "not e2e"
	@$(BIN)/python -m pytest -m e2e
else
	@$(BIN)/python -m pytest $(ARGS)
endif

check: $(STAMP)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/mypy docs/generate.py
	@$(BIN)/lint-imports --config pyproject.toml

bench: $(STAMP)
	@$(BIN)/python -m bench.engine

# The tables of the documents that restate the schema, settings, presets and commands.
docs: $(STAMP)
	@$(BIN)/python docs/generate.py

clean:
	@rm -rf $(VENV) build dist *.egg-info
