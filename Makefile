# The README's commands. Needs Python >= 3.11, pip and make; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

DEMO := .venv-demo

.PHONY: demo test shapes check lint types contracts bench clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

# The tool alone, as a user installs it: without PyTorch, without extras.
$(DEMO)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

# Exit code 1 means that a fault was found, which is what the demo is to show.
demo: $(DEMO)/.installed
	$(DEMO)/bin/faultlens demo --out build/demo || test $$? -eq 1

test: $(STAMP)
	$(BIN)/python -m pytest -q

# Shapes in annotations are executed: every call in these tests checks them.
shapes: $(STAMP)
	$(BIN)/python -m pytest -q --jaxtyping-packages=faultlens,beartype.beartype \
		-m "not offline and not browser" \
		--deselect tests/vlm/test_labels.py::test_a_label_needs_texts \
		--ignore tests/test_cli.py --ignore tests/test_real.py --ignore tests/test_resume.py \
		--ignore tests/test_demo.py --ignore tests/test_scripts.py tests

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

contracts: $(STAMP)
	$(BIN)/lint-imports

check: lint types contracts test

bench-%: $(STAMP)
	mkdir -p build/bench
	$(BIN)/python benchmarks/$*.py --json build/bench/$*.json

bench: $(STAMP)
	mkdir -p build/bench
	for b in benchmarks/*.py; do n=$$(basename $$b .py); $(BIN)/python $$b --quick --json build/bench/$$n.json || exit 1; done

clean:
	rm -rf $(VENV) $(DEMO) build dist
