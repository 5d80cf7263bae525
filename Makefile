# Two commands matter: `make run` and `make test`. Each sets up everything it needs, from PyPI alone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The CPU build that tests and the demo run on; production may install any torch that the package allows.
TORCH ?= torch==2.13.0
# Both majors of the SDK are in the field; the older one is installed beside the environment.
OPENAI_2 ?= openai>=2,<3
# Test files that run at once. Each starts servers of several processes.
JOBS ?= 2
PIP := $(BIN)/pip --quiet --disable-pip-version-check

.PHONY: run test check torture setup clean

run: $(VENV)/.ready
	$(BIN)/tunewarden serve --demo --data data

test: $(VENV)/.ready
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The long form of every battery; writes docs/evidence.md. MINUTES bounds it.
torture: $(VENV)/.ready
	$(BIN)/python -m tests.chaos.torture $(if $(MINUTES),--minutes $(MINUTES))

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tunewarden needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install "$(TORCH)"
	$(PIP) install --editable '.[local,dev]'
	$(PIP) install --upgrade --target $(VENV)/openai-2 "$(OPENAI_2)"
	@# The npm SDK is tested where there is npm; it needs a newer Node than most systems have.
	! command -v npm >/dev/null || npm install --silent --no-audit --no-fund --prefix $(VENV)/node openai@7 node@22
	touch $@

clean:
	rm -rf $(VENV) .cache dist
