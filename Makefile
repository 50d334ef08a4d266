# Everything a newcomer needs, from a fresh checkout on: `make` lists it.

# Which interpreter .venv is made of; empty: python3, or a newer one beside it.
PYTHON ?=
VENV := .venv
IN := $(VENV)/bin/python

# ARGS goes to the command behind demo, run and test: make test ARGS='-k tokens -x'
ARGS ?=

# How many processes share the whole suite; much of it waits for real processes.
JOBS ?= 2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env demo run soak e2e conformance test deploy-test lint format docs wheel wheel-test news clean distclean

help:  ## list these targets
	@echo 'fjmcp: the front door between AI assistants and a forge.'
	@echo
	@echo 'On a machine with python3 (3.11 or later) and make, nothing else is needed:'
	@echo '  make demo                see the whole way: sign in, consent, call a tool; then it serves'
	@echo '  make demo ARGS=--once    the same, and exit after the walk'
	@echo '  make test                the whole suite'
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-20s %s\n", $$1, $$2}'
	@echo
	@echo 'The environment is $(VENV)/, made at the first need (make env PYTHON=… chooses).'
	@echo 'Run the daemon:  $(VENV)/bin/twistd -n fjmcp --help'

env:  ## make or refresh .venv; says nothing when it is up to date
	@PYTHON='$(PYTHON)' scripts/environment $(VENV)

demo: env  ## a stand-in Forgejo, the broker, a real child and a scripted client
	@$(IN) -m fjmcp.demo $(ARGS)

run: env  ## the demo for a developer: starts again when a source file changes
	@$(IN) scripts/again fjmcp -- $(IN) -m fjmcp.demo $(ARGS)

soak: env  ## a session for each call, 1,000 times; fails on what leaked (ARGS='--calls 200')
	@$(IN) -m fjmcp.demo.soak $(ARGS)

e2e: env  ## real clients and a real Chromium, from the URL to a tool call (ARGS=inspector)
	@CHROMIUM='$(CHROMIUM)' $(IN) -m fjmcp.demo.e2e $(ARGS)

conformance: env  ## a running broker judged by the official suite and mcp-authlab
	@$(IN) -m fjmcp.demo.conformance $(ARGS)

test: env  ## the whole suite under pytest, then (without ARGS) the unit part under trial
	$(IN) -m pytest --ignore=tests/deploy $(or $(ARGS),-n $(JOBS))
	$(if $(ARGS),,$(IN) -W error -m twisted.trial -j $(JOBS) --reporter=text $(UNIT))

deploy-test: env  ## fjmcp behind nginx and Caddy, and a backup restored; needs nginx, caddy, sqlite3
	$(IN) -m pytest $(or $(ARGS),tests/deploy)

lint: env  ## ruff, mypy strict, the floors, no mock.patch
	$(IN) -m ruff check .
	$(IN) -m ruff format --check .
	$(IN) -m mypy
	$(VENV)/bin/lint-imports
	@! grep -rn --include='*.py' -e 'mock\.patch' -e 'mock import.*patch' fjmcp tests || \
	    { echo 'lint: pass a double in, do not patch'; exit 1; }

format: env  ## let ruff mend what it can
	$(IN) -m ruff check --fix .
	$(IN) -m ruff format .

docs: env  ## write what is made in docs/: options, limits, the files of deploy/
	$(IN) -m fjmcp.daemon.handbook docs/configuration.md
	$(IN) scripts/documents.py

wheel: env  ## build dist/fjmcp-*.whl, its revision and date inside
	@rm -rf build dist  # setuptools would put removed modules of an older build in
	$(IN) -m build --wheel --outdir dist --config-setting=--global-option=--quiet .

wheel-test: wheel  ## install the wheel into an empty environment and start it there
	$(IN) scripts/wheel-test dist/fjmcp-*.whl

news: env  ## show the news that the next release would print
	$(IN) -m towncrier build --draft --version next

clean:  ## remove what building and testing left
	rm -rf build dist *.egg-info _trial_temp* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find fjmcp tests twisted -name __pycache__ -prune -exec rm -rf {} +

distclean: clean  ## that, and the environments
	rm -rf $(VENV) .child .demo .conformance

# What trial runs: everything that needs neither a real process nor pytest's fixtures.
UNIT = $(shell find tests -name 'test_*.py' ! -name 'test_real_*' ! -path 'tests/e2e/*' | sort)
