"""What a catalogue costs beyond this machine: python bench/cost_model.py [--take]

Writes the tables of docs/planning.md, between its marks. What was measured is in bench/measured.json, the one place to
change it; `--take` first takes over what bench_tagging.py, bench_night.py and bench_handout.py left in bench-run. What
was not measured, instances, prices and limits, is below.
"""

import json
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MEASURED, PAGE, RUN = ROOT / "bench" / "measured.json", ROOT / "docs" / "planning.md", ROOT / "bench-run"
BEGIN, END = "<!-- written by bench/cost_model.py -->", "<!-- to here -->"

TRACKS_PER_SHARD = 32
#: Requests, counted at a proxy: a track is one GET; a shard is 3 to read its part of the plan, 2 in verification, and
#: 2 PUTs.
GETS_A_TRACK, PUTS_A_TRACK = 1 + 5 / TRACKS_PER_SHARD, 2 / TRACKS_PER_SHARD
GET_DOLLARS, PUT_DOLLARS = 0.4e-6, 5e-6  # S3 Standard, us-east-1; LIST costs as PUT
GETS_PER_S = 5500  # of a partitioned prefix, which S3 splits when it is asked more for some while
KEYS_PER_LIST, LIST_S = 1000, 0.15  # one request after another; the time is assumed
SPOT = 0.45  # of the price on demand; assumed
NIGHT_H = 8
GFLOP = 12.4  # of a track of 40 segments, forward
L4_GFLOP_PER_S = 30_300  # float32, the data sheet's peak

MILLIONS = (1, 10, 100)
MB_A_TRACK = {"mp3, ogg": 4, "flac": 25, "wav, 44.1 kHz, 16 bits": 36}  # 3.4 minutes; assumed but for the first's 3.2


@dataclass(frozen=True, kw_only=True)
class Instance:
    """Args: gbit: per second, what it always has; dollars: an hour, Linux, on demand, us-east-1, January 2026."""

    name: str
    vcpus: int
    gib: int
    gbit: float
    dollars: float
    remark: str = ""

    def tracks_per_s(self, core_s: float) -> float:
        return self.vcpus / core_s

    def dollars_a_million(self, core_s: float) -> float:
        return self.dollars * 1e6 / self.tracks_per_s(core_s) / 3600


SMALL = Instance(name="c7i.4xlarge", vcpus=16, gib=32, gbit=6.25, dollars=0.714)
LARGE = Instance(name="c7i.16xlarge", vcpus=64, gib=128, gbit=25, dollars=2.856)
ARM = Instance(name="c7g.4xlarge", vcpus=16, gib=32, gbit=7.5, dollars=0.58, remark="ARM: not measured, the x86 figure")
GPU = Instance(
    name="g6.xlarge", vcpus=4, gib=16, gbit=2.5, dollars=0.8048, remark="one L4: reads on 4 CPUs, tags on it"
)
HEAD = Instance(name="r7i.2xlarge", vcpus=8, gib=64, gbit=3.125, dollars=0.5292)


