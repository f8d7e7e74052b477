# `make demo` and `make test` each are enough on a fresh machine with Python 3.11 or newer and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-long lint types walls check bench clean

$(READY): pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: $(READY)  ## make a catalogue, train, evaluate, tag; everything lands under demo-run/
	$(BIN)/python -m mtl_core.demo.run

test: $(READY)  ## all tests but the long ones, under 10 minutes on 2 cores
	$(BIN)/python -m pytest -m "not slow"

test-long: $(READY)  ## the long ones
	$(BIN)/python -m pytest -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

walls: $(READY)
	$(BIN)/lint-imports

check: lint types walls

bench: $(READY)  ## measured side by side, see bench/
	$(BIN)/python bench/bench_front_end.py

clean:
	rm -rf .venv demo-run build *.egg-info
