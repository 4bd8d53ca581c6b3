# One command, one truth: `make up` runs Weir, `make check` and `make test` say whether it is right.

PYTHON ?= $(shell for python in python3 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& echo "$$python" && break; done)
BIN := .venv/bin
UPGRADE ?=
SEED ?=
ARGS ?=
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock" $(UPGRADE)

.DEFAULT_GOAL := help
.PHONY: help up down test test-fast faults soak check audit sbom gen lock clean runtime dev triton

help: ## this list
	@echo "Weir. State lies in .weir/ (WEIR_HOME). Targets:"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1|/' | column -t -s '|' 2>/dev/null \
		|| grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST)

up: runtime ## set up and run everything here, until Ctrl-C; options: make up ARGS="--sandbox-cloud"
	@exec $(BIN)/weir up $(ARGS)

down: runtime ## stop a `weir up --detach`
	@exec $(BIN)/weir down

test: dev triton ## the whole suite, on real Envoy, Triton and PostgreSQL; one part: make test ARGS="tests/unit -k codec"
	@$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

test-fast: dev ## tests without real backends
	@$(BIN)/python -m pytest -n 2 --dist loadgroup tests/unit tests/rpc $(ARGS)

faults: dev triton ## every fault of docs/faults.md through the whole mesh, and a scorecard of them
	@$(BIN)/python -m tests.harness.scorecard $(ARGS)

soak: dev triton ## 2,000 mixed requests, 32 at once, with faults by a seed; a seed of your own: make soak SEED=7
	@WEIR_SOAK_REQUESTS=2000 WEIR_SOAK_SEED=$(SEED) $(BIN)/python -m pytest -n 0 -rP -q tests/faults/test_soak.py $(ARGS)

check: dev ## format, lint, types, imports, contracts, generated files up to date
	@$(BIN)/python -m tools.check

audit: dev ## dependencies: pinned, allowed licences, no known faults, nothing else installed (part of make check)
	@$(BIN)/python -m tools.dependency_audit

sbom: dev ## what Weir runs with, with hashes and licences, as CycloneDX JSON into build/sbom.cdx.json
	@mkdir -p build
	@$(BIN)/python -m tools.sbom > build/sbom.cdx.json
	@echo "build/sbom.cdx.json"

gen: dev ## write gen/ from proto/, and the pages that are made from code
	@$(BIN)/python -m tools.generate
	@$(BIN)/python -m tools.error_table
	@$(BIN)/python -m tools.compatibility_table
	@$(BIN)/python -m tools.settings_schema

release-contracts: dev ## at a release: what `make check` compares contracts with becomes what they are now
	@$(BIN)/buf build --exclude-source-info -o proto/released.binpb

lock: dev ## write requirements/ from pyproject.toml; newer versions: make lock UPGRADE=--upgrade
	@$(COMPILE) pyproject.toml --group dev -o requirements/dev.txt
	@$(COMPILE) pyproject.toml -c requirements/dev.txt -o requirements/runtime.txt
	@$(COMPILE) --group bootstrap -c requirements/dev.txt -o requirements/bootstrap.txt
	@$(COMPILE) --group node -o requirements/node.txt

clean: ## remove the venv and caches; state in .weir/ stays
	@rm -rf .venv .venv.lock .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.weir/*' -prune -exec rm -rf {} +

runtime dev:
	@test -n "$(PYTHON)" || { echo "weir: no Python 3.11 or 3.12 found; say where: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@"$(PYTHON)" tools/set_up.py $@

triton: dev
	@$(BIN)/python -m weirctl.prepare_triton "{\"home\": \"$${WEIR_HOME:-.weir}\", \"packages\": null}"
