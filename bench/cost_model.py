"""Estimate what a catalogue costs beyond one machine: python bench/cost_model.py [--take]

Writes the tables of docs/planning.md, between the two comments that mark them. It takes less than a second.

Measured figures are in bench/measured.json. `--take` first copies into it what bench_tagging.py, bench_night.py and
bench_handout.py left in bench-run. Instances, prices and limits, which were not measured, are constants below.
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
#: Requests, counted at a proxy. A track is one GET. A shard is 3 requests to read its part of the plan, 2 in
#: verification, and 2 PUTs.
GETS_A_TRACK, PUTS_A_TRACK = 1 + 5 / TRACKS_PER_SHARD, 2 / TRACKS_PER_SHARD
GET_DOLLARS, PUT_DOLLARS = 0.4e-6, 5e-6  # S3 Standard, us-east-1; LIST costs as PUT
GETS_PER_S = 5500  # of one prefix; S3 splits a prefix that gets more for some time
SPOT = 0.45  # share of the on-demand price; assumed
NIGHT_H = 8

MILLIONS = (1, 10, 100)
SHOWN = ("paper", "early exit")  # the dearest model and the cheapest
#: model -> its contender in bench_tagging.py
CONTENDERS = {
    "paper": "ours, paper",
    "best": "ours, best",
    "8 segments": "ours, 8 segments",
    "early exit": "ours, REAL/model",
}
INTRODUCTIONS = {
    "What a machine does": """
Under mp3, flac and wav: the share of the instance's network that tracks of that format take. Above 100 %, the network
is the limit. The wav is 44.1 kHz, 16 bits. `paper` and `best` read two excerpts of a minute, and files as a whole.
"8 segments" and "early exit" are `best`; most wav files are read by range then, as 8 segments ask for.
""",
    "What a catalogue takes": f"""
On 1, 10 and 100 c7i.4xlarge. "for {NIGHT_H} h" is the number of them that finish in a night. The tracks are mp3 or ogg.
A time that the network limits is the network's.
""",
    "What the driver does besides handing out work": """
Before it hands out the first shard, and after the last has ended.
""",
    "What limits first": """
The last columns say how many c7i.4xlarge reach that rate, with `paper` and with early exit.
""",
}
#: Of 3.4 minutes. Assumed; the mp3 and ogg files of the benchmarks have 3.2 MB. The wav is 44.1 kHz, 16 bits, stereo.
MB_A_TRACK = {"mp3, ogg": 4, "flac": 25, "wav": 36}


@dataclass(frozen=True, kw_only=True)
class Instance:
    """An EC2 instance type.

    Args:
        gbit: network bandwidth in Gbit/s that the instance always has, not its peak.
        dollars: price of an hour, Linux, on demand, us-east-1, January 2026.
        note: number of a note under the table.
    """

    name: str
    vcpus: int
    gib: int
    gbit: float
    dollars: float
    note: str = ""

    def tracks_per_s(self, core_s: float) -> float:
        return self.vcpus / core_s

    def dollars_a_million(self, core_s: float) -> float:
        return self.dollars * 1e6 / self.tracks_per_s(core_s) / 3600


SMALL = Instance(name="c7i.4xlarge", vcpus=16, gib=32, gbit=6.25, dollars=0.714)
LARGE = Instance(name="c7i.16xlarge", vcpus=64, gib=128, gbit=25, dollars=2.856)
ARM = Instance(name="c7g.4xlarge", vcpus=16, gib=32, gbit=7.5, dollars=0.58, note="1")
GPU = Instance(name="g6.xlarge", vcpus=4, gib=16, gbit=2.5, dollars=0.8048, note="2")
NOTES = (
    "[1] ARM: not measured, computed from the x86 figure. [2] One L4: reads on 4 CPUs, tags on the GPU, with any model."
)


def table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    lines = [list(columns), *([str(cell) for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float) -> str:
    """Two significant digits; all digits before the point from 100 on."""
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
    """A row for each instance and model; the GPU's CPUs only read, so it has one row."""
    rows = []
    for model, core_s in measured["core_s"].items():
        mb = mb_a_track(measured, model)
        rows += [_instance_row(instance, model, core_s + measured["s3_core_s"], mb) for instance in (SMALL, ARM, LARGE)]
    read_core_s = measured["core_s"]["paper"] - measured["network_core_s"]["paper"] + measured["s3_core_s"]
    rows.append(_instance_row(GPU, "any", read_core_s, MB_A_TRACK))
    columns = ["instance", "model", "vCPUs, GiB", "tracks/s", *MB_A_TRACK, "$ a million tracks (spot)", "note"]
    return table(columns, rows) + "\n\n" + NOTES


def mb_a_track(measured: dict[str, Any], model: str) -> dict[str, float]:
    """What a track of each format takes from the network."""
    return MB_A_TRACK | {of: by_range["mb"] for of, by_range in measured["by_range"].get(model, {}).items()}


def _instance_row(instance: Instance, model: str, core_s: float, mb_of_format: dict[str, float]) -> list[str]:
    rate = instance.tracks_per_s(core_s)
    network_shares = [f"{8 * mb * rate / 1000 / instance.gbit:.0%}" for mb in mb_of_format.values()]
    dollars = instance.dollars_a_million(core_s)
    size = f"{instance.vcpus}, {instance.gib}"
    cost = f"{number(dollars)} ({number(SPOT * dollars)})"
    return [instance.name, model, size, number(rate), *network_shares, cost, instance.note]


