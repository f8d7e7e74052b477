"""Train options: what a model learns, from which tracks, and how."""

from dataclasses import dataclass

from mtl_core.dataset import splits
from mtl_core.dataset.splits import CROSSFIT
from mtl_core.dataset.vocabulary import TASKS
from mtl_core.errors import InputError
from mtl_core.model.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What a model learns, from which tracks, and how."""

    tasks: tuple[str, ...] = TASKS
    """What to learn: artist, language, or both."""
    recipe: str = "best"
    """The numbers of the training: best (10 epochs), paper (those of Singh & Biswas, 100 epochs) or demo (short)."""
    split: str = CROSSFIT
    """crossfit: a model for each fold, then the final model on all tracks, calibrated on what the fold models say of
    tracks that they did not train on. none: the final model alone, not calibrated. paper, kfold, album or artist (with
    --tasks language only) hold tracks out for `evaluate`."""
    folds: int = 5
    """Folds of --split crossfit, 2 to the number of artists."""
    fold: int = 0
    """Fold of --split kfold, from 0."""
    group_column: str | None = None
    """Column whose values are never shared by train and test, e.g. album or song; by default that of the split."""
    precision: float = 0.95
    """Share of the names that shall be right, above 0 and below 1: a track gets no name where its score is below the
    threshold at which this was reached on the tracks of --split crossfit."""
    unknown_share: float = 0.5
    """Share of tracks of unknown artists in the catalogue that will be tagged, 0 to 1; --precision is meant for it."""
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

    def check(self, recipe: Recipe) -> None:
        """Raise InputError where the options do not fit each other or the recipe."""
        tasks, dropped = set(self.tasks), set(self.drop_head)
        if not tasks or not tasks <= set(TASKS):
            raise InputError(f"tasks must be of {', '.join(TASKS)}, got {', '.join(self.tasks) or 'none'}")
        if not dropped < tasks:
            heads, model = ", ".join(self.drop_head), ", ".join(self.tasks)
            raise InputError(f"cannot drop the head {heads} of a model of {model}: one must stay")
        if not 0 < self.precision < 1:
            raise InputError(f"precision must be above 0 and below 1, got {self.precision:g}")
        if not 0 <= self.unknown_share <= 1:
            raise InputError(f"unknown-share must be 0 to 1, got {self.unknown_share:g}")
        splits.check_arguments(self.split, tasks=self.tasks, folds=[self.fold], seeds=[self.seed])
        recipe.check_workers(self.num_workers)
