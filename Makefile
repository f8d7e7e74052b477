# `make demo` and `make test` each are enough on a fresh machine with Python 3.11 or newer and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PYTHON_3_12 ?= python3.12
BIN := .venv/bin
READY := .venv/.ready

EXPERIMENT ?= experiment-run
EXPERIMENT_FLAGS ?= --epochs 30
MINUTES ?= 10

.PHONY: demo experiment test test-long test-librosa-1 test-newest-ray test-lowest chaos fuzz lint types walls check docs sbom bench clean

$(READY): pyproject.toml requirements-dev.lock
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: $(READY)  ## catalogue, training with two workers, evaluation, tags: everything lands under demo-run/
	rm -rf demo-run
	$(BIN)/python jobs/make_demo_catalogue.py --out demo-run/catalogue --songs-per-artist 7
	$(BIN)/python jobs/build_manifest.py --catalogue demo-run/catalogue --labels demo-run/catalogue/labels.csv --out demo-run/manifest.parquet
	$(BIN)/python jobs/extract_mels.py --manifest demo-run/manifest.parquet --out demo-run/mels
	$(BIN)/python jobs/train.py --mels demo-run/mels --out demo-run/model --recipe demo --folds 3 --num-workers 2
	$(BIN)/python jobs/evaluate.py --model demo-run/model --mels demo-run/mels --out demo-run/report
	$(BIN)/python jobs/tag_catalogue.py --manifest demo-run/manifest.parquet --model demo-run/model --out demo-run/tagged
	$(BIN)/python -m mtl_core.pipelines.demo_table demo-run
	@echo "report: $(CURDIR)/demo-run/report/report.html"

$(EXPERIMENT)/.mels: $(READY)  # of the paper's shape: 17 languages x 4 artists x 5 songs, 1,360 segments
	$(BIN)/python jobs/make_demo_catalogue.py --out $(EXPERIMENT)/catalogue --difficulty hard --languages 17 --song-s 130
	$(BIN)/python jobs/build_manifest.py --catalogue $(EXPERIMENT)/catalogue --labels $(EXPERIMENT)/catalogue/labels.csv --out $(EXPERIMENT)/manifest.parquet
	$(BIN)/python jobs/extract_mels.py --manifest $(EXPERIMENT)/manifest.parquet --out $(EXPERIMENT)/mels --sampling paper --segments-per-excerpt 2
	touch $@

experiment: $(READY) $(EXPERIMENT)/.mels  ## Table 1 on a hard synthetic catalogue; the same command goes on where it was stopped
	$(BIN)/python jobs/run_experiment.py --mels $(EXPERIMENT)/mels --out $(EXPERIMENT)/table $(EXPERIMENT_FLAGS)

test: $(READY)  ## all tests but the long ones, in two processes, under 10 minutes on 2 cores
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-long: $(READY)  ## the long ones but chaos
	$(BIN)/python -m pytest -m slow --ignore tests/chaos

chaos: $(READY)  ## kill, starve and poison the nightly job; prints its figures
	$(BIN)/python -m pytest -m slow tests/chaos -s

fuzz: $(READY)  ## damage files and decode them for MINUTES=10; faults are printed and saved under build/fuzz
	PYTHONPATH=tests $(BIN)/python -m fuzz.mutate --minutes $(MINUTES)

.venv-librosa/.ready: pyproject.toml
	$(PYTHON_3_12) -m venv .venv-librosa
	.venv-librosa/bin/python -m pip install --quiet --disable-pip-version-check "librosa>=1" "numpy>=2" scipy soundfile soxr av pytest
	touch $@

test-librosa-1: .venv-librosa/.ready  ## exactness against librosa 1.x, which needs Python 3.12: its own environment
	PYTHONPATH=. .venv-librosa/bin/python bench/exactness.py
	.venv-librosa/bin/python -m pytest tests/audio/test_filter_bank.py tests/audio/test_mel.py tests/audio/test_front_end.py tests/audio/decoding/test_decode.py

.venv-newest-ray/.ready: pyproject.toml requirements-dev.lock
	$(PYTHON) -m venv .venv-newest-ray
	.venv-newest-ray/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.lock
	.venv-newest-ray/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "ray[data,default,train]"
	.venv-newest-ray/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

test-newest-ray: .venv-newest-ray/.ready  ## the same tests with the newest Ray there is, whatever pyproject.toml allows
	.venv-newest-ray/bin/python -c "import ray; print('ray', ray.__version__)"
	.venv-newest-ray/bin/python -m pytest -m "not slow"

.venv-lowest/.ready: pyproject.toml requirements-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements-lowest.txt
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

test-lowest: .venv-lowest/.ready  ## the same tests with the lowest versions that pyproject.toml allows
	.venv-lowest/bin/python -m pytest -m "not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint deploy/Containerfile

types: $(READY)
	$(BIN)/mypy

walls: $(READY)
	$(BIN)/lint-imports

check: lint types walls

.venv-docs/.ready: requirements-docs.lock
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements-docs.lock
	touch $@

docs: $(READY) .venv-docs/.ready  ## the documentation as a site under build/site, read offline; a warning or a broken link ends it
	$(BIN)/python docs/make_reference.py
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict
	! grep -rE '<(script|img|link)[^>]* (src|href)="https?:' --include '*.html' build/site  # what a page would load
	.venv-docs/bin/lychee --quiet --offline --include-fragments --index-files index.html --root-dir $(CURDIR)/build/site 'build/site/**/*.html'
	.venv-docs/bin/lychee --quiet --offline --include-fragments README.md CHANGELOG.md

.venv-sbom/.ready: requirements.lock
	$(PYTHON) -m venv .venv-sbom
	.venv-sbom/bin/python -m pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0 pip-licenses==5.5.5
	$(PYTHON) -m venv .venv-sbom/nodes
	.venv-sbom/nodes/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	touch $@

sbom: .venv-sbom/.ready  ## what nodes have installed: build/sbom.json (CycloneDX) and build/licences.md
	mkdir -p build
	.venv-sbom/bin/cyclonedx-py environment .venv-sbom/nodes/bin/python --output-file build/sbom.json
	.venv-sbom/bin/pip-licenses --python=.venv-sbom/nodes/bin/python --format=markdown --output-file=build/licences.md

bench: $(READY)  ## measured side by side, see bench/
	$(BIN)/python bench/bench_tagging.py
	$(BIN)/python bench/bench_small_files.py 2500
	$(BIN)/python bench/bench_front_end.py
	$(BIN)/python bench/bench_training.py step
	$(BIN)/python bench/bench_tables.py 1 bench-run

clean:
	rm -rf .venv .venv-* demo-run build *.egg-info
