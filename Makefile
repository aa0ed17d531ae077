# make demo    align the laboratory's model and read the report (three to six minutes)
# make test    the fast tests
# make check   lint, types and tests
# make test-slow     what takes longer than ten seconds, such as kills of every stage
# make test-server   the tests against a real vLLM, in .venv-vllm (3.4 GB; minutes to build)
# make test-interop  the exports against TRL, veRL and OpenRLHF
# make test-inspect  the evaluation logs and the model provider against Inspect
# make bench   side by side with TRL and others, into bench/RESULTS.md; make bench BENCH=--quick tries it
# make test-gpu, bench-gpu   on a CUDA device: what needs one, and the comparisons at 0.5B and 1.5B
#
# The first call builds .venv; later ones find its stamp and go straight to work. CI runs check,
# test-slow, test-inspect and test-server.

PYTHON ?= python3
OUT    ?= out/demo
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

# On Linux PyPI's torch brings gigabytes of CUDA; without an NVIDIA card take the CPU build.
CPU_TORCH := $(shell [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1 && \
	echo --extra-index-url https://download.pytorch.org/whl/cpu)

.PHONY: demo test test-slow lint types check test-interop test-inspect vllm-env test-server bench-env bench test-gpu bench-gpu clean

demo: $(VENV)/.installed
	$(BIN)/cai run runs/lab.toml --out $(OUT)
	@echo
	@echo "The report: file://$(abspath $(OUT))/8-report/report.html"

# A process a core, each with one thread: threads of several processes would wait for each other.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test-slow: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist load -m 'slow and not gpu and not server'

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

check: lint types test

# The exports against the tools themselves. veRL and OpenRLHF are read, never run, so they come without
# their dependencies, which would take a GPU machine's gigabytes.
test-interop: $(VENV)/.installed-dev
	$(PIP) install --quiet -c constraints.txt -e '.[interop]'
	$(PIP) install --quiet --no-deps verl==0.9.1 openrlhf==0.11.2
	$(BIN)/python -m pytest tests/exports -m 'slow or not slow'

# Inspect pins other versions than ours: it lies over our environment, through PYTHONPATH.
INSPECT := .venv-inspect/site-packages

test-inspect: $(VENV)/.installed-dev
	[ -d $(INSPECT)/inspect_ai ] || $(PIP) install --quiet --target $(INSPECT) inspect-ai==0.3.285
	PYTHONPATH=$(abspath $(INSPECT)) $(BIN)/python -m pytest tests/exports -k inspect

# vLLM wants other versions than ours, so it has an environment of its own; ours is installed there
# as well, without its dependencies, which requirements-vllm.txt names.
VLLM_VENV := .venv-vllm
VLLM_BIN  := $(VLLM_VENV)/bin
VLLM_PIP  := $(VLLM_BIN)/python -m pip --disable-pip-version-check

vllm-env: $(VLLM_VENV)/.installed

test-server: $(VLLM_VENV)/.installed
	$(VLLM_BIN)/python -m pytest -m server tests/engines

$(VLLM_VENV)/.installed: requirements-vllm.txt pyproject.toml
	@[ "$$(uname -sm)" = "Linux x86_64" ] || { \
		echo "make: vLLM for CPUs comes for Linux on x86_64 only, this is $$(uname -sm);" \
		     "the tests against a server cannot run here" >&2; exit 1; }
	[ -x $(VLLM_BIN)/python ] || $(PYTHON) -m venv $(VLLM_VENV)
	@echo "Building $(VLLM_VENV), once: torch first, then vLLM, 3.4 GB."
	$(VLLM_PIP) install --retries 1 --no-deps \
		--extra-index-url https://download.pytorch.org/whl/cpu torch==2.13.0
	$(VLLM_PIP) install --quiet --no-deps -r requirements-vllm.txt
	$(VLLM_PIP) install --quiet --no-deps -e .
	$(VLLM_BIN)/python -c 'import vllm'
	@touch $@

# TRL lies over our environment through PYTHONPATH, so torch is not installed twice: 1.16.0 with what
# it needs, and 1.12.0, the last with PPO, alone.
TRL_TARGETS := .venv-trl .venv-trl112
BENCH       ?= --write

bench-env: .venv-trl112/.installed

bench: bench-env
	$(BIN)/python bench $(BENCH)

test-gpu: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m gpu

# Random weights in the shape of Qwen2.5. Labels need a model that can answer: name one as LABELS=PATH.
GPU_MODELS := random:0.5b random:1.5b
GPU_BENCH  := --device cuda $(BENCH)
LABELS     ?= lab:s

# Sides that hold their memory at the same time: ppo needs 140 GB at 0.5B, as measured.
bench-gpu: bench-env
	$(BIN)/python bench/parity.py
	$(BIN)/python bench/revise.py --models $(GPU_MODELS) $(GPU_BENCH)
	$(BIN)/python bench/label.py --models $(LABELS) --pairs 1200 $(GPU_BENCH)
	$(BIN)/python bench/ppo.py --model random:0.5b --sides ours ours-separate --tuned 64 \
		--batch-tokens 8192 $(GPU_BENCH)
	$(BIN)/python bench/ppo.py --model random:1.5b --sides ours --tuned 16 \
		--batch-tokens 4096 $(GPU_BENCH)
	$(BIN)/python bench/sft.py --models $(GPU_MODELS) --rows 256 --batch-tokens 4096 --steps 6 $(GPU_BENCH)
	$(BIN)/python bench/reward.py --models random:0.5b --rows 512 --batch-pairs 64 --steps 6 $(GPU_BENCH)
	$(BIN)/python bench/roofline.py --models $(GPU_MODELS) --rows 128 --batch-tokens 8192 $(GPU_BENCH)

.venv-trl112/.installed: bench/requirements.txt $(VENV)/.installed-dev
	rm -rf $(TRL_TARGETS)
	$(PIP) install --quiet --no-deps --target .venv-trl/site-packages -r bench/requirements.txt
	$(PIP) install --quiet --no-deps --target .venv-trl112/site-packages trl==1.12.0
	@touch $@

clean:
	rm -rf $(VENV) $(VLLM_VENV) $(TRL_TARGETS) build dist

# torch first and alone, so that only it is looked up in the extra index.
$(VENV)/.torch: constraints.txt
	@command -v $(PYTHON) >/dev/null 2>&1 && \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: $(PYTHON) is missing or older than Python 3.11. Install Python 3.11 or newer," \
		     "or name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		echo "make: $(PYTHON) cannot make virtual environments. On Debian and Ubuntu:" \
		     "apt install python3-venv" >&2; exit 1; }
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@echo "Building $(VENV), once: torch first, then the rest."
	$(PIP) install --retries 1 -c constraints.txt --no-deps $(CPU_TORCH) torch
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.torch pyproject.toml
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed
