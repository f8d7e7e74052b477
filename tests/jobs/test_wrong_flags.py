"""Wrong flags and wrong inputs of every job: one line that names the value, exit status 2, and nothing is written."""

import dataclasses
import importlib
import re
import runpy
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tyro
from builders.small_mels import write_mels

from mtl_core import configuration
from mtl_core.__main__ import COMMANDS

JOBS = sorted((Path(__file__).parents[2] / "jobs").glob("*.py"))


def run_job(job: str, flags: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a job in this process; returns its exit status."""
    monkeypatch.setattr(sys, "argv", [f"jobs/{job}.py", *flags])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(Path(__file__).parents[2] / "jobs" / f"{job}.py"), run_name="__main__")
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifests, mels and an empty folder; the cases call it {p}."""
    folder = tmp_path_factory.mktemp("inputs")
    for name, columns in (
        ("manifest", {"track_id": ["a", "b"], "uri": ["/a", "/b"]}),
        ("without-uri", {"track_id": ["a"]}),
        ("twice", {"track_id": ["a", "a"], "uri": ["/a", "/b"]}),
    ):
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    (folder / "empty").mkdir()
    write_mels(folder / "mels")
    write_mels(folder / "mels-without-artists", artists=False)
    return folder


BUILD = "--catalogue {p} --out {p}/out.parquet"
EXTRACT = "--manifest {p}/manifest.parquet --out {p}/out"
TRAIN = "--mels {p}/mels --out {p}/out"
EVALUATE = "--model {p}/empty --mels {p}/mels --out {p}/out"
TAG = "--manifest {p}/manifest.parquet --model {p}/empty --out {p}/out"
ENROL = "--model {p}/empty --out {p}/out --remove x"
PROMOTE = "--current {p}/current.json --model {p}/empty"
NEIGHBOURS = "--tags {p}/empty --out {p}/out"
MAINTAIN = "--out {p}/out"
DEMO = "--out {p}/out"
REQUIRED = {
    "build_manifest": BUILD,
    "extract_mels": EXTRACT,
    "train": TRAIN,
    "evaluate": EVALUATE,
    "run_experiment": TRAIN,
    "tag_catalogue": TAG,
    "nightly": TAG,
    "enrol": ENROL,
    "find_neighbours": NEIGHBOURS,
    "promote": PROMOTE,
    "status": "--out {p}/out",
    "maintain_tables": MAINTAIN,
    "make_demo_catalogue": DEMO,
}

#: Of every job that reads audio: the flags of `ReadLimits`, and what the line must contain.
LIMITS = [
    ("--decode-limit-s -1", "the time limit of decoding must be above 0 and at most 86400 s, got -1.0"),
    ("--decode-limit-s inf", "got inf"),
    ("--decode-memory-mib 100", "must be 512 to 1073741824 MiB, got 100"),
    ("--max-file-mib 0", "the largest file must be of 1 byte or more, got 0"),
    ("--max-duration-s 0", "above 0 and at most 31536000 s, got 0.0"),
    ("--max-duration-s nan", "got nan"),
    ("--max-channels 0", "the most channels must be 1 or more, got 0"),
    ("--max-rate-hz 999", "the highest rate must be 1000 Hz or more, got 999"),
    ("--max-rate-hz 44.1", "44.1"),
    ("--allow-uri-prefix gs://x", "'gs://x'"),
    ("--allow-uri-prefix {p} s3://", "'s3://'"),
]

#: Job, flags (of a flag that is given twice the last one counts), and what the line must contain.
CASES = [
    ("build_manifest", "--catalogue {p}/gone --out {p}/out.parquet", "{p}/gone"),
    ("build_manifest", "--catalogue {p}/empty --out {p}/out.parquet", "{p}/empty: no audio file"),
    ("build_manifest", BUILD + " --labels {p}/gone.csv", "{p}/gone.csv"),
    ("build_manifest", BUILD + " --labels {p}/manifest.parquet", "manifest.parquet is not a UTF-8 CSV"),
    ("build_manifest", BUILD + " --labels l.csv --labels-from folders", "--labels-from csv"),
    ("build_manifest", BUILD + " --labels-from names", "names"),
    ("build_manifest", BUILD + " --inventory {p}/gone.json", "{p}/gone.json: nothing is there"),
    ("build_manifest", BUILD + " --inventory {p}/manifest.parquet", "not the manifest.json of an S3 Inventory"),
    ("extract_mels", EXTRACT + " --manifest {p}/gone.parquet", "{p}/gone.parquet"),
    ("extract_mels", EXTRACT + " --manifest {p}/without-uri.parquet", "no column 'uri'"),
    ("extract_mels", EXTRACT + " --manifest {p}/twice.parquet", "'a'"),
    ("extract_mels", EXTRACT + " --manifest {p}/empty", "{p}/empty"),
    ("extract_mels", EXTRACT + " --out {p}/twice.parquet", "{p}/twice.parquet"),
    ("extract_mels", EXTRACT + " --out {p}/twice.parquet/mels", "{p}/twice.parquet"),
    ("extract_mels", EXTRACT + " --out file:/mels", "file:/mels"),
    ("extract_mels", EXTRACT + " --sampling grid", "sampling must be one of spread, paper, got 'grid'"),
    ("extract_mels", EXTRACT + " --segments 0", "segments must be 1 to 1024, got 0"),
    ("extract_mels", EXTRACT + " --segments 1025", "segments must be 1 to 1024, got 1025"),
    ("extract_mels", EXTRACT + " --segments 4 --sampling paper", "segments are of the sampling spread, got 4"),
    ("extract_mels", EXTRACT + " --segments-per-excerpt 2", "of the sampling paper, got 2 with spread"),
    ("extract_mels", EXTRACT + " --segments-per-excerpt 21 --sampling paper", "must be 1 to 20, got 21"),
    ("extract_mels", EXTRACT + " --segments-per-excerpt 0 --sampling paper", "must be 1 to 20, got 0"),
    ("extract_mels", EXTRACT + " --draws -1", "-1"),
    ("extract_mels", EXTRACT + " --num-workers 0", "workers must be 1 or more, got 0"),
    ("train", TRAIN + " --mels gs://x", "'gs://x'"),
    ("train", TRAIN + " --mels {p}/gone", "{p}/gone"),
    ("train", TRAIN + " --mels {p}/empty", "{p}/empty"),
    ("train", TRAIN + " --num-workers 3", "num-workers must divide the global batch of 32, got 3"),
    ("train", TRAIN + " --num-workers 0", "got 0"),
    ("train", TRAIN + " --recipe papier", "no recipe 'papier'"),
    ("train", TRAIN + " --split random", "no split 'random': allowed are crossfit, none, paper"),
    ("train", TRAIN + " --folds 1", "folds must be 2 to the number of artists"),
    ("train", TRAIN + " --folds 99", "got 99"),
    ("train", TRAIN + " --precision 1", "precision must be above 0 and below 1, got 1"),
    ("train", TRAIN + " --unknown-share -0.1", "unknown-share must be 0 to 1, got -0.1"),
    ("train", TRAIN + " --split kfold --fold 9", "no fold 9: allowed are 0 to 4"),
    ("train", TRAIN + " --fold 1", "fold 1 "),
    ("train", TRAIN + " --group-column choir", "no column 'choir'"),
    ("train", TRAIN + " --split artist", "--tasks language"),
    ("train", TRAIN + " --alpha -1", "alpha must be None, or >= 0 and finite, got -1.0"),
    ("train", TRAIN + " --epochs 0", "epochs must be >= 1, got 0"),
    ("train", TRAIN + " --epochs many", "many"),
    ("train", TRAIN + " --tasks mood", "tasks must be of artist, language, got mood"),
    ("train", TRAIN + " --tasks artist --drop-head language", "language"),
    ("train", TRAIN + " --drop-head artist language", "one must stay"),
    ("train", TRAIN + " --seed -1", "seed must be 0 to"),
    ("train", TRAIN + " --mels {p}/mels-without-artists", "needs two artists or more, got 0: use --split none"),
    ("train", TRAIN + " --mels {p}/mels-without-artists --split none", "has a label for 'artist'"),
    ("evaluate", EVALUATE, "{p}/empty is no"),
    ("evaluate", EVALUATE + " --on tuesday", "tuesday"),
    ("evaluate", EVALUATE + " --margin 0.1", "--margin 0.1 is for --against"),
    ("evaluate", EVALUATE + " --num-workers 0", "workers must be 1 or more, got 0"),
    ("tag_catalogue", TAG, "{p}/empty is no"),
    ("tag_catalogue", TAG + " --manifest gs://x/y", "'gs://x/y'"),
    ("tag_catalogue", TAG + " --limit 0", "limit must be 1 or more, got 0"),
    ("tag_catalogue", TAG + " --limit 9999999999999999999", "limit must be below 2**63, got 9999999999999999999"),
    ("tag_catalogue", TAG + " --limit many", "many"),
    ("tag_catalogue", TAG + " --exit maybe", "maybe"),
    ("tag_catalogue", TAG + " --segments 0", "segments must be 1 or more, got 0"),
    ("tag_catalogue", TAG + " --max-failed-share 2", "allowed is 0 to 1"),
    ("tag_catalogue", TAG + " --num-workers 0", "workers must be 1 or more, got 0"),
    ("tag_catalogue", TAG + " --export-parquet {p}/empty", "{p}/empty is a folder"),
    ("promote", PROMOTE + " --back", "give --model or --back"),
    ("tag_catalogue", TAG + " --retry-days inf", "retry_days must be 0 or more, and finite, got inf"),
    ("nightly", TAG + " --manifest gs://x/y", "'gs://x/y'"),
    ("nightly", TAG + " --max-failed-share 2", "allowed is 0 to 1"),
    ("nightly", TAG + " --retries -1", "retries must be 0 or more, got -1"),
    ("nightly", TAG + " --retry-wait-s nan", "must be 0 to 86400 s, got nan"),
    ("nightly", TAG + " --name a/b", "name must be of letters, digits, - and _, got 'a/b'"),
    ("nightly", TAG + " --plan-only", "--plan-only is for tag_catalogue"),
    ("status", "--out {p}/out", "no run of tag_catalogue was ever here"),
    ("promote", "--current {p}/current --model {p}/empty", "must end with .json"),
    ("promote", PROMOTE, "is not a model artifact"),
    ("maintain_tables", MAINTAIN, "nothing to do"),
    ("maintain_tables", MAINTAIN + " --compact --restore-before 1", "--restore-before"),
    ("maintain_tables", MAINTAIN + " --clean --keep-days 0", "--keep-days 0: allowed is 1 or more"),
    ("maintain_tables", MAINTAIN + " --compact --dry-run", "--dry-run"),
    ("maintain_tables", MAINTAIN + " --compact", "{p}/out"),
    ("maintain_tables", MAINTAIN + " --forget x --clean", "cannot be combined with --forget"),
    ("maintain_tables", MAINTAIN + " --forget x --unforget x", "--forget cannot be combined with --unforget"),
    ("maintain_tables", MAINTAIN + " --clean --purge-now", "--purge-now can only be combined with --forget or"),
    ("maintain_tables", MAINTAIN + " --unforget x --yes", "--yes can only be combined with --forget or --prune-to"),
    ("maintain_tables", MAINTAIN + " --unforget x --dry-run", "--dry-run can only be combined with --clean"),
    ("maintain_tables", MAINTAIN + " --forget {p}/manifest.parquet", "no tables of tags and failures"),
    ("maintain_tables", MAINTAIN + " --prune-to gs://x", "'gs://x'"),
    ("run_experiment", TRAIN + " --mels {p}/empty", "{p}/empty"),
    ("run_experiment", TRAIN + " --resamples -1", "resamples must be >= 0, got -1"),
    ("run_experiment", TRAIN + " --folds 9", "no fold 9: allowed are 0 to 4"),
    ("run_experiment", TRAIN + " --folds -1", "-1"),
    ("run_experiment", TRAIN + " --recipes papier", "no recipe 'papier'"),
    ("run_experiment", TRAIN + " --split artist", "--tasks language"),
    ("run_experiment", TRAIN + " --num-workers 3", "num-workers must divide"),
    ("run_experiment", TRAIN + " --alphas -1", "-1"),
    ("run_experiment", TRAIN + " --table-only", "no run of the split 'kfold' is stored"),
    ("run_experiment", TRAIN + " --mels {p}/mels-without-artists", "has a label for 'artist'"),
    ("make_demo_catalogue", DEMO + " --languages 0", "languages must be 1 to 400, got 0"),
    ("make_demo_catalogue", DEMO + " --difficulty odd", "odd"),
    *(("extract_mels", f"{EXTRACT} {flags}", expected) for flags, expected in LIMITS),
    *(("tag_catalogue", f"{TAG} {flags}", expected) for flags, expected in LIMITS),
    *((job.stem, REQUIRED[job.stem] + " --bogus 1", "--bogus") for job in JOBS),
    *((job.stem, "", "--current" if job.stem == "promote" else "--out") for job in JOBS),  # every job requires it
]


@pytest.mark.parametrize(("job", "flags", "expected"), CASES, ids=[f"{job} {flags}" for job, flags, _ in CASES])
def test_a_wrong_flag_ends_in_one_line_and_status_2(
    job: str,
    flags: str,
    expected: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = sorted(folder.rglob("*"))
    assert run_job(job, flags.format(p=folder).split(), monkeypatch) == 2
    stdout, stderr = capfd.readouterr()
    assert (stdout, stderr.count("\n")) == ("", 1) and stderr.startswith("error: "), stderr
    assert expected.format(p=folder) in stderr
    assert "Options" not in stderr, "the name of a class says nothing to a user"
    assert sorted(folder.rglob("*")) == before, "something was written"


@pytest.mark.parametrize("job", [job.stem for job in JOBS])
def test_help_explains_every_flag_and_names_its_default(
    job: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    parse, parsed = tyro.cli, []

    def parse_and_record(options: type, **settings: object) -> object:
        parsed.append(options)
        return parse(options, **settings)

    monkeypatch.setattr(tyro, "cli", parse_and_record)
    assert run_job(job, ["--help"], monkeypatch) == 0
    descriptions: dict[str, str] = {}
    for line in capfd.readouterr().out.splitlines():
        if start := re.match(r"│ (--[a-z-]+)(.*)│", line):
            flag = start[1]
            descriptions[flag] = start[2]
        elif descriptions:
            descriptions[flag] += " " + line.strip("│ ")
    fields = dataclasses.fields(parsed[-1])  # the first is of the flags that every command has
    assert list(descriptions) == ["--" + field.name.replace("_", "-") for field in fields]
    for field, description in zip(fields, descriptions.values(), strict=True):
        default = "required" if field.default is dataclasses.MISSING else f"default: {_as_flag(field.default)}"
        text = " ".join(description.strip("│╰─╯ ").split())
        assert text.endswith(f"({default})"), text
        assert len(text) > len(default) + 20, f"{field.name} has no explanation"


def test_a_file_of_configuration_knows_the_flags_of_all_commands() -> None:
    names = {"log_format"}
    for command in COMMANDS:
        names |= configuration.flag_types(importlib.import_module(f"mtl_core.jobs.{command}").Options).keys()
    assert names == configuration.FLAGS and COMMANDS.keys() == configuration.COMMANDS


def _as_flag(default: object) -> str:
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
