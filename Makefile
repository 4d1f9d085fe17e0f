# `make run` and `make test` do all set-up by themselves; see .ci/setup.

PYTEST_ARGS ?=
MUTANTS ?=
CHAOS_MINUTES ?= 5
CHAOS_ARGS ?=
SEED ?=
export PYTHON

.PHONY: help run setup test lint bench chaos mutants dist clean

help:
	@echo "make run     set up, then serve config.toml in the foreground"
	@echo "make test    set up, then lint, types and the whole suite (PYTEST_ARGS=…)"
	@echo "make lint    set up, then lint and types alone"
	@echo "make bench   set up, then the benchmark"
	@echo "make chaos   set up, then four nodes under every fault, judged (CHAOS_MINUTES=5 SEED=…)"
	@echo "make mutants change lines of the code that waits and relays, and list the changes"
	@echo "             that no test notices; takes hours (MUTANTS='gateway.relay.drains*')"
	@echo "make dist    a wheel and a source archive in dist/"
	@echo "make setup   the virtual environment alone"
	@echo "make clean   remove all that make made"

run: setup
	@exec .venv/bin/gateway serve --config config.toml

setup:
	@.ci/setup run

test: lint
	.venv/bin/pytest -n 3 $(PYTEST_ARGS)

lint:
	@.ci/setup test
	.venv/bin/black --check --quiet .
	.venv/bin/isort --check --quiet .
	.venv/bin/flake8
	.venv/bin/mypy

bench:
	@.ci/setup bench
	.venv/bin/python -m benchmarks

chaos:
	@.ci/setup test
	.venv/bin/python -m tests.chaos --minutes $(CHAOS_MINUTES) $(if $(SEED),--seed $(SEED)) $(CHAOS_ARGS)

mutants:
	@.ci/setup mutants
	.venv/bin/mutmut run $(MUTANTS)
	.venv/bin/mutmut results

dist:
	@.ci/setup dist
	@rm -rf build dist
	@.venv/bin/python -m build --no-isolation --outdir dist . >.cache/dist.log 2>&1 || \
		{ cat .cache/dist.log; exit 1; }
	@ls dist/*

clean:
	rm -rf mutants .venv .cache build dist *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache
	find gateway tests -name __pycache__ -prune -exec rm -rf {} +
