# Each target creates and fills .venv if needed, so `make test` works in a fresh clone.
# With another Python: make test PYTHON=python3.13 VENV=.venv-3.13
PYTHON := python3
VENV := .venv
CONSTRAINTS := constraints.txt
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: demo test test-all test-lowest lint format bench bench-quick gpu gpu-rehearse gpu-pack docs site links clean

demo: $(READY)
	rm -rf runs/demo
	$(VENV)/bin/polypath train crescendonet-digits --out runs/demo
	$(VENV)/bin/polypath paths runs/demo

test: $(READY)
	$(PY) -m pytest -n 2 --dist worksteal

test-all: $(READY)
	$(PY) -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[cluster]'
	$(PY) -m pytest -n 2 --dist worksteal --cov=polypath --cov-report=term:skip-covered
	$(PY) -m pytest -n 2 --dist worksteal -m slow

test-lowest:
	$(MAKE) test VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt

lint: $(READY)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright

format: $(READY)
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

bench: $(READY)
	$(PY) -m benchmarks

bench-quick: $(READY)
	$(PY) -m benchmarks quick

# on a machine with a GPU: no .venv, no network; PACK is what gpu-pack wrote elsewhere, from DATA and for GPU_PYTHON
PACK := gpu-pack
GPU_PYTHON := 3.12
gpu gpu-rehearse gpu-pack: PY := python3
gpu:
	$(PY) -m benchmarks.gpu --pack $(PACK)

gpu-rehearse:
	$(PY) -m benchmarks.gpu --pack $(PACK) --rehearse

gpu-pack:
	$(PY) -m benchmarks.gpu.pack --data '$(DATA)' --out $(PACK) --python $(GPU_PYTHON) --constraints $(CONSTRAINTS)

# makes the generated pages, which are committed, and the site in docs/_build/html
docs: $(READY)
	$(PY) docs/generate.py
	$(MAKE) site

site: $(READY)
	$(PY) -m sphinx -n -W --keep-going -q -d docs/_build/doctrees -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# checks every external link; needs a network
links: $(READY)
	$(PY) -m sphinx -q -d docs/_build/doctrees -b linkcheck docs docs/_build/links

$(READY): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Polypath needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist docs/_build .ruff_cache .hypothesis .coverage
