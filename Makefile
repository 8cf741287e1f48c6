# rqlited is built and tested with Go and a C compiler (SQLite is C) and nothing else.
#
#   make           build bin/rqlited
#   make run       serve SQL on localhost:4001, with the data in ./data
#   make test      everything that has to pass before a change lands
#   make lint      the part of it that only reads sources
#   make unit      the tests beside the code, with the race detector; includes the fuzz seeds
#   make system    the black-box tests, against a race-detecting binary
#   make clients   rqlite's client for JavaScript, besides that for Go, against a cluster; needs npm and the network
#   make chaos     the black-box tests that kill nodes at random for CHAOS (default 5m), and the long
#                  forms of those that break nodes on purpose
#   make race      all tests several times over with the race detector
#   make prove     the tests that cut the power and break the disk at every operation, and how many
#                  points they tried; all they have to say is in bin/prove.log
#   make fuzz      each fuzz target, and the random test of the snapshot store against a model, for
#                  FUZZTIME (default 30s; a number and s, m or h)
#   make licenses  http/licenses.txt, after a module was added or has another version
#   make large     what it takes to boot, load and back up a database of LARGE MiB (default 1024), on one
#                  node and by way of a follower; six times that should be free in TMPDIR for each of five nodes
#   make bench     a table of what snapshots, compaction and restarts cost for databases of SIZES
#                  (default "16 256 1024" MiB; six times the largest should be free in TMPDIR), then all
#                  benchmarks beside the code

GO       ?= go
FUZZTIME ?= 30s
CHAOS    ?= 5m
LARGE    ?= 1024
SIZES    ?= 16 256 1024

# Make has a CC of its own; what counts is the one that Go uses, unless the user names another.
ifeq ($(origin CC),default)
CC := $(shell $(GO) env CC)
endif

export CGO_ENABLED := 1
export CC

# A build of a tagged commit is that release; any other keeps the version that the source names.
VERSION := $(shell git describe --tags --match 'v*' 2>/dev/null)
COMMIT  := $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
LDFLAGS := -X main.commit=$(COMMIT) $(if $(VERSION),-X main.version=$(VERSION))

UNIT = $(shell $(GO) list ./... | grep -v '/system_test$$')

.PHONY: build
build: cc
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/rqlited ./cmd/rqlited

.PHONY: run
run: build
	bin/rqlited data

.PHONY: test
test: lint unit system

.PHONY: lint
lint: cc
	@unformatted=$$(gofmt -l .); \
	if [ -n "$$unformatted" ]; then echo "run gofmt on:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) fix -diff ./...
	$(GO) test ./internal/lint

.PHONY: unit
unit: cc
	$(GO) test -race $(UNIT)

.PHONY: system
system: cc
	RQLITED_RACE=1 $(GO) test -count=1 -timeout 20m ./system_test

CLIENTS = system_test/clients

.PHONY: clients
clients: build
	@mkdir -p bin/clients/rqlite-js
	cp $(CLIENTS)/rqlite-js/main.js $(CLIENTS)/rqlite-js/package.json $(CLIENTS)/rqlite-js/package-lock.json bin/clients/rqlite-js
	cd bin/clients/rqlite-js && npm ci --ignore-scripts --no-audit --no-fund
	$(GO) test -count=1 -v -run '^TestClients$$' ./system_test -rqlited bin/rqlited -clients bin/clients

.PHONY: chaos
chaos: cc
	RQLITED_RACE=1 $(GO) test -count=1 -timeout 0 -v -run 'Chaos|Moments|Fault|Ready|Programs|Defaults|Poison|Siege' ./system_test -chaos $(CHAOS)

.PHONY: race
race: cc
	$(GO) test -race -count=5 $(UNIT)
	RQLITED_RACE=1 $(GO) test -race -count=3 -timeout 60m ./system_test

# These packages promise that no crash and no error of the disk does harm.
PROVED = ./snapshot/... ./db/... ./store/... ./internal/vfs/...

.PHONY: prove
prove: cc
	@mkdir -p bin
	@$(GO) test -race -count=1 -v $(PROVED) >bin/prove.log 2>&1; status=$$?; \
	awk ' \
		/^=== / { test = $$3 } \
		match($$0, /tried [0-9]+ crash points, [0-9]+ error points/) { \
			said = substr($$0, RSTART, RLENGTH); split(said, word, " "); \
			crashes += word[2]; errors += word[5]; print "  " test ": " said } \
		/^(ok|FAIL|panic:|WARNING: DATA RACE)/ || /^ *--- FAIL/ { print } \
		END { printf "tried %d crash points and %d error points in all\n", crashes, errors }' bin/prove.log; \
	if [ $$status -ne 0 ]; then echo "see bin/prove.log"; fi; exit $$status

.PHONY: fuzz
fuzz: cc fuzz-model
	@for pkg in $(UNIT); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg || exit 1; \
		done; \
	done

# The random test ends after a number of checks, not after a time, so it is run again until a sleeping
# process wakes up. Each run has seeds of its own, and reports the one that fails.
.PHONY: fuzz-model
fuzz-model: cc
	@sleep $(FUZZTIME) & alarm=$$!; \
	while kill -0 $$alarm 2>/dev/null; do \
		$(GO) test -count=1 -run '^TestModel$$' ./snapshot -rapid.checks=500 || { kill $$alarm; exit 1; }; \
	done

.PHONY: large
large: cc
	$(GO) test -count=1 -timeout 60m -v -run '^TestTransfer$$' ./system_test -large $(LARGE)

.PHONY: bench
bench: build
	$(GO) run ./internal/bench bin/rqlited $(SIZES)
	$(GO) test -run '^$$' -bench . -benchmem $(UNIT)

.PHONY: licenses
licenses:
	@GO=$(GO) sh .ci/licenses >http/licenses.txt

.PHONY: cc
cc:
	@command -v $(firstword $(CC)) >/dev/null || { \
		echo "rqlited contains SQLite, which needs a C compiler, and '$(CC)' is not there."; \
		echo "Install one (on Debian: apt-get install gcc libc6-dev) or name it in CC."; \
		exit 1; }
