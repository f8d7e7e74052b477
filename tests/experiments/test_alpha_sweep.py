"""The effect of alpha out of runs whose truth is known."""

import json

from test_table1 import results

from mtl_core.experiments import alpha_sweep, table1


def models(found):
    (effect,) = alpha_sweep.alpha_effects(found, resamples=100)
    json.dumps(effect, allow_nan=False)
    return effect, {model["name"]: model["tasks"] for model in effect["models"]}


def of_alpha(alpha, **given):
    return results(variants=("both",), alpha=alpha, noise=2.0, **given)


def test_models_stand_in_the_order_of_alpha_and_differ_from_the_default_by_what_they_are_better():
    effect, found = models([*of_alpha(8.0, gain=2.5), *of_alpha(0.0), *results(noise=2.0)])
    assert list(found) == ["artist-only", "language-only", "0", "2 (default)", "8"]
    assert (effect["seeds"], effect["folds"], effect["left_out"]) == ([0, 1], [0, 1, 2, 3, 4], [])
    for task in ("artist", "language"):
        better, same = found["8"][task]["to_default"], found["0"][task]["to_default"]
        assert 0 < better["ci"][0] < better["difference"]
        assert same == {"difference": 0, "ci": [0, 0]}
        assert found["2 (default)"][task]["to_default"] is None
    assert list(found["artist-only"]) == ["artist"]
    assert len(alpha_sweep.table_rows(effect)) == 5


def test_all_are_compared_on_the_cells_that_have_all():
    effect, found = models([*results(noise=2.0), *of_alpha(1.0)[:7]])
    assert effect["seeds"] == [0]
    assert set(found["1"]["artist"]["n"]) == set(found["2 (default)"]["artist"]["n"]) == {20}
    assert len(effect["left_out"]) == 3 * 5 + 2
    assert "left out until its seed is complete: paper-" in alpha_sweep.format_alphas([effect])


def test_table_1_is_of_the_default_alone():
    plain = results(noise=2.0)
    assert table1.table([*of_alpha(0.5), *plain], resamples=10) == table1.table(plain, resamples=10)
    assert alpha_sweep.alpha_effects(plain, resamples=10) == []


def test_the_tables_name_every_model():
    effects = alpha_sweep.alpha_effects([*results(noise=2.0), *of_alpha(0.25)], resamples=10)
    for written in (alpha_sweep.format_alphas(effects), alpha_sweep.alpha_markdown(effects)):
        assert "paper: 2 epochs, 5 folds pooled, seeds 0 1" in written
        for name in ("artist-only", "0.25", "2 (default)"):
            assert name in written
