# Images, built with buildah where there is one, else with docker. Included by the Makefile.
#   make images IMAGES="operator cpu" REGISTRY=registry.example/team TAG=0.1.0
IMAGES ?= operator light cpu inference training
REGISTRY ?= localhost
TAG ?= dev
export BUILDAH_ISOLATION ?= chroot
# Where pip's settings name a folder of wheels on this machine, buildah lets the builds see it.
BUILDER ?= $(if $(shell command -v buildah),buildah build --layers \
  $(if $(PIP_FIND_LINKS),--volume $(PIP_FIND_LINKS):$(PIP_FIND_LINKS):ro),docker build)

.PHONY: images images-resolve $(IMAGES:%=image-%)

images: $(IMAGES:%=image-%) ## build IMAGES: operator light cpu inference training

$(IMAGES:%=image-%): image-%:
	$(BUILDER) $(if $(TORCH_INDEX),--build-arg TORCH_INDEX=$(TORCH_INDEX)) \
	  --tag $(REGISTRY)/selfimprove-$*:$(TAG) --file images/$*/Dockerfile .

# From the index alone: a folder of CPU wheels would be preferred.
images-resolve: export PIP_CONFIG_FILE := /dev/null
images-resolve: export PIP_FIND_LINKS :=
images-resolve: ## resolve and lock what the GPU images install, without building them (10 min)
	mkdir -p build/images
	test -x build/images/pip/bin/pip || $(PYTHON) -m venv build/images/pip
	$(PYTHON) images/requirements.py --constraints > build/images/constraints.txt
	set -e; for image in inference training; do \
	  $(PYTHON) images/requirements.py $$image > build/images/$$image.txt; \
	  build/images/pip/bin/pip install --disable-pip-version-check --quiet --dry-run \
	    --ignore-installed --report build/images/$$image.json \
	    --constraint build/images/constraints.txt --requirement build/images/$$image.txt; \
	  $(PYTHON) images/requirements.py --locked build/images/$$image.json \
	    > images/$$image/requirements.lock; \
	done
