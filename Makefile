# `make help` lists what there is. Everything is installed into .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The function's runtime. Not `?=`: images of Python set PYTHON_VERSION to their own.
PYTHON_VERSION := 3.10
ARCH := x86_64
# A setting of your own must not send the demo's message to your own chat.
NO_SETTINGS = env $$(env | sed -n 's/^\(AUDIT_[A-Za-z0-9_]*\)=.*/-u \1/p')

.DEFAULT_GOAL := help
.PHONY: help demo package lock test check lint types rules unit bench clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11 ...")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt requirements-dev.txt | $(BIN)/pip
	@echo "Installing into $(VENV) ..."
	@$(PIP) -r requirements-dev.txt
	@touch $@

demo: $(VENV)/.installed ## audit a sample estate over HTTP into ./out/demo; no cloud account needed
	@mkdir -p out/demo
	@$(NO_SETTINGS) $(BIN)/python -m tests.emulator --estate sample --state out/demo/estate.json -- \
	  $(BIN)/python -m audit run --region cn-north-4 --store out/demo --mode demo; \
	code=$$?; \
	case $$code in \
	  0|1|3) echo; \
	    echo "The evidence of this run is in ./out/demo (see out/demo/latest.json). Open its report in a browser:"; \
	    echo "  $$(ls -d $(CURDIR)/out/demo/runs/*/*/*/*/report.html | tail -1)"; \
	    echo "Look at all findings, and at the message as a chat service would get it:"; \
	    echo "  $(BIN)/python -m audit findings --store out/demo"; \
	    echo "  $(BIN)/python -m audit notify --preview slack --store out/demo"; \
	    echo "Run make demo again: the sample estate has moved on by then. make clean starts it anew.";; \
	  *) exit $$code;; \
	esac

package: | $(BIN)/pip ## build dist/apig-vpcep-audit.zip and dist/code; PYTHON_VERSION=3.12 and ARCH=aarch64 for others
	@$(BIN)/python .ci/package.py --python-version $(PYTHON_VERSION) --arch $(ARCH)

lock: | $(BIN)/pip ## renew .ci/package.lock after a change of requirements.txt
	@$(BIN)/python .ci/package.py --lock

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
	@$(BIN)/python -m tests.bench_targets

clean: ## remove what make and the demo left
	rm -rf $(VENV) out/demo dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
