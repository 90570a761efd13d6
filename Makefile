# The same targets serve people and CI.
.DEFAULT_GOAL := help
GO ?= go
TOOL := $(GO) tool -modfile=tools/go.mod

.PHONY: help
help: ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

.PHONY: build
build: ## build everything; bin/zhiyun is the product
	$(GO) build ./...
	$(GO) build -o bin/zhiyun ./cmd/zhiyun

.PHONY: test
test: ## the tests, as a newcomer runs them
	$(GO) test ./...

# A process with the race detector sleeps for a second at its end, and the tests start many.
export GORACE := atexit_sleep_ms=0

.PHONY: race
race: ## the tests with the race detector, as CI runs them
	$(GO) test -race -timeout 20m ./...

.PHONY: plain
plain: ## without the race detector, the tests that do but a part with it
	$(GO) test -timeout 10m -run 'TestEveryCrashPoint|TestScaleOut' ./flow

# Adapters that need a dependency of their own are modules of their own.
.PHONY: contrib
contrib: ## vet and test the nested modules
	@for dir in $$(find . -name go.mod -not -path ./go.mod -not -path './tools/*' -not -path '*/testdata/*' | xargs -n1 dirname | sort); do \
	  echo "$$dir"; (cd $$dir && $(GO) vet ./... && $(GO) test -timeout 10m ./...) || exit 1; done

.PHONY: e2e
e2e: ## the long end-to-end tests: kill -9 aimed at each step, random seeds
	ZHIYUN_LONG=1 $(GO) test -timeout 90m -run 'E2E|Kill' -v ./internal/e2e/...

.PHONY: sim
sim: ## simulations, ten times the seeds of a plain test
	ZHIYUN_SEEDS=3000 $(GO) test -timeout 30m -run 'Sim' ./...

.PHONY: fuzz
fuzz: ## every fuzz target for ten seconds
	@for target in $$(grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u); do \
	  for name in $$(grep -hoE '^func Fuzz[A-Za-z0-9]+' $$target/*_test.go | sed 's/func //'); do \
	    $(GO) test -run xxx -fuzz "^$$name$$" -fuzztime 10s $$target || exit 1; done; done

.PHONY: bench
bench: ## every benchmark, briefly
	$(GO) test -run xxx -bench . -benchtime 100ms ./...

.PHONY: lint
lint: ## gofmt, vet, staticcheck
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'gofmt the files above'; exit 1; }
	$(GO) vet ./...
	$(TOOL) staticcheck ./...

.PHONY: generate
generate: ## generated code, anew
	$(GO) generate ./...

.PHONY: cross
cross: ## builds for the other platforms
	GOOS=linux GOARCH=arm64 $(GO) build ./...
	GOOS=darwin GOARCH=arm64 $(GO) build ./...

.PHONY: demo
demo: ## a burst absorbed with no hands, on this machine
	$(GO) run ./cmd/zhiyun demo
