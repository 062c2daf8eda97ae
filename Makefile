# Sandbar: build, test, run. `make help` lists the targets.
#
# Every target works from a fresh clone on Debian with Go. What else one needs
# (qemu-utils, buf, golangci-lint …) it fetches itself: Debian packages by apt
# when run as root, tools into .tools/. Nothing outside the tree and Go's own
# caches is touched otherwise. With CI=true a missing tool is an error.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

GO ?= go
TOOLS := $(CURDIR)/.tools

BUF_VERSION := 1.75.0
PROTOVALIDATE_VERSION := v1.1.0
GOLANGCI_VERSION := v2.15.0

BUF := $(TOOLS)/buf-$(BUF_VERSION)/node_modules/.bin/buf
VALIDATE_PROTO := $(TOOLS)/protovalidate/buf/validate/validate.proto
GOLANGCI := $(TOOLS)/golangci-lint-$(GOLANGCI_VERSION)

# hashicorp/go-metrics is the one metrics module that raft and serf then share.
TAGS := hashicorpmetrics
# One folder pattern for the targets that run over packages: make test PKG=./fsm/...
PKG ?= ./...
FUZZTIME ?= 30s
# More for a benchmark: make bench-target BENCH_FLAGS='-quick -run "1 MiB"'
BENCH_FLAGS ?=

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

## Build and run

.PHONY: build
build: ## Build bin/sandbar, a static binary.
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -tags $(TAGS) -ldflags '$(LDFLAGS)' -o bin/sandbar ./cmd/sandbar

.PHONY: demo
demo: build ## Build, then run the whole product on this machine and tell what happens.
	bin/sandbar demo

## Test

.PHONY: deps
deps: ## Install the Debian packages that tests use, if missing (as root).
	@.ci/deps.sh test

.PHONY: test
test: deps ## Run all tests.
	$(GO) test -tags $(TAGS) -timeout 15m $(PKG)

# chaos/scenario runs programs that are built without the detector: once, in test, is enough.
.PHONY: race
race: deps ## Run the packages' tests under the race detector, long schedules cut short.
	@all=$$($(GO) list -tags $(TAGS) $(PKG)); \
	list=$$(grep -v '/chaos/scenario$$' <<<"$$all") || { echo "race: nothing to run: $(PKG) has no tests that run under the race detector (make test PKG=$(PKG) runs chaos/scenario)"; exit 0; }; \
	echo "$(GO) test -tags $(TAGS) -race -short -timeout 20m" $$list; \
	$(GO) test -tags $(TAGS) -race -short -timeout 20m $$list

.PHONY: fuzz
fuzz: ## Run every fuzz target (or FUZZ=regexp) for FUZZTIME (30s), as many at a time as there are cores.
	TAGS=$(TAGS) FUZZ='$(FUZZ)' .ci/fuzz.sh $(FUZZTIME)

.PHONY: test-kernel
test-kernel: build ## Let the Linux kernel's initiator, in a VM, use a volume (root; minutes).
	@.ci/deps.sh kernel
	$(GO) run -tags $(TAGS) ./chaos/vm/kernel

.PHONY: conformance
conformance: build ## Run libiscsi's iscsi-test-cu, test by test, against a running unit.
	@.ci/deps.sh bench
	$(GO) run -tags $(TAGS) ./chaos/conformance

.PHONY: abuse
abuse: build ## Attack a running unit from outside; its answers, memory and neighbours must hold.
	$(GO) run -tags $(TAGS) ./chaos/abuse/run
	$(GO) run -tags $(TAGS) ./chaos/abuse/run -scale

.PHONY: scale
scale: build ## Measure one unit with 1,000 targets and 500 sessions: memory and login times (part of abuse).
	$(GO) run -tags $(TAGS) ./chaos/abuse/run -scale

.PHONY: bench-stations
bench-stations: build ## Measure stations beside etcd. BENCH_JSON=FILE keeps the figures.
	@.ci/deps.sh bench
	$(GO) run -tags $(TAGS) ./chaos/bench/stations

.PHONY: bench-target
bench-target: build ## Measure a unit's block service beside tgtd. BENCH_JSON=FILE keeps the figures.
	@.ci/deps.sh test bench
	$(GO) run -tags $(TAGS) ./chaos/bench/target $(BENCH_FLAGS)

.PHONY: fmt
fmt: $(GOLANGCI) ## Format the Go code (make fmt PKG=./fsm/...).
	GOLANGCI_LINT_CACHE=$(TOOLS)/golangci-cache $(GOLANGCI) fmt $(PKG)

.PHONY: lint
lint: $(GOLANGCI) ## Lint the Go code.
	GOLANGCI_LINT_CACHE=$(TOOLS)/golangci-cache $(GOLANGCI) run --build-tags $(TAGS) --timeout 20m $(PKG)

$(GOLANGCI):
	@echo "building golangci-lint $(GOLANGCI_VERSION): some minutes, once"
	@mkdir -p $(TOOLS)/golangci-bin
	cd / && GOFLAGS= GOWORK=off GOBIN=$(TOOLS)/golangci-bin $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	@mv $(TOOLS)/golangci-bin/golangci-lint $@

## Generated code

.PHONY: generate
generate: $(BUF) $(VALIDATE_PROTO) ## Format api/sandbar/v1/*.proto and generate api/gen from them.
	$(BUF) format -w api
	$(BUF) generate

.PHONY: check-generated
check-generated: $(BUF) $(VALIDATE_PROTO) ## Fail if api/gen is not what the .proto files give.
	rm -rf $(TOOLS)/generated
	$(BUF) generate -o $(TOOLS)/generated
	@diff -r $(TOOLS)/generated/api/gen api/gen || { echo "api/gen is out of date: run 'make generate' and commit it" >&2; exit 1; }
	@echo "api/gen is current"

.PHONY: lint-proto
lint-proto: $(BUF) $(VALIDATE_PROTO) ## Lint the .proto files.
	$(BUF) lint api
	$(BUF) format --diff --exit-code api

$(BUF):
	@command -v npm >/dev/null || { echo "buf comes from npm, which is missing: run '.ci/deps.sh generate' as root" >&2; exit 1; }
	npm_config_cache=$(TOOLS)/npm-cache npm install --prefix $(TOOLS)/buf-$(BUF_VERSION) --no-audit --no-fund --no-package-lock --silent @bufbuild/buf@$(BUF_VERSION)
	@touch $@

$(VALIDATE_PROTO): Makefile
	@mkdir -p $(@D)
	dir=$$(cd / && GOWORK=off $(GO) mod download -json github.com/bufbuild/protovalidate@$(PROTOVALIDATE_VERSION) | sed -n 's/^\t"Dir": "\(.*\)",$$/\1/p'); \
	install -m 644 "$$dir/proto/protovalidate/buf/validate/validate.proto" $@
