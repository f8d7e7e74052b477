"""mtl-core run_experiment --mels URI --out URI [--recipes paper] [--split kfold --folds 0 1] [--seeds 0 1 2]"""

from dataclasses import dataclass

from mtl_core import cli
from mtl_core.evaluation.bootstrap import RESAMPLES
from mtl_core.experiments.run_store import VARIANTS
from mtl_core.pipelines.run_experiment import run_experiment
from mtl_core.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train artist-only, language-only and multi-task models on the same splits and seeds, and print Table 1.

    Each run is stored when it ends. The same command does the runs that are missing. With other seeds, folds or recipes
    it adds runs, and the table is of all stored runs.
    """

    mels: str
    """Folder or s3:// prefix of mels, as extract_mels writes them."""
    out: str
    """Folder or s3:// prefix of the experiment: runs, models, table1.json, table1.md, alphas.md, report.html."""
    recipes: tuple[str, ...] = ("paper",)
    """Recipes to train; every other recipe is compared with paper."""
    tasks: tuple[str, ...] = VARIANTS
    """Models to train with each recipe: artist, language (one task only), both (multi-task)."""
    split: str = "kfold"
    """What is held out: paper, kfold, album or artist (only with --tasks language)."""
    folds: tuple[int, ...] | None = None
    """Folds of --split kfold, from 0; default: 0 1 2 3 4. Table 1 pools them."""
    group_column: str | None = None
    """Column of groups: no group is in both train and test. By default the column of the split. If a column is named
    here, a group counts as one song in the intervals."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the splits and trainings, >= 0."""
    epochs: int | None = None
    """Passes over the training tracks, >= 1; by default each recipe's own."""
    alphas: tuple[float, ...] = ()
    """Weights of the language loss, >= 0: one more multi-task model for each. The model of the recipe's own alpha
    (N_artist / N_language) is always trained. Only that one is in Table 1; alphas.md compares all of them."""
    num_workers: int = 1
    """Data-parallel workers of a training, >= 1; the recipes' global batches must be divisible by it."""
    use_gpu: bool = False
    """One GPU for each worker."""
    resamples: int = RESAMPLES
    """Resamples of the bootstrap over songs, >= 0; 0 for no intervals. Segments get a fifth of them."""
    table_only: bool = False
    """Train nothing, only print the table of the stored runs."""


def main(options: Options) -> None:
    with cli.flag_errors():
        locations = {"mels": Location(options.mels), "out": Location(options.out)}
    run_experiment(**(vars(options) | locations))
