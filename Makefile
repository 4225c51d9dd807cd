# `make help` lists what there is. Everything is installed into .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# A setting of your own must not send the demo's message to your own chat.
NO_SETTINGS = env $$(env | sed -n 's/^\(AUDIT_[A-Za-z0-9_]*\)=.*/-u \1/p')

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types rules unit bench clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-6s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11 ...")'
	@echo "Installing into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -r requirements-dev.txt
	@touch $@

demo: $(VENV)/.installed ## audit a sample estate over HTTP into ./out/demo; no cloud account needed
	@mkdir -p out/demo
	@$(NO_SETTINGS) $(BIN)/python -m tests.emulator --estate sample --state out/demo/estate.json -- \
	  $(BIN)/python -m audit run --region cn-north-4 --store out/demo --mode demo; \
	code=$$?; \
	case $$code in \
	  0|1|3) echo; \
	    echo "The evidence of this run is in ./out/demo (see out/demo/latest.json). Look at all findings:"; \
	    echo "  $(BIN)/python -m audit findings --store out/demo"; \
	    echo "Run make demo again: the sample estate has moved on by then. make clean starts it anew.";; \
	  *) exit $$code;; \
	esac

test: check ## the same as check

check: lint types rules unit ## everything that CI runs

lint: $(VENV)/.installed ## style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.installed ## static types
	@$(BIN)/mypy

rules: $(VENV)/.installed ## the rules that are shipped, with the tests inside them
	@$(NO_SETTINGS) $(BIN)/python -m audit rules check

unit: $(VENV)/.installed ## all other tests
	@$(NO_SETTINGS) $(BIN)/python -m pytest

bench: $(VENV)/.installed ## what an audit costs beside a bare floor, as ratios
	@$(BIN)/python -m tests.bench
	@$(BIN)/python -m tests.bench_rules
	@$(BIN)/python -m tests.bench_start

clean: ## remove what make and the demo left
	rm -rf $(VENV) out/demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
