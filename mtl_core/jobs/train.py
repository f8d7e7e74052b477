"""mtl-core train --mels URI --out URI"""

from dataclasses import dataclass

from mtl_core import cli
from mtl_core.pipelines.train import train
from mtl_core.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train a model on mels and write its artifact; the same command resumes a training that was interrupted."""

    mels: str
    """Folder or s3:// prefix of mels, as extract_mels writes them."""
    out: str
    """Folder or s3:// prefix of the artifact; a model in it is replaced."""
    tasks: tuple[str, ...] = ("artist", "language")
    """What to learn: artist, language, or both."""
    recipe: str = "best"
    """The numbers of the training: best (30 epochs), paper (those of Singh & Biswas, 100 epochs) or demo (short)."""
    split: str = "paper"
    """What is held out: paper, kfold, album or artist (with --tasks language only)."""
    fold: int = 0
    """Fold of --split kfold, from 0."""
    group_column: str | None = None
    """Column whose values are never shared by train and test, e.g. album or song; by default that of the split."""
    epochs: int | None = None
    """Passes over the training part, >= 1; by default the recipe's."""
    alpha: float | None = None
    """Weight of the language loss beside the artist loss, >= 0; by default the recipe's."""
    num_workers: int = 1
    """Data-parallel workers, >= 1; must divide the recipe's global batch: 32 of paper and best, 16 of demo."""
    use_gpu: bool = False
    """One GPU for each worker."""
    drop_head: tuple[str, ...] = ()
    """Tasks whose heads are trained but left out of the artifact, e.g. language."""
    seed: int = 0
    """Seed of the split and of the training, >= 0."""


def main(options: Options) -> None:
    with cli.flag_errors():
        mels, out = Location(options.mels), Location(options.out)
    summary = train(
        mels=mels,
        out=out,
        tasks=options.tasks,
        recipe=options.recipe,
        split=options.split,
        fold=options.fold,
        group_column=options.group_column,
        epochs=options.epochs,
        alpha=options.alpha,
        num_workers=options.num_workers,
        use_gpu=options.use_gpu,
        drop_heads=options.drop_head,
        seed=options.seed,
    )
    print(summary)
