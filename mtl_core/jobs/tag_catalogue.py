"""mtl-core tag_catalogue --manifest URI --model URI --out URI [--max-failed-share X] [--limit N] …"""

import logging
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mtl_core import cli, log
from mtl_core.inference.artifacts.model_pointer import find_model
from mtl_core.pipelines.forecast import describe, forecast
from mtl_core.pipelines.night.run_record import EMBEDDINGS
from mtl_core.pipelines.night.verdict import Verdict, accept, note_told
from mtl_core.pipelines.tag_catalogue import TaggingOptions, tag_catalogue
from mtl_core.storage.checks import check_writable
from mtl_core.storage.location import Location
from mtl_core.tables.export import export_parquet


@dataclass(frozen=True, kw_only=True)
class Options(TaggingOptions):
    """Tag every track of a manifest that is not tagged yet with artist and language; the same command resumes."""

    manifest: str
    """Manifest, as build_manifest writes it: a Parquet file, a folder of them, Hive partitions, or a Delta table."""
    model: str
    """Model artifact, as train writes it: a folder; or a model pointer, see promote."""
    out: str
    """Folder of the tables `tags` and `failures` and of the run records in `runs`."""
    max_failed_share: float = 0.05
    """Exit status 3 when more than this share of the tracks that were tried for the first time fail, 0 to 1. A command
    that tries no new track repeats the verdict on the last run that did."""
    accept_failures: bool = False
    """Accept the failures of this night: from now on they raise no exit status 3. Written to OUT/runs."""
    export_parquet: str | None = None
    """File to write the tags to as plain Parquet, for readers that know no Delta tables."""

    plan_only: bool = False
    """Print what a night would do, why, and what it would cost; write nothing. Works beside a run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.max_failed_share <= 1:
            raise ValueError(f"--max-failed-share {self.max_failed_share}: allowed is 0 to 1")


def main(options: Options) -> int:
    with cli.flag_errors():
        manifest, model, out = Location(options.manifest), find_model(options.model), Location(options.out)
        export = None if options.export_parquet is None else Location(options.export_parquet)
    if options.plan_only:
        print(describe(forecast(manifest, model, out, options)))
        return cli.DONE
    if export is not None:
        check_writable(export, folder=False)
    pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own pool keeps about 50 MB that a phase no longer needs
    result = tag_catalogue(manifest, model, out, options)
    for run in result.runs:
        print(_describe_run(run, out))
        for change in run["drift"]:
            log.warning(change)
    if not result.runs:
        others = f"; {result.forgotten:,} are forgotten" if result.forgotten else ""
        print(
            f"nothing to do: all {result.already_done:,} tracks of the manifest are tagged or failed for good{others}"
        )
    if export is not None:
        print(f"{export_parquet(out, export):,} rows of tags -> {export}")
    status = _status(result.verdict, out, options)
    if result.verdict is not None:
        note_told(out, result.verdict)
    return status


def _status(verdict: Verdict | None, out: Location, options: Options) -> int:
    if verdict is None or verdict.share <= options.max_failed_share or verdict.accepted:
        return cli.DONE
    text = f"{verdict.failed:,} of {verdict.tried:,} tracks that run {' and '.join(verdict.run_ids)} tried first fail"
    if options.accept_failures:
        accept(out, verdict)
        print(f"accepted: {text}")
        return cli.DONE
    allowed = f"--max-failed-share allows {options.max_failed_share:.1%}"
    message = f"{text}: {verdict.share:.1%}, {allowed}; --accept-failures ends the alarm"
    log.event("verdict", message, level=logging.ERROR, failed=verdict.failed, tried=verdict.tried)
    return cli.TOO_MANY_FAILED


def _describe_run(run: dict[str, Any], out: Location) -> str:
    failures = ", ".join(f"{error} {count:,}" for error, count in sorted(run["failures"].items())) or "none"
    if run["source"] == EMBEDDINGS:
        return (
            f"run {run['run_id']}: {run['planned']:,} tracks with an embedding in the table = {run['tagged']:,} tagged "
            f"from it + {run['refused']:,} to be read + {run['left'] - run['refused']:,} whose tags stay the same"
            f"{_describe_forgotten(run)} -> {out}\n"
            f"{run['wall_s']:.1f} s: {run['tracks_per_s']:,.0f} tracks/s"
        )
    return (
        f"run {run['run_id']}: {run['planned']:,} planned = {run['tagged']:,} tagged + {run['failed']:,} failed; "
        f"{run['already_done']:,} were done already{_describe_forgotten(run)} -> {out}\n"
        f"failures: {failures}\n"
        f"{run['audio_hours']:.2f} h of audio in {run['wall_s']:.1f} s: {run['tracks_per_s']:.1f} tracks/s, "
        f"{run['cpu_s_per_track']:.3f} CPU seconds a track"
    )


def _describe_forgotten(run: dict[str, Any]) -> str:
    """The counts of forgotten tracks, where there are some."""
    skipped = f", {run['forgotten']:,} are forgotten" if run["forgotten"] else ""
    return skipped + (f", {run['dropped']:,} were forgotten after they were planned" if run["dropped"] else "")
