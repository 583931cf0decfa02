# Two commands: `make demo` shows Groupscope at work, `make test` proves it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(shell $(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
VENV := .venv
RUN := $(VENV)/bin/python
# Python compiles what is imported, when it is; compiling everything first takes as long as half the installation.
PIP := $(RUN) -m pip install --disable-pip-version-check --no-input --no-compile
NEWS := sed '/^Requirement already satisfied/d'

.PHONY: demo app test

demo: $(VENV)/.installed
	@$(RUN) -m grpo_core demo $(ARGS)

app: $(VENV)/.installed
	@$(RUN) -m grpo_core app $(ARGS)

test: $(VENV)/.installed-test
	@./.ci/chromium
	@./.ci/postgres
	$(RUN) -m pytest -n 2 tests $(ARGS)

$(RUN):
	@test -n "$(PYTHON)" || { echo "error: Groupscope needs Python 3.11 or newer; install it, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "error: $(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv"; exit 1; }

$(VENV)/.installed: requirements.txt | $(RUN)
	@echo "installing requirements.txt into $(VENV); this takes some minutes the first time"
	@$(PIP) -r requirements.txt | $(NEWS)
	@touch $@

$(VENV)/.installed-test: requirements-test.txt $(VENV)/.installed
	@$(PIP) -r requirements-test.txt | $(NEWS)
	@touch $@
