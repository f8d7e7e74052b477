"""Table 1 of runs whose truth is known: better by construction, the same, or chance."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from test_run_store import SONGS, result, run

from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.evaluation import metrics
from mtl_core.experiments import table1 as comparison
from mtl_core.experiments import table1_text
from mtl_core.experiments.pooling import MULTI, SYSTEMS, VIA_ARTIST, pool
from mtl_core.experiments.table1 import table

MULTI_ARTIST = next(system for system in SYSTEMS if (system.task, system.name) == ("artist", MULTI))


def results(
    *, seeds=(0, 1), gain=0.0, noise=1.0, recipe="paper", variants=("artist", "language", "both"), draw=0, alpha=None
):
    """Every fold of every seed; the multi-task model's logits of the truth are `gain` higher."""
    return [
        result(
            run(tasks, fold=fold, seed=seed, name=recipe, alpha=alpha),
            skill=1 + gain * (tasks == "both"),
            noise=noise,
            draw=draw,
        )
        for seed in seeds
        for fold in range(SONGS)
        for tasks in variants
    ]


def cells(found):
    of = {}
    for x in found:
        of.setdefault((x.run.seed, x.run.fold), {})[x.run.tasks] = x
    return of


def difference(made, task="artist", minus="artist-only", level="tracks", name="auc_pr_macro"):
    (row,) = (row for row in made["groups"][0]["differences"] if (row["task"], row["minus"]) == (task, minus))
    return row[level][name]


def test_a_better_model_has_a_gain_whose_interval_is_above_0():
    made = table(results(gain=2.5, noise=2.0), resamples=300)
    for level in comparison.LEVELS:
        gain = difference(made, level=level)
        assert gain["difference"] > 0.05
        assert 0 < gain["ci"][0] < gain["difference"] < gain["ci"][1]
    json.dumps(made, allow_nan=False)


def test_identical_models_gain_exactly_nothing():
    made = table(results(), resamples=50)
    for task in ("artist", "language"):
        for level in comparison.LEVELS:
            for name in metrics.HEADLINES:
                gain = difference(made, task, f"{task}-only", level, name)
                assert (gain["difference"], gain["ci"]) == (0, [0, 0])


def test_models_without_skill_gain_nothing_that_is_sure():
    a, b = results(variants=("artist",), draw=1), results(variants=("both",), draw=2)
    made = table([result(x.run, skill=0, draw=draw) for x, draw in [*((x, 1) for x in a), *((x, 2) for x in b)]])
    gain = difference(made)
    assert gain["ci"][0] < 0 < gain["ci"][1]


def test_a_score_is_the_mean_over_seeds_of_the_pooled_folds():
    made = table(results(noise=2.0), resamples=0)
    row = next(r for r in made["groups"][0]["systems"] if (r["task"], r["system"]) == ("artist", MULTI))["tracks"]
    by_hand = [
        metrics.scores(samples.p_NC, samples.t_N, resamples=0)["auc_pr_macro"]
        for samples in pool(cells(results(noise=2.0)), MULTI_ARTIST, "tracks")
    ]
    assert row["by_seed"]["auc_pr_macro"] == pytest.approx(by_hand)
    assert row["auc_pr_macro"] == pytest.approx(np.mean(by_hand))
    assert by_hand[0] != by_hand[1]
    assert row["ci"]["auc_pr_macro"] is None
    assert (row["n"], row["classes"], row["classes_covered"]) == ([20, 20], 4, [4, 4])


def test_the_prior_is_chance_and_the_artist_tells_the_language():
    made = table(results(noise=0.01), resamples=0)
    rows = {(row["task"], row["system"]): row["tracks"] for row in made["groups"][0]["systems"]}
    assert rows["artist", "class prior"]["auc_roc_macro"] == 0.5
    assert rows["language", VIA_ARTIST]["top_1"] == 1
    assert rows["language", "class prior"]["top_1"] == 0.5
    gain = difference(made, "language", VIA_ARTIST)
    assert gain["difference"] == 0


def test_an_unfinished_seed_waits_and_a_single_model_is_no_comparison():
    found = results(seeds=(0,)) + results(seeds=(1,))[:-1]
    made = table(found, resamples=0)["groups"][0]
    assert (made["seeds"], made["folds"]) == ([0], list(range(SONGS)))
    assert len(made["left_out"]) == len(found) - 15
    alone = table(results(variants=("both",)), resamples=0)["groups"][0]
    assert {row["system"] for row in alone["systems"]} == {MULTI, "class prior"}
    assert alone["differences"] == []


