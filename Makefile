# The front door, the same for people, hooks and CI. `make help` lists what it does.

PYTHON ?= python3
# Where PyTorch comes from, for `make bench`: the CPU build.
TORCH ?= --index-url https://download.pytorch.org/whl/cpu torch

VENV := .venv
PY := $(VENV)/bin/python
STAMPS := $(VENV)/stamps
PIP := $(PY) -m pip
MATURIN := $(PY) -m maturin

# What the shell has activated does not matter: everything runs in .venv.
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export PIP_QUIET := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYO3_PYTHON := $(CURDIR)/$(PY)
unexport CONDA_PREFIX PYTHONHOME PYTHONPATH

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test check bench bench-quick soak wheel cross format clean preflight extension

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile
	@echo "The first call makes $(VENV); PYTHON=python3.12 chooses its interpreter."

demo: extension $(STAMPS)/examples ## Train a network on handwritten digits with every optimizer; writes demo.png
	$(PY) examples/digits.py

test: extension $(STAMPS)/examples ## Run all tests: Python, docstrings, Rust, the model of the thread pool, AddressSanitizer
	$(PY) -m pytest
	$(PY) -m pytest --doctest-modules --doctest-ignore-import-errors python/lrcore
	cargo test
	RUSTFLAGS="--cfg loom" cargo test --release --lib --target-dir target/loom loom
	tools/asan.sh

check: extension ## Check format, lints and types, of Rust and Python
	cargo fmt --check -- src/rules/*.rs
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --features python -- -D warnings
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(PY) -m mypy.stubtest lrcore._lrcore

bench: extension $(STAMPS)/bench ## Measure the optimizers against their peers; ARGS="--quick" for a short run
	$(PY) benches/compare.py $(ARGS)

# The first run saves the baseline, in a folder of its own for each interpreter; `rm -r target/benchmarks` forgets it.
QUICK := target/benchmarks
# What makes it fail. The least time is the one that other work on the machine disturbs least.
SLOWER ?= min:30%

bench-quick: extension $(STAMPS)/quick ## Measure each rule, and compare with the baseline that the first run saved
	$(PY) -m pytest -q benches/test_step.py --benchmark-storage=file://$(QUICK) \
	    --benchmark-warmup=on --benchmark-disable-gc --benchmark-max-time=0.3 \
	    --benchmark-columns=min,median,iqr --benchmark-sort=name \
	    $(if $(wildcard $(QUICK)/*/0001_baseline.json),--benchmark-compare=0001 \
	    --benchmark-compare-fail=$(SLOWER),--benchmark-save=baseline)

MINUTES ?= 10
soak: extension ## Try to break it for MINUTES=10: fuzzing under AddressSanitizer, damaged files, interrupts, kills
	tools/soak.sh $(CURDIR)/$(PY) $(MINUTES) $(ARGS)

wheel: $(STAMPS)/wheel ## Build a wheel into dist, and test it in an environment of its own
	tools/wheel.sh $(PY)

cross: | preflight ## Check for ARM Linux, Windows, macOS and musl; test ARM Linux in an emulator; fetches 3 GB once
	tools/cross.sh "$(PYTHON)"

format: $(STAMPS)/dev ## Format Rust and Python, and mend the lints that can be mended safely
	cargo fmt -- src/rules/*.rs
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

clean: ## Delete everything that was made here, .venv too
	rm -rf $(VENV) target dist demo.png .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f python/lrcore/*.so
	find python tests benches examples tools -name __pycache__ -prune -exec rm -rf {} +

# Set-up. A stamp is newer than what it depends on when its part is done.

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

# A peer that can't be installed is left out of the comparison, which says so. What builds on PyTorch would bring a CUDA
# build of several GB with it, so PyTorch goes first, and they come only where it is.
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

# Always asked for: cargo knows best whether there is anything to build.
extension: $(STAMPS)/dev
	$(MATURIN) develop --release --quiet --skip-install
