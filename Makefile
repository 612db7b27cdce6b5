.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= python3
VENV ?= .venv
# cpu: a torch that brings CUDA libraries along is refused. cuda: it is taken.
TORCH_BUILD ?= cpu

BIN := $(VENV)/bin
PIP := $(BIN)/python -W ignore -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
BUF := node_modules/.bin/buf
TORCH_CONSTRAINT := $(if $(filter cpu,$(TORCH_BUILD)),--constraint constraints-cpu.txt)

# Where pip's index has the CUDA build only: uv knows the address of PyTorch's CPU wheels (docs/decisions/0001).
TORCH_FROM_PYTORCH = { echo "pip's index offers no CPU build; asking PyTorch's"; $(PIP) uv && \
	$(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend cpu --constraint constraints.txt torch; }

# OpenMP threads that spin while they wait steal the cores of the other processes (design, section 10).
export OMP_WAIT_POLICY := PASSIVE
export GOMP_SPINCOUNT := 0

.PHONY: help demo test check check-deploy pin-images bench soak chaos fuzz protos dashboards venv prometheus detectors clean
.DELETE_ON_ERROR:

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/up.stamp ## Speech and a portrait in, out/demo.mp4 out, through the four services (ARGS=--fast: not paced)
	$(BIN)/visavis demo $(ARGS)

# The manifests are tested where npm can bring what renders them.
test: $(VENV)/dev.stamp $(if $(shell command -v npm),$(BUF)) ## Run the whole suite (ARGS="tests/gateway -k interrupt": a part)
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/dev.stamp $(BUF) check-deploy ## Format, lint, types, import rules, protos, images and manifests; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BUF) lint
	$(BUF) format --diff --exit-code
	$(BIN)/python -m tools.generate_stubs --check
	$(BIN)/python -m tools.dashboards --check

check-deploy: $(VENV)/dev.stamp $(BUF) .venv-deploy/stamp ## The part of `make check` about images, compose and manifests
	$(BIN)/python -m tools.check_deploy

pin-images: $(VENV)/dev.stamp ## Write the digests of the base images into deploy/ (needs docker and a network)
	$(BIN)/python -m tools.pin_images

bench: $(VENV)/up.stamp ## Measure the whole pipeline live at mini; writes a dated result (ARGS="--sessions 2")
	$(BIN)/visavis bench pipeline --preset mini --in-process $(ARGS)

MINUTES ?= 30
soak: $(VENV)/dev.stamp ## Sessions come, go and are interrupted for 30 minutes (MINUTES=30); nothing may grow
	$(BIN)/python -m pytest -m soak --soak-minutes $(MINUTES) -rP $(ARGS)

FAULTS ?= 200
SEED ?= 1
chaos: $(VENV)/dev.stamp ## Faults at random against the real services under talking clients (FAULTS=200 SEED=1)
	$(BIN)/python -m tests.faults.chaos --faults $(FAULTS) --seed $(SEED) $(ARGS)

INPUTS ?= 20000
fuzz: $(VENV)/dev.stamp ## Random and mutated requests against the public service (INPUTS=20000 SEED=1)
	$(BIN)/python -m tests.faults.fuzz --inputs $(INPUTS) --seed $(SEED) $(ARGS)

protos: $(VENV)/dev.stamp $(BUF) ## Format the protos and generate visavis/v1 from them
	$(BUF) format --write
	$(BUF) lint
	$(BIN)/python -m tools.generate_stubs

dashboards: $(VENV)/dev.stamp ## Write Grafana's dashboards to deploy/grafana
	$(BIN)/python -m tools.dashboards

# Where it is missing, the tests that need it are skipped and say so.
prometheus: ## Install Debian's prometheus and promtool, with which rules and dashboards are tested (as root)
	@command -v prometheus >/dev/null && command -v promtool >/dev/null || { \
		command -v apt-get >/dev/null && test "$$(id -u)" = 0 || { echo "prometheus comes from Debian: run this as root there" >&2; exit 1; }; \
		apt-get update --quiet=2 && DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends prometheus; }

venv: $(VENV)/dev.stamp ## Create .venv with everything (TORCH_BUILD=cuda: with CUDA; PYTHON=python3.12: another Python)

detectors: .venv-mediapipe/stamp ## Create .venv-mediapipe, which finds faces, hands and text in footage (docs/data.md)

clean: ## Remove everything that make has made
	rm -rf $(VENV) .venv-mediapipe .venv-deploy node_modules build dist out *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# torch first and alone, so that the refusal of a CUDA build comes early and says what to do.
$(VENV)/torch.stamp: constraints.txt constraints-cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "visavis needs Python 3.11 or newer; say which with PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) pip setuptools
	@echo "installing torch ($(TORCH_BUILD))"
	@$(PIP) $(TORCH_CONSTRAINT) torch $(if $(filter cpu,$(TORCH_BUILD)),|| $(TORCH_FROM_PYTORCH)) || { printf '%s\n' \
		"No CPU build of torch was found where pip looks, nor at PyTorch's own index. Either point pip at one" \
		"(PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL; pytorch.org, Get Started, says where it is) and repeat this," \
		"or take the CUDA build: make TORCH_BUILD=cuda $(MAKECMDGOALS)" >&2; exit 1; }
	@touch $@

$(VENV)/up.stamp: $(VENV)/torch.stamp pyproject.toml setup.py
	@echo "installing visavis and its services"
	$(PIP) $(TORCH_CONSTRAINT) --no-build-isolation --editable '.[up]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/up.stamp
	@echo "installing what tests and checks need"
	$(PIP) $(TORCH_CONSTRAINT) --no-build-isolation --editable '.[dev]'
	@touch $@

.venv-deploy/stamp: deploy/requirements.txt
	test -x .venv-deploy/bin/python || $(PYTHON) -m venv .venv-deploy
	@echo "installing the linters of deploy/"
	.venv-deploy/bin/python -m pip --disable-pip-version-check install --quiet --no-compile --no-deps --requirement $<
	@touch $@

.venv-mediapipe/stamp: tools/detectors-requirements.txt
	test -x .venv-mediapipe/bin/python || $(PYTHON) -m venv .venv-mediapipe
	.venv-mediapipe/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --requirement $<
	@touch $@

$(BUF): package-lock.json
	@command -v npm >/dev/null || { echo "the linters of protos and manifests come through npm: install node and npm" >&2; exit 1; }
	@# Not `npm ci`: it wants the binaries of every platform in the lock, and not every registry mirror has them all.
	npm install --no-save --no-audit --no-fund --silent
	@touch $@
