# Targets for people and for CI; `make help` lists them.

GO    ?= go
TOOL  := $(GO) tool -modfile=tools/go.mod
BIN   := bin/webordinary
NPM   := .tools/npm/node_modules/.package-lock.json
PKGS  ?= ./...

.PHONY: help setup build demo image image-test test test-unit test-e2e lint fmt fuzz deadcode clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(NPM) ## Install what is missing: Go modules, the Claude Code CLI for the tests
	@tools/check
	@$(GO) mod download

$(NPM): tools/npm/package.json tools/npm/package-lock.json
	@tools/check
	@echo "installing the Claude Code CLI for the tests, below .tools"
	@mkdir -p .tools/npm && cp tools/npm/package.json tools/npm/package-lock.json .tools/npm/
	@cd .tools/npm && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && touch node_modules/.package-lock.json

build: ## Build bin/webordinary and bin/keeper
	@mkdir -p bin
	$(GO) build -o bin/ ./cmd/...

demo: setup build ## See an instruction become a deployed site, on this machine alone
	$(BIN) demo --dir out/demo

test: setup ## Run every test, with the race detector; the end-to-end tests too
	$(GO) vet $(PKGS)
	$(GO) test -race -timeout 20m $(PKGS)

test-unit: ## Run the tests that need no network and no build of a site
	$(GO) test ./handlers/... ./router/... ./middleware/... ./internal/protocol/... ./internal/journal/... ./internal/claim/... ./internal/deploy/... ./internal/gateway/...

test-e2e: setup ## Run the end-to-end tests alone, and say what they do
	$(GO) test -race -count=1 -v -timeout 20m ./tests/e2e/...

image: ## Build the image by buildah, without Docker; as root
	@tools/image/build

image-test: image ## Build the image, and run the programs and a whole command in it; as root
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
	rm -rf bin out .tools
