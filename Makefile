# `make run` and `make test` do all the set-up; a second call finds it done.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run test test-all check bench kill-campaign clean
run: $(READY)
	$(BIN)/python -m curation.run --grade-ratio 0.7 --profile starter

test: $(READY)
	$(BIN)/python -m pytest -m "not slow and not gpu and not ray and not slurm" -n 2

test-all: $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e ".[dev,cluster]"
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python benchmarks/curation.py
	$(BIN)/python benchmarks/training.py

kill-campaign: $(READY)
	$(BIN)/python -m tests.kill_curation --kills 25
	$(BIN)/python -m tests.kill_training --kills 20

$(READY): pyproject.toml constraints.txt
	@sh .ci/check_machine $(PYTHON)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) data runs data_manifests/*.json
