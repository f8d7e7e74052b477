import pytest
from test_table1 import results

from mtl_core.experiments import table1 as comparison
from mtl_core.experiments import table1_text


@pytest.fixture(scope="module")
def made():
    better = results(gain=2.5, noise=2.0, recipe="best", seeds=(1,), variants=("both",))
    return comparison.table([*better, *results(noise=2.0)[:-1]], resamples=20)


@pytest.mark.parametrize("written", [table1_text.format_table1, table1_text.table1_markdown])
def test_the_table_names_its_systems_scores_and_gains(made, written):
    shown = written(made)
    for said in ("artist: artist-only", "language: via artist-only", "artist: class prior"):
        assert shown.count(said) >= 2
    row = made["groups"][0]["systems"][0]["tracks"]
    assert f"{100 * row['auc_pr_macro']:.1f} [" in shown
    gain = made["against_paper"][0]["tracks"]["auc_pr_macro"]
    assert f"{100 * gain['difference']:+.1f} [" in shown
    assert "4 of 4" in shown
    assert "paper: 2 epochs, alpha 2, 5 folds pooled, seed 0" in shown


@pytest.mark.parametrize("written", [table1_text.format_table1, table1_text.table1_markdown])
def test_the_sources_own_figures_are_there_and_said_to_be_no_results(made, written):
    shown = written(made)
    for figure in ("39.78", "70.45", "47.26", "74.88", "48.47", "76.00"):
        assert figure in shown
    assert "never a figure of this project" in shown


def test_the_terminal_is_told_what_waits(made):
    assert "left out of paper until its seed is complete" in table1_text.format_table1(made)
