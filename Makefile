# Everything a newcomer types. `make env` is the set-up of all other targets.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.locked-$(shell sha256sum requirements.lock 2>/dev/null | cut -c1-16)
# Where pip finds the CPU build of torch, if not by its own settings. The CUDA build works as well.
TORCH_INDEX ?=
DEMO := build/demo
RUN := $(BIN)/selfimprove
MINIATURE := examples/miniature

.DEFAULT_GOAL := help
CLUSTER_TESTS ?= tests/cluster
# Files in the order of their names: the long ones are not the last, while the other core idles.
IN_PARALLEL := --numprocesses 2 --dist loadfile --no-loadscope-reorder
NONE := test $$? = 5 # pytest found no such test among those that were named
.PHONY: help env demo test test-fast test-cluster check fix crds bench bench-training bench-operator check-gpu kind miniature clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

env: $(STAMP) ## make .venv with everything for this machine

# torch in a call of its own: in one call all have hashes or none, and it has a build for each index.
$(STAMP): requirements.lock
	$(PYTHON) -c 'import sys; assert sys.version_info[:2] == (3, 11), "expected Python 3.11"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -qq --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/pip install -qq --disable-pip-version-check $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) --no-warn-conflicts torch==2.13.0
	$(BIN)/pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	rm -f $(VENV)/.locked-*
	touch $@

demo: env ## M0 -> M1 -> M2 of the miniature model, then a table and a report
	@for part in m0 prompts suite; do \
	  $(RUN) upload $(MINIATURE)/$$part s3://miniature/$$part --store $(DEMO)/store || exit; \
	done
	$(RUN) run $(MINIATURE)/run.yaml --store $(DEMO)/store
	$(RUN) report $(MINIATURE)/run.yaml --store $(DEMO)/store --out $(DEMO)

test: env check ## all checks and tests but those that need a cluster
	$(BIN)/python -m pytest -m "not cluster" $(IN_PARALLEL)

test-fast: env ## the tests that start no engine, train nothing and need no cluster
	$(BIN)/python -m pytest -m "not engine and not training and not e2e and not cluster and not control_plane" $(IN_PARALLEL)

test-cluster: env ## the tests on the cluster of KUBECONFIG; its nodes need `make images`
	$(BIN)/python -m pytest -m "cluster and not alone" $(CLUSTER_TESTS) $(IN_PARALLEL) || $(NONE)
	$(BIN)/python -m pytest -m "cluster and alone" $(CLUSTER_TESTS) || $(NONE)

check: env ## lint, types, layers, dependencies and spelling; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry pipeline/src operator/src
	$(BIN)/codespell README.md DEVELOPMENT.md CHANGELOG.md charts docs images operator pipeline tests examples benchmarks

fix: env ## format, and fix what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

crds: env ## write crds/ and the chart's copy from the types
	$(BIN)/python -m selfimprove_operator.api.crd

bench: env ## generation, the data stage beside bare vLLM and training beside TRL (half an hour)
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/data.py
	$(MAKE) bench-training

bench-training: env ## useful tokens a second of training beside TRL and beside padded passes
	$(BIN)/python benchmarks/training.py

check-gpu: env ## the training path on one GPU (4 minutes); on processors tiny
	$(BIN)/python benchmarks/gpu_check.py --out build/gpu $(if $(wildcard /dev/nvidia0),,--tiny)

bench-operator: env ## time to the first Job, API calls and memory, on the cluster of KUBECONFIG
	$(BIN)/python benchmarks/control_loop.py

kind: images ## a kind cluster with the images and a store, for `make test-cluster`
	kind create cluster --config tests/cluster/kind.yaml $(if $(KUBERNETES),--image kindest/node:v$(KUBERNETES).0)
	kind load docker-image $(IMAGES:%=$(REGISTRY)/selfimprove-%:$(TAG))
	kubectl apply -f examples/minio/minio.yaml
	kubectl -n minio patch service minio --patch '{"spec": {"type": "NodePort", "ports": [{"port": 9000, "nodePort": 30900}]}}'
	kubectl -n minio rollout status deployment/minio

miniature: env ## make the miniature world and its M0 again (about 7 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python $(MINIATURE)/make.py

include images/images.mk

clean: ## remove what the targets made, but the environment
	rm -rf build
