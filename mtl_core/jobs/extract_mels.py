"""mtl-core extract_mels --manifest URI --out URI [--segments-per-excerpt K] [--draws N --seed S]"""

from dataclasses import dataclass

from mtl_core import cli
from mtl_core.audio.decoder_process import DecoderLimits
from mtl_core.audio.front_end import define_front_end
from mtl_core.pipelines.extract_mels import Extraction, extract_mels
from mtl_core.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class Options:
    """Extract the log-mel segments of every track, for training and evaluation."""

    manifest: str
    """Manifest, as build_manifest writes it: a Parquet file or a folder of them."""
    out: str
    """Folder for the mels; what an earlier run left there is replaced when this one has ended."""
    segments_per_excerpt: int = 20
    """Segments of 3 s kept of each minute, 1 to 20; 20 is back to back, the paper's own count is 2."""
    draws: int = 0
    """Random starts for each segment slot instead of the fixed grid, 1 to 100; 0 is the fixed grid."""
    seed: int = 0
    """Seed of the draws."""
    num_workers: int | None = None
    """Worker processes; default: one for each CPU of the cluster."""
    decode_limit_s: float = 60.0
    """Seconds that decoding one track may take."""


def main(options: Options) -> None:
    with cli.flag_errors():
        extraction = Extraction(
            front_end=define_front_end(segments_per_excerpt=options.segments_per_excerpt),
            draws=options.draws,
            seed=options.seed,
            limits=DecoderLimits(time_limit_s=options.decode_limit_s),
            workers=options.num_workers,
        )
        manifest, out = Location(options.manifest), Location(options.out)
    print(extract_mels(manifest, out, extraction))
