# The README's commands. Needs Python >= 3.11, pip and make; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

DEMO := .venv-demo

.PHONY: demo test adapters ray shapes check lint types contracts bench clean

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

# A process a core, each with one thread; a file's tests stay together, with their fixtures.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile

# Shapes in annotations are executed: every call in these tests checks them. Left out: tests that
# pass a wrong type on purpose.
shapes: $(STAMP)
	$(BIN)/python -m pytest -q --jaxtyping-packages=faultlens,beartype.beartype \
		-m "not offline and not browser" --ignore tests/data/world \
		--deselect tests/vlm/test_labels.py::test_a_label_needs_texts \
		--deselect tests/localize/test_counterfactual.py::test_mistakes_are_told \
		--deselect tests/localize/test_minimal.py::test_mistakes_are_told \
		tests/data tests/models tests/embeddings tests/vlm tests/localize tests/report \
		tests/test_alignment.py tests/test_concepts.py tests/test_features.py tests/test_files.py \
		tests/test_heatmaps.py tests/test_imports.py tests/test_session.py tests/test_stats.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

contracts: $(STAMP)
	$(BIN)/lint-imports

check: lint types contracts test adapters

# Peers to compare with go into the same environment.
$(VENV)/.bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	touch $@

# What wants torchvision, which must not replace the pinned PyTorch: an environment of its own that
# sees the product's packages.
PEERS := .venv-peers
$(PEERS)/.installed: $(STAMP)
	$(PYTHON) -m venv $(PEERS)
	$(BIN)/python -c "import site; print(f'import site; site.addsitedir({site.getsitepackages()[0]!r})')" \
		> "$$($(PEERS)/bin/python -c 'import site; print(site.getsitepackages()[0])')/product.pth"
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		torchvision==0.28.0 pytorch-ood==0.4.0 torchattacks==3.5.1 timm open-clip-torch ftfy wcwidth
	touch $@

# Adapters of libraries that want torchvision.
adapters: $(PEERS)/.installed
	OMP_NUM_THREADS=1 $(PEERS)/bin/python -m pytest -q tests/models/test_zoos.py tests/vlm/test_open_clip.py

# Ray starts processes of its own for half a minute; 500 MB that no other test needs.
$(VENV)/.ray: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]'
	touch $@

ray: $(VENV)/.ray
	$(BIN)/python -m pytest -q tests/scale/test_ray.py

bench-monitor: $(PEERS)/.installed
	mkdir -p build/bench
	$(PEERS)/bin/python benchmarks/monitor.py --json build/bench/monitor.json

bench-%: $(VENV)/.bench
	mkdir -p build/bench
	$(BIN)/python benchmarks/$*.py --json build/bench/$*.json

bench: $(VENV)/.bench
	mkdir -p build/bench
	for b in benchmarks/*.py; do n=$$(basename $$b .py); $(BIN)/python $$b --quick --json build/bench/$$n.json || exit 1; done

clean:
	rm -rf $(VENV) $(DEMO) $(PEERS) build dist
