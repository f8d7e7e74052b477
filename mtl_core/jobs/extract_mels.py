"""mtl-core extract_mels --manifest URI --out URI [--sampling spread|paper] [--segments N] [--draws N --seed S]"""

from dataclasses import dataclass

from mtl_core import cli
from mtl_core.pipelines.extract_mels import ExtractionOptions, extract_mels
from mtl_core.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class Options(ExtractionOptions):
    """Extract the log-mel segments of every track, for training and evaluation."""

    manifest: str
    """Manifest, as build_manifest writes it: a Parquet file or a folder of them."""
    out: str
    """Folder for the mels; what an earlier run left there is replaced when this one has ended."""


def main(options: Options) -> None:
    with cli.flag_errors():
        manifest, out = Location(options.manifest), Location(options.out)
    print(extract_mels(manifest, out, options))
