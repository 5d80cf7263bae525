# Two commands matter: `make run` and `make test`. Each sets up everything it needs, from PyPI alone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The CPU build that tests and the demo run on; production may install any torch that the package allows.
TORCH ?= torch==2.13.0
# Both majors of the SDK are in the field; the older one is installed beside the environment.
OPENAI_2 ?= openai>=2,<3
# The tests of the SDK itself, from its source distribution; what they need beside pytest.
SDK_TESTS := .cache/openai-sdist/.ready $(VENV)/openai-suite/.ready
PYTEST_ASYNCIO ?= pytest-asyncio==1.5.0
# Test files that run at once. Each starts servers of several processes.
JOBS ?= 2
PIP := $(BIN)/pip --quiet --disable-pip-version-check

.PHONY: run test check conformance torture bench bench-guard setup clean

run: $(VENV)/.ready
	$(BIN)/tunewarden serve --demo --data data

test: $(VENV)/.ready $(SDK_TESTS)
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Writes the README's table of the SDK's own tests anew; `make test` only compares.
conformance: $(VENV)/.ready $(SDK_TESTS)
	$(BIN)/python -m pytest tests/conformance --update-golden

# The long form of every battery; writes docs/evidence.md. MINUTES bounds it.
torture: $(VENV)/.ready
	$(BIN)/python -m tests.chaos.torture $(if $(MINUTES),--minutes $(MINUTES))

# Ours beside other gateways, which go into .cache/bench; writes docs/performance.md. Needs a C compiler.
bench: $(VENV)/.ready
	$(BIN)/python -m benchmarks.peers $(if $(ROUNDS),--rounds $(ROUNDS))

# Fails if a request takes more instructions, or about twice the processor time of before; in half a minute.
bench-guard: $(VENV)/.ready
	$(BIN)/python -m benchmarks.peers.guard

setup: $(VENV)/.ready $(SDK_TESTS)

$(VENV)/.ready: pyproject.toml Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tunewarden needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install "$(TORCH)"
	$(PIP) install --editable '.[local,dev]'
	$(PIP) install --upgrade --target $(VENV)/openai-2 "$(OPENAI_2)"
	@# The npm SDK is tested where there is npm; it needs a newer Node than most systems have.
	! command -v npm >/dev/null || npm install --silent --no-audit --no-fund --prefix $(VENV)/node openai@7 node@22
	touch $@

# pip checks the archive's digest. These tests run with the SDK in it, so that none is installed for them.
.cache/openai-sdist/.ready: tests/conformance/sdk.txt | $(VENV)/.ready
	$(PIP) download --require-hashes --no-deps --no-binary openai --dest $(@D) --requirement $<
	touch $@

$(VENV)/openai-suite/.ready: Makefile | $(VENV)/.ready
	$(PIP) install --upgrade --no-deps --target $(@D) "$(PYTEST_ASYNCIO)"
	touch $@

clean:
	rm -rf $(VENV) .cache dist
