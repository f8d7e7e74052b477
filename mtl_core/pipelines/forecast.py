"""Forecast: what a night would do and cost. Nothing is written, and no lease is taken."""

from dataclasses import dataclass

from mtl_core.pipelines.night.run_record import AUDIO, newest_records
from mtl_core.pipelines.tag_catalogue import TaggingOptions, load_model, scan_manifest
from mtl_core.storage import work_plan
from mtl_core.storage.checks import check_reachable
from mtl_core.storage.location import Location
from mtl_core.tables import forgotten, planning
from mtl_core.tables.delta import require_known_columns

#: Without a run to learn from: CPU seconds of a track of which eight segments are read (docs/speed.md), rounded up.
CPU_S_PER_TRACK = 0.1
LEARNT_TRACKS = 1_000
CPU_S_PER_ROW = 0.0003  # of a row that is tagged from its embedding (bench/bench_retag.py)
DOLLARS_PER_CPU_HOUR = 0.045  # of a c7i.4xlarge, on demand (docs/planning.md)


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a night would do."""

    in_manifest: int  # tracks
    forgotten: int  # of these, those that were taken down
    reasons: dict[str, tuple[int, int, float]]  # why tracks are open -> tracks, those of known length, their hours
    from_table: int  # of the open tracks, those whose embedding is in the table
    unfinished: dict[str, tuple[int, int]]  # runs that would be resumed: run id -> tracks done, planned
    cpu_s_per_track: float  # to read a track
    learnt_from: list[str]  # the runs that this is the mean of; empty: it is built in

    @property
    def planned(self) -> int:
        """Tracks that the night would tag."""
        return sum(n for n, _, _ in self.reasons.values())

    @property
    def cpu_hours(self) -> float:
        """Of all planned tracks."""
        n_read = self.planned - self.from_table
        return (n_read * self.cpu_s_per_track + self.from_table * CPU_S_PER_ROW) / 3600


def forecast(manifest_at: Location, model_at: Location, out: Location, options: TaggingOptions) -> Forecast:
    """What `tag_catalogue` would do with these arguments.

    An unfinished run is not part of the reasons: what it has tagged is not in the tables yet.

    Raises:
        InputError: as `tag_catalogue`.
    """
    model = load_model(model_at, options)
    tracks = scan_manifest(manifest_at, options)
    check_reachable(out)
    require_known_columns(out)
    skipped = forgotten.find(tracks, out)
    planned = planning.plan_tracks(
        tracks, out, model.model_id, retry_failed=options.retry_failed, skipped=skipped
    ).slice(0, options.limit)
    in_table, _ = planning.find_embeddings(planned, out, trunk_id=model.trunk_id, model_id=model.model_id)
    plans = [work_plan.load_plan(folder) for folder in work_plan.runs_in_progress(out)]
    unfinished = {
        plan.run_id: (work_plan.count_tracks(plan, work_plan.completed_shards(plan)), plan.n_tracks)
        for plan in plans
        if plan is not None
    }
    cpu_s, runs = _cpu_s_per_track(out)
    return Forecast(
        in_manifest=tracks.count_rows(),
        forgotten=len(skipped),
        reasons=planning.summarise(planned, out, model.model_id),
        from_table=len(in_table),
        unfinished=unfinished,
        cpu_s_per_track=cpu_s,
        learnt_from=runs,
    )


def _cpu_s_per_track(out: Location) -> tuple[float, list[str]]:
    """Of the newest runs that read audio, as many as planned `LEARNT_TRACKS` together: a retry of one is no measure."""
    cpu_s, n, runs = 0.0, 0, []
    for record in newest_records(out):
        if n >= LEARNT_TRACKS:
            break
        if record.get("source", AUDIO) == AUDIO and "cpu_s_per_track" in record:
            cpu_s += record["cpu_s_per_track"] * record["planned"]
            n += record["planned"]
            runs.append(record["run_id"])
    return (cpu_s / n, runs) if n else (CPU_S_PER_TRACK, [])


def describe(found: Forecast) -> str:
    """The forecast in words."""
    lines = [f"{found.planned:,} of {found.in_manifest:,} tracks of the manifest would be tagged"]
    for reason, (n, n_known, hours) in found.reasons.items():
        known = f", {hours:,.1f} hours of audio in {n_known:,} of them" if n_known else ""
        lines.append(f"  {n:,} {reason}{known}")
    if found.from_table:
        lines.append(f"{found.from_table:,} of them from the embeddings in the table, without audio")
    if found.forgotten:
        lines.append(f"{found.forgotten:,} tracks of the manifest are forgotten")
    for run_id, (done, n) in found.unfinished.items():
        lines.append(f"unfinished: run {run_id}, {done:,} of {n:,} tracks done; it would be resumed or deleted first")
    source = f"as run {', '.join(found.learnt_from)}" if found.learnt_from else "built in: no run to learn from"
    dollars = found.cpu_hours * DOLLARS_PER_CPU_HOUR
    lines.append(f"about {found.cpu_hours:,.2f} CPU hours, {dollars:,.2f} dollars at {DOLLARS_PER_CPU_HOUR} a CPU hour")
    lines.append(f"  {found.cpu_s_per_track:.3f} CPU seconds a track that is read, {source}")
    return "\n".join(lines)
