"""The tagging job against what a user would write: python bench/bench_tagging.py [N [REPEATS [FOLDER [MODEL…]]]]

Every contender tags the same N files (default 70; 200 for the figures of docs/speed.md) on the same cores, and then 14
of them. The difference is the cost of a track without start-up; the first run gives the wall clock with start-up. The
contenders take turns, REPEATS times (default 1). The files are copies of the mp3 and ogg files of 120 s or more in
FOLDER (default: the real songs beside the checkout), or of generated songs where there are none. Each MODEL is the
folder of a cross-fitted model, whose rule of early exit is used. Takes about 12 minutes with 200 files on 2 cores.

"ours" are `paper` and `best` on two excerpts of a minute, and `best` on 8 segments all over the recording. The others
run the network of `best` in eager torch, on the excerpts ("naive", "sequential", "Daft") or on 8 segments.

CPU seconds are those of the whole tree of processes. Peak memory is that of the largest process, because a sum would
count files that several processes map several times.

Prints a table and ratios, and writes bench-run/tagging.json and tagging.svg.
"""

import importlib.util
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from process_tree import adopt_orphans, run

ROOT = Path(__file__).parents[1]
SONGS = ROOT.parent / "shared" / "audio" / "songs"
OUT = ROOT / "bench-run"
CONTENDERS_AT = ROOT / "bench" / "contenders"
FEW = 14


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one contender used for so many files."""

    contender: str
    files: int
    wall_s: float
    cpu_s: float
    largest_mib: float


def measured(contender: str, command: list[str], files: int) -> Run:
    usage = run(command, DO_NOT_TRACK="1", PYTHONPATH=str(CONTENDERS_AT))
    return Run(contender=contender, files=files, wall_s=usage.wall_s, cpu_s=usage.cpu_s, largest_mib=usage.largest_mib)


def command(contender: str, tracks: Path, place: Path, number: int) -> list[str]:
    out = place / f"out-{number}"
    if contender.startswith("ours"):
        model, segments = OURS[contender]
        return [
            *(sys.executable, str(ROOT / "jobs" / "tag_catalogue.py"), "--manifest", f"{tracks}.parquet"),
            *("--model", str(place / model), "--out", str(out), *segments),
        ]
    script, segments_each = SCRIPTS[contender]
    return [
        sys.executable,
        str(CONTENDERS_AT / f"{script}.py"),
        str(tracks),
        str(out),
        str(place / "best"),
        segments_each,
    ]


#: name -> model (a path relative to that of the inputs), and flags
OURS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ours, paper": ("paper", ()),
    "ours, best": ("best", ()),
    "ours, 8 segments": ("spread", ("--segments", "8")),
}
#: name -> script, and the number of segments (0: those of two excerpts)
SCRIPTS = {
    "floor": ("floor", "0"),
    "naive": ("naive", "0"),
    "naive, 8 segments": ("naive", "8"),
    "sequential": ("sequential", "0"),
    "Daft": ("in_daft", "0"),
}
CONTENDERS = ["floor", *OURS, "naive", "naive, 8 segments", "sequential"]
if importlib.util.find_spec("daft"):  # not in the lock: it asks for an older pyarrow
    CONTENDERS.append("Daft")


def table(runs: list[Run]) -> dict[str, dict[str, float]]:
    """Medians over the repeats, by contender."""

    def median(contender: str, few: bool, field: str) -> float:
        chosen = [run for run in runs if run.contender == contender and (run.files == FEW) == few]
        return statistics.median(getattr(run, field) for run in chosen)

    n = max(run.files for run in runs)
    return {
        contender: {
            "cpu_s_per_track": (median(contender, False, "cpu_s") - median(contender, True, "cpu_s")) / (n - FEW),
            "wall_s": median(contender, False, "wall_s"),
            "tracks_per_s": n / median(contender, False, "wall_s"),
            "largest_mib": median(contender, False, "largest_mib"),
        }
        for contender in CONTENDERS
    }


def draw(figures: dict[str, dict[str, float]], path: Path) -> None:
    """Draw CPU milliseconds a track as bars."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 2.6))
    names = list(figures)[::-1]
    values = [1000 * figures[name]["cpu_s_per_track"] for name in names]
    colours = ["#888888" if name == "floor" else "#2a7f9e" if name.startswith("ours") else "#c9793f" for name in names]
    for bar, value in zip(axis.barh(names, values, color=colours), values, strict=True):
        axis.text(value + max(values) / 100, bar.get_y() + bar.get_height() / 2, f"{value:.0f}", va="center")
    axis.set_xlabel("CPU milliseconds a track of 3 minutes, start-up excluded")
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)


def main(n: int = 70, repeats: int = 1, folder: Path = SONGS, *models: Path) -> None:
    adopt_orphans()
    for model in models:
        OURS[f"ours, {model.absolute().parent.name}/{model.name}"] = (str(model.absolute()), ())
    CONTENDERS[1:4] = OURS
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        place = Path(temporary)
        inputs = [sys.executable, str(ROOT / "bench" / "tagging_inputs.py"), temporary, str(folder), str(FEW), str(n)]
        subprocess.run(inputs, check=True)
        for repeat, files, contender in itertools.product(range(repeats), (FEW, n), CONTENDERS):
            result = measured(contender, command(contender, place / f"tracks-{files}", place, len(runs)), files)
            runs.append(result)
            print(
                f"{repeat + 1}/{repeats} {result.contender:24} {result.files:4} files {result.wall_s:7.1f} s wall "
                f"{result.cpu_s:7.1f} s CPU, largest process {result.largest_mib:6.0f} MiB",
                flush=True,
            )
    figures = table(runs)
    others = ("ours, best", "naive", "naive, 8 segments", "floor")
    print(
        f"\n{'':24} {'CPU s/track':>12} {'wall s':>8} {'tracks/s':>9} {'MiB':>6}" + "".join(f"  {o}/…" for o in others)
    )
    for name, row in figures.items():
        cpu_s = row["cpu_s_per_track"]
        print(
            f"{name:24} {cpu_s:12.3f} {row['wall_s']:8.1f} {row['tracks_per_s']:9.2f} {row['largest_mib']:6.0f}"
            + "".join(f"  {figures[o]['cpu_s_per_track'] / cpu_s:{len(o) + 2}.2f}" for o in others)
        )
    for ours in OURS:
        walls = {name: figures[name]["wall_s"] / figures[ours]["wall_s"] for name in SCRIPTS if name in figures}
        print(f"wall clock of {n} files, … / {ours}: " + ", ".join(f"{k} {v:.2f}" for k, v in walls.items()))
    OUT.mkdir(exist_ok=True)
    (OUT / "tagging.json").write_text(
        json.dumps({"files": n, "runs": [asdict(run) for run in runs], "medians": figures}, indent=1)
    )
    draw(figures, OUT / "tagging.svg")


if __name__ == "__main__":
    main(*(int(value) for value in sys.argv[1:3]), *(Path(value) for value in sys.argv[3:]))
