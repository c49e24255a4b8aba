# Everything a newcomer needs: `make study` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
DATA   ?=
TESTS  ?=

.PHONY: study test lint verify benchmarks docs clean

study: $(VENV)/.study
	$(BIN)/engramma study $(DATA)

test: $(VENV)/.dev
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto $(TESTS)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

verify: $(VENV)/.dev
	$(BIN)/engramma verify --jobs 1 --record results/claims.json

benchmarks: $(VENV)/.dev
	$(BIN)/python benchmarks/ridge.py
	$(BIN)/python benchmarks/ridge_zarr.py
	$(BIN)/python benchmarks/rdm.py
	$(BIN)/python benchmarks/sequence_layers.py
	$(BIN)/python benchmarks/event_retrieval.py
	$(BIN)/python benchmarks/hcam.py
	$(BIN)/python benchmarks/probing.py
	$(BIN)/python benchmarks/scenes.py

docs: $(VENV)/.dev
	$(BIN)/mkdocs build --strict

# torch comes first and alone: another package that asks for it would bring a build for GPUs.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	touch $@

$(VENV)/.study: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
