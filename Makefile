# make demo    the whole thing on your machine: servers, build, 100 000 documents, live writers, the switch, comparison
# make demo-marina  the same with NocoDB and MongoDB as the sources: 3 200 records and their links, people at work
# make test    formatter, lints, licences, unit tests, integration tests on real servers
# make test-cluster   the whole way in a Kubernetes of one node (Linux and root; not part of make test)
# make test-versions  the tests' core on other versions of Postgres and MongoDB (not part of make test)
# make install the program, its manual pages and completions, under PREFIX (/usr/local); `make uninstall` removes them
# make bench   speed beside Python scripts and bare loops, in one run
.PHONY: demo demo-marina test install uninstall test-cluster test-versions lint manifests unit it bench fmt services toolchain down
SHELL := /bin/bash
PREFIX ?= /usr/local

demo: toolchain
	@dev/demo

demo-marina: toolchain
	@dev/demo marina

test: toolchain
	@dev/test

lint: toolchain manifests
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@dev/deny

manifests:
	@dev/manifests

unit: toolchain services
	@eval "$$(dev/services env)" && cargo test --workspace --locked --lib --bins

it: toolchain services
	@eval "$$(dev/services env)" && cargo test --workspace --locked --test "*" -- --show-output

test-cluster: toolchain
	@dev/services up mongodb postgres kafka kubernetes
	@eval "$$(dev/services env)" && tests/cluster/run

test-versions: toolchain
	@dev/test-versions

toolchain:
	@dev/toolchain

services:
	@dev/services up mongodb postgres kafka nocodb

bench: toolchain services
	@eval "$$(dev/services env)" && bench/run

install:
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" dev/install

uninstall:
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" dev/install --remove

fmt:
	cargo fmt --all

down:
	@dev/services down
