"""The whole pipeline on real recordings: python bench/real_audio.py AUDIO OUT [--recipe demo]

Prints the figures of docs/real-audio.md: every file is tagged or fails with a reason, and how well singers and
languages are recognised. Each step is a job, run as a user runs it. The seed is 0 throughout.

AUDIO holds `labels.csv` with the columns set, path, artist, language, song. For the set `gtsinger` one model is trained
for each fold (`--split kfold --group-column song`). So each song of every singer with two or more songs is tested by a
model that was not trained on it. Then the first fold's model tags all sets.

Most of its time is the training of one model a fold.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mtl_core.dataset import manifest
from mtl_core.evaluation import metrics
from mtl_core.evaluation.class_scores import HeadScores
from mtl_core.inference.openvino_engine import load_cpu_model
from mtl_core.storage.location import Location
from mtl_core.tables import delta

REPOSITORY = Path(__file__).parents[1]


def job(name: str, *flags: object, allowed: tuple[int, ...] = (0,)) -> None:
    command = [sys.executable, f"jobs/{name}.py", *map(str, flags)]
    print("$", " ".join(["python", *command[1:]]), flush=True)
    status = subprocess.run(command, cwd=REPOSITORY).returncode
    if status not in allowed:
        sys.exit(f"{name} ended with {status}")


def leave_one_song_out(out: Path, recipe: str) -> dict[str, dict[str, Any]]:
    """Train and evaluate a model for each fold; returns the scores of the pooled test tracks.

    There are as many folds as the singer with most songs has songs.
    """
    sung = pq.read_table(out / "gtsinger.parquet", columns=["track_id", "artist", "song"]).to_pylist()
    songs = Counter(artist for artist, _ in {(row["artist"], row["song"]) for row in sung})
    song_of = {row["track_id"]: f"{row['artist']}: {row['song']}" for row in sung}
    folds = max(songs.values())
    for fold in range(folds):
        mels, model, report = out / "gtsinger-mels", out / f"model-{fold}", out / f"report-{fold}"
        split = ("--split", "kfold", "--fold", fold, "--group-column", "song")
        job("train", "--mels", mels, "--out", model, "--recipe", recipe, *split, "--num-workers", 2)
        job("evaluate", "--model", model, "--mels", mels, "--out", report)
    return {task: pooled_scores(out, task, folds, song_of) for task in ("artist", "language")}


def pooled_scores(out: Path, task: str, folds: int, song_of: dict[str, str]) -> dict[str, Any]:
    """Scores of all folds' test tracks together; the bootstrap draws songs, each with all its versions."""
    probabilities, tables, vocabularies = [], [], []
    for fold in range(folds):
        model = load_cpu_model(Location(str(out / f"model-{fold}")))
        tracks = pq.read_table(out / f"report-{fold}" / "predictions.parquet")
        tracks = tracks.filter(pc.is_valid(tracks["embedding"]))  # the others have no sound
        embedding_NE = np.array(tracks["embedding"].to_pylist(), np.float32)
        probabilities.append(HeadScores(embedding_NE, model.heads[task], model.aggregation.temperature[task]))
        tables.append(tracks)
        vocabularies.append(model.vocabularies[task])
    assert len(set(vocabularies)) == 1, "the folds have the same classes"
    table = pa.concat_tables(tables)
    probabilities_NC = np.concatenate([scores.rows(0, scores.shape[0]) for scores in probabilities])
    targets_N = vocabularies[0].encode(table[task].to_pylist())
    return metrics.scores(
        probabilities_NC, targets_N, [song_of[track_id] for track_id in table["track_id"].to_pylist()]
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("audio", type=Path)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--recipe", default="demo")
    flags = arguments.parse_args()
    audio, out = flags.audio.absolute(), flags.out.absolute()

    job("build_manifest", "--catalogue", audio, "--labels", audio / "labels.csv", "--out", out / "all.parquet")
    tracks = manifest.read(Location(str(out / "all.parquet")))
    sung = tracks.filter(pc.equal(tracks["set"], "gtsinger"))
    manifest.write(sung, Location(str(out / "gtsinger.parquet")))
    job("extract_mels", "--manifest", out / "gtsinger.parquet", "--out", out / "gtsinger-mels")
    scores = leave_one_song_out(out, flags.recipe)
    job("tag_catalogue", "--manifest", out / "all.parquet", "--model", out / "model-0", "--out", out / "tagged",
        allowed=(0, 3))  # fmt: skip

    tags, failures = (delta.open_table(Location(str(out / "tagged")), name) for name in ("tags", "failures"))
    assert tags is not None and failures is not None
    tagged, failed = tags.to_pyarrow_table(), failures.to_pyarrow_table()
    track_ids = sorted([*tagged["track_id"].to_pylist(), *failed["track_id"].to_pylist()])
    print(f"\ntags {len(tagged)} + failures {len(failed)} = manifest rows {len(tracks)}, each track once: "
          f"{track_ids == sorted(tracks['track_id'].to_pylist())}")  # fmt: skip
    sets = dict(zip(tracks["track_id"].to_pylist(), tracks["set"].to_pylist(), strict=True))
    errors = Counter((sets[r["track_id"]], f"{r['stage']}/{r['error']}") for r in failed.to_pylist())
    for name, count in Counter(sets.values()).items():
        errors_of_set = ", ".join(f"{error} {n}" for (s, error), n in sorted(errors.items()) if s == name)
        print(f"  {name}: {count} tracks; failures: {errors_of_set or 'none'}")
    print(f"minutes of audio {pc.sum(tagged['duration_s']).as_py() / 60:.1f}")
    for path in sorted((out / "tagged" / "runs").glob("*.json")):
        run = json.loads(path.read_text())
        print(f"tracks/s {run['tracks_per_s']}, CPU s a track {run['cpu_s_per_track']}, wall s {run['wall_s']}")
    print("\nleave one song out, gtsinger, pooled over the folds (tracks):")
    for task, task_scores in scores.items():
        ci, chance = task_scores["ci"], task_scores["chance"]
        covered = f"{task_scores['classes_covered']} of {task_scores['classes']} classes"
        print(f"  {task}: {task_scores['n']} tracks, {covered}")
        for name in ("top_1", "auc_pr_macro", "auc_roc_macro"):
            low, high = ci[name]
            expected = chance["auc_roc" if name == "auc_roc_macro" else name]
            print(f"    {name} {task_scores[name]:.3f} [{low:.3f}, {high:.3f}], chance {expected:.3f}")
        print(f"    always the most frequent class: {chance['majority']:.3f}; songs: {task_scores['n_songs']}")


if __name__ == "__main__":
    main()
