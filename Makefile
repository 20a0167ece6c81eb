# Every command sets up what it needs; none needs root. See README.md.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export TELECINE_HOME ?= $(CURDIR)/.telecine
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help demo test up down serve drills bench claims images cluster cluster-down check format constraints

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(VENV)/installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "telecine needs Python 3.11: install it, or call make PYTHON=/path/to/python3.11"; exit 78; }
	$(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[airflow,curate,train,serve,monitor,local,dev]'
	@touch $@

demo: $(VENV)/installed  ## footage to a registered, sampled model; VIDEOS=<folder> takes yours, CONF='{"train_num_steps": 50}' other Params
	@$(BIN)/python infra/local/demo.py

test: $(VENV)/installed  ## the test suite
	$(BIN)/python -P -m pytest -n 2 --dist loadfile --no-loadscope-reorder

up: $(VENV)/installed  ## start Airflow's and MLflow's pages and print their URLs and logins
	@$(BIN)/python infra/local/pages.py up

down: $(VENV)/installed  ## stop them
	@$(BIN)/python infra/local/pages.py down

serve: $(VENV)/installed  ## serve the champion on a page; prints its URL and token; TELECINE_SERVE_ALIAS=candidate another
	@$(BIN)/python infra/local/serve.py

drills: $(VENV)/installed  ## inject faults and count what they did (docs/drills.json); ROW=id one drill, SEED=n other choices
	@$(BIN)/python infra/drills/drills.py $(if $(ROW),--row $(ROW)) --seed $(or $(SEED),0)

bench: $(VENV)/installed  ## measure against peers (docs/bench.json, docs/bench.md); ROW=id one row, RUNS=n pairs of runs
	@$(BIN)/python infra/bench/bench.py $(if $(ROW),--row $(ROW)) --runs $(or $(RUNS),2)

claims: $(VENV)/installed  ## try research claims at toy scale (docs/claims.json); ROW=id one claim, SEEDS=a,b,… others, PROFILE=gpu larger
	@$(BIN)/python infra/claims/claims.py $(if $(ROW),--row $(ROW)) $(if $(SEEDS),--seeds $(SEEDS)) --profile $(or $(PROFILE),laptop)

images: $(VENV)/installed  ## build the container images (docs/images.md); SET=train one, BARE=1 without a container registry
	@$(BIN)/python infra/images/images.py $(SET) $(if $(BARE),--bare)

cluster: $(VENV)/installed  ## make a Kubernetes cluster on this machine with kind, install the operators, and run something in it
	@$(BIN)/python infra/local/cluster.py up

cluster-down: $(VENV)/installed  ## remove it
	@$(BIN)/python infra/local/cluster.py down

check: $(VENV)/installed  ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed  ## mend what the formatter and linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

constraints: $(VENV)/installed  ## pin the versions that are installed now
	{ sed '/^# What it runs with/q' constraints.txt; $(BIN)/pip freeze --all --exclude-editable --exclude pip | sed 's/+cpu$$//'; } > constraints.new
	mv constraints.new constraints.txt
