# Two commands for a fresh machine with Python (with venv), git and make: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEEDS ?= 1000
ROUNDS ?= 100
BESIDE ?= nats,git,cloud,drop,ssh
TRIALS ?= 200
N ?= 100000
MACHINES ?= 100
MINUTES ?= 10
SAMPLE ?= 10
# How many tests run at once: `auto` is one for each core.
WORKERS ?= auto
# The layers whose tests reach them without a disk; `make coverage` measures that.
PURE = tests/log tests/fleet tests/task tests/message tests/memory tests/context
# Folders that `make test` leaves out: what runs them beside it says so.
APART ?=

.PHONY: help demo test check lint types table docs screenshots site changelog coverage pure hooks sim histories landings counters kill chaos failover takeover night engine crowd siege rogue bench agents lock clean

help: ## what there is to make
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/ —/'

$(VENV)/.ready: requirements.lock requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock -r requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(VENV)/.ready ## three machines, one run, a laptop whose lid closes midway (REPO= and TEST= for your own)
	$(BIN)/python demo/closed_lid.py $(if $(REPO),--repo "$(REPO)") $(if $(TEST),--test "$(TEST)") $(if $(AGENT),--agent "$(AGENT)")

test: $(VENV)/.ready ## set up and run every test that this machine can run
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(addprefix --ignore=,$(APART))

check: $(VENV)/.ready lint types ## the linters and the types
	$(BIN)/lint-imports --no-cache

lint: $(VENV)/.ready ## ruff, rules and layout
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready ## mypy, strict
	$(BIN)/mypy

table: $(VENV)/.ready ## the table of verbs, out of what they declare
	$(BIN)/python -m tools.table

docs: $(VENV)/.ready ## the pages that are made of the code, and openapi.json
	$(BIN)/python -m tools.docs

screenshots: $(VENV)/.ready ## what a terminal shows, as the pictures of docs/guide
	$(BIN)/python -m tools.screenshots

site: docs ## the documentation as a site, in build/site
	$(BIN)/mkdocs build --strict --quiet

changelog: $(VENV)/.ready ## what the next release would say, out of changes/
	$(BIN)/towncrier build --draft --version next

coverage: $(VENV)/.ready ## how much of the pure layers their own tests reach; the floor stands in pyproject.toml
	$(BIN)/coverage run -m pytest -q $(PURE)
	$(BIN)/coverage report

pure:
	@echo $(PURE)

hooks: $(VENV)/.ready ## check before each commit (needs pre-commit)
	pre-commit install

sim: $(VENV)/.ready ## schedules, and the whole fleet in one process, under SEEDS= seeds
	$(BIN)/python -m tests.sim.schedules --seeds $(SEEDS)
	$(BIN)/python -m tests.sim --seeds $(SEEDS)
	$(BIN)/python -m tests.sim --profiles --seeds 3

landings: $(VENV)/.ready ## three hundred random histories land whole or not at all, killed or pushed to meanwhile
	LANDINGS=300 $(BIN)/python -m pytest -q -n $(WORKERS) tests/git/test_landing_histories.py

histories: $(VENV)/.ready ## what machines remember: 10,000 histories, what notices a missing rule, 500 past moments
	$(BIN)/python -m tests.memory.histories --histories 10000
	$(BIN)/python -m tests.memory.histories --removals
	$(BIN)/python -m tests.node.test_memory_past --moments 500

kill: $(VENV)/.ready ## ROUNDS= rounds of kill -9 on real daemons under load
	$(BIN)/python -m tests.e2e.kill --rounds $(ROUNDS)

chaos: $(VENV)/.ready ## ROUNDS= rounds on real hosts (root on Linux): cables cut, lossy and slow, machines, the servers of mailboxes BESIDE= the links and an sshd under one killed and still, machines set back; SEED= for the same faults again
	$(BIN)/python -m tests.e2e.net.chaos --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED)) $(if $(BESIDE),--beside $(BESIDE))

failover: $(VENV)/.ready ## TRIALS= times a channel dies, seen and silently, on real hosts (root on Linux): how long a message takes, and when the channel is used again
	$(BIN)/python -m tests.e2e.net.failover --trials $(TRIALS)

takeover: $(VENV)/.ready ## TRIALS= times a hub is killed for ever in the middle of a run with a repository: how long until that has ended elsewhere
	$(BIN)/python -m tests.e2e.takeover --trials $(TRIALS)

engine: $(VENV)/.ready ## N= messages through three NATS servers whose leaders are killed under load: how many were lost or doubled
	$(BIN)/python -m tests.e2e.net.engine --messages $(N)

night: $(VENV)/.ready ## one night with nobody there, in three minutes: a sleeping owner, a killed worker, an endless agent, a full disk (root on Linux), a question for the phone
	$(BIN)/python -m tests.e2e.night

counters: $(VENV)/.ready ## take SAMPLE= of the lines that count away, by lot: a test has to fail for each
	$(BIN)/python -m tests.counters --sample $(SAMPLE)

siege: $(VENV)/.ready ## 20,000 rounds of a member that knows every format against a machine in one process
	$(BIN)/python -m tests.fuzz siege 20000

rogue: $(VENV)/.ready ## MINUTES= of the same over real links, with strangers besides
	$(BIN)/python -m tests.e2e.rogue --minutes $(MINUTES)

bench: $(VENV)/.ready ## every figure we promise, as a ratio in the same run
	$(BIN)/python -m bench

crowd: $(VENV)/.ready ## what a machine costs among MACHINES= real daemons (root on Linux) and as many in one process, at rest and under load
	unshare --net sh -c 'ip link set lo up && exec $(BIN)/python -m bench.scale --daemons $(MACHINES)'
	$(BIN)/python -m bench.scale --cores $(MACHINES)

agents: $(VENV)/.ready ## install the real agent programs the end-to-end tests drive (npm)
	$(BIN)/python tests/e2e/install_agents.py

lock: ## pin every dependency with its hashes
	$(BIN)/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-header -o requirements.lock pyproject.toml
	$(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --generate-hashes --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-header -o requirements-dev.lock requirements-dev.in
	$(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --generate-hashes --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-header -o requirements-synapse.lock requirements-synapse.in

clean: ## remove what make made
	rm -rf $(VENV) .cache build dist demo/out
