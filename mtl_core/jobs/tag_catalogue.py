"""mtl-core tag_catalogue --manifest URI --model URI --out URI [--max-failed-share X] [--limit N] …"""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mtl_core import cli
from mtl_core.audio.decoder_process import DecoderLimits
from mtl_core.pipelines.tag_catalogue import Tagged, Tagging, tag_catalogue
from mtl_core.storage.checks import check_writable
from mtl_core.storage.location import Location
from mtl_core.tables.export import export_parquet


@dataclass(frozen=True, kw_only=True)
class Options:
    """Tag every track of a manifest that is not tagged yet with artist and language; the same command resumes."""

    manifest: str
    """Manifest, as build_manifest writes it: a Parquet file or a folder of them."""
    model: str
    """Model artifact, as train writes it: a folder."""
    out: str
    """Folder of the tables `tags` and `failures` and of the run records in `runs`."""
    max_failed_share: float = 0.05
    """Exit status 3 when more than this share of the planned tracks failed, 0 to 1."""
    retry_failed: bool = False
    """Try tracks again whose failure is permanent."""
    limit: int | None = None
    """Plan the first N open tracks by track_id, 1 or more; the rest wait. Default: all."""
    export_parquet: str | None = None
    """File to write the tags to as plain Parquet, for readers that know no Delta tables."""
    num_workers: int | None = None
    """Worker processes; default: one for each CPU of the cluster."""
    use_gpu: bool = False
    """Run the model on the cluster's GPUs."""
    decode_limit_s: float = 60.0
    """Seconds that decoding one track may take."""
    decode_memory_mib: int = 2048
    """MiB of memory that decoding one track may take."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_failed_share <= 1:
            raise ValueError(f"--max-failed-share {self.max_failed_share}: allowed is 0 to 1")


def main(options: Options) -> int:
    with cli.flag_errors():
        tagging = Tagging(
            retry_failed=options.retry_failed,
            limit=options.limit,
            workers=options.num_workers,
            use_gpu=options.use_gpu,
            limits=DecoderLimits(
                time_limit_s=options.decode_limit_s, memory_limit_bytes=options.decode_memory_mib * 2**20
            ),
        )
        manifest, model, out = Location(options.manifest), Location(options.model), Location(options.out)
        export = None if options.export_parquet is None else Location(options.export_parquet)
    if export is not None:
        check_writable(export, folder=False)
    pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own keeps some 50 MB of what a phase has done with
    tagged = tag_catalogue(manifest, model, out, tagging)
    print(_summary(tagged, out))
    if export is not None:
        print(f"{export_parquet(out, export):,} rows of tags -> {export}")
    return cli.TOO_MANY_FAILED if tagged.failed_share > options.max_failed_share else cli.DONE


def _summary(tagged: Tagged, out: Location) -> str:
    if not tagged.runs:
        return f"nothing to do: all {tagged.already_done:,} tracks of the manifest are tagged or failed for good"
    return "\n".join(_of_run(run, out) for run in tagged.runs)


def _of_run(run: dict[str, Any], out: Location) -> str:
    failures = ", ".join(f"{error} {count:,}" for error, count in sorted(run["failures"].items())) or "none"
    return (
        f"run {run['run_id']}: {run['planned']:,} planned = {run['tagged']:,} tagged + {run['failed']:,} failed; "
        f"{run['already_done']:,} were done already -> {out}\n"
        f"failures: {failures}\n"
        f"{run['audio_hours']:.2f} h of audio in {run['wall_s']:.1f} s: {run['tracks_per_s']:.1f} tracks/s, "
        f"{run['cpu_s_per_track']:.3f} CPU seconds a track"
    )
