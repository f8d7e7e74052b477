import pytest
from builders.experiments import make_results

from mtl_core.experiments.scoring import Scorer
from mtl_core.experiments.table1 import build_table1
from mtl_core.experiments.table1_text import table1_sections, table1_title
from mtl_core.experiments.text_tables import to_markdown, to_text


@pytest.fixture(scope="module")
def table():
    better = make_results(gain=2.5, noise=2.0, recipe="best", seeds=(1,), variants=("both",))
    return build_table1([*better, *make_results(noise=2.0)[:-1]], Scorer(20))


@pytest.fixture(params=[to_text, to_markdown])
def text(request, table):
    return request.param(table1_title(table), table1_sections(table))


def test_the_table_has_systems_scores_and_differences(table, text):
    for name in ("artist: artist-only", "language: via artist-only", "artist: class prior"):
        assert text.count(name) >= 2
    scores = table["groups"][0]["systems"][0]["tracks"]
    assert f"{100 * scores['auc_pr_macro']:.1f} [" in text
    headline = table["against"]["paper"][0]["tracks"]["auc_pr_macro"]
    assert f"{100 * headline['difference']:+.1f} [" in text
    assert "4 of 4" in text
    assert "paper: 2 epochs, alpha 2, 5 folds pooled, seed 0" in text


def test_the_source_s_own_figures_are_there_and_are_not_called_results(text):
    for figure in ("39.78", "70.45", "47.26", "74.88", "48.47", "76.00"):
        assert figure in text
    assert "never a figure of this project" in text


def test_runs_that_are_left_out_are_named(text):
    assert "left out of paper until its seed is complete: paper-" in text
