# Everything a newcomer needs: `make demo` to hear it, `make test` to change it.

# torch for the CPU where pip finds that build; for CUDA name another build and where pip finds it:
#   make setup TORCH='torch==2.13.0' PIP_ARGS='--extra-index-url …'
export TORCH ?= torch==2.13.0
export PIP_ARGS ?=
# The Python to build .venv with; empty for the first of python3, python3.13 … that is 3.11 or newer.
export PYTHON ?=
# APT=no leaves the system's packages alone.
export APT ?=

BIN := .venv/bin
CODE := daemon kernels tests

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test format bench clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1|/p' Makefile | while IFS='|' read -r name what; do printf 'make %-10s %s\n' "$$name" "$$what"; done

setup: ## install what Antiphon needs into .venv
	@.ci/setup

setup-dev: ## the same, and what its tests need
	@.ci/setup dev

demo: setup ## play a phrase into the box and see its answer
	@$(BIN)/antiphon demo

test: setup-dev ## everything that a change must pass
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest

format: setup-dev ## lay out the code and mend what can be mended by itself
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

bench: setup ## how fast the model decodes and learns, and how punctual the answers are
	$(BIN)/antiphon bench decode
	$(BIN)/antiphon bench live
	$(BIN)/antiphon bench train

clean: ## remove what was built and installed here
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
