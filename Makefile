# `make demo` and `make test` need nothing but Python 3.11 or newer and make.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
READY_FOR_DOCS := .venv/ready-for-docs

.PHONY: demo study test test-all check docs format docs-tables clean

demo: $(READY)
	$(BIN)/semvlp demo --out runs/demo --size small

# Hours: the command says how many before it starts, and goes on where it was stopped.
study: $(READY)
	$(BIN)/python -m semvlp.demo.experiments.study --jobs 2

# One thread for each process: two workers of pytest share two cores.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not gpu and not detectron2"

test-all: $(READY)
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	rm -rf build dist
	$(BIN)/python -m build --wheel --outdir dist .
	$(BIN)/check-wheel-contents dist

# Builds site/; a broken link or a docstring that cannot be read is an error.
docs: $(READY_FOR_DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The tables of settings in docs/, from the dataclasses; a test fails where they are out of date.
docs-tables: $(READY)
	$(BIN)/python -m semvlp.commands.settings_pages docs

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

$(READY_FOR_DOCS): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

clean:
	rm -rf .venv build dist site runs *.egg-info
