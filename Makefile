# `make help` lists what there is. Every target ends by itself: each has a time limit.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

FUZZTIME ?= 2m
BENCH ?= .
PKG ?= ./...
LIMIT := $(shell command -v timeout >/dev/null && echo timeout --kill-after=30)
limit = $(if $(LIMIT),$(LIMIT) $(1))

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## builds ./gelery
	@$(call limit,600) go build -o gelery ./cmd/gelery

.PHONY: dev
dev: ## a broker in memory and a worker with demo tasks, in this terminal
	@go run ./cmd/gelery dev

.PHONY: test
test: ## everything, against real servers and every Celery version; installs what is missing
	@scripts/test.sh

.PHONY: unit
unit: ## the tests that need nothing installed
	@$(call limit,900) go test -timeout 10m $(PKG)

.PHONY: race
race: ## the same under the race detector
	@$(call limit,1800) go test -race -timeout 20m $(PKG)

.PHONY: lint
lint: ## format, vet and golangci-lint (installed into .bin)
	@$(call limit,1800) scripts/lint.sh

.PHONY: fuzz
fuzz: ## each fuzz target in turn, FUZZTIME=2m each, PKG=./... to choose
	@FUZZTIME=$(FUZZTIME) PKG=$(PKG) scripts/fuzz.sh

.PHONY: faults
faults: ## every fault in its long form, the soak, and the table of what came of it, FAULT=F21 to choose
	@$(call limit,9600) scripts/faults.sh $(FAULT)

.PHONY: soak
soak: ## GELERY_SOAK=10m of one fault after the other on each broker, GELERY_SOAK_PYTHON=0 without a Python worker
	@$(call limit,9600) scripts/faults.sh soak

.PHONY: bench
bench: ## benchmarks; BENCH=regexp and PKG=./... to choose
	@$(call limit,1800) go test -timeout 25m -run '^$$' -bench '$(BENCH)' -benchmem $(PKG)

.PHONY: conformance
conformance: ## Celery's own integration suite against a Gelery worker and a Python one, and the table; CELL=celery-5.6/redis.redis
	@$(call limit,14000) scripts/conformance.sh $(CELL)
