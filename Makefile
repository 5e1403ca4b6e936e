# Cardstile. `make run` needs Go alone; `make test` sets up what the tests use.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)

.PHONY: run build test test-fips test-tls lint bench fuzz chaos docs elements setup clean

run: build
	./bin/cardstile demo

# GOFIPS140=v1.0.0 makes one that is in FIPS 140-3 mode: docs/fips.md.
build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/cardstile .

# The whole suite, with the race detector, against real servers that the tests start themselves.
test: lint
	$(GO) test -race -timeout 25m ./...

# The whole suite in FIPS 140-3 mode, without the race detector. What differs between the modes in handshakes, `test` tries in both.
test-fips: setup
	GODEBUG=fips140=on $(GO) test -timeout 25m ./...

# What testssl.sh and sslscan find on the listeners, judged. Some minutes; the reports stay in .test/tls.
test-tls: build
	@TLS=1 ./tools/setup
	$(GO) test -tags testtls -count=1 -timeout 20m -v -run TestProfile ./deploy/tlsprofile

lint: setup
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { echo "gofmt would change: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags testtls ./deploy/tlsprofile
	$(GO) -C tools build -o ../bin/staticcheck honnef.co/go/tools/cmd/staticcheck
	./bin/staticcheck ./...
	$(GO) -C tools run ./elements -check
	npm --prefix testdata/browser run --silent types

# Redis, a clock that can be turned, Prometheus' promtool, systemd-analyze, openssl, curl, jq, Chromium, nginx, HAProxy: installed where this is root on Debian. Then
# what the tests in the browser use of npm, into testdata/browser.
setup:
	@./tools/setup

bench: build
	@BENCH=1 ./tools/setup
	$(GO) run ./deploy/bench

# Every fuzz target for FUZZTIME each.
FUZZTIME ?= 20s
fuzz:
	@./tools/fuzz $(FUZZTIME)

# Failovers, partitions, crashes and more under the store, for so long. CHAOS_SEED tries a seed that failed again.
CHAOS ?= 5m
chaos: setup
	CHAOS=$(CHAOS) $(GO) test -race -count=1 -timeout 0 -v ./internal/chaos

# Files that are made from the source; a test holds them to it.
docs:
	$(GO) test . -run 'TestConfigurationDoc|TestExampleConfig' -update

# The pages of gateway/elements; make lint holds them to their source.
elements:
	$(GO) -C tools run ./elements

clean:
	rm -rf bin .cardstile .test
