# Every target sets itself up: the first one builds .venv, later ones find it there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-vision demo-retrieval demo-all test test-slow lint format bench bench-cuda clean setup-cuda

help: ## list the targets
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z%-]+):[^#]*## /  make \1\t/' | expand -t 22

setup: $(STAMP) ## build .venv with everything in it

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "installing the suite, PyTorch included: two to three minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--editable '.[dev]' --constraint constraints.txt
	@touch $@

demo: $(STAMP) ## train a small Vision Mamba on embedded images; its last line is a page to open
	$(BIN)/bimamba fit --config configs/demo/vision.yaml

RIVALS := vision vision_ss2d vision_vit
demo-vision: $(STAMP) ## the same for Vim, SS2D and ViT, and one table of the three (5 minutes)
	$(foreach name,$(RIVALS),$(BIN)/bimamba fit --config configs/demo/$(name).yaml &&) \
	$(BIN)/bimamba compare $(addprefix runs/demo_,$(RIVALS)) --output runs/demo_vision_rivals

demo-retrieval: $(STAMP) ## persons before other cameras: ranked lists, and a table of five networks (12 minutes)
	$(BIN)/bimamba fit --config configs/demo/retrieval.yaml
	$(BIN)/bimamba ablate configs/ablation/retrieval_demo.yaml

demo-motion: $(STAMP) ## motion from text, and before it the evaluator that judges it
	$(BIN)/bimamba fit --config configs/demo/motion_evaluator.yaml
	$(BIN)/bimamba fit --config configs/demo/motion.yaml \
		--model.init_args.evaluator runs/demo_motion_evaluator --trainer.check_val_every_n_epoch 20

demo-%: configs/demo/%.yaml $(STAMP) ## train one wing on its embedded data
	$(BIN)/bimamba fit --config $<

# What demo-vision and demo-motion train is not trained once more.
DEMOS := $(filter-out $(RIVALS) motion_evaluator,$(basename $(notdir $(wildcard configs/demo/*.yaml))))
demo-all: demo-vision $(addprefix demo-,$(DEMOS)) ## every demo, and a page that joins them
	$(BIN)/bimamba report 'runs/demo_*' --output runs/demos --title "Every demo"

test: $(STAMP) ## the test suite, in under 8 minutes on 2 cores
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile

test-slow: $(STAMP) ## tests that start processes
	$(BIN)/python -m pytest -m slow --timeout 600

lint: $(STAMP) ## formatting, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP) ## put the code into its format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(BENCH_STAMP) ## measure blocks and wings beside their peers, into benchmarks/results
	$(BIN)/bimamba bench scan
	$(BIN)/bimamba bench mixer
	$(BIN)/bimamba bench model
	$(BIN)/bimamba bench vision
	$(BIN)/bimamba bench pose
	$(BIN)/bimamba bench motion
	$(BIN)/bimamba bench scannet

bench-cuda: $(STAMP) ## the figures of a GPU, in one call of under 8 minutes
	$(BIN)/python -m benchmarks.cuda

$(BENCH_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--editable '.[bench]' --constraint constraints.txt
	@touch $@

# Built against the torch that is here. Without these words mamba-ssm builds no kernels any more.
setup-cuda: $(STAMP) ## add the optional CUDA kernels of others (needs nvcc)
	MAMBA_KEEP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE CAUSAL_CONV1D_FORCE_BUILD=TRUE \
	$(BIN)/python -m pip install --no-build-isolation --editable '.[cuda]' --constraint constraints.txt

clean: ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
