# Everything a newcomer needs: `make demo`, then `make test`. Both set the environment up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench drill up down protos test-compose clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

# Rebuilt only when what it is made from changes, so that a second run starts at once.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Lepton needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || { echo "making $(VENV) ..."; $(PYTHON) -m venv $(VENV); }
	@echo "installing Lepton and its pinned dependencies (a few minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(INSTALLED)  ## Train, publish and serve on a local cluster, end to end
	@$(BIN)/lepton demo

test: check  ## Run every check and every test
	@$(BIN)/python -m pytest

check: $(INSTALLED)  ## Lint, formatting, types, import rules, generated code
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/basedpyright
	@$(BIN)/python scripts/generate_protos.py --check

format: $(INSTALLED)  ## Format the code and sort imports
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(INSTALLED)  ## Measure speed against peers, each pair in one run
	@for file in bench/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

drill: $(INSTALLED)  ## Hurt clusters of its own on purpose, and measure (two hours)
	@$(BIN)/lepton drill all

up: $(INSTALLED)  ## Bring a cluster up on this machine
	@$(BIN)/lepton up

down: $(INSTALLED)  ## Take it down
	@$(BIN)/lepton down

protos: $(INSTALLED)  ## Generate code from protos/
	@$(BIN)/python scripts/generate_protos.py

test-compose: $(INSTALLED)  ## Prove the containers end to end (needs Docker)
	@$(BIN)/pytest tests/compose

clean:  ## Remove the environment and caches
	rm -rf $(VENV) .make .pytest_cache .ruff_cache .hypothesis
