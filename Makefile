# `make` alone lists the targets. Needs Python 3.11 or newer, and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

demo: install ## Install, run the whole pipeline on the simulated model, show what came out
	@$(BIN)/cai run configs/quickstart.yaml
	@echo
	@$(BIN)/cai show configs/quickstart.yaml everyday-17-1 --stage revise

test: install-dev ## Run the tests
	@$(BIN)/python -m pytest -n 2 -m "not wheel"

lint: install-dev ## Check style and types (ruff, mypy --strict)
	@$(BIN)/ruff check .
	@$(BIN)/mypy

wheel-test: install-dev ## Build the wheel, install it elsewhere, run it from there
	@$(BIN)/python -m pytest -m wheel

bench: install-dev ## Print what a request costs here: CPU, wall, memory
	@$(BIN)/python tests/benchmarks/request_cost.py

bench-judges: install-dev ## Print how much of the truth is recovered from judges whose biases are known
	@$(BIN)/python tests/benchmarks/judges.py
	@$(BIN)/python tests/benchmarks/adaptive.py
	@$(BIN)/python tests/benchmarks/judge_rows.py

bench-llmbar: install-dev ## The same on five real judges: make bench-llmbar DATA=llmbar_judge_votes.jsonl.gz
	@$(BIN)/python tests/benchmarks/llmbar.py $(DATA)

bench-hostile: install-dev ## Print how often hostile texts turn the simulated judge's verdict
	@$(BIN)/python tests/benchmarks/hostile.py

bench-million: install-dev ## Print seconds and memory of `cai debias` on a million pairs
	@$(BIN)/python tests/benchmarks/million.py

bench-ceiling: install-dev ## Print requests a second of one process on one core, and microseconds by part of a request
	@$(BIN)/python tests/benchmarks/ceiling.py

bench-limits: install-dev ## Print which share of a server's rate limits a run uses, and how a storm of 529s ends
	@$(BIN)/python tests/benchmarks/limits.py
	@$(BIN)/python tests/benchmarks/storm.py

bench-estimates: install-dev ## Print how far estimates are from what runs cost
	@$(BIN)/python tests/benchmarks/estimates.py

bench-prompts: install-dev ## Print seconds and memory of a million prompts, killed at half: make bench-prompts N=1000000
	@$(BIN)/python tests/benchmarks/million_prompts.py $(N)

screenshots: install-dev ## Make docs/screens anew: what every display shows (needs tmux)
	@$(BIN)/python docs/screenshots.py

docs: install-dev ## Write anew what is made from the code: docs/reference, docs/messages.md
	@$(BIN)/python docs/reference.py
	@$(BIN)/python docs/messages.py

lock: ## Write the lock files anew (needs uv)
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-annotate --python-version 3.11 --extra zstd --group build \
	  --custom-compile-command "make lock" -o requirements.lock pyproject.toml
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-annotate --python-version 3.11 --all-extras --group build --group dev \
	  --custom-compile-command "make lock" -o requirements-dev.lock pyproject.toml

install: $(VENV)/.installed ## Make .venv with what the lock file says
install-dev: $(VENV)/.installed-dev ## The same with what tests need

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "cai needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 2; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: requirements.lock pyproject.toml | $(VENV)/.python
	@echo "installing into $(VENV) ..."
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	@echo "installing what tests need ..."
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

clean: ## Remove .venv, caches and the demo's output
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist data/quickstart

.PHONY: help demo docs test lint wheel-test bench bench-judges bench-llmbar bench-hostile bench-million bench-ceiling bench-limits bench-estimates bench-prompts screenshots lock install install-dev clean
.DEFAULT_GOAL := help
