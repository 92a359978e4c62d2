# Every target sets up .venv first when it is missing or older than pyproject.toml. `make help` lists them.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Where runs, checkpoints and MLflow's database live; `make ui` opens the store of the jobs run with the same.
STORAGE ?= runs
PORT ?= 5000
WORKERS ?= 2
# SLOW=1 runs the tests marked slow too, SLOW=only nothing but those; COVER=1 counts the lines of sgmg and pipelines that
# are run, and fails below what pyproject.toml wants. ARGS goes to pytest as it is: make test ARGS="-k boxes"
SLOW ?=
COVER ?=
ARGS ?=

BIN := .venv/bin
STAMP := .venv/.stamp
CODE := sgmg pipelines jobs tests

.PHONY: help setup demo learn test check bench ui datumaro
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 8

setup: $(STAMP) ## make .venv and install the project into it

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "No python3 on PATH. Install Python 3.11 or later, or say make PYTHON=/path/to/it."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is $$($(PYTHON) --version 2>&1), but sgmg needs Python 3.11 or later. Say make PYTHON=/path/to/it."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --editable '.[dev,serve]'
	@touch $@

demo: $(STAMP) ## the whole story on a small synthetic dataset, on a CPU
	$(BIN)/python jobs/demo.py --storage "$(STORAGE)"

test: $(STAMP) ## run the tests (SLOW=1: the slow ones too; COVER=1: and count the lines they run)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadgroup $(if $(SLOW),-m "$(if $(filter only,$(SLOW)),slow)") \
		$(if $(COVER),--cov --cov-report=term) $(ARGS)

check: $(STAMP) ## lint, formatting, types, and which package may import which
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

# A folder in STORAGE, also where that is a URI with options: s3://bucket/runs?region=… gives s3://bucket/runs/learn?region=…
LEARN = $(if $(findstring ?,$(STORAGE)),$(subst ?,/learn?,$(STORAGE)),$(STORAGE)/learn)

learn: $(STAMP) ## the demo with more to learn from, and a second score with shuffled sentences
	$(BIN)/python jobs/demo.py --storage "$(LEARN)" --images 1000 --videos 200 --valid-videos 24 \
		--pretrain-steps 450 --finetune-steps 330 --multi-steps 330 --shuffled

bench: $(STAMP) ## measure speed and memory
	$(BIN)/python tests/benchmarks/speed.py
	$(BIN)/python tests/benchmarks/many.py
	$(BIN)/python tests/benchmarks/run.py
	$(BIN)/python tests/benchmarks/plan.py
	$(BIN)/python tests/benchmarks/clips.py
	$(BIN)/python tests/benchmarks/train_step.py
	$(BIN)/python tests/benchmarks/predict.py
	$(BIN)/python tests/benchmarks/annotate.py
	$(BIN)/python tests/benchmarks/bulk.py
	$(BIN)/python tests/benchmarks/exports.py
	$(BIN)/python tests/benchmarks/scoring.py
	$(BIN)/python tests/benchmarks/scoring_run.py
	$(BIN)/python tests/benchmarks/serve.py
	$(BIN)/python tests/benchmarks/causal.py

datumaro: .venv-datumaro/.stamp ## Datumaro, for a test; in a place of its own, as it wants older versions of what we need

.venv-datumaro/.stamp:
	$(PYTHON) -m venv .venv-datumaro
	.venv-datumaro/bin/python -m pip install 'datumaro>=1.13,<2'
	@touch $@

ui: $(STAMP) ## MLflow over the runs in STORAGE, on http://127.0.0.1:PORT
	@mkdir -p $(STORAGE)
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server --workers 1 --host 127.0.0.1 --port $(PORT) \
		--backend-store-uri sqlite:///$(abspath $(STORAGE))/mlflow.db --artifacts-destination $(abspath $(STORAGE))/artifacts
