# make help lists what there is. ARGS="…" is passed on to the program behind a target.

VENV := .venv
PY := $(VENV)/bin/python
ARGS ?=
# The first of these that is new enough; name another with make PYTHON=/path/to/python.
PYTHON ?= $(or $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; \
	done),python3)
PIP := $(PY) -m pip --disable-pip-version-check --no-input install --quiet
LAB := env PYTHONPATH=tests $(PY)
# A file's tests share their servers, so they stay together.
# What a shell says against bytecode would have some six hundred processes compile all of it anew.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(PY) -m pytest -n 2 --dist loadfile
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-emit-index-url --no-emit-find-links

MAKEFLAGS += --no-builtin-rules --no-print-directory
.SUFFIXES:
.DEFAULT_GOAL := help
.PHONY: help demo test test-fast check bench soak schema lock venv tools clean

help: ## List the targets
	@echo 'make TARGET [ARGS="…"]'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | \
		while IFS='	' read -r name text; do printf '  %-10s %s\n' "$$name" "$$text"; done

demo: venv ## Watch certificates being obtained, served and renewed; ARGS="--help" for options
	@exec $(LAB) -m lab.demo $(ARGS)

test: venv tools ## Run the whole suite; ARGS are pytest's, such as ARGS="-k name"
	@exec $(PYTEST) $(ARGS)

test-fast: venv ## Run the part of the suite that starts no servers
	@exec $(PYTEST) -m "not servers" $(ARGS)

check: venv ## Lint, formatting, types, layering
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: venv ## Measure requests, times and memory; ARGS="--json FILE" writes them down
	@exec $(LAB) -m bench $(ARGS)

soak: venv tools ## Rollovers under random faults; ARGS="--rollovers 50 --seed 7 --json FILE"
	@exec $(LAB) -m soak $(ARGS)

schema: venv ## Write config/schema.json anew from the models
	@$(PY) -m certbaton.config > config/schema.json.new
	@mv config/schema.json.new config/schema.json

lock: ## Write requirements/*.txt anew (needs uv); ARGS="--upgrade" takes the newest versions
	@command -v uv > /dev/null || \
		{ echo "uv is missing; python3 -m pip install uv brings it." >&2; exit 1; }
	$(LOCK) $(ARGS) pyproject.toml -o requirements/runtime.txt
	$(LOCK) $(ARGS) pyproject.toml --group dev -c requirements/runtime.txt -o requirements/dev.txt
	$(LOCK) $(ARGS) requirements/build.in -o requirements/build.txt
	$(LOCK) $(ARGS) requirements/go.in -o requirements/go.txt

venv: $(VENV)/.project ## Make or refresh the virtual environment

tools: venv ## Build the servers of demo and tests, if the cache lacks them
	@# What cannot be brought is said here, and again by each test that needs it.
	@$(LAB) -m lab.build > /dev/null || true

clean: ## Remove the virtual environment and what tools leave here; built servers stay cached
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache
	find daemon tests -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.lock: requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || \
		{ echo "Python 3.11 or newer is needed, and $(PYTHON) is none; name one with" \
		"make PYTHON=/path/to/python3.11." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments;" \
		"apt-get install python3-venv brings that on Debian and Ubuntu." >&2; exit 1; }
	@echo "Making $(VENV) with the pinned packages; a minute or two, once." >&2
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.project: $(VENV)/.lock pyproject.toml
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@
