# Images, built with buildah where there is one, else with docker. Included by the Makefile.
# IMAGES chooses some, BUILDER another program: `make images IMAGES=operator BUILDER="docker build"`.
IMAGES ?= operator light cpu inference training
REGISTRY ?= localhost
TAG ?= dev
BUILDER ?= $(if $(shell command -v buildah),buildah bud --layers,docker build)
BUILD_OPTIONS ?=

.PHONY: images images-resolve $(IMAGES:%=image-%)

images: $(IMAGES:%=image-%) ## build IMAGES (operator light cpu inference training)

$(IMAGES:%=image-%): image-%:
	$(BUILDER) $(BUILD_OPTIONS) $(if $(TORCH_INDEX),--build-arg TORCH_INDEX=$(TORCH_INDEX)) \
	  --tag $(REGISTRY)/selfimprove-$*:$(TAG) --file images/$*/Dockerfile .

images-resolve: ## resolve what the GPU images install, and lock it (10 minutes; downloads no wheels)
	@mkdir -p build/images
	@test -x build/images/pip/bin/pip || $(PYTHON) -m venv build/images/pip
	@for image in inference training; do \
	  $(PYTHON) images/requirements.py $$image > build/images/$$image.txt && \
	  PIP_FIND_LINKS= build/images/pip/bin/pip install --disable-pip-version-check --quiet \
	    --dry-run --ignore-installed --report build/images/$$image.json \
	    --requirement build/images/$$image.txt && \
	  $(PYTHON) images/requirements.py --locked build/images/$$image.json \
	    > images/$$image/requirements.lock || exit; \
	done
