# Two commands need nothing but Python >= 3.11, make and the package index:
#   make demo    the main job on an emulated provider
#   make test    the tests; what needs a component that is absent is skipped with a reason
# Then: make stories (2 000 simulated lives under faults), make faults (faults of the machine, as root), make booted (the
# Debian package under a real systemd, as root), make container (the image, as root), make browser (the status page in
# Chromium), make check (lint, types, contracts), make bench (figures), make soak SEEDS=20000 (all matrices, whole),
# make docs (the pages that tests write).
PYTHON ?= python3
VENV   ?= .venv
SEEDS  ?= 20000
BIN    := $(VENV)/bin

# The half of the real processes' tests that takes as long as the other.
LONG   := canary orders passwords policies readers register

.PHONY: demo test test-judgement test-long test-processes test-parts stories faults booted container browser deb soak bench docs lint types contracts check requirements clean

demo: $(VENV)/.run
	$(BIN)/rotator demo

# In four parts, two at a time: most of what the real processes take is waiting for each other. Three at a time took longer.
test: $(VENV)/.test
	$(MAKE) --no-print-directory --output-sync=target -j2 test-parts test-processes test-long test-judgement

# The crowds without coverage's tracer, which makes them take three times as long for lines that others reach too.
test-judgement:
	$(BIN)/python -m pytest tests/core tests/engine -m crowd $(PYTEST)
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest tests/core tests/engine -m 'not crowd' $(PYTEST)
	$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report --skip-covered --include='rotator/core/*,rotator/engine/*' --fail-under=95

test-processes:
	$(BIN)/python -m pytest tests/acceptance $(LONG:%=--ignore=tests/acceptance/test_%.py) $(PYTEST)

test-long:
	$(BIN)/python -m pytest $(LONG:%=tests/acceptance/test_%.py) $(PYTEST)

# A quarter of the stories; `make stories` tells them all.
test-parts:
	SEEDS=500 $(BIN)/python -m pytest $(patsubst %,--ignore=tests/%,core engine acceptance faults booted container browser) $(PYTEST)

stories: $(VENV)/.test
	$(BIN)/python -m pytest tests/simulation $(PYTEST)

# Real faults of the machine on the real process: root, mounts, a tracer. The subset that stands for all.
faults: $(VENV)/.test
	$(BIN)/python -m pytest tests/faults $(PYTEST)

# The image, built and run: root, buildah, podman, runc, mmdebstrap.
container: $(VENV)/.test
	$(BIN)/python -m pytest tests/container $(PYTEST)

# The status page in a real Chromium.
browser: $(VENV)/.test
	$(BIN)/python -m pytest tests/browser $(PYTEST)

# The Debian package in a booted systemd: root, systemd-container, mmdebstrap.
booted: deb
	$(BIN)/python -m pytest tests/booted $(PYTEST)

deb: $(VENV)/.test
	$(BIN)/python packaging/deb.py

soak: deb
	SEEDS=$(SEEDS) $(BIN)/python -m pytest tests/simulation $(PYTEST)
	WALKS=5000 FUZZ=5000 $(BIN)/python -m pytest tests/core/test_lifecycle_walks.py tests/drivers/test_oauth_fuzz.py $(PYTEST)
	BOOTED=all $(BIN)/python -m pytest tests/booted $(PYTEST)
	FAULTS=all $(BIN)/python -m pytest tests/contracts/test_store.py $(PYTEST)
	FAULTS=all CHAOS_ROUNDS=10 TTL_SECONDS=3600 $(BIN)/python -m pytest tests/faults $(PYTEST)

docs: deb
	DOCS=write $(BIN)/python -m pytest -q tests/drivers/test_oauth_document.py tests/simulation/test_crash_points.py \
		tests/frontends/test_messages_document.py tests/prometheus/test_documents.py \
		tests/kubernetes/test_monitoring.py tests/browser/test_pictures.py
	DOCS=write $(BIN)/python -m pytest -q tests/booted/test_fresh_machine.py

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(BENCH)

check: lint types contracts

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy

contracts: $(VENV)/.test
	$(BIN)/lint-imports --no-cache

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rotator needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet

$(VENV)/.run: $(VENV)/bin/python requirements/run.txt pyproject.toml
	$(PIP) --require-hashes -r requirements/run.txt
	$(PIP) --no-deps -e .
	touch $@

$(VENV)/.test: $(VENV)/.run requirements/test.txt
	$(PIP) --no-compile --require-hashes -r requirements/test.txt
	touch $@

# The peers that the figures stand beside.
$(VENV)/.bench: $(VENV)/.test requirements/bench.txt
	$(PIP) --require-hashes -r requirements/bench.txt
	touch $@

# Pinned anew from pyproject.toml; the files name no index, so any mirror serves.
requirements: $(VENV)/.test
	$(PIP) pip-tools
	$(COMPILE) -o requirements/run.txt pyproject.toml
	$(COMPILE) -o requirements/test.txt requirements/test.in
	$(COMPILE) -o requirements/bench.txt requirements/bench.in

COMPILE := $(BIN)/python -m piptools compile -q --strip-extras --generate-hashes --allow-unsafe --no-header \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
