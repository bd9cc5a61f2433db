# `make demo` and `make test` do all the set-up themselves; `make help` lists every target.
# PYTHON chooses the interpreter, ARGS is handed to the demo or the benchmark, PYTEST_ARGS to pytest.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# A file's tests stay in one worker: what it starts once (a broker, a demo) is started once. Three on two cores: much of
# the time is waiting. The order of the files is that of tests/conftest.py, the longest first.
WORKERS ?= 3
FUZZ_STAMP := $(VENV)/.fuzz-installed
SECONDS ?= 10
SHARED_OUT := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# Tests start some two hundred processes: each would compile all of our modules anew.
unexport PYTHONDONTWRITEBYTECODE
UV = $(shell command -v $(BIN)/uv || command -v uv)

.DEFAULT_GOAL := help
.PHONY: help demo test check lint fast kafka images sbom helm-schema k8s bench chaos fuzz abuse lock clean crashes

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/\1	\2/p' Makefile | while IFS='	' read -r name what; do printf '  make %-7s %s\n' "$$name" "$$what"; done

demo: $(STAMP) ## run the whole system on this machine (ARGS="--signers 5 --threshold 3")
	@exec $(BIN)/signer-flow demo $(ARGS)

test: $(STAMP) ## run every test (PYTEST_ARGS="-k frost")
	@exec $(BIN)/python -m pytest $(SHARED_OUT) $(PYTEST_ARGS)

crashes: $(STAMP) ## every ceremony with a death at every write and send, larger committees too (minutes)
	@CRASHES=all exec $(BIN)/python -m pytest $(SHARED_OUT) tests/protocol/test_crash_and_restart.py tests/protocol/test_crash_for_good.py $(PYTEST_ARGS)

check: lint fast ## formatting, lint, types, import rules and the fast tests

lint: $(STAMP) ## formatting, lint, types and import rules
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

fast: $(STAMP) ## the tests that need no broker and little time
	@exec $(BIN)/python -m pytest -q $(SHARED_OUT) -m "not kafka and not docker and not helm and not slow" $(PYTEST_ARGS)

kafka: $(STAMP) ## run a real single-node Apache Kafka on loopback until interrupted
	@exec $(BIN)/python .ci/kafka/kafka.py run

images: $(STAMP) ## make the two images, and where no registry can be reached what they stand on (needs Docker)
	@exec .ci/docker/images

sbom: $(STAMP) ## write sbom.json: the libraries in the images, as CycloneDX
	@$(BIN)/python .ci/sbom.py > sbom.json.part && mv sbom.json.part sbom.json

helm-schema: $(STAMP) ## make the chart's values.schema.json of its values.yaml
	@$(BIN)/python .ci/helm_schema.py --write

k8s: $(STAMP) ## make k8s/signer-flow.yaml of the chart (needs helm; ARGS="--set committee.size=5")
	@$(BIN)/python .ci/plain_manifests.py --write $(ARGS)

bench: $(STAMP) ## measure on a real Apache Kafka, up to 12 minutes (ARGS="--quick --json bench.json")
	@exec $(BIN)/python -m tests.bench $(ARGS)

chaos: $(STAMP) ## kill, stop and refresh under load, then prove that nothing was lost (SEED=1 ARGS="--requests 100000 --kills 20")
	@exec $(BIN)/python -m tests.chaos --seed $(SEED) $(ARGS)

fuzz: $(FUZZ_STAMP) ## look for inputs that a decoder does not stand, SECONDS for each (SECONDS=60 ARGS="--decoder http --jobs 2")
	@exec $(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)

abuse: $(STAMP) ## slow, silent, endless and rude clients against a running system, with figures (ARGS="--connections 5000")
	@exec $(BIN)/python -m tests.abuse $(ARGS)

lock: ## write the locks anew from pyproject.toml (UPGRADE=--upgrade for newer versions)
	@test -n "$(UV)" || { echo "make lock needs uv: python3 -m pip install uv" >&2; exit 1; }
	$(UV) pip compile pyproject.toml --extra dev --python-version 3.11 --universal --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --quiet $(UPGRADE) -o requirements.lock
	$(UV) pip compile pyproject.toml --constraint requirements.lock --python-version 3.11 --universal --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet -o requirements-runtime.lock
	$(UV) pip compile --group fuzz --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet $(UPGRADE) -o requirements-fuzz.lock

clean: ## remove everything that the other targets made
	rm -rf $(VENV) .fuzz .kafka .helm-tools .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist sbom.json* *.egg-info
	find docker/wheelhouse -mindepth 1 ! -name .gitignore -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Hashes are required, so a package index (or whoever sits before it) cannot slip in other bytes.
$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "signer-flow needs Python 3.11 or newer; there is no '$(PYTHON)'. Name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "signer-flow needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(FUZZ_STAMP): requirements-fuzz.lock $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-fuzz.lock
	@touch $@