def catalogues(measured: dict[str, Any]) -> str:
    """A row for each model and size of a catalogue, on SMALL instances."""
    rows = [_catalogue_row(measured, model, millions) for model in SHOWN for millions in MILLIONS]
    columns = [
        "model", "tracks", "core hours", "on 1", "on 10", "on 100", f"for {NIGHT_H} h", "read", "GET, PUT",
        "$ instances (spot)", "$ requests",
    ]  # fmt: skip
    return table(columns, rows)


def rate_of(measured: dict[str, Any], model: str) -> float:
    """Tracks of mp3 or ogg a second of one SMALL instance: what its cores or its network do."""
    of_network = SMALL.gbit * 1000 / 8 / MB_A_TRACK["mp3, ogg"]
    return min(of_network, SMALL.tracks_per_s(measured["core_s"][model] + measured["s3_core_s"]))


def _catalogue_row(measured: dict[str, Any], model: str, millions: int) -> list[Any]:
    n = millions * 1e6
    work_s = n / rate_of(measured, model)
    driver_wall_s = driver_s(measured, millions)
    gets, puts = n * GETS_A_TRACK, n * PUTS_A_TRACK
    requests = gets * GET_DOLLARS + puts * PUT_DOLLARS
    machines = (
        max(1, math.ceil(work_s / (NIGHT_H * 3600 - driver_wall_s)))
        if driver_wall_s < NIGHT_H * 3600
        else "more than the driver does"
    )
    walls = [duration(measured["start_up_s"] + work_s / count + driver_wall_s) for count in (1, 10, 100)]
    dollars = SMALL.dollars * work_s / 3600
    read = f"{number(n * MB_A_TRACK['mp3, ogg'] / 1e6)} TB"
    counts = f"{number(gets / 1e6)} M, {number(puts / 1e6)} M"
    prices = [f"{number(dollars)} ({number(SPOT * dollars)})", number(requests)]
    core_hours = n * (measured["core_s"][model] + measured["s3_core_s"]) / 3600
    return [model, f"{millions} M", number(core_hours), *walls, machines, read, counts, *prices]


def driver_s(measured: dict[str, Any], millions: float) -> float:
    """Wall seconds of the driver before it hands out the first shard and after the last has ended, on a local disk."""
    return millions * sum(phase["wall_s"] for phase in measured["night"]["phases"]) * 1e6 / measured["night"]["tracks"]


def phases(measured: dict[str, Any]) -> str:
    """A row for each phase of the driver."""
    night = measured["night"]
    rows = [
        [phase["phase"], f"{phase['wall_s']:,.1f}", f"{phase['cpu_s']:,.1f}", f"{phase['peak_mib']:,}"]
        for phase in night["phases"]
    ]
    return table([f"{night['tracks']:,} tracks, {night['shards']:,} shards", "wall s", "CPU s", "peak MiB"], rows)


def limits(measured: dict[str, Any]) -> str:
    """A row for each part of the system that does not grow with the workers."""
    read_results_s = 2 * measured["s3_small_core_s"]
    handout_ms = measured["handout"]["driver_cpu_ms_a_shard"]
    per_s = {
        "S3: 5,500 GET/s of one prefix": GETS_PER_S / GETS_A_TRACK,
        f"the driver, {handout_ms} CPU ms to hand out a shard": 1000 / handout_ms * TRACKS_PER_SHARD,
        "the driver's phases above, before and after the work": 1e6 / driver_s(measured, 1),
        "shard results and shards' files on S3, read by the driver": TRACKS_PER_SHARD / read_results_s,
    }
    rates = [rate_of(measured, model) for model in SHOWN]
    rows = [[what, f"{value:,.0f}", *(number(value / rate) for rate in rates)] for what, value in per_s.items()]
    return table(["what", "tracks/s", *SHOWN], rows)


def with_new_measurements(measured: dict[str, Any]) -> dict[str, Any]:
    """The same figures, replaced by those in bench-run where there are any."""
    if (RUN / "tagging.json").exists():
        medians = json.loads((RUN / "tagging.json").read_text())["medians"]
        for model, contender in CONTENDERS.items():
            if contender in medians:
                measured["core_s"][model] = round(medians[contender]["cpu_s_per_track"], 3)
    for name in ("night", "handout"):
        if (RUN / f"{name}.json").exists():
            measured[name] = json.loads((RUN / f"{name}.json").read_text())
    return measured


def main(take: bool = False) -> None:
    measured = json.loads(MEASURED.read_text())
    if take:
        measured = with_new_measurements(measured)
        MEASURED.write_text(json.dumps(measured, indent=1) + "\n")
    tables = (instances(measured), catalogues(measured), phases(measured), limits(measured))
    sections = [
        f"### {title}\n{text}\n{table}" for (title, text), table in zip(INTRODUCTIONS.items(), tables, strict=True)
    ]
    text = "\n\n".join(sections)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main("--take" in sys.argv[1:])
