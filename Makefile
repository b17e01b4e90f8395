# make demo   the main job, end to end, in a temporary folder
# make test   the tests; with PYTEST="-k word" some of them
# make test-systemd   those that boot systemd in namespaces: it fails where `make test` skips them
# make test-xen   those that need Xen, in a dom0 that QEMU runs; with PYTEST="-k word" some of them
# make test-faults  kills after each record, full disks, 200 deploys; `make test` has a sample
# make fuzz   the property tests again, with many more examples
# make lint   types, style, and our own pre-commit checks
# make bench  what a pull pays for the hook, downtime, memory: as ratios
# make bench-xen  how long a pull leaves a site on Xen without an answer; how long a script's does
# Each does its own set-up: an environment in .venv, and Debian packages where root runs it.

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
BENCH := .venv-bench
SOURCES := $(wildcard boot/*.py boot/*/*.py hooks/*.py installer/*.py installer/*/*.py)

# Programs that tests start thousands of times start faster where what was compiled of them is kept.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-systemd test-xen test-faults fuzz lint bench bench-xen clean

demo: $(READY)
	@$(VENV)/bin/python contrib/demo.py

test: $(READY)
	$(VENV)/bin/pytest --numprocesses auto --dist worksteal $(PYTEST)

test-systemd: $(READY)
	TEST_SYSTEMD=1 $(VENV)/bin/pytest -m systemd

test-xen: $(READY)
	$(VENV)/bin/python tests/xen/suite.py $(PYTEST)

test-faults: $(READY)
	FAULTS=full $(VENV)/bin/pytest --numprocesses auto --dist worksteal tests/faults

fuzz: $(READY)
	HYPOTHESIS_PROFILE=long $(VENV)/bin/pytest --numprocesses auto tests/properties

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --strict mirage_hooks tests contrib

bench: $(BENCH)/.ready
	$(BENCH)/bin/python tests/benchmarks/run.py

bench-xen: $(READY)
	$(VENV)/bin/python tests/xen/suite.py silence

clean:
	rm -rf $(VENV) $(BENCH) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): setup.cfg pyproject.toml
	@sh contrib/packages.sh $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# An editable install starts slower than what users have: benchmarks run an ordinary one.
$(BENCH)/.ready: setup.cfg pyproject.toml $(SOURCES)
	@sh contrib/packages.sh $(PYTHON)
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet --disable-pip-version-check --force-reinstall . pytest
	@touch $@
