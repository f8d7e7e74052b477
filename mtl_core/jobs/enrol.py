"""mtl-core enrol --model URI --out URI (--tags URI --labels URI | --mels URI) [--task T] [--remove …] [--rename …]"""

from dataclasses import dataclass

from mtl_core import cli
from mtl_core.inference.artifacts.model_pointer import find_model
from mtl_core.pipelines.enrol import EnrolOptions, LabelledEmbeddings, enrol, from_mels, from_table
from mtl_core.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class Options(EnrolOptions):
    """Add artists or languages to a model from a few of their tracks, without training; remove and rename others."""

    model: str
    """Model artifact with heads of class means, as train --recipe best writes it: a folder."""
    out: str
    """Folder of the new artifact."""
    tags: str | None = None
    """OUT of tag_catalogue: the embeddings of the tracks in --labels are taken from its table of tags."""
    labels: str | None = None
    """labels.csv with the new classes: path (or track_id), and a column of the task's name."""
    mels: str | None = None
    """Mels of labelled tracks instead; those that the model was trained on are left out."""
    num_workers: int | None = None
    """Worker processes for --mels; by default one for each CPU of the cluster."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.tags is None) != (self.labels is None) or (self.tags is not None and self.mels is not None):
            raise ValueError("give --tags with --labels, or --mels, or neither to remove and rename alone")
        if self.num_workers is not None and self.num_workers < 1:
            raise ValueError(f"num-workers must be 1 or more, got {self.num_workers}")


def main(options: Options) -> None:
    with cli.flag_errors():
        model, out = find_model(options.model), Location(options.out)
        tags, labels, mels = (uri and Location(uri) for uri in (options.tags, options.labels, options.mels))
    tracks = LabelledEmbeddings()
    if tags and labels:
        tracks = from_table(model, tags, labels, options.task)
    elif mels:
        tracks = from_mels(model, mels, options.task, options.num_workers)
    print(enrol(model, out, tracks, options))
