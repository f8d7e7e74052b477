"""The effect of alpha on runs of known skill."""

import json

from builders.experiments import make_results

from mtl_core.experiments.alpha_sweep import alpha_effects, alpha_section
from mtl_core.experiments.scoring import Scorer
from mtl_core.experiments.table1 import build_table1
from mtl_core.experiments.text_tables import to_markdown, to_text


def effect_and_models(results):
    (effect,) = alpha_effects(results, Scorer(100))
    json.dumps(effect, allow_nan=False)
    return effect, {model["name"]: model["tasks"] for model in effect["models"]}


def multi_task_results(alpha, **options):
    return make_results(variants=("both",), alpha=alpha, noise=2.0, **options)


def test_models_are_in_the_order_of_alpha_with_their_difference_to_the_default():
    results = [*multi_task_results(8.0, gain=2.5), *multi_task_results(0.0), *make_results(noise=2.0)]
    effect, models = effect_and_models(results)
    assert list(models) == ["artist-only", "language-only", "0", "2 (default)", "8"]
    assert (effect["seeds"], effect["folds"], effect["left_out"]) == ([0, 1], [0, 1, 2, 3, 4], [])
    for task in ("artist", "language"):
        better, same = models["8"][task]["to_default"], models["0"][task]["to_default"]
        assert 0 < better["ci"][0] < better["difference"]
        assert same == {"difference": 0, "ci": [0, 0]}
        assert models["2 (default)"][task]["to_default"] is None
    assert list(models["artist-only"]) == ["artist"]


def test_models_are_compared_on_the_cells_that_have_all_of_them():
    effect, models = effect_and_models([*make_results(noise=2.0), *multi_task_results(1.0)[:7]])
    assert effect["seeds"] == [0]
    assert set(models["1"]["artist"]["n"]) == set(models["2 (default)"]["artist"]["n"]) == {20}
    assert len(effect["left_out"]) == 3 * 5 + 2
    assert "left out of paper until its seed is complete: paper-" in to_text("", [alpha_section([effect])])


def test_table_1_has_only_the_default_alpha():
    default = make_results(noise=2.0)
    assert build_table1([*multi_task_results(0.5), *default], Scorer(10)) == build_table1(default, Scorer(10))
    assert alpha_effects(default, Scorer(10)) == []


def test_the_tables_name_every_model():
    section = alpha_section(alpha_effects([*make_results(noise=2.0), *multi_task_results(0.25)], Scorer(10)))
    ((_, rows),) = section.tables
    assert [row[0] for row in rows] == ["alpha", "artist-only", "language-only", "0.25", "2 (default)"]
    for text in (to_text("", [section]), to_markdown("", [section])):
        assert "paper: 2 epochs, 5 folds pooled, seeds 0 1" in text
