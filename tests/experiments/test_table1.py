"""Table 1 of runs of known skill: better by construction, identical, or chance."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from builders.experiments import SONGS, make_result, make_results

from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.evaluation import metrics
from mtl_core.evaluation.bootstrap import HEADLINES
from mtl_core.experiments.pooling import MULTI, SYSTEMS, VIA_ARTIST, group_runs, pool
from mtl_core.experiments.scoring import SCORED_LEVELS, Scorer
from mtl_core.experiments.table1 import build_table1
from mtl_core.experiments.table1_text import table1_sections
from mtl_core.experiments.text_tables import to_text

MULTI_ARTIST = next(system for system in SYSTEMS if (system.task, system.name) == ("artist", MULTI))


def difference(table, task="artist", minus="artist-only", level="tracks", name="auc_pr_macro"):
    (row,) = (row for row in table["groups"][0]["differences"] if (row["task"], row["minus"]) == (task, minus))
    return row[level][name]


def system_row(table, task, system, level="tracks"):
    (row,) = (row for row in table["groups"][0]["systems"] if (row["task"], row["system"]) == (task, system))
    return row[level]


def replace_predictions(result, **fields):
    return replace(result, predictions=replace(result.predictions, **fields))


def test_a_better_model_has_a_difference_whose_interval_is_above_0():
    table = build_table1(make_results(gain=2.5, noise=2.0), Scorer(300))
    for level in SCORED_LEVELS:
        gain = difference(table, level=level)
        assert gain["difference"] > 0.05
        assert 0 < gain["ci"][0] < gain["difference"] < gain["ci"][1]
    json.dumps(table, allow_nan=False)


def test_identical_models_have_a_difference_of_exactly_0():
    table = build_table1(make_results(), Scorer(50))
    for task in ("artist", "language"):
        for level in SCORED_LEVELS:
            for name in HEADLINES:
                gain = difference(table, task, f"{task}-only", level, name)
                assert (gain["difference"], gain["ci"]) == (0, [0, 0])


def test_models_without_skill_have_a_difference_whose_interval_contains_0():
    draws = {"artist": 1, "both": 2}
    runs = [result.run for result in make_results(variants=("artist", "both"))]
    table = build_table1([make_result(run, skill=0, draw=draws[run.tasks]) for run in runs], Scorer())
    gain = difference(table)
    assert gain["ci"][0] < 0 < gain["ci"][1]


def test_a_score_is_the_mean_over_seeds_of_the_pooled_folds():
    results = make_results(noise=2.0)
    row = system_row(build_table1(results, Scorer(0)), "artist", MULTI)
    (group,) = group_runs(results)
    by_hand = [
        metrics.scores(samples.p_NC, samples.t_N, resamples=0)["auc_pr_macro"]
        for samples in pool(group.complete, MULTI_ARTIST, "tracks")
    ]
    assert row["by_seed"]["auc_pr_macro"] == pytest.approx(by_hand)
    assert row["auc_pr_macro"] == pytest.approx(np.mean(by_hand))
    assert by_hand[0] != by_hand[1]
    assert row["ci"]["auc_pr_macro"] is None
    assert (row["n"], row["classes"], row["classes_covered"]) == ([20, 20], 4, [4, 4])


def test_the_prior_scores_chance_and_the_artist_determines_the_language():
    table = build_table1(make_results(noise=0.01), Scorer(0))
    rows = {(row["task"], row["system"]): row["tracks"] for row in table["groups"][0]["systems"]}
    assert rows["artist", "class prior"]["auc_roc_macro"] == 0.5
    assert rows["language", VIA_ARTIST]["top_1"] == 1
    assert rows["language", "class prior"]["top_1"] == 0.5
    gain = difference(table, "language", VIA_ARTIST)
    assert gain["difference"] == 0


def test_an_incomplete_seed_is_left_out_and_a_single_model_has_no_differences():
    results = make_results(seeds=(0,)) + make_results(seeds=(1,))[:-1]
    group = build_table1(results, Scorer(0))["groups"][0]
    assert (group["seeds"], group["folds"]) == ([0], list(range(SONGS)))
    assert len(group["left_out"]) == len(results) - 15
    multi_only = build_table1(make_results(variants=("both",)), Scorer(0))["groups"][0]
    assert {row["system"] for row in multi_only["systems"]} == {MULTI, "class prior"}
    assert multi_only["differences"] == []


def test_another_recipe_is_compared_with_paper_on_their_common_cells():
    better = make_results(gain=2.5, noise=2.0, recipe="best", seeds=(1,), variants=("both",))
    table = build_table1([*better, *make_results(noise=2.0)], Scorer(300))
    assert [group["name"] for group in table["groups"]] == ["paper", "best"]
    assert [(row["task"], row["of"], row["minus"], row["seeds"]) for row in table["against"]["paper"]] == [
        ("artist", "best", "paper", [1]),
        ("language", "best", "paper", [1]),
    ]
    gain = table["against"]["paper"][0]["tracks"]["auc_pr_macro"]
    assert gain["ci"][0] > 0
    assert table["groups"][0]["alpha"] == 2


def test_every_recipe_is_compared_with_the_linear_baseline():
    linear = make_results(noise=3.0, recipe="linear", variants=("both",))
    table = build_table1([*make_results(recipe="best", noise=0.1), *make_results(), *linear], Scorer(100))
    assert [group["name"] for group in table["groups"]] == ["linear", "paper", "best"]
    assert [row["system"] for row in table["groups"][0]["systems"]] == ["linear", "linear"]
    assert table["groups"][0]["alpha"] is None
    assert [(row["task"], row["of"], row["minus"]) for row in table["against"]["linear"]] == [
        (task, recipe, "linear") for recipe in ("paper", "best") for task in ("artist", "language")
    ]
    assert table["against"]["linear"][2]["tracks"]["auc_pr_macro"]["ci"][0] > 0


def test_models_of_one_task_are_compared_if_there_are_no_multi_task_models():
    better = make_results(gain=0, noise=0.1, recipe="best", variants=("language",))
    (row,) = build_table1([*better, *make_results(noise=2.0, variants=("language",))], Scorer(100))["against"]["paper"]
    assert (row["task"], row["system"], row["of"]) == ("language", "language-only", "best")
    assert row["tracks"]["auc_pr_macro"]["ci"][0] > 0


def test_versions_of_one_song_are_drawn_together():
    """With songs of several tracks the scores stay the same, but the intervals change."""
    results = make_results(noise=2.0, seeds=(0,))
    track_ids = [track_id for result in results for track_id in result.predictions.tracks["track_id"].to_pylist()]
    songs = {track_id: f"{track_id[0]}{track_id[-1]}" for track_id in track_ids}  # tracks a0/3 and a1/3 are song a3
    separate, together = (
        system_row(build_table1(results, Scorer(300, songs=song_of)), "artist", "artist-only")
        for song_of in (None, songs)
    )
    assert separate["auc_pr_macro"] == together["auc_pr_macro"]
    assert separate["ci"] != together["ci"]


def test_one_class_has_scores_where_they_are_defined():
    """In a catalogue of one language every prediction is right, and AUC-ROC is not defined."""
    results = []
    for result in make_results(seeds=(0,)):
        tracks = result.predictions.tracks.set_column(2, "language", [["a"] * 4])
        logits, vocabularies = dict(result.predictions.logits), dict(result.predictions.vocabularies)
        if "language" in logits:
            logits["language"] = [logits_SC[:, :1] for logits_SC in logits["language"]]
            vocabularies["language"] = Vocabulary(("a",))
        result = replace_predictions(result, tracks=tracks, logits=logits, vocabularies=vocabularies)
        priors = {task: prior_C if task == "artist" else [1.0] for task, prior_C in result.priors.items()}
        results.append(replace(result, priors=priors, language_of=dict.fromkeys(result.language_of, "a")))
    table = build_table1(results, Scorer(20))
    row = system_row(table, "language", MULTI)
    assert (row["top_1"], row["auc_pr_macro"], row["auc_roc_macro"]) == (1, 1, None)
    assert difference(table, "language", "language-only", name="auc_roc_macro") == {"difference": None, "ci": None}
    json.dumps(table, allow_nan=False)
    assert "language: multi-task" in to_text("", table1_sections(table))


def test_a_catalogue_without_artists_has_only_the_rows_of_language():
    results = []
    for result in make_results(seeds=(0,), variants=("language",)):
        tracks = result.predictions.tracks.set_column(1, "artist", pa.array([None] * 4, pa.string()))
        results.append(replace(replace_predictions(result, tracks=tracks), language_of={}))
    group = build_table1(results, Scorer(0))["groups"][0]
    assert [(row["task"], row["system"]) for row in group["systems"]] == [
        ("language", "language-only"),
        ("language", "class prior"),
    ]


def test_a_label_that_is_not_among_the_training_tracks_is_left_out():
    results = [
        replace_predictions(
            result, tracks=result.predictions.tracks.set_column(1, "artist", [["new", "a1", "b0", "b1"]])
        )
        for result in make_results(seeds=(0,))
    ]
    row = system_row(build_table1(results, Scorer(0)), "artist", "artist-only")
    assert (row["n"], row["classes"], row["classes_covered"]) == ([3 * SONGS], 4, [3])
