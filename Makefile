# make test   installs what is missing, then checks and tests everything
# make demo   needs nothing but Python

PYTHON ?= python3
ARGS ?=
DB ?=
# Processes that run tests. Three keep two cores busy.
WORKERS ?= 3

VENV := .venv
BIN := $(VENV)/bin
DEMO_VENV := .venv-demo
DEMO_BIN := $(DEMO_VENV)/bin
BENCH_VENV := .venv-bench
BENCH_BIN := $(BENCH_VENV)/bin
DOCS_VENV := .venv-docs
DOCS_BIN := $(DOCS_VENV)/bin
RELEASE_VENV := .venv-release
RELEASE_BIN := $(RELEASE_VENV)/bin
# What Sphinx makes: html, or linkcheck.
BUILDER ?= html

# The tests start hundreds of programs: each would compile the same modules again.
unexport PYTHONDONTWRITEBYTECODE

.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo test matrix lint coverage conformance fuzz stress processes failover bench examples docs release-check clean system-packages check-python

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  ARGS=... goes to pytest, nox, the demo, conformance, fuzz, stress, processes, failover, bench or examples, DB=mysql, DB=postgresql or DB=sqlite to the demo, WORKERS=... says how many processes run tests, PYTHON=... chooses the Python"

# The mark of the driver that the demo needs.
DRIVER_sqlite :=
DRIVER_postgresql := $(DEMO_VENV)/.postgresql
DRIVER_mysql := $(DEMO_VENV)/.mysql

demo: $(DEMO_VENV)/.installed $(DRIVER_$(or $(DB),mysql)) ## Run the demo (on a private MariaDB or PostgreSQL server, or on SQLite)
	@DB='$(DB)' $(DEMO_BIN)/python -m demo $(ARGS)

# More processes than cores: most of the time they wait, for servers that start, commit and end.
test: system-packages lint ## Install what is missing, then run the checks and the tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# Where pyenv is, nox finds those Pythons that are named.
matrix: $(VENV)/.installed ## Run what depends on versions on each Python, Django and SQLAlchemy (ARGS='--tags ci': on two more)
	PYENV_VERSION=$$(pyenv versions --bare 2>/dev/null | paste -sd:) $(BIN)/nox --no-error-on-missing-interpreters $(ARGS)

lint: $(VENV)/.installed ## Run ruff, mypy and the rules for imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# The workers of pytest are measured as all processes are that a test starts: by the setting "patch" in pyproject.toml.
coverage: system-packages $(VENV)/.installed ## Run all tests, report what they do not reach, and fail below the floor
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)
	$(BIN)/coverage combine --quiet
	@mkdir -p build
	$(BIN)/coverage json --quiet --fail-under=0 -o build/coverage.json
	$(BIN)/coverage report

conformance: $(VENV)/.installed ## Run Django's own tests with stock and pooled backends and compare (ARGS='--database sqlite --all': all of it)
	$(BIN)/python -m tools.conformance $(ARGS)

fuzz: $(VENV)/.installed ## Fork at random moments and count what was harmed (ARGS='--seed 7 --forks 2000')
	$(BIN)/python -m tools.fork_fuzz $(ARGS)

stress: $(VENV)/.installed ## Use a pool as badly as one can, with many threads, and count (ARGS='--seconds 600')
	$(BIN)/python -m tools.stress $(ARGS)

processes: $(VENV)/.installed ## Have every kind of server make its processes and count what was harmed (ARGS='uwsgi celery')
	$(BIN)/python -m tools.processes $(ARGS)

failover: system-packages $(BENCH_VENV)/.installed ## Have servers die under load and print what became of the requests (ARGS='kill galera'; ARGS=--help tells more)
	@$(BENCH_BIN)/python -m tools.failover $(ARGS)

bench: $(BENCH_VENV)/.installed ## Measure poollife beside other pools, all in one run (ARGS=--json; ARGS=--help tells more)
	@$(BENCH_BIN)/python -m benchmarks $(ARGS)

examples: $(VENV)/.installed ## Run the sites of the folder examples, each on a private server (ARGS=gunicorn_mysql)
	$(BIN)/python -m tools.examples $(ARGS)

