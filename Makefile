# make demo        set-up, then the whole pipeline in miniature on a CPU, without downloads
# make demo-all    the same with the ablation tables and the controls
# make demo-study  does VDEP help the miniature? five seeds of every arm, with verdicts and power (within ten times `make demo`)
# make demo-doses  after it: one seed for every strength of the image loss
# make demo-planted  a made world in which an effect is there to be found: is it, and none for placebos?
# make test        set-up, then all tests but the long ones (test-fast: 2 minutes; test-long: the long ones)
# make test-full   the whole of every battery (kills, plans, generated cases), of which the others run a fixed sample
# make bench       what a CPU can measure (benchmarks/README.md), a line for each claim at the end
# make env         set-up alone          make lock   resolve the pinned requirements, record what was downloaded
# make clean       remove the demo's results, its studies' too, and everything that was made for it

PYTHON ?= python3
CORES ?= $(shell nproc)
BIN := .venv/bin
TORCH := torch==2.13.0
DEMO := --configfile config/demo.yaml --cores $(CORES)

export TORCH_EXTENSIONS_DIR ?= $(CURDIR)/.torch_extensions
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo demo-all demo-study demo-doses demo-planted test test-fast test-long test-full bench env lock clean

demo: env
	$(BIN)/snakemake demo $(DEMO)
	$(BIN)/snakemake report $(DEMO)
	@cat results/demo/tables/skills.md
	@echo "Everything on one page: results/demo/report.html. The tables are in results/demo/tables, the attention figure is results/demo/figures/attention.png"

demo-all: env
	$(BIN)/snakemake demo all controls $(DEMO)

# what is finished stays: interrupted, even by kill -9, the same command goes on
demo-study: env
	$(BIN)/snakemake demo-study power --configfile config/demo.yaml config/demo-study.yaml --cores $(CORES)
	@cat results/demo-study/tables/verdicts.md

demo-doses: env
	$(BIN)/snakemake demo-doses --configfile config/demo.yaml config/demo-study.yaml config/demo-doses.yaml --cores $(CORES)
	@cat results/demo-study/tables/doses.md

demo-planted: env
	$(BIN)/snakemake demo-planted power --configfile config/demo.yaml config/planted.yaml --cores $(CORES)
	@cat results/planted/tables/verdicts.md

test: env
	$(BIN)/pytest -m "not long and not full and not gpu"

test-fast: env
	$(BIN)/pytest -m "not slow and not long and not full and not gpu"

test-long: env
	$(BIN)/pytest -m "long and not full and not gpu"

test-full: env
	$(BIN)/pytest --whole -m "(full or hypothesis) and not gpu"

bench: env
	$(BIN)/python benchmarks/run.py

env: .venv/ready

.venv/ready: envs/requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q $(TORCH) -c envs/requirements.lock
	$(BIN)/python -m pip install -q --no-deps -r envs/requirements.lock
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/python -m vdep.train.extension
	touch $@

lock: env
	$(PYTHON) -m venv .venv/lock && .venv/lock/bin/python -m pip install -q uv==0.13.9
	PATH=$(CURDIR)/.venv/lock/bin:$$PATH $(BIN)/python envs/lock.py
	$(BIN)/python -m vdep lock --resources resources --lock config/lock.yaml

clean:
	rm -rf results/demo resources/demo results/demo-study resources/demo-study results/planted resources/planted
