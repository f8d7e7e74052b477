from mtl_core.experiments.text_tables import Section, group_title, left_out_notes, to_markdown, to_text

SECTIONS = [
    Section(notes=["A note."]),
    Section(heading="On tracks", tables=[("title", [["", "top-1"], ["artist", "1.0"]]), ("", [["x"], ["long"]])]),
]


def test_text_has_aligned_columns():
    assert to_text("T", SECTIONS) == "T\n\nA note.\n\nOn tracks\n\ntitle\n        top-1\nartist  1.0\n\nx\nlong"


def test_markdown_has_headings_and_tables():
    assert to_markdown("T", SECTIONS) == (
        "# T\n\nA note.\n\n## On tracks\n\n**title**\n\n|  | top-1 |\n| --- | ---: |\n| artist | 1.0 |\n\n"
        "| x |\n| --- |\n| long |\n"
    )


def test_the_title_of_a_group_names_only_what_is_special():
    group = {"name": "paper", "epochs": 2, "alpha": 2.0, "folds": [0, 1], "seeds": [0, 3], "left_out": ["k1", "k2"]}
    assert group_title(group) == "paper: 2 epochs, alpha 2, 2 folds pooled, seeds 0 3"
    assert group_title(group | {"alpha": None, "folds": [3], "seeds": [0]}) == "paper: 2 epochs, fold 3, seed 0"
    assert group_title(group | {"folds": [0]}) == "paper: 2 epochs, alpha 2, seeds 0 3"
    assert left_out_notes([group]) == ["left out of paper until its seed is complete: k1, k2"]
