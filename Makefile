# Entry points for developers, hooks and CI. `make help` lists them.

PYTHON ?= python3
# The source of PyTorch for `make bench`: the CPU build.
TORCH ?= --index-url https://download.pytorch.org/whl/cpu torch

VENV := .venv
PY := $(VENV)/bin/python
STAMPS := $(VENV)/stamps
PIP := $(PY) -m pip
MATURIN := $(PY) -m maturin

# Everything runs in .venv, whatever environment the shell has activated.
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export PIP_QUIET := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYO3_PYTHON := $(CURDIR)/$(PY)
unexport CONDA_PREFIX PYTHONHOME PYTHONPATH

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-quick check bench bench-quick soak wheel cross format clean preflight extension

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile
	@echo "The first call creates $(VENV); PYTHON=python3.12 selects its interpreter."

demo: extension $(STAMPS)/examples ## Train a network on handwritten digits with every optimizer; writes demo.png
	$(PY) examples/digits.py

test: extension $(STAMPS)/examples ## Run all tests: Python, docstrings, Rust, the thread pool's protocol under loom, AddressSanitizer
	$(PY) -m pytest -n auto --dist worksteal
	$(PY) -m pytest --doctest-modules --doctest-ignore-import-errors python/lrcore
	cargo test
	RUSTFLAGS="--cfg loom" cargo test --release --lib --target-dir target/loom loom
	tools/asan.sh

test-quick: extension ## Run the tests that are not marked slow: two minutes on two cores
	$(PY) -m pytest -n auto --dist worksteal -m "not slow"

check: extension ## Check format, lints and types of Rust and Python
	cargo fmt --check -- src/rules/*.rs
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --features python,probes -- -D warnings
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(PY) -m mypy.stubtest lrcore._lrcore

# With bandwidth probes, in a target folder of its own: neither build replaces the other's.
bench: $(STAMPS)/dev $(STAMPS)/bench ## Compare the optimizers with other libraries; ARGS="--quick" for a short run
	$(MATURIN) develop --release --quiet --skip-install --features python,probes --target-dir target/probes
	$(PY) benches/compare.py $(ARGS)

# The first run saves the baseline, one folder per interpreter; `rm -r target/benchmarks` deletes it.
QUICK := target/benchmarks
# The threshold for failure. The minimum time is the least disturbed by other load on the machine.
SLOWER ?= min:30%

bench-quick: extension $(STAMPS)/quick ## Compare each rule with the baseline that the first run saved
	$(PY) -m pytest -q benches/test_step.py --benchmark-storage=file://$(QUICK) \
	    --benchmark-warmup=on --benchmark-disable-gc --benchmark-max-time=0.3 \
	    --benchmark-columns=min,median,iqr --benchmark-sort=name \
	    $(if $(wildcard $(QUICK)/*/0001_baseline.json),--benchmark-compare=0001 \
	    --benchmark-compare-fail=$(SLOWER),--benchmark-save=baseline)

MINUTES ?= 10
soak: extension ## Run adversarial tests for MINUTES=10: fuzzing under AddressSanitizer, damaged files, interrupts, kills
	tools/soak.sh $(CURDIR)/$(PY) $(MINUTES) $(ARGS)

wheel: $(STAMPS)/wheel ## Build a wheel into dist, and test it in a clean environment
	tools/wheel.sh $(PY)

cross: | preflight ## Lint for ARM Linux, Windows, macOS and musl; test ARM Linux in an emulator; fetches 3 GB once
	tools/cross.sh "$(PYTHON)"

format: $(STAMPS)/dev ## Format Rust and Python, and apply safe lint fixes
	cargo fmt -- src/rules/*.rs
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

clean: ## Delete everything generated, including .venv
	rm -rf $(VENV) target dist demo.png .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f python/lrcore/*.so
	find python tests benches examples tools -name __pycache__ -prune -exec rm -rf {} +

# Set-up. A stamp records that a part is done; it is out of date if a prerequisite is newer.

preflight:
	@tools/preflight.sh "$(PYTHON)" "$(origin PYTHON)"

$(STAMPS)/venv: | preflight
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"
	@mkdir -p $(STAMPS)
	@touch $@

$(STAMPS)/dev: pyproject.toml Cargo.toml $(STAMPS)/venv
	$(PIP) install --group dev
	$(MATURIN) develop --release
	@touch $@

$(STAMPS)/examples: pyproject.toml $(STAMPS)/dev
	$(MATURIN) develop --release --quiet --extras examples
	@touch $@

# A library that can't be installed is left out of the comparison and listed. Libraries that depend on PyTorch would
# install a CUDA build of several GB, so PyTorch is installed first, and they only if it is present.
$(STAMPS)/bench: pyproject.toml $(STAMPS)/dev
	$(PIP) install --group bench
	@for peer in numba optax thinc; do \
	  $(PIP) install --group bench-$$peer || echo "$$peer can't be installed: left out of the comparison"; done
	@$(PY) -c "import torch" 2>/dev/null || $(PIP) install $(TORCH) || \
	  echo "PyTorch can't be installed: left out of the comparison; benches/README.md says what to do"
	@if $(PY) -c "import torch" 2>/dev/null; then for peer in bitsandbytes deepspeed; do \
	  $(PIP) install --group bench-$$peer || echo "$$peer can't be installed: left out of the comparison"; done; fi
	@touch $@

$(STAMPS)/quick: pyproject.toml $(STAMPS)/venv
	$(PIP) install --group quick
	@touch $@

$(STAMPS)/wheel: pyproject.toml $(STAMPS)/venv
	$(PIP) install --group wheel
	@touch $@

# Always run: cargo decides whether there is anything to build.
extension: $(STAMPS)/dev
	$(MATURIN) develop --release --quiet --skip-install
