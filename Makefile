# `make demo` and `make test` do all the set-up they need. `make help` lists the rest.

SHELL := /bin/sh
ARGS ?=
# Where the Postgres of the tests lives while they run. Below /tmp, because as root it runs as
# another user, who could not enter a home directory.
export TOLLGATE_TEST_DIR ?= /tmp/tollgate-test-$(shell id -u)

.PHONY: help demo test bench bench-browse bench-consume lint fixtures postgres test-tools stop-test-postgres

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 28

demo: postgres ## See it work: make demo ARGS=--once ends after the summary
	cargo run --locked --quiet -- demo $(ARGS)

test: postgres test-tools ## Run every test
	@status=0; cargo test --locked --no-fail-fast || status=$$?; scripts/stop-test-postgres; exit $$status

bench: postgres ## Measure ingest; make bench ARGS='--connections 1,64' for a part of it
	cargo bench --locked --bench ingest -- $(ARGS)

bench-browse: postgres ## Measure the list of events at 5 million of them, by filter: minutes, and 5 GB of disk
	cargo test --locked --test admin lists_of_five_million_events -- --ignored --nocapture

bench-consume: postgres ## Measure claims beside the usual queues, and the latency of pushes
	cargo bench --locked --bench consume -- $(ARGS)

lint: ## Formatting, clippy and docs, with warnings denied
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items

fixtures: ## Write fixtures/events anew
	rm -rf fixtures/events && cargo run --locked --quiet -- fixtures fixtures/events

postgres: ## Make sure that there is a Postgres to run, and what is needed to build
	@scripts/ensure-tools

test-tools: ## Make sure of what tests need: NATS, Node.js, Python, psql, Chromium, the Stripe CLI
	@scripts/ensure-test-tools

stop-test-postgres: ## Stop the Postgres that tests leave running for the next run
	@scripts/stop-test-postgres