def table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    lines = [list(columns), *([str(cell) for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float) -> str:
    """Two significant digits, more for what is 100 or larger."""
    if value >= 100:
        return f"{value:,.0f}"
    digits = 1 - math.floor(math.log10(value)) if value else 0
    return f"{value:.{max(0, digits)}f}"


def duration(seconds: float) -> str:
    for unit, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{number(seconds / unit)} {name}"
    return f"{number(seconds)} s"


def instances(measured: dict[str, Any]) -> str:
    rows = []
    for name, core_s in measured["core_s"].items():
        core_s += measured["s3_core_s"]
        for one in (SMALL, ARM, LARGE, GPU):
            needed = core_s - measured["network_core_s"][name] if one is GPU else core_s
            rate = one.tracks_per_s(needed)
            taken = [f"{8 * mb * rate / 1000 / one.gbit:.0%}" for mb in MB_A_TRACK.values()]
            spot = number(SPOT * one.dollars_a_million(needed))
            cost = f"{number(one.dollars_a_million(needed))} ({spot})"
            rows.append([one.name, name, f"{one.vcpus}, {one.gib}", number(rate), *taken, cost, one.remark])
    wires = [f"of {kind} it takes, of its network" for kind in MB_A_TRACK]
    columns = ["instance", "model", "vCPUs, GiB", "tracks/s", *wires, "$ a million tracks (spot)", ""]
    return table(columns, rows)


def catalogues(measured: dict[str, Any]) -> str:
    core_s = measured["core_s"]["paper"] + measured["s3_core_s"]
    rows = []
    for millions in MILLIONS:
        n = millions * 1e6
        work_s = n / SMALL.tracks_per_s(core_s)
        head_s = driver_s(measured, millions)
        gets, puts = n * GETS_A_TRACK, n * PUTS_A_TRACK
        requests = gets * GET_DOLLARS + puts * PUT_DOLLARS
        machines = (
            max(1, math.ceil(work_s / (NIGHT_H * 3600 - head_s)))
            if head_s < NIGHT_H * 3600
            else "more than the driver does"
        )
        walls = [duration(measured["start_up_s"] + work_s / count + head_s) for count in (1, 10, 100)]
        dollars = SMALL.dollars * work_s / 3600
        read, asked = (
            f"{number(n * MB_A_TRACK['mp3, ogg'] / 1e6)} TB",
            f"{number(gets / 1e6)} M, {number(puts / 1e6)} M",
        )
        paid = [f"{number(dollars)} ({number(SPOT * dollars)})", number(requests)]
        rows.append([f"{millions} M", number(n * core_s / 3600), *walls, machines, read, asked, *paid])
    columns = [
        "tracks", "core hours", "on 1", "on 10", "on 100 c7i.4xlarge", f"of them for a night of {NIGHT_H} h", "read",
        "GET, PUT", "$ of them (spot)", "$ of requests",
    ]  # fmt: skip
    return table(columns, rows)


def driver_s(measured: dict[str, Any], millions: float) -> float:
    """What the driver does before the first shard is handed out and after the last came back, on a disk."""
    return millions * sum(one["wall_s"] for one in measured["night"]["phases"]) * 1e6 / measured["night"]["tracks"]


def phases(measured: dict[str, Any]) -> str:
    night = measured["night"]
    rows = [
        [one["phase"], f"{one['wall_s']:,.1f}", f"{one['cpu_s']:,.1f}", f"{one['peak_mib']:,}"]
        for one in night["phases"]
    ]
    return table([f"{night['tracks']:,} tracks, {night['shards']:,} shards", "wall s", "CPU s", "peak MiB"], rows)


def limits(measured: dict[str, Any]) -> str:
    core_s = measured["core_s"]["paper"] + measured["s3_core_s"]
    rate = SMALL.tracks_per_s(core_s)
    handout_ms = measured["handout"]["driver_cpu_ms_a_shard"]
    per_s = {
        "S3: 5,500 GET/s of one prefix": GETS_PER_S / GETS_A_TRACK,
        f"the driver, {handout_ms} CPU ms to hand out a shard": 1000 / handout_ms * TRACKS_PER_SHARD,
        "the driver's phases above, before and after the work": 1e6 / driver_s(measured, 1),
        "marks and shards' files on S3, read by the driver": TRACKS_PER_SHARD / (2 * measured["s3_small_core_s"]),
        f"listing a bucket, {LIST_S} s a page of {KEYS_PER_LIST:,} keys": KEYS_PER_LIST / LIST_S,
    }
    rows = [[what, f"{value:,.0f}", number(value / rate)] for what, value in per_s.items()]
    return table(["what", "tracks/s", "what so many c7i.4xlarge do"], rows)


def taken(measured: dict[str, Any]) -> dict[str, Any]:
    """The same with what lies in bench-run."""
    if (RUN / "tagging.json").exists():
        medians = json.loads((RUN / "tagging.json").read_text())["medians"]
        for recipe in ("paper", "best"):
            measured["core_s"][recipe] = round(medians[f"ours, {recipe}"]["cpu_s_per_track"], 3)
    for name in ("night", "handout"):
        if (RUN / f"{name}.json").exists():
            measured[name] = json.loads((RUN / f"{name}.json").read_text())
    return measured


def main(take: bool = False) -> None:
    measured = json.loads(MEASURED.read_text())
    if take:
        measured = taken(measured)
        MEASURED.write_text(json.dumps(measured, indent=1) + "\n")
    parts = {
        "### What a machine does": instances(measured),
        "### What a catalogue takes": catalogues(measured),
        "### What the driver does beside the work": phases(measured),
        "### What ends first": limits(measured),
    }
    said = "\n\n".join(f"{title}\n\n{part}" for title, part in parts.items())
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{said}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main("--take" in sys.argv[1:])