docs: $(DOCS_VENV)/.installed ## Build the documentation site in build/docs (BUILDER=linkcheck asks other hosts for the links to them)
	@# Afresh: a page that has not changed would not be warned of again, and one that has gone would stay.
	@rm -rf build/docs
	$(DOCS_BIN)/sphinx-build --fresh-env --fail-on-warning --keep-going --quiet -b $(BUILDER) docs build/docs

release-check: $(RELEASE_VENV)/.installed ## Build the archives of a release in dist, and check and use them
	$(RELEASE_BIN)/python -m tools.release_check

clean: ## Remove the virtual environments and everything else that was made here
	rm -rf $(VENV) $(DEMO_VENV) $(BENCH_VENV) $(DOCS_VENV) $(RELEASE_VENV) build dist .cache .coverage .coverage.* htmlcov .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

system-packages:
	@$(PYTHON) tools/system_packages.py

$(VENV)/.installed: pyproject.toml | system-packages
	@echo "Installing Python packages in $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check -e '.[mysql,dev,demo]'
	@touch $@

# Of its own: what the peers ask for must not change what the tests run with.
$(BENCH_VENV)/.installed: pyproject.toml | system-packages
	@echo "Installing Python packages in $(BENCH_VENV) ..."
	@$(PYTHON) -m venv $(BENCH_VENV)
	@$(BENCH_BIN)/pip install -q --disable-pip-version-check -e '.[mysql]'
	@$(BENCH_BIN)/python -m benchmarks.install
	@touch $@

# Of its own: Sphinx and what it brings are of no use to the tests. autodoc imports the package.
$(DOCS_VENV)/.installed: pyproject.toml | check-python
	@echo "Installing Python packages in $(DOCS_VENV) ..."
	@$(PYTHON) -m venv $(DOCS_VENV)
	@$(DOCS_BIN)/pip install -q --disable-pip-version-check -e '.[docs]'
	@touch $@

$(RELEASE_VENV)/.installed: pyproject.toml | check-python
	@echo "Installing Python packages in $(RELEASE_VENV) ..."
	@$(PYTHON) -m venv $(RELEASE_VENV)
	@$(RELEASE_BIN)/pip install -q --disable-pip-version-check '.[release]'
	@touch $@

$(DEMO_VENV)/.installed: pyproject.toml | check-python
	@echo "Installing Python packages in $(DEMO_VENV) ..."
	@$(PYTHON) -m venv $(DEMO_VENV)
	@$(DEMO_BIN)/pip install -q --disable-pip-version-check -e '.[demo]'
	@touch $@

# Never fails: without it the demo runs on SQLite. Tried anew by each `make demo` until it has worked. pip may
# well find a wheel that it built earlier, so what counts is whether the module finds the client library.
$(DEMO_VENV)/.mysql: $(DEMO_VENV)/.installed
	@if $(DEMO_BIN)/pip install -q --disable-pip-version-check -e '.[mysql]' >$(DEMO_VENV)/mysql.log 2>&1 \
			&& $(DEMO_BIN)/python -c 'import MySQLdb' >>$(DEMO_VENV)/mysql.log 2>&1; then \
		touch $@; \
	else \
		echo "mysqlclient cannot be built or loaded (see $(DEMO_VENV)/mysql.log), so the demo goes on without MySQL."; \
		$(PYTHON) tools/system_packages.py --check || true; \
	fi

# The binary package brings its own libpq. It too is tried anew until it has worked.
$(DEMO_VENV)/.postgresql: $(DEMO_VENV)/.installed
	@if $(DEMO_BIN)/pip install -q --disable-pip-version-check -e '.[postgresql]' 'psycopg[binary]' >$(DEMO_VENV)/postgresql.log 2>&1 \
			&& $(DEMO_BIN)/python -c 'import psycopg' >>$(DEMO_VENV)/postgresql.log 2>&1; then \
		touch $@; \
	else \
		echo "psycopg cannot be installed or loaded (see $(DEMO_VENV)/postgresql.log), so the demo goes on without PostgreSQL."; \
		$(PYTHON) tools/system_packages.py --check || true; \
	fi

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed. Name one like this: make demo PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments. On Debian or Ubuntu: apt install python3-venv"; exit 1; }
