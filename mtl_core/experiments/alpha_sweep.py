"""Alpha sweep: the effect of alpha, the weight of the language loss, on the multi-task model of an experiment.

All models of one recipe and number of epochs are compared on the cells, (seed, fold), that have every one of them.
Scores are macro AUC-PR on tracks, as shares, 0 to 1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mtl_core.dataset.vocabulary import TASKS
from mtl_core.evaluation.pages.score_text import difference_cell, score_cell
from mtl_core.experiments.pooling import RunGroup, System, group_runs
from mtl_core.experiments.run_store import BOTH, RunResult
from mtl_core.experiments.scoring import Scorer, difference, is_scorable, summary
from mtl_core.experiments.text_tables import Section, group_title, left_out_notes

HEADLINE = "auc_pr_macro"
ALPHA_TITLE = "The effect of alpha"
ALPHA_NOTE = (
    "Macro AUC-PR on tracks, percent, with its 95% bootstrap interval over songs. With alpha 0 the trunk learns from "
    "artists only, as in the artist-only model, and the language head learns nothing: its scores are chance."
)


def alpha_effects(results: Sequence[RunResult], scorer: Scorer) -> list[dict[str, Any]]:
    """Scores by alpha, as JSON values, of stored runs of one kind of split, on the same mels.

    Returns:
        An entry for each recipe and number of epochs with a run of another alpha than the recipe's own: name, epochs,
        seeds, folds, left_out (keys of runs whose cell or seed is not complete) and `models`, first those of one task,
        then by alpha: name, alpha (None: a model of one task) and `tasks`: task -> its scores as in Table 1, and in
        `to_default` the difference to the model of the recipe's own alpha.
    """
    return [
        {"name": group.recipe, **group.describe(), "models": _score_models(group, scorer)}
        for group in group_runs(results)
        if any(result.run.alpha is not None for cell in group.cells.values() for result in cell.values())
    ]


def _score_models(group: RunGroup, scorer: Scorer) -> list[dict[str, Any]]:
    cells = group.complete
    cell = next(iter(cells.values()), {})  # all cells have the same variants
    alphas = {variant: result.alpha for variant, result in cell.items()}
    models = []
    for variant in sorted(cell, key=lambda variant: (-1 if alphas[variant] is None else alphas[variant], variant)):
        alpha, tasks = alphas[variant], {}
        for task in cell[variant].run.model_tasks:
            scored = scorer.scored(cells, System(task, variant, (variant,)), "tracks")
            default, to_default = System(task, BOTH, (BOTH,)), None
            if variant not in (BOTH, task) and is_scorable(cells, default):
                to_default = difference(scored, scorer.scored(cells, default, "tracks"))[HEADLINE]
            tasks[task] = {**summary(scored), "to_default": to_default}
        name = f"{variant}-only" if alpha is None else f"{alpha:g}{' (default)' if variant == BOTH else ''}"
        models.append({"name": name, "alpha": alpha, "tasks": tasks})
    return models


def alpha_section(effects: Sequence[Mapping[str, Any]]) -> Section:
    """The result of `alpha_effects` as tables: a row a model."""
    columns = ["alpha", *(f"{task}: {column}" for task in TASKS for column in ("AUC-PR macro", "minus the default"))]
    tables = []
    for effect in effects:
        rows = [columns]
        for model in effect["models"]:
            row = [model["name"]]
            for task in TASKS:
                scores = model["tasks"].get(task)
                to_default = scores and scores["to_default"]
                row.append(score_cell(scores[HEADLINE], scores["ci"].get(HEADLINE)) if scores else "")
                row.append(difference_cell(to_default["difference"], to_default["ci"]) if to_default else "")
            rows.append(row)
        tables.append((group_title(effect), rows))
    return Section(notes=[ALPHA_NOTE, *left_out_notes(effects)], tables=tables)
