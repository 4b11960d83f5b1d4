# `make demo` and `make test` do everything on a fresh machine; both build .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Two cores in CI: one process a worker, one thread each, is faster than one process with two threads.
WORKERS ?= 2

.PHONY: demo test lint generate docs docs-check bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo | test | lint | generate | docs | docs-check | bench | clean"

$(VENV)/.ready: constraints.txt setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@# torch first and alone: the pinned build must not be replaced by another package's wish.
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,peft,onnx,docs,web]'
	@touch $@

demo: $(VENV)/.ready
	$(BIN)/python -m examples.demo.run

test: $(VENV)/.ready lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers $(WORKERS)

generate: $(VENV)/.ready
	$(BIN)/python -m tools.generate

docs: $(VENV)/.ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "the pages lie in site/"

docs-check: $(VENV)/.ready
	$(BIN)/python -m pytest tests/docs

bench: $(VENV)/.ready
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) build site .pytest_cache .mypy_cache .ruff_cache .hypothesis
