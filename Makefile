# make demo    the whole story on a small model, on the CPU
# make test    the test suite
# make lint    style, types and the floors of the house
# make docs    the documentation site, in build/docs; a warning is an error
#
# Another interpreter: make PYTHON=python3.12 test. Another environment: make VENV=/path test.
# More arguments for pytest: make test ARGS="-m slow".

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# Two processes, a file of tests in one: half of a test's time is one core compiling.
PARALLEL ?= --numprocesses 2 --dist loadfile
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check

.PHONY: demo test lint docs clean

demo: $(VENV)/.installed
	@$(BIN)/jaxunlearn demo $(ARGS)

test: $(VENV)/.installed-test
	@$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python
	@$(BIN)/lint-imports --no-logo

docs: $(VENV)/.installed-docs
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs build/docs

clean:
	@rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache

# The environment is made once and refreshed whenever pyproject.toml changes.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("jaxunlearn needs Python 3.11 or newer, found " + sys.version.split()[0] + ": say make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing jaxunlearn into $(VENV) (minutes the first time) ..."
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	@echo "Installing jaxunlearn[$*] into $(VENV) (minutes the first time) ..."
	@$(PIP) install --editable '.[$*]'
	@touch $@
