# `make run`: environment, then the whole benchmark. `make test`: environment, then every check.
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := true
export OMP_WAIT_POLICY := passive

.PHONY: run test lock
run: $(VENV)/.ok
	dvc repro

test: $(VENV)/.ok
	ruff check .
	ruff format --check .
	lint-imports
	pyright
	python -m pytest

# by pip, torch comes first: where a CPU build is offered, it is taken, and uv keeps what is installed
$(VENV)/.ok: requirements.lock
	python3 -m venv $(VENV)
	pip install -q uv torch==2.13.0
	uv pip install -q --no-deps -r requirements.lock
	touch $@

lock: $(VENV)/.ok
	uv pip compile -q --universal --python-version 3.11 --no-emit-package torch requirements.in -o requirements.lock
