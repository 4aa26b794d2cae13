# One entry point for people and CI. `make help` lists the targets.
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
# Processes that the tests are spread over; each may hold the embedded model, about 1 GB.
WORKERS ?= 2

.PHONY: help setup browser demo test test-harness test-fast check format docs bench-stream bench-mutate bench-chain clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

setup: $(READY) browser  ## make .venv with everything, and a browser for the report's tests

$(READY): pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet -c constraints.txt torch==2.13.0
	$(PY) -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(READY)

browser:
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && apt-get install -y -qq chromium >/dev/null; \
	else echo "no chromium found: the report's browser tests will be skipped"; fi

demo: $(READY)  ## learn four product lines on a real model, beside the naive recipe; writes demo/report.html
	$(PY) -m perdure.cli.main demo --out demo

test: setup  ## every test, at most 20 minutes on 2 cores with set-up
	$(PY) -m pytest -n $(WORKERS) --dist worksteal

test-harness: $(READY)  ## lm-evaluation-harness beside the rest (29 packages more), and its tests, which are skipped without it
	$(PY) -m pip install --quiet -c constraints.txt -e '.[eval]'
	$(PY) -m pytest tests/bridges/test_harness.py

FAST := core data maths memory ledger model evaluate train methods
test-fast: $(READY)  ## the rooms below the workflows; without: model, browser, shared data, editing, bridges, contract, command line
	$(PY) -m pytest -n $(WORKERS) --dist worksteal -m "not model and not browser and not data" $(FAST:%=tests/%)

check: $(READY)  ## format, lint, types, architecture, docs
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PY) docs/build.py --check

format: $(READY)  ## write the formatting and the generated docs
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .
	$(PY) docs/build.py

bench-stream: $(READY)  ## the measure of the README: recipes on a stream of five tasks (hours)
	$(PY) benchmarks/stream.py

bench-mutate: $(READY)  ## thousands of mutated files with every reader (minutes)
	$(PY) benchmarks/mutate.py

bench-chain: $(READY)  ## learn, edit, learn, edit, revert, rollback, export on the embedded model, each step checked (minutes)
	$(PY) benchmarks/chain.py $(BENCH)

bench-%: $(READY)  ## a suite of `perdure bench`: bench-digits5, bench-clinc3, bench-clinc5, ...
	$(VENV)/bin/perdure bench $* --data ../shared/data --out benchmarks/results $(BENCH)

clean:  ## remove what the targets made
	rm -rf $(VENV) demo .hypothesis .mypy_cache .ruff_cache
