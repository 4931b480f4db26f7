# Every target installs what it needs first; "make help" lists them.

TOPOLOGY ?= topologies/hub-spoke.yaml
# The lab's name is the document's, as for "testbed up".
LAB ?= $(shell sed -n 's/^name: *\([a-z0-9-]*\).*/\1/p' $(TOPOLOGY))
PYTEST_ARGS ?=
PYTHON ?= python3

export PYTHON
testbed = $(root) .venv/bin/testbed
# Network namespaces need root; without sudo the command itself says what it lacks.
root = $(shell [ "$$(id -u)" = 0 ] || command -v sudo)

.DEFAULT_GOAL := help
.PHONY: help venv docker images lab-up lab-down verify test test-ipvs fidelity lint bench bench-ipvs clean

help: ## this list
	@echo "make TARGET [VARIABLE=VALUE …]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo "variables (and their values now)"
	@echo "  TOPOLOGY     the document of the lab ($(TOPOLOGY))"
	@echo "  LAB          the lab's name ($(LAB))"
	@echo "  PYTEST_ARGS  more arguments for pytest, e.g. PYTEST_ARGS='tests/unit -x' ($(PYTEST_ARGS))"
	@echo "  PYTHON       the interpreter for .venv, 3.11 or newer ($(PYTHON))"

venv: .venv/.installed-run ## install what a lab needs, so that .venv/bin/testbed is there

.venv/.installed-run: requirements.txt pyproject.toml scripts/install
	@scripts/install run
	@touch $@

.venv/.installed-test: .venv/.installed-run requirements-dev.txt
	@scripts/install test
	@touch $@

.venv/.installed-guest: .venv/.installed-test requirements-guest.txt
	@scripts/install guest
	@touch $@

.venv/.installed-bench: .venv/.installed-run
	@scripts/install images
	@scripts/install vm
	@scripts/install bench
	@touch $@

docker: ## install and start a Docker engine, if none answers
	@scripts/docker

images: venv docker ## build the images of containers/, those that are not there yet
	@scripts/install images
	$(testbed) images

# What the document's machines are made of says what is installed and built first.
.PHONY: machines
machines: venv
	@if grep -q 'kind: *container' $(TOPOLOGY); then scripts/docker && scripts/install images; fi
	@if grep -q 'kind: *vm' $(TOPOLOGY); then scripts/install vm && scripts/install images; fi
	@if grep -q 'vm-firewall' $(TOPOLOGY); then $(root) .venv/bin/testbed images vm-firewall; fi

lab-up: machines ## bring up TOPOLOGY, wait for its probes, prove symmetry, show it
	$(testbed) up $(TOPOLOGY) --lab $(LAB) --wait 180
	$(testbed) verify $(LAB) symmetry
	$(testbed) status $(LAB)
	@$(testbed) status $(LAB) --json | .venv/bin/python scripts/next_steps.py

lab-down: venv ## remove LAB
	$(testbed) down $(LAB)

verify: venv ## check LAB: symmetry, distribution, failover
	$(testbed) verify $(LAB) symmetry distribution failover

test: .venv/.installed-test docker ## run every test, those that need root and those of IPVS too
	$(root) .venv/bin/python -m pytest $(PYTEST_ARGS)
	$(if $(PYTEST_ARGS),,$(MAKE) test-ipvs)

# The kernel of most computers has no IPVS, so the suite gets one that has, by emulation: slower, so its timers are too.
# What finds captured flows is tested there too: it once went wrong with the emulated AVX2 only.
test-ipvs: .venv/.installed-guest ## run the conformance suite with IPVS as the balancer, in a guest kernel
	$(root) .venv/bin/python scripts/guest.py --limit 1200 --results results -- .venv/bin/python -m pytest \
	  -v -p no:cacheprovider --balancer ipvs --lab-time-scale 0.1 --junitxml={results}/ipvs.xml \
	  $(or $(IPVS_ARGS),tests/conformance tests/unit/traffic/test_frames.py)

fidelity: venv ## write docs/azure-fidelity.md anew, from tests/conformance
	.venv/bin/python scripts/fidelity.py >docs/azure-fidelity.new
	mv docs/azure-fidelity.new docs/azure-fidelity.md

lint: .venv/.installed-test ## ruff, mypy --strict, shellcheck
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy --strict
	shellcheck scripts/install scripts/docker .ci/run $$(git ls-files containers | xargs grep -lE "^#!/bin/(ba)?sh")

bench-ipvs: .venv/.installed-guest ## measure both balancers side by side in the guest kernel
	$(root) .venv/bin/python scripts/guest.py --results results -- .venv/bin/python -m bench backends --results {results}

bench: .venv/.installed-bench docker ## measure; prints medians and writes results/bench.json
	$(root) .venv/bin/python -m bench

clean: ## remove what make has made here; labs stay up
	rm -rf .guest .venv build dist results *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf containers/vm-firewall/out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
