# Each target makes and fills .venv by itself; `make test` in a fresh clone is enough.
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: demo test slow lint format bench docs clean

demo: $(READY)
	rm -rf runs/demo
	$(VENV)/bin/polypath train crescendonet-digits --out runs/demo
	$(VENV)/bin/polypath paths runs/demo

test: $(READY)
	$(PY) -m pytest -n 2 --dist worksteal

slow: $(READY)
	$(PY) -m pytest -m slow

lint: $(READY)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright

format: $(READY)
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

bench: $(READY)
	$(PY) -m benchmarks

docs: $(READY)
	$(PY) docs/generate.py

$(READY): pyproject.toml constraints.txt
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Polypath needs Python 3.11 or newer")'
	python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist .ruff_cache .hypothesis
