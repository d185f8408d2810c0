# The commands of this repository. Each one installs what it needs first; `make help` lists them.
# Options go into ARGS: make test ARGS="tests/test_holds.py -k capture"

ARGS ?=

# Find uv (or fetch it into .data/uv) and make the locked environment, as every command under scripts/ does.
SHELL := /bin/sh
IN_VENV = root=$(CURDIR); . scripts/bootstrap.sh; "$$uv" sync --quiet --locked; "$$uv" run --no-sync

.DEFAULT_GOAL := help
.PHONY: help serve test check generate format style lint breaking audit fuzz mutations \
	campaign bench overload replace restore-drill sdks examples verify release

help: ## List these commands
	@awk 'BEGIN { FS = ":.*## " } \
		/^## / { printf "\n%s\n", substr($$0, 4) } \
		/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\nMost take options: make test ARGS="tests/test_holds.py"; make fuzz ARGS=--help\n'

## Every day

serve: ## Run the service on http://127.0.0.1:8000, on an embedded Postgres
	@exec scripts/serve $(ARGS)

test: ## Run every test on a throwaway Postgres
	@scripts/test $(ARGS)

check: ## Run all that has to hold before a change lands, as CI does
	@.ci/run

generate: ## Make generated/ from openapi.yaml
	@scripts/generate $(ARGS)

format: ## Format the Python code
	@$(IN_VENV) ruff check --fix --quiet; "$$uv" run --no-sync ruff format

style: ## Check the Python code: ruff, mypy, and the directions of the imports
	@$(IN_VENV) ruff check && "$$uv" run --no-sync ruff format --check && "$$uv" run --no-sync lint-imports && "$$uv" run --no-sync mypy

## The contract

lint: ## Lint openapi.yaml with three linters (needs Node)
	@scripts/lint $(ARGS)

breaking: ## Compare openapi.yaml with the last released contract
	@scripts/breaking $(ARGS)

release: ## Release the contract: make release ARGS=0.3.0
	@scripts/release $(ARGS)

sdks: ## Generate, compile and run clients in five languages
	@scripts/sdks $(ARGS)

examples: ## Run every example of the documentation, in every language
	@scripts/examples $(ARGS)

audit: ## Look up known vulnerabilities of the locked dependencies
	@scripts/audit $(ARGS)

## Campaigns: minutes to hours

fuzz: ## Fuzz a running service against the contract
	@scripts/fuzz $(ARGS)

mutations: ## Plant bugs one at a time, and see which test catches each
	@$(IN_VENV) python -m scripts.mutations $(ARGS)

campaign: ## Break connections, processes and Postgres under concurrent callers
	@scripts/campaign $(ARGS)

overload: ## Ask one process for more than it can do
	@scripts/overload $(ARGS)

replace: ## Replace processes under load, one after the other
	@scripts/replace $(ARGS)

restore-drill: ## Lose a server under load and restore it to points in time
	@scripts/restore-drill $(ARGS)

bench: ## Measure posts a second beside the plain way of writing them
	@scripts/bench $(ARGS)

## A deployment

verify: ## Verify the invariants of the ledgers in DATABASE_URL
	@scripts/verify $(ARGS)
