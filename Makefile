# Everything the project needs on a machine is installed into .venv by these targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo up test lint bench bench-detect chaos wheel docs native clean

setup: $(VENV)/.ready

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.ready: pyproject.toml native/Cargo.toml native/Cargo.lock $(wildcard native/src/*.rs) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

up: setup
	$(BIN)/spanwise up

demo: setup
	$(BIN)/spanwise demo $(if $(ONCE),--once)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cargo fmt --manifest-path native/Cargo.toml --check
	cargo clippy --manifest-path native/Cargo.toml --quiet --all-targets -- -D warnings

test: lint
	cargo test --manifest-path native/Cargo.toml --quiet
	$(BIN)/pytest

clean:
	rm -rf $(VENV) native/target dist
