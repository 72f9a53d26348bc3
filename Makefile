# make demo    the whole thing on your machine: servers, build, 100 000 documents, live writers, comparison
# make test    formatter, lints, licences, unit tests, integration tests on real servers
# make bench   speed beside Python scripts and bare loops, in one run
.PHONY: demo test lint unit it bench fmt services down
SHELL := /bin/bash

demo:
	@dev/demo

test: lint unit it

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@dev/deny

unit: services
	@eval "$$(dev/services env)" && cargo test --workspace --locked --lib --bins

it: services
	@eval "$$(dev/services env)" && cargo test --workspace --locked --test "*" -- --nocapture

services:
	@dev/services up mongodb postgres

bench: services
	@eval "$$(dev/services env)" && bench/run

fmt:
	cargo fmt --all

down:
	@dev/services down
