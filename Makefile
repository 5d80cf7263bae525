# Two commands matter: `make run` and `make test`. Each sets up everything it needs, from PyPI alone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The CPU build that tests and the demo run on; production may install any torch that the package allows.
TORCH ?= torch==2.13.0

.PHONY: run test check setup clean

run: $(VENV)/.ready
	$(BIN)/tunewarden serve --demo --data data

test: $(VENV)/.ready
	$(BIN)/python -m pytest

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tunewarden needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[local,dev]'
	touch $@

clean:
	rm -rf $(VENV) .cache dist
