# Each target makes what it needs in .venv and needs nothing beforehand but Python 3.10+.

PYTHON ?= python3
ifeq ($(OS),Windows_NT)
VENV := .venv/Scripts/python.exe
else
VENV := .venv/bin/python
endif

.DEFAULT_GOAL := help
# `make -j`: what the environment holds depends on whether ComfyUI is there.
.NOTPARALLEL:
.PHONY: help demo test comfy bench card lint env host

help:  ## Show this list
	@$(PYTHON) -c "import re; print(*('make %-6s %s' % line for line in re.findall(r'^(\w+):.*?## (.*)', open('Makefile').read(), re.M)), sep='\n')"

demo: env  ## The main job from nothing: convert, train a LoRA, generate (MODEL=file.safetensors for your own checkpoint)
	$(VENV) -m atelier demo $(if $(MODEL),--model "$(MODEL)")

# Small models in several processes: one thread each is fastest, since threads that share a core wait for each other.
test: export OMP_NUM_THREADS := 1
# glibc gives freed weights back to the system at once; elsewhere nobody reads these.
test: export MALLOC_ARENA_MAX := 2
test: export MALLOC_MMAP_THRESHOLD_ := 4194304
test: export MALLOC_TRIM_THRESHOLD_ := 16777216
test: host env  ## Style, types and every test that can run here
	$(VENV) -m ruff check .
	$(VENV) tools/check_js.py
	$(VENV) -m pyright
	$(VENV) -m pytest -n auto --dist loadfile --no-loadscope-reorder --max-worker-restart 0

comfy:  ## ComfyUI with the pack in it, on 127.0.0.1 (ARGS="--port 8200" goes to ComfyUI)
	$(PYTHON) tools/comfyui.py --clone
	$(PYTHON) tools/setup_env.py --comfy
	$(VENV) tools/run_comfy.py $(ARGS)

bench: env  ## Measure against peers and print the ratios
	$(foreach script,$(sort $(wildcard benchmarks/[a-z]*.py)),$(VENV) $(script) &&) true

# Not in .venv, whose PyTorch may know no card: tools/card.py looks for one that does.
card:  ## On a machine with a graphics card: test and measure on it, and write docs/card-<name>.md (no network needed)
	$(PYTHON) tools/card.py $(ARGS)

lint: env  ## Style and types only
	$(VENV) -m ruff check .
	$(VENV) tools/check_js.py
	$(VENV) -m pyright

env:
	@$(PYTHON) tools/setup_env.py

# Tests that need ComfyUI are skipped, and counted at the end, where it can neither be found nor cloned.
host:
	-@$(PYTHON) tools/comfyui.py --clone
