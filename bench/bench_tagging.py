"""A whole night beside what a user would run instead: python bench/bench_tagging.py [N [REPEATS [FOLDER]]]

Every contender tags the same N files (default 70; 200 for the README's figures) on the same two cores, and some few of
them: the difference is its cost a track, start-up excluded; the first is its wall clock, start-up included. They take
turns, REPEATS times (default 1). The files are copies of the mp3 and ogg files of 120 s or more in FOLDER (default: the
real songs beside the checkout), else of generated songs. CPU seconds are those of the whole tree of processes; its peak
memory is that of the largest process, as files that are mapped by several would count several times in a sum.

Prints a table and ratios; writes bench-run/tagging.json and tagging.svg.
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
    """One contender on so many files."""

    contender: str
    files: int
    wall_s: float
    cpu_s: float
    largest_mib: float


def measured(contender: str, command: list[str], files: int) -> Run:
    spent = run(command, DO_NOT_TRACK="1", PYTHONPATH=str(CONTENDERS_AT))
    return Run(contender=contender, files=files, wall_s=spent.wall_s, cpu_s=spent.cpu_s, largest_mib=spent.largest_mib)


def command(contender: str, tracks: Path, place: Path, number: int) -> list[str]:
    out = place / f"out-{number}"
    if contender.startswith("ours"):
        model = place / contender.removeprefix("ours, ")
        return [
            *(sys.executable, str(ROOT / "jobs" / "tag_catalogue.py"), "--manifest", f"{tracks}.parquet"),
            *("--model", str(model), "--out", str(out)),
        ]
    script = {"floor": "floor", "naive": "naive", "sequential": "sequential", "Daft": "in_daft"}[contender]
    return [sys.executable, str(CONTENDERS_AT / f"{script}.py"), str(tracks), str(out)]


CONTENDERS = ["floor", "ours, paper", "ours, best", "naive", "sequential"]
if importlib.util.find_spec("daft"):  # not in the lock: it asks for an older pyarrow than the rest
    CONTENDERS.append("Daft")


def table(runs: list[Run]) -> dict[str, dict[str, float]]:
    """Medians over the repeats."""

    def median(contender: str, few: bool, field: str) -> float:
        chosen = [one for one in runs if one.contender == contender and (one.files == FEW) == few]
        return statistics.median(getattr(one, field) for one in chosen)

    n = max(one.files for one in runs)
    return {
        contender: {
            "cpu_s_per_track": (median(contender, False, "cpu_s") - median(contender, True, "cpu_s")) / (n - FEW),
            "wall_s": median(contender, False, "wall_s"),
            "tracks_per_s": n / median(contender, False, "wall_s"),
            "largest_mib": median(contender, False, "largest_mib"),
        }
        for contender in CONTENDERS
    }


def picture(found: dict[str, dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 2.6))
    names = list(found)[::-1]
    values = [1000 * found[name]["cpu_s_per_track"] for name in names]
    colours = ["#888888" if name == "floor" else "#2a7f9e" if name.startswith("ours") else "#c9793f" for name in names]
    for bar, value in zip(axis.barh(names, values, color=colours), values, strict=True):
        axis.text(value + max(values) / 100, bar.get_y() + bar.get_height() / 2, f"{value:.0f}", va="center")
    axis.set_xlabel("CPU milliseconds a track of 3 minutes, start-up excluded")
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)


def main(n: int = 70, repeats: int = 1, folder: Path = SONGS) -> None:
    adopt_orphans()
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        place = Path(temporary)
        inputs = [sys.executable, str(ROOT / "bench" / "tagging_inputs.py"), temporary, str(folder), str(FEW), str(n)]
        subprocess.run(inputs, check=True)
        for repeat, files, contender in itertools.product(range(repeats), (FEW, n), CONTENDERS):
            one = measured(contender, command(contender, place / f"tracks-{files}", place, len(runs)), files)
            runs.append(one)
            print(
                f"{repeat + 1}/{repeats} {one.contender:14} {one.files:4} files {one.wall_s:7.1f} s wall "
                f"{one.cpu_s:7.1f} s CPU {one.largest_mib:6.0f} MiB the largest process",
                flush=True,
            )
    found = table(runs)
    print(f"\n{'':14} {'CPU s/track':>12} {'wall s':>8} {'tracks/s':>9} {'MiB':>6}   naive/…  …/floor")
    for name, row in found.items():
        against = (found["naive"]["cpu_s_per_track"], found["floor"]["cpu_s_per_track"])
        cpu_s = row["cpu_s_per_track"]
        print(
            f"{name:14} {cpu_s:12.3f} {row['wall_s']:8.1f} {row['tracks_per_s']:9.2f} {row['largest_mib']:6.0f}   "
            f"{against[0] / cpu_s:7.2f}  {cpu_s / against[1]:7.2f}"
        )
    for ours in CONTENDERS[1:3]:
        walls = {name: found[name]["wall_s"] / found[ours]["wall_s"] for name in CONTENDERS[3:]}
        print(f"wall clock of {n} files, … / {ours}: " + ", ".join(f"{k} {v:.2f}" for k, v in walls.items()))
    OUT.mkdir(exist_ok=True)
    (OUT / "tagging.json").write_text(
        json.dumps({"files": n, "runs": [asdict(one) for one in runs], "medians": found}, indent=1)
    )
    picture(found, OUT / "tagging.svg")


if __name__ == "__main__":
    main(*(int(value) for value in sys.argv[1:3]), *(Path(value) for value in sys.argv[3:4]))
