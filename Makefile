# `make run`: environment, then the whole benchmark. `make test`: environment, then every check.
VENV := .venv
# models at a time; each takes one core in the cpu profile. On one GPU: make run JOBS=1; where there are several, each
# model has its own: make run JOBS=8 on a machine with eight
JOBS ?= 2
# what makes the environment: make run PYTHON=python3.12
PYTHON ?= python3
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# uv installs where this points: another environment may be active
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := true
export OMP_WAIT_POLICY := passive

.PHONY: run weights proof scaling test lint tests faults lock environment audit sbom
# Each model's stages are a chain, JOBS chains side by side (stages/run.py); `dvc repro` does the same, one by one.
run: $(VENV)/.ok
	@python -m stages.run --jobs $(JOBS)

# Published weights into a fresh clone, so that it samples, scores and compresses without training (docs/weights.md).
weights: $(VENV)/.ok
	python -m stages.weights pull

# All test images of every exact model decoded (docs/proofs.md); then the report. No part of `make run`.
proof: $(VENV)/.ok
	python -m stages.documents
	dvc stage list --name-only proof/dvc.yaml | \
	  xargs -P $(JOBS) -I{} sh -c 'dvc --wait-for-lock repro -q -s {} || echo "failed: {}" >&2'
	dvc stage list --name-only | grep '^report@' | xargs dvc repro -s
	dvc status -q proof/dvc.yaml

# Every model that is trained by gradient at a quarter, one and four times its budget (docs/experiments.md); then the
# report. No part of `make run`, whose trainings it measures as those of one budget.
scaling: $(VENV)/.ok
	python -m stages.documents
	dvc stage list --name-only scaling/dvc.yaml | sed -n 's/.*:train@//p' | \
	  xargs -P $(JOBS) -I{} sh -c 'for stage in train score; do \
	    dvc --wait-for-lock repro -q -s scaling/dvc.yaml:$$stage@{} || { echo "failed: {}" >&2; break; }; done'
	dvc stage list --name-only scaling/dvc.yaml | grep ':row@' | \
	  xargs -P $(JOBS) -I{} sh -c 'dvc --wait-for-lock repro -q -s {} || echo "failed: {}" >&2'
	dvc stage list --name-only | grep '^report@' | xargs dvc repro -s
	dvc status -q scaling/dvc.yaml

# two at a time: the type checker takes one core for a minute and more, beside which the tests run
test: $(VENV)/.ok
	$(MAKE) -j 2 lint tests

lint: $(VENV)/.ok
	ruff check .
	ruff format --check .
	lint-imports
	pyright

tests: $(VENV)/.ok
	python -m pytest -n 2 --dist worksteal

# Faults injected into every stage (docs/reliability.md): half an hour of one core, and reports/reliability.md.
faults: $(VENV)/.ok
	python -m tests.faults.campaign

environment: $(VENV)/.ok

# Install torch first, by pip, so that a CPU-only wheel can be chosen; uv keeps it. The project itself is installed as a
# link to this folder, for the `dgm` command. What does not have the SHA-256 of requirements.lock is refused.
$(VENV)/.ok: requirements.lock
	@$(PYTHON) stages/machine.py
	$(PYTHON) -m venv $(VENV)
	pip install -q uv torch==2.13.0
	uv pip install -q --no-deps --require-hashes -r requirements.lock
	uv pip install -q --no-deps --no-build-isolation -e .
	touch $@

lock: $(VENV)/.ok
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-package torch --all-extras \
	  pyproject.toml -o requirements.lock

# Known security faults of what is installed, torch included; before that sbom.json, its software bill of materials.
# --strict: a package about which nothing can be asked is a failure.
audit: sbom
	uv pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//' > .scratch/installed.txt
	uvx --from pip-audit==2.10.1 pip-audit --progress-spinner off --strict --disable-pip --no-deps -r .scratch/installed.txt \
	  || { echo "make audit: a fault is published, or no answer about a package (line above): it needs PyPI itself" >&2; false; }

sbom: $(VENV)/.ok
	mkdir -p .scratch
	uvx --from cyclonedx-bom==7.5.0 cyclonedx-py environment --output-reproducible -o .scratch/sbom.json $(VENV)/bin/python
	mv .scratch/sbom.json sbom.json
