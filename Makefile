# Two commands do everything: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help
.PHONY: help setup demo test suite lint types check bench fuzz wheel lock clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk -F':.*?## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: ## virtual environment with every locked dependency, libseccomp's binding and guardhouse itself
	@VENV=$(VENV) packaging/setup.sh dev

demo: setup ## hub and runner on this host, a tour of real work; stays up until Ctrl-C (ONCE=1 ends after the tour)
	@$(BIN)/python -m demo.tour $(if $(ONCE),--once)

lint: setup ## ruff: rules and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup ## mypy --strict
	@$(BIN)/mypy

# One process more than there are cores: tests wait a good part of their time for what they have started. The types are
# checked meanwhile.
test: lint ## the whole suite: lint, types, tests (TEST_PROCESSES=1: one at a time)
	@$(MAKE) --no-print-directory -j 2 types suite

# Hundreds of processes load the sources; where PYTHONDONTWRITEBYTECODE is set each would compile them anew.
suite: setup
	@$(BIN)/python -m compileall -q -j 0 src
	@$(BIN)/python -m pytest -n $(or $(TEST_PROCESSES),$(shell echo $$(($$(nproc) + 1)))) --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

check: test ## the same as test

bench: setup ## every benchmark in bench/, each as a ratio to a named peer in the same run
	@for b in bench/*.py; do echo "== $$b"; $(BIN)/python $$b || exit 1; done

fuzz: setup ## each fuzz target for SECONDS (default 60)
	@for f in fuzz/fuzz_*.py; do echo "== $$f"; $(BIN)/python $$f --seconds $(or $(SECONDS_EACH),60) || exit 1; done

wheel: setup ## build the wheel into dist/
	@$(BIN)/python -m pip wheel -q --no-deps --no-build-isolation -w dist .

lock: ## make requirements/*.txt anew from pyproject.toml (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header -q pyproject.toml -o requirements/runtime.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header -q pyproject.toml --group dev -o requirements/dev.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header -q requirements/build.in -o requirements/build.txt

clean: ## remove what was built; the virtual environment stays
	@rm -rf build dist .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
