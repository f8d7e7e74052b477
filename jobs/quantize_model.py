"""python jobs/quantize_model.py --model MODEL --mels MELS --out OUT"""

from dataclasses import dataclass

from mtl_core import cli
from mtl_core.pipelines.quantize_model import quantize_model
from mtl_core.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class Options:
    """Make a model of 8-bit integers out of one of floats, for half the model's time on CPUs; its tags must stay."""

    model: str
    """Artifact of train.py: a path, file://… or s3://…."""
    mels: str
    """Folder of the mels that it was trained on: ranges come from its training part, the check from its validation."""
    out: str
    """Folder of the new artifact, with a model_id of its own."""
    seed: int = 0
    """Of the choice of calibration segments, 0 or more."""


def main(options: Options) -> None:
    with cli.flag_errors():
        model, mels, out = Location(options.model), Location(options.mels), Location(options.out)
    print(quantize_model(model, mels, out, seed=options.seed))


if __name__ == "__main__":
    cli.main(main, Options)
