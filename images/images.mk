# Images, built with buildah where there is one, else with docker. Included by the Makefile.
#   make images IMAGES="operator light inference training" REGISTRY=registry.example/team TAG=0.1.0
# What processors need; the two for GPUs take long and 15 GB.
IMAGES ?= operator light cpu
REGISTRY ?= localhost
TAG ?= dev
export BUILDAH_ISOLATION ?= chroot
# Where pip's settings name a folder of wheels on this machine, buildah lets the builds see it.
BUILDER ?= $(if $(shell command -v buildah),buildah build --layers \
  $(if $(PIP_FIND_LINKS),--volume $(PIP_FIND_LINKS):$(PIP_FIND_LINKS):ro),docker build)

.PHONY: images images-resolve hashes $(IMAGES:%=image-%)

images: $(IMAGES:%=image-%) ## build IMAGES (operator light cpu; for GPUs inference training)

$(IMAGES:%=image-%): image-%:
	$(BUILDER) $(if $(TORCH_INDEX),--build-arg TORCH_INDEX=$(TORCH_INDEX)) \
	  --tag $(REGISTRY)/selfimprove-$*:$(TAG) --file images/$*/Dockerfile .

# From the index alone: a folder of CPU wheels would be preferred. Versions stay as they are; to move
# one, delete its line first.
images-resolve: export PIP_CONFIG_FILE := /dev/null
images-resolve: export PIP_FIND_LINKS :=
images-resolve: ## resolve and lock what the GPU images install, without building them
	mkdir -p build/images
	test -x build/images/pip/bin/pip || $(PYTHON) -m venv build/images/pip
	set -e; for image in inference training; do \
	  $(PYTHON) images/requirements.py $$image > build/images/$$image.txt; \
	  $(PYTHON) images/requirements.py --constraints $$image > build/images/constraints.txt; \
	  build/images/pip/bin/pip install --disable-pip-version-check --quiet --dry-run \
	    --ignore-installed --report build/images/$$image.json \
	    --constraint build/images/constraints.txt --requirement build/images/$$image.txt; \
	  $(PYTHON) images/requirements.py --locked build/images/$$image.json > build/images/$$image.lock; \
	  $(PYTHON) images/requirements.py --hashes build/images/$$image.lock; \
	  cp build/images/$$image.lock images/$$image/requirements.lock; \
	done

hashes: ## write the hashes of requirements.lock again, after a line of it was changed
	$(PYTHON) images/requirements.py --hashes requirements.lock
