# Every target makes .venv by itself; all it needs is make and Python 3.10 or later: `make test PYTHON=python3.12`.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
BIN := $(VENV)/bin
WORKERS ?= 2
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint format bench reproduce clean

demo: $(STAMP)
	$(BIN)/secateur demo

test: $(STAMP)
	$(BIN)/python -m pytest -q -n $(WORKERS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)
	$(BIN)/python benchmarks/bench_analysis.py
	$(BIN)/python benchmarks/bench_search.py

# The papers' tables and figures: the autoencoder on MNIST if SECATEUR_DATA names its folder (an hour or so), else on digits
# (minutes); then the controllers (hours; what was run is kept, so that it may be stopped).
reproduce: $(STAMP)
	$(BIN)/secateur reproduce mnist-autoencoder
	$(BIN)/secateur reproduce tdmpc --task cartpole-swingup
	$(BIN)/secateur reproduce tdmpc --task walker-walk --sparsity 0.5 --sparsity 0.75 --distill 110

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist secateur-demo secateur-reproduce* secateur-tdmpc-*

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 10) or sys.exit("Secateur needs Python 3.10 or later and this is %d.%d; name a newer one: make PYTHON=python3.12" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=22.3'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
