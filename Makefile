# `make demo` and `make test` need only Python 3.11 to 3.13 with pip: .venv is made here.
PYTHON ?= python3
WORKERS ?= 2
PY := .venv/bin/python
STAMP := .venv/.stamp

.DEFAULT_GOAL := help
.PHONY: help venv demo test slow coverage lint format types layers clean

help:
	@echo "make demo     train-to-MNN example: prepare, prove, compare the accuracies (TARGET=phone: there, too)"
	@echo "make test     the tests (make slow: the long ones)"
	@echo "make coverage the same with coverage of branches, in workers too (TESTS=FILES: of these)"
	@echo "make lint     ruff; also: make types, make layers, make format"
	@echo "make clean    remove what these made"

venv: $(STAMP)

# pip would compile one file after another; confined workers cannot write what they compile. Some packages hold templates
# that are not Python: these fail here as they do under pip, without effect.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 14) else "mnnprep needs Python 3.11 to 3.13; give one: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --no-input --no-compile -c constraints.txt -e '.[torch,tensorflow,tflite,caffe,report,dev]'
	@$(PY) -m compileall -qq -j 0 .venv/lib || true
	@touch $@

demo: $(STAMP)
	$(PY) examples/digits/demo.py $(foreach target,$(TARGET),--target $(target))

test: $(STAMP)
	$(PY) -m pytest -q -n $(WORKERS) --dist worksteal

slow: $(STAMP)
	$(PY) -m pytest -q -n $(WORKERS) --dist worksteal -m slow

coverage: $(STAMP)
	rm -rf .cache/coverage
	mkdir -p .cache/coverage
	$(PY) -m coverage run -m pytest -q -n $(WORKERS) --dist worksteal $(TESTS)
	$(PY) -m coverage combine --quiet
	$(PY) -m coverage report

lint: $(STAMP)
	# Without a cache: it keeps which imports are the project's own, also after they have moved.
	$(PY) -m ruff check --no-cache .
	$(PY) -m ruff format --check .

format: $(STAMP)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

types: $(STAMP)
	$(PY) -m mypy

layers: $(STAMP)
	.venv/bin/lint-imports

clean:
	rm -rf .venv build dist .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
