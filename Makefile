# Every target brings .venv up to date first; a second run does nothing and needs no network.
#   make demo ARGS="--seed 3"     or     make demo SEED=3 SECONDS=30 PLAIN=1
#   make setup PYTHON=/path/to/python3.12

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench bench-peers chaos docs examples notebooks clean demo-environment dev-environment
MAKEFLAGS += --no-print-directory

# A candidate must run, be new enough and be able to make environments: version managers leave commands that
# exist but fail, and some distributions ship Python without ensurepip.
PROBE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))
FOUND_PYTHON := $(shell for candidate in "$(PYTHON)" python3.12 python3.13 python3.14 python3 python; do \
	"$$candidate" -c '$(PROBE)' >/dev/null 2>&1 && { echo "$$candidate"; break; }; done)
ifeq ($(FOUND_PYTHON),)
$(error pamiq_jax needs Python 3.12 or newer with venv, and none was found; install one or name it: make PYTHON=/path/to/python3.12)
endif

RUN := .venv/bin/python
DEMO_OPTIONS = $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(PLAIN),--plain) $(ARGS)

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

setup: dev-environment ## make .venv with everything for test, check, docs and notebooks

demo: demo-environment ## an agent learns CartPole while it plays; options in ARGS, SEED, SECONDS, PLAIN
	@$(RUN) -m pamiq_jax demo cartpole $(DEMO_OPTIONS)

# All tests share the cores; a file, or whatever else is named, runs in one process.
test: dev-environment ## all tests and doctests; options for pytest in ARGS
	@$(RUN) -m pytest -q $(if $(ARGS),$(ARGS),-n auto --maxprocesses 4 --dist loadfile)

check: dev-environment ## format, lint, types, import direction
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m basedpyright --project pyproject.toml --pythonpath $(RUN)
	@$(RUN) -c "from importlinter.cli import lint_imports_command; lint_imports_command()"

bench: dev-environment ## measure against references and write docs/benchmarks.md; or only names and --quick in ARGS
	@$(RUN) -m benchmarks $(or $(ARGS),--write)

bench-peers: dev-environment ## the same beside pamiq-core (torch: several GB) and flashbax, in .venv-peers
	@scripts/peers-environment "$(FOUND_PYTHON)"
	@$(RUN) -m benchmarks $(or $(ARGS),--write idle_cpu ingest publish sample vae_pamiq)

chaos: dev-environment ## let everything go wrong for an hour: kills, full disks, a soak; names, --seed, --minutes, --write in ARGS
	@JAX_PLATFORMS=cpu $(RUN) -m tests.chaos --long $(ARGS)

docs: dev-environment ## build the site into site/
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet
	@echo "site/index.html"

examples: dev-environment ## run the trainers of examples/ and draw their figures; names and options in ARGS
	@$(RUN) -m examples $(ARGS)

notebooks: dev-environment ## execute the notebooks in place
	@.venv/bin/jupyter-execute --inplace notebooks/*.ipynb

clean: ## remove .venv, the site and every cache; runs/ stays
	@rm -rf .venv .venv-peers site dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

demo-environment:
	@scripts/environment "$(FOUND_PYTHON)" demo

dev-environment:
	@scripts/environment "$(FOUND_PYTHON)" dev
