# Two commands for a new machine: `make demo` and `make test`. Both install what is missing.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# Programs that builds, the demo and the tests call, and the Debian or Ubuntu packages they come in.
RUN_PACKAGES := crun uidmap busybox-static git openssh-client
TEST_PACKAGES := $(RUN_PACKAGES) runc skopeo umoci podman docker-registry apache2-utils erofs-utils e2fsprogs \
                 iproute2 attr curl openssl mmdebstrap chromium graphviz

.PHONY: help install demo lint test test-slow test-rootless chaos conformance bench proto clean

help:
	@echo "make demo           install, then build, rebuild and run an example image"
	@echo "make test           install, then the tests that take minutes at most"
	@echo "make test-slow      the slow tests: large files, Debian bases, real nginx"
	@echo "make test-rootless  a part of the tests and the demo as an ordinary user (needs root to make one)"
	@echo "make chaos          a cluster in which something goes wrong N times, from SEED on (needs root)"
	@echo "make conformance    builds the cases with docker and buildah, too, and compares (needs root)"
	@echo "make lint           types and style"
	@echo "make bench          measure"
	@echo "make proto          generate the protobuf stubs"

# apt only where something is missing, so that an installed machine needs no network.
define apt_install
	@missing=""; for package in $(1); do \
	  dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; done; \
	if [ -n "$$missing" ]; then \
	  if ! command -v apt-get >/dev/null; then echo "please install:$$missing"; exit 1; fi; \
	  echo "installing:$$missing"; $(SUDO) apt-get update -qq && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi
endef

$(BIN)/buildgraph: pyproject.toml
	$(call apt_install,python3-venv)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/dev: pyproject.toml $(BIN)/buildgraph
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

install: $(BIN)/buildgraph
	$(call apt_install,$(RUN_PACKAGES))

demo: install
	PATH="$(CURDIR)/$(BIN):$$PATH" examples/demo/run.sh

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/mypy cache worker compiler proto/generate.py bench
	$(BIN)/python proto/generate.py --check

# What measures time goes alone; what forks a keeper, too: workers of xdist have threads, and a process that has may not fork.
test: install $(VENV)/dev
	$(call apt_install,$(TEST_PACKAGES))
	$(BIN)/pytest -q -m "alone and not slow"
	$(BIN)/pytest -q -m "not alone and not slow" -n 2 --dist loadfile

test-slow: install $(VENV)/dev
	$(call apt_install,$(TEST_PACKAGES))
	$(BIN)/pytest -q -m slow

test-rootless: install $(VENV)/dev
	$(call apt_install,$(TEST_PACKAGES))
	tests/rootless.sh

N ?= 1000
chaos: install $(VENV)/dev
	$(call apt_install,$(TEST_PACKAGES))
	$(SUDO) env PYTHONPATH=.:proto $(BIN)/python tests/cluster/chaos.py --runs $(N) $(if $(SEED),--seed $(SEED))

conformance: install $(VENV)/dev
	$(call apt_install,$(TEST_PACKAGES) docker.io buildah)
	$(SUDO) $(BIN)/python tests/conformance/compare.py

bench: install
	$(BIN)/python bench/run.py

proto: $(VENV)/dev
	$(BIN)/python proto/generate.py

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
