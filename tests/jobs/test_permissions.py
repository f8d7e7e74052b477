"""What each job may do on S3: the table of docs/security.md is enough, and nothing in it can be left out."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from builders.catalogue import write_audio
from builders.identities import DELETE, GET, LIST, PUT, Iam, Keys, forget_identity, use_keys
from builders.models import save
from builders.small_mels import write_mels
from builders.sound_files import song
from builders.takedowns import committed

from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.storage.location import Location

REPOSITORY = Path(__file__).parents[2]
READ, FOLDER, FILE = (LIST, GET), (LIST, GET, PUT, DELETE), (GET, PUT)

#: Job -> (its flags, where PLACE stands for a location of its own; place -> what the job may do there).
JOBS: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    "build_manifest": ("--catalogue CATALOGUE --out MANIFEST_OUT", {"CATALOGUE": (LIST,), "MANIFEST_OUT": FILE}),
    "extract_mels": (
        "--manifest MANIFEST --out MELS_OUT --num-workers 1",
        {"CATALOGUE": (GET,), "MANIFEST": READ, "MELS_OUT": FOLDER},
    ),
    "train": (
        "--mels MELS --out MODEL_OUT --recipe demo --split none --epochs 1 --num-workers 1",
        {"MELS": READ, "MODEL_OUT": FOLDER},
    ),
    "evaluate": (
        "--model MODEL --mels MELS --out REPORT_OUT --on all",
        {"MODEL": READ, "MELS": READ, "REPORT_OUT": FOLDER},
    ),
    "tag_catalogue": (
        "--manifest MANIFEST --model MODEL --out OUT --num-workers 1",
        {"CATALOGUE": (GET,), "MANIFEST": READ, "MODEL": (GET,), "OUT": FOLDER},
    ),
    "status": ("--out OUT", {"OUT": READ}),
    "maintain_tables": ("--out OUT --compact --clean --keep-days 1", {"OUT": FOLDER}),
    "tag": ("CATALOGUE --model MODEL", {"CATALOGUE": READ, "MODEL": (GET,)}),
}


def as_markdown() -> str:
    """The table of the documentation."""
    lines = ["| job | where | may |", "| --- | --- | --- |"]
    for job, (_, places) in JOBS.items():
        for place, actions in places.items():
            where = place.removesuffix("_OUT").lower() + (", which it writes" if PUT in actions else "")
            lines.append(f"| `{job}` | {where} | {', '.join(action.removeprefix('s3:') for action in actions)} |")
    return "\n".join(lines)


def test_the_documentation_has_this_table() -> None:
    page = (REPOSITORY / "docs" / "security.md").read_text()
    assert as_markdown() in page, as_markdown()


@pytest.fixture(scope="module")
def places(iam: Iam, untrained: Artifact) -> dict[str, str]:
    """Place -> bucket/key; each has a bucket of its own, because a bucket can be listed or not."""
    with pytest.MonkeyPatch.context() as patched:
        use_keys(patched, iam.endpoint, iam.admin)
        at = {place: f"{iam.new_bucket()}/{place.lower()}" for _, of_job in JOBS.values() for place in of_job}
        catalogue, manifest = (Location(f"s3://{at[place]}") for place in ("CATALOGUE", "MANIFEST"))
        for number in range(2):
            write_audio(catalogue / f"{number}.wav", song(8, seed=number), 22_050)
        (catalogue / "labels.csv").write_bytes(b"path,artist,language\n0.wav,a,x\n1.wav,b,y\n")
        build_manifest(catalogue, catalogue / "labels.csv", manifest)
        save(untrained, Location(f"s3://{at['MODEL']}"))
        write_mels(f"s3://{at['MELS']}")
        for run_id in ("20260101T000000Z-aaaaaa", "20260102T000000Z-bbbbbb"):
            committed(Location(f"s3://{at['OUT']}"), run_id, np.arange(3), np.arange(3, 4))
    forget_identity()
    return at


def run(job: str, places: dict[str, str], endpoint: str, keys: Keys) -> subprocess.CompletedProcess[str]:
    flags = re.sub(r"\b[A-Z_]{3,}\b", lambda place: f"s3://{places[place[0]]}", JOBS[job][0])
    variables = {"AWS_ENDPOINT_URL": endpoint, "AWS_EC2_METADATA_DISABLED": "true", **keys.environment}
    command = [sys.executable, "-m", "mtl_core", job, *flags.split()]
    return subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | variables, capture_output=True, text=True, timeout=300
    )


def policy(job: str, places: dict[str, str], *, without: tuple[str, str] | None = None) -> list[tuple[str, str]]:
    statements = []
    for place, actions in JOBS[job][1].items():
        bucket = f"arn:aws:s3:::{places[place].partition('/')[0]}"
        for action in actions:
            if (place, action) != without and action == LIST:
                statements += [(LIST, bucket), ("s3:HeadBucket", bucket)]  # of moto; AWS asks for s3:ListBucket there
            elif (place, action) != without:
                statements += [(action, f"arn:aws:s3:::{places[place]}{below}") for below in ("", "/*")]
    return statements


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_a_job_needs_each_of_its_permissions_and_no_other(job: str, places: dict[str, str], iam: Iam) -> None:
    keys = iam.add_user(policy(job, places))
    for place, actions in JOBS[job][1].items():
        for action in actions:
            iam.set_policy(keys.user, policy(job, places, without=(place, action)))
            ended = run(job, places, iam.endpoint, keys)
            last = ended.stderr.splitlines()[-1]
            assert ended.returncode == 2 and ended.stderr.count("\n") == 1, (place, action, ended.stderr)
            assert (action in last and places[place] in last) or "access denied" in last, (place, action, last)
    iam.set_policy(keys.user, policy(job, places))
    ended = run(job, places, iam.endpoint, keys)
    assert ended.returncode == 0, ended.stderr
