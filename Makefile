# Everything the project needs on a machine is installed into .venv by these targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo up test lint bench bench-detect chaos grafana wheel record clean

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
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile -rs

bench-detect: setup
	$(BIN)/python -m bench.score
	$(BIN)/python -m bench.detect

bench: setup
	$(BIN)/python -m bench.native_decode
	$(BIN)/python -m bench.end_to_end
	$(BIN)/python -m bench.fleet
	$(BIN)/python -m bench.capacity
	$(BIN)/python -m bench.rollups
	$(BIN)/python -m bench.dashboards

# The crash, damage and mutation tests of `make test`, in full size: about an hour.
chaos: setup
	SPANWISE_KILLS=100 SPANWISE_DAMAGE=1000 SPANWISE_MUTATIONS=1000000 SPANWISE_HOSTILE=500 SPANWISE_ROLLUP_EXAMPLES=200 \
		$(BIN)/pytest tests/chaos tests/detector tests/journal tests/kafka tests/native tests/rollups -s --timeout 7200

# Every query of the dashboards through the libraries of Grafana's data source: takes Go, and minutes to build them.
grafana: setup
	SPANWISE_GRAFANA=1 $(BIN)/pytest tests/dashboards/test_frames.py -s

# An abi3 wheel: installs and runs without a Rust toolchain.
wheel: setup
	$(BIN)/maturin build --release --out dist

# Record the fixtures of tests/live again, with the pinned instrumentation packages.
record: setup
	test -d .venv-live || $(PYTHON) -m venv .venv-live
	.venv-live/bin/pip install --quiet --requirement tests/live/agents/requirements.txt
	$(BIN)/python -m tests.live.record .venv-live/bin/python

clean:
	rm -rf $(VENV) .venv-live native/target dist
