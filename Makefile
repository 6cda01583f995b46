# Wattledger. `make run` shows this machine's power and CO2e; `make test` runs every test. Both need Python and PyPI alone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STATE_DIR ?= state
HTTP_PORT ?= 9790
GRPC_PORT ?= 9791
# Further arguments, such as ARGS="--demo" for `make run` or ARGS="-k rapl" for `make test`.
ARGS ?=

.PHONY: run test check bench bench-small soak spoil protos dashboards packages clean

run: $(VENV)/.run
	@$(BIN)/wattledger-collector quickstart $(if $(ZONE),--zone $(ZONE)) --state-dir $(STATE_DIR) \
	  --http-port $(HTTP_PORT) --grpc-port $(GRPC_PORT) $(ARGS)

test: $(VENV)/.dev
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# One JSON object a line: name, value, unit, and the ratio to its comparison in the same run.
bench: $(VENV)/.dev
	@$(BIN)/python tests/bench/run.py

bench-small: $(VENV)/.dev
	@$(BIN)/python tests/bench/run.py --small

# Long simulations of delivery under faults; SEEDS=300 SOAK_FIRST=0 choose which.
SEEDS ?= 2000
SOAK_FIRST ?= 0
soak: $(VENV)/.dev
	@$(BIN)/python -m tests.sim.soak --first $(SOAK_FIRST) --seeds $(SEEDS)

# Takes each rule of delivery away in a copy of the code; the simulation must notice.
spoil: $(VENV)/.dev
	@$(BIN)/python -m tests.sim.spoil

protos: $(VENV)/.dev
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=protos --grpc_python_out=protos \
	  --mypy_out=protos --mypy_grpc_out=protos protos/wattledger_protos/v1/telemetry.proto

dashboards: $(VENV)/.dev
	@PYTHONPATH=deploy $(BIN)/python -m grafana.generate

# A wheel and a source archive in dist/.
packages: $(VENV)/.dev
	@$(BIN)/pip install --quiet build
	@$(BIN)/python -m build

# The environment is made once, and again when pyproject.toml changes; each fault is one line with its remedy.
$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Wattledger needs Python 3.11 or newer as '$(PYTHON)'. Install it, or name it: make run PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "This Python lacks the venv module. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/pip pyproject.toml
	@echo "Installing into $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[collector]'
	@touch $@

# Dependency groups need pip 25.1.
$(VENV)/.dev: $(VENV)/bin/pip pyproject.toml
	@echo "Installing into $(VENV), with what the tests need ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[collector]' --group dev
	@touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
