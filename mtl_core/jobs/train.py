"""mtl-core train --mels URI --out URI"""

from dataclasses import dataclass

from mtl_core import cli
from mtl_core.pipelines.train import TrainOptions, train
from mtl_core.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class Options(TrainOptions):
    """Train a model on mels and write its artifact; the same command resumes a training that was interrupted."""

    mels: str
    """Folder or s3:// prefix of mels, as extract_mels writes them."""
    out: str
    """Folder or s3:// prefix of the artifact; a model in it is replaced."""


def main(options: Options) -> None:
    with cli.flag_errors():
        mels, out = Location(options.mels), Location(options.out)
    print(train(mels, out, options))