def test_another_recipe_is_compared_with_paper_on_the_cells_of_both():
    better = results(gain=2.5, noise=2.0, recipe="best", seeds=(1,), variants=("both",))
    made = table([*better, *results(noise=2.0)], resamples=300)
    assert [group["name"] for group in made["groups"]] == ["paper", "best"]
    assert [(row["task"], row["of"], row["minus"], row["seeds"]) for row in made["against_paper"]] == [
        ("artist", "best", "paper", [1]),
        ("language", "best", "paper", [1]),
    ]
    gain = made["against_paper"][0]["tracks"]["auc_pr_macro"]
    assert gain["ci"][0] > 0
    assert made["groups"][0]["alpha"] == 2


def test_recipes_of_one_task_are_compared_too():
    better = results(gain=0, noise=0.1, recipe="best", variants=("language",))
    (row,) = table([*better, *results(noise=2.0, variants=("language",))], resamples=100)["against_paper"]
    assert (row["task"], row["system"], row["of"]) == ("language", "language-only", "best")
    assert row["tracks"]["auc_pr_macro"]["ci"][0] > 0


def test_versions_of_one_song_are_drawn_together():
    """Here two of each fold are: the scores are the same, the intervals are not."""
    found = results(noise=2.0, seeds=(0,))
    songs = {
        track_id: f"{track_id[0]}{track_id[-1]}" for x in found for track_id in x.heard.tracks["track_id"].to_pylist()
    }
    alone, together = (
        next(r for r in table(found, resamples=300, songs=given)["groups"][0]["systems"] if r["task"] == "artist")
        for given in (None, songs)
    )
    assert alone["tracks"]["auc_pr_macro"] == together["tracks"]["auc_pr_macro"]
    assert alone["tracks"]["ci"] != together["tracks"]["ci"]


def test_one_class_has_scores_where_they_are_defined():
    """A catalogue of one language: every answer is right, no order can be wrong."""
    found = []
    for x in results(seeds=(0,)):
        only = Vocabulary(("a",))
        logits = {task: of if task == "artist" else [z[:, :1] for z in of] for task, of in x.heard.logits.items()}
        tracks = x.heard.tracks.set_column(2, "language", [["a"] * 4])
        vocabularies = {task: v if task == "artist" else only for task, v in x.heard.vocabularies.items()}
        heard = replace(x.heard, tracks=tracks, logits=logits, vocabularies=vocabularies)
        priors = {task: of if task == "artist" else [1.0] for task, of in x.priors.items()}
        found.append(replace(x, heard=heard, priors=priors, language_of=dict.fromkeys(x.language_of, "a")))
    made = table(found, resamples=20)
    row = next(r for r in made["groups"][0]["systems"] if (r["task"], r["system"]) == ("language", MULTI))["tracks"]
    assert (row["top_1"], row["auc_pr_macro"], row["auc_roc_macro"]) == (1, 1, None)
    assert difference(made, "language", "language-only", name="auc_roc_macro") == {"difference": None, "ci": None}
    json.dumps(made, allow_nan=False)
    assert "language: multi-task" in table1_text.format_table1(made)


def test_a_catalogue_without_artists_has_the_rows_of_language_alone():
    found = []
    for x in results(seeds=(0,), variants=("language",)):
        tracks = x.heard.tracks.set_column(1, "artist", pa.array([None] * 4, pa.string()))
        found.append(replace(x, heard=replace(x.heard, tracks=tracks), language_of={}))
    made = table(found, resamples=0)["groups"][0]
    assert [(row["task"], row["system"]) for row in made["systems"]] == [
        ("language", "language-only"),
        ("language", "class prior"),
    ]


def test_a_label_that_training_never_saw_is_left_out():
    found = results(seeds=(0,))
    strange = [
        replace(x, heard=replace(x.heard, tracks=x.heard.tracks.set_column(1, "artist", [["new", "a1", "b0", "b1"]])))
        for x in found
    ]
    row = table(strange, resamples=0)["groups"][0]["systems"][0]["tracks"]
    assert (row["n"], row["classes"], row["classes_covered"]) == ([3 * SONGS], 4, [3])
