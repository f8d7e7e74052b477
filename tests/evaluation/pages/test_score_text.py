from mtl_core.evaluation.pages.score_text import NO_VALUE, difference_cell, interval, percent, score_cell


def test_shares_are_shown_as_percent_with_one_decimal():
    assert percent(0.4125) == "41.2%"
    assert interval([0.38, 0.4494]) == "[38.0, 44.9]"
    assert score_cell(0.413, [0.38, 0.449]) == "41.3 [38.0, 44.9]"
    assert score_cell(0.413) == "41.3"


def test_differences_have_signs():
    assert difference_cell(0.014, [-0.002, 0.031]) == "+1.4 [-0.2, +3.1]"
    assert difference_cell(-0.014, None) == "-1.4"


def test_a_missing_value_is_a_dash_and_a_missing_interval_is_empty():
    assert percent(None) == score_cell(None) == difference_cell(None, None) == NO_VALUE
    assert interval(None) == ""
