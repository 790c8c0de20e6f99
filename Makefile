# make perf: sets up all it needs and shows pycomm beside what else is installed.  make test: sets up all it needs and tests.
# PYTHON chooses the interpreter; VS the rivals of `make perf` (gloo installs torch); N the ranks.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
N ?= 2
VS ?= openmpi,mpich,impi

.PHONY: perf test lint setup setup-test setup-perf clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { [ "$$(id -u)" = 0 ] && apt-get update -q && apt-get install -qy python3-venv python3-dev && $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install -q --upgrade pip

# One stamp a group of packages: installing is redone when pyproject.toml or the C sources change.
SOURCES := pyproject.toml meson.build $(wildcard csrc/*.[ch] csrc/kernels/*.[ch] transports/*.[ch] pycomm/* algorithms/* perf/*)
$(VENV)/installed: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install -q .
	touch $@

$(VENV)/perf-installed: $(VENV)/installed
	$(BIN)/python -m pip install -q '.[perf]'
	case ,$(VS), in *,gloo,*) $(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install -q torch==2.13.0;; esac
	touch $@

$(VENV)/test-installed: $(VENV)/installed
	$(BIN)/python -m pip install -q '.[test,mpi]' meson ninja
	touch $@

setup: $(VENV)/installed

perf: $(VENV)/perf-installed
	$(BIN)/pycomm perf allreduce -n $(N) -b 8 -e 64M -f 8 --vs $(VS)

test: $(VENV)/test-installed
	sh tests/system-packages.sh
	$(BIN)/python tests/run.py

lint: $(BIN)/python
	$(BIN)/python -m pip install -q '.[lint]'
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror csrc/*.[ch] csrc/kernels/*.[ch] transports/*.[ch] pycomm/*.[ch] tests/c/*.[ch]

clean:
	rm -rf $(VENV) build
