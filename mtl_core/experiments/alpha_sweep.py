"""Alphas: what the weight of the language loss does to the multi-task model, out of the stored runs of an experiment.

All models of one recipe and number of epochs are compared on the cells, (seed, fold), that have every one of them.
Shares, 0 to 1, of macro AUC-PR on tracks.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from mtl_core.dataset.vocabulary import TASKS
from mtl_core.evaluation import metrics
from mtl_core.experiments import table1_text
from mtl_core.experiments.pooling import System, complete_cells
from mtl_core.experiments.run_store import BOTH, RunResult
from mtl_core.experiments.scoring import Scorer, difference, is_scorable, summary
from mtl_core.experiments.table1 import alpha

HEADLINE = "auc_pr_macro"
HEAD = ["alpha", *(f"{task}: {column}" for task in TASKS for column in ("AUC-PR macro", "minus the default"))]
ALPHA_NOTE = (
    "Macro AUC-PR on tracks, percent, with its 95% bootstrap interval over songs. With alpha 0 the trunk learns from "
    "artists alone, as the artist-only model does, and the language head learns nothing: what it says is chance."
)


def alpha_effects(
    results: Sequence[RunResult],
    *,
    resamples: int = metrics.RESAMPLES,
    seed: int = 0,
    songs: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Scores against alpha, as JSON values.

    Args:
        results: stored runs of one kind of split, on the same mels.
        resamples: of the bootstrap over songs, 0 for no intervals.
        seed: of the bootstrap.
        songs: track_id -> its song, where several tracks are versions of one; by default each is a song.

    Returns:
        One for each recipe and number of epochs with a run of another alpha than its own: name, epochs, seeds, folds,
        left_out (keys of runs that lack others of their cell or seed) and `models`, those of one task first, then by
        alpha: name, alpha (None: of one task), and `tasks`: task -> its scores as in Table 1, and in `to_default` its
        difference to the recipe's own alpha.
    """
    of_group: dict[tuple[str, int], dict[tuple[int, int], dict[str, RunResult]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for result in results:
        run = result.run
        of_group[run.recipe, run.epochs][run.seed, run.fold][_variant(result)] = result
    scorer = Scorer(resamples, seed, songs)
    return [
        _effect(*key, cells, scorer)
        for key, cells in sorted(of_group.items())
        if any(result.run.alpha is not None for of_cell in cells.values() for result in of_cell.values())
    ]


def _variant(result: RunResult) -> str:
    return result.run.tasks if result.run.alpha is None else f"alpha {result.run.alpha!r}"


def _effect(
    recipe: str, epochs: int, cells: Mapping[tuple[int, int], Mapping[str, RunResult]], scorer: Scorer
) -> dict[str, Any]:
    kept = complete_cells(cells)
    every = {result.run.key for of_cell in cells.values() for result in of_cell.values()}
    first = next(iter(kept.values()), {})
    models = []
    weights = {variant: alpha(result) for variant, result in first.items()}
    for variant, weight in sorted(weights.items(), key=lambda item: (-1 if item[1] is None else item[1], item[0])):
        tasks = {}
        for task in first[variant].run.of_tasks:
            scored = scorer.scored(kept, System(task, variant, (variant,)), "tracks")
            default = System(task, BOTH, (BOTH,))
            apart = variant not in (BOTH, task) and is_scorable(kept, default)
            to_default = difference(scored, scorer.scored(kept, default, "tracks"))[HEADLINE] if apart else None
            tasks[task] = {**summary(scored), "to_default": to_default}
        name = f"{variant}-only" if weight is None else f"{weight:g}{' (default)' if variant == BOTH else ''}"
        models.append({"name": name, "alpha": weight, "tasks": tasks})
    kept_keys = {result.run.key for of_cell in kept.values() for result in of_cell.values()}
    return {
        "name": recipe,
        "epochs": epochs,
        "alpha": None,
        "seeds": sorted({seed for seed, _ in kept}),
        "folds": sorted({fold for _, fold in kept}),
        "left_out": sorted(every - kept_keys),
        "models": models,
    }


def table_rows(effect: Mapping[str, Any]) -> list[list[str]]:
    """The cells of one of `effects`, a line a model, under `HEAD`."""
    shown = []
    for model in effect["models"]:
        line = [model["name"]]
        for task in TASKS:
            found = model["tasks"].get(task)
            line.append("" if found is None else table1_text.score(found[HEADLINE], found["ci"].get(HEADLINE)))
            line.append(table1_text.gain(found["to_default"]) if found and found["to_default"] else "")
        shown.append(line)
    return shown


def format_alphas(found: Sequence[Mapping[str, Any]]) -> str:
    """`effects` for a terminal."""
    parts = ["The effect of alpha"]
    for effect in found:
        parts += ["", table1_text.title(effect), *table1_text.aligned([HEAD, *table_rows(effect)])]
        if effect["left_out"]:
            parts += [f"left out until its seed is complete: {', '.join(effect['left_out'])}"]
    return "\n".join([*parts, "", ALPHA_NOTE])


def alpha_markdown(found: Sequence[Mapping[str, Any]]) -> str:
    """`effects` for a document."""
    parts = ["# The effect of alpha", "", ALPHA_NOTE]
    for effect in found:
        parts += ["", f"**{table1_text.title(effect)}**", "", *table1_text.piped([HEAD, *table_rows(effect)])]
    return "\n".join(parts) + "\n"
