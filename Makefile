# Targets for people and for CI; `make help` lists them.

GO    ?= go
TOOL  := $(GO) tool -modfile=tools/go.mod
BIN   := bin/webordinary
NPM   := .tools/npm/node_modules/.package-lock.json
EMUL  := .tools/emulators/node_modules/.package-lock.json
S3    := .tools/bin/versitygw
PKGS  ?= ./...

# What the targets test-… select.
CONTAINER := ./cmd/... ./internal/process/... ./internal/claim/... ./internal/aws/table/... ./tests/compose/...
QUEUE     := ./router/... ./internal/protocol/... ./internal/journal/... ./internal/aws/queue/...
BUCKET    := ./internal/deploy/... ./internal/aws/bucket/...
GIT       := ./internal/workspace/... ./tests/gitserver/...
# A pattern of a folder that is not there is an error for go.
present    = $(foreach p,$(1),$(if $(wildcard $(p:/...=)),$(p)))

.PHONY: help setup check build demo emulators image image-test test bench bench-deploy peers chaos soak conformance test-unit test-integration test-container test-queue test-s3 test-git test-e2e lint fmt fuzz deadcode clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(NPM) $(EMUL) $(S3) ## Install what is missing: Go modules, the Claude Code CLI and the emulators for the tests
	@tools/check tests
	@$(GO) mod download

check:
	@tools/check

$(NPM): tools/npm/package.json tools/npm/package-lock.json
	@tools/check tests
	@echo "installing the Claude Code CLI for the tests, below .tools"
	@mkdir -p .tools/npm && cp tools/npm/package.json tools/npm/package-lock.json .tools/npm/
	@cd .tools/npm && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && touch node_modules/.package-lock.json

$(EMUL): tests/emulators/npm/package.json tests/emulators/npm/package-lock.json
	@tools/check tests
	@echo "installing the emulators of SQS and DynamoDB for the tests, below .tools"
	@mkdir -p .tools/emulators && cp -R tests/emulators/npm/package.json tests/emulators/npm/package-lock.json tests/emulators/npm/stub .tools/emulators/
	@cd .tools/emulators && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && touch node_modules/.package-lock.json

$(S3): tools/versitygw/go.mod tools/versitygw/go.sum
	@tools/check tests
	@echo "building the emulator of S3 for the tests, below .tools; this takes minutes, once"
	@mkdir -p $(@D)
	@$(GO) build -C tools/versitygw -trimpath -ldflags '-s -w' -o $(abspath $(@D))/ github.com/versity/versitygw/cmd/versitygw && touch $@

build: ## Build bin/webordinary and bin/keeper
	@mkdir -p bin
	$(GO) build -o bin/ ./cmd/...

demo: check build ## See an instruction become a deployed site, on this machine alone
	$(BIN) demo --dir out/demo

emulators: setup ## Run SQS, DynamoDB and S3 on this machine until Ctrl-C, and print the environment that uses them
	@$(GO) build -o bin/emulators ./tests/emulators/cmd && exec bin/emulators

test: setup ## Run every test, with the race detector; the end-to-end tests too
	$(GO) vet $(PKGS)
	$(GO) build -o bin/emulators ./tests/emulators/cmd
	bin/emulators -- $(GO) test -race -timeout 20m $$($(GO) list $(PKGS) | grep -v '/tests/')
	bin/emulators -- $(GO) test -race -p 2 -timeout 30m $$($(GO) list $(PKGS) | grep '/tests/') # whole processes: two packages at a time, on any machine

conformance: setup ## Run Watermill's own suite over SQS, in full and under stress
	$(GO) build -o bin/emulators ./tests/emulators/cmd
	bin/emulators -- $(GO) test -count=1 -tags stress -run 'TestConformance(Full|Stress)' -timeout 60m ./internal/aws/queue

chaos: setup ## Break workers while they work, at least 200 times (20 to 40 min); CHAOS_SEED repeats a run
	CHAOS_ROUNDS=$${CHAOS_ROUNDS:-8} CHAOS_FAULTS=$${CHAOS_FAULTS:-26} $(GO) test -count=1 -v -timeout 2h ./tests/chaos/

soak: setup ## Let workers carry out 5,000 commands, see that nothing grows, and write the table into docs/benchmarks.md (10 to 15 min)
	SOAK_COMMANDS=$${SOAK_COMMANDS:-5000} SOAK_PROJECTS=$${SOAK_PROJECTS:-50} $(GO) test -count=1 -v -timeout 60m ./tests/soak -update

bench: setup peers ## Measure the worker on the emulators, and write the tables into docs/benchmarks.md (about 20 min)
	$(GO) test -count=1 -v -run '^$$' -bench . -benchtime 1x -timeout 40m ./tests/bench -update

bench-deploy: setup peers ## Compare deploys with those of other tools, and print the table (5 min)
	$(GO) test -count=1 -run '^$$' -bench "Deploy|InTurn" -benchtime 1x -timeout 20m ./tests/bench

peers: ## Install the tools that deploys are compared with, below .tools, and name those that cannot be had
	@tools/peers/install

test-unit: ## Run the tests that need no network and no build of a site
	$(GO) test ./handlers/... ./router/... ./middleware/... ./internal/protocol/... ./internal/journal/... ./internal/claim/... ./internal/deploy/... ./internal/gateway/...

test-integration: setup ## Run the tests with real queues, tables, buckets and git, on emulators
	$(GO) test -race -timeout 20m $(sort $(call present,$(CONTAINER) $(QUEUE) $(BUCKET) $(GIT)))

test-container: setup ## Run the tests of the program, its children, its claims and the Compose file
	$(GO) test -race -timeout 20m $(call present,$(CONTAINER))

test-queue: setup ## Run the tests of the queues and of what is done with their messages
	$(GO) test -race -timeout 20m $(call present,$(QUEUE))

test-s3: setup ## Run the tests of the deployment to a bucket
	$(GO) test -race -timeout 20m $(call present,$(BUCKET))

test-git: setup ## Run the tests of checkout, branches, commits, merges and pushes
	$(GO) test -race -timeout 20m $(call present,$(GIT))

test-e2e: setup ## Run the end-to-end tests alone, and say what they do
	$(GO) test -race -count=1 -v -timeout 20m ./tests/e2e/... ./tests/matrix/...

image: ## Build the image by buildah, without Docker; as root
	@tools/image/build

image-test: setup image ## Build the image, and run the programs and a whole command in it; as root
	$(GO) test -count=1 -v -timeout 20m -tags image ./tests/image

lint: ## Check style, and who imports whom
	$(TOOL) golangci-lint run ./...

fmt: ## Format the code
	$(TOOL) golangci-lint fmt ./...

fuzz: ## Fuzz whatever parses foreign bytes, a minute each
	@for f in FuzzDecodeInput FuzzDecodeUnclaimed FuzzBranch FuzzRepoURL FuzzEncodeOutput; do \
		$(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime 1m -fuzzminimizetime 1x ./internal/protocol || exit 1; done

deadcode: ## List functions that nothing reaches
	$(TOOL) deadcode -test ./...

clean: ## Remove what was built, installed and demonstrated here
	rm -rf bin out .tools .image
