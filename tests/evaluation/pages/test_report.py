import base64
import io
import re

import numpy as np
import pytest
from builders.html import assert_well_formed
from matplotlib.image import imread

from mtl_core.evaluation import metrics, ranking
from mtl_core.evaluation.pages import plots, report, task_section
from mtl_core.evaluation.pages.html_page import page
from mtl_core.evaluation.predictions import TaskPrediction, TrackPrediction


def evaluation(n_tracks=12, classes=6, labels=None):
    labels = labels or [f"label {c}" for c in range(classes)]
    rng = np.random.default_rng(0)
    t = np.arange(n_tracks) % classes
    p = rng.dirichlet(np.ones(classes), n_tracks)
    scores = metrics.scores(p, t, resamples=20)
    task_scores = {
        "heard": [{"segments": n, "auc_pr_macro": 0.5, "top_1": None, "ci": {}} for n in (1, 2)],
        "labels": labels,
        "order": labels,
        "tracks": scores,
        "segments": scores,
        "baselines": {"class prior": scores},
    }
    result = {
        "model_id": "0123456789abcdef",
        "mels": "/mels",
        "on": "test",
        "n_tracks": n_tracks,
        "n_segments": n_tracks,
        "facts": {"split": "paper"},
        "tasks": {"artist": task_scores},
    }
    tracks = [
        TrackPrediction(
            track_id=f"track {i}",
            n_segments=1,
            by_task={
                "artist": TaskPrediction(
                    true=labels[t[i]],
                    predicted=labels[p[i].argmax()],
                    confidence=float(p[i].max()),
                    true_probability=float(p[i, t[i]]),
                    unknown=False,
                )
            },
        )
        for i in range(n_tracks)
    ]
    return result, tracks


def curves(n_tracks=12, classes=6):
    p, t = np.random.default_rng(0).dirichlet(np.ones(classes), n_tracks), np.arange(n_tracks) % classes
    return {"artist": {c: ranking.curve(p[:, c], t == c) for c in range(classes)}}


MELS = {f"track {i}": np.random.default_rng(i).random((1000, 96)).astype(np.float16) for i in range(12)}


HISTORY = [{"epoch": e, "train_loss": 2 / e, "validation_loss": 1 + (e - 3) ** 2} for e in range(1, 6)]


def test_the_page_is_well_formed_and_loads_no_other_file():
    page = report.render_report(*evaluation(), HISTORY, curves=curves(), mels=MELS)
    assert_well_formed(page)
    assert page.count("<svg") == 6
    assert page.count("<img") == 8
    assert not re.search(r"""(src|href|url)[=(]["']?(?!#|data:image/png)[a-z/]""", page.split("</style>")[1])
    assert "<script" not in page


def test_every_colour_of_a_plot_is_a_variable_of_the_page():
    page = report.render_report(*evaluation(), HISTORY)
    elements = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert "var(--ink)" in elements
    assert not re.search(r"(fill|stroke): ?(#|black|white)", elements)
    for variable in set(re.findall(r"var\(--(\w+)\)", page)) - {"task"}:
        assert page.count(f"--{variable}: #") >= 1


def test_labels_cannot_break_the_page():
    labels = ["<script>alert(1)</script>", "A$AP $ & co", "周杰伦", "TITLE", "BODY", 'quote"d']
    result, tracks = evaluation(labels=labels)
    page = report.render_report(result, tracks, curves=curves(), mels=MELS)
    assert "<script" not in page
    assert "A$AP $ &amp; co" in page
    assert "周杰伦" in page
    assert page.count("<svg") == 5


def test_a_title_cannot_take_the_place_of_the_body():
    text = page("BODY & TITLE", "<p>TITLE BODY</p>")
    assert "<title>BODY &amp; TITLE</title>" in text and text.count("<p>TITLE BODY</p>") == 1


def test_the_best_and_the_worst_tracks_are_different_tracks():
    _, tracks = evaluation()
    true_probability = {track.track_id: track.by_task["artist"].true_probability for track in tracks}
    ordered = sorted(true_probability, key=true_probability.get)
    best, worst = ([track.track_id for track in selected] for selected in report.best_and_worst(tracks))
    assert (best, worst) == (ordered[::-1][:4], ordered[:4])
    best, worst = report.best_and_worst(tracks[:5])
    assert len(best) == 4 and len(worst) == 1 and worst[0] not in best
    stranger = TrackPrediction(track_id="s", n_segments=1, by_task={})
    assert report.best_and_worst([stranger]) == ([], [])


def test_with_many_classes_the_page_stays_small_and_says_what_it_shows():
    result, tracks = evaluation(n_tracks=3000, classes=1500)
    scores = result["tasks"]["artist"]
    classes, sentence = task_section.shown_classes(
        dict(enumerate(scores["tracks"]["per_class"]["auc_pr"])), scores["labels"]
    )
    assert len(classes) == task_section.MAX_CLASSES and "the 40 best and the 40 worst of 1,500" in sentence
    page = report.render_report(result, tracks)
    assert "the 40 best and the 40 worst of 1,500" in page
    assert "the 40 most frequent of" in page
    assert len(page) < 2e6


def test_every_plot_has_a_title():
    page = report.render_report(*evaluation(), HISTORY, curves=curves(), mels=MELS)
    titles = re.findall(r"<figure class=\"[a-z]*\"><h3>([^<]+)</h3><svg", page)
    assert len(titles) == page.count("<svg")
    assert "The validation loss is lowest in epoch 3 of 5" in titles


def test_the_picture_of_a_mel_has_a_maximum_width_and_low_bands_at_the_bottom():
    mel_TF = np.zeros((5000, 96))
    mel_TF[:, 0] = 1
    picture = plots.mel_png(mel_TF)
    pixels = imread(io.BytesIO(base64.b64decode(picture.partition(",")[2])))
    assert pixels.shape[:2] == (96, plots.MAX_PICTURE_WIDTH)
    assert pixels[-1].sum() > 2 * pixels[-2].sum()
    assert plots.mel_png(mel_TF[:3]) != picture


def test_the_worst_track_comes_first_and_tracks_without_a_class_last():
    result, tracks = evaluation()
    stranger = TaskPrediction(true="nobody", predicted="label 1", confidence=0.9, true_probability=None, unknown=True)
    rows = report.render_report(
        result, [TrackPrediction(track_id="stranger", n_segments=1, by_task={"artist": stranger}), *tracks]
    )
    rows = rows[rows.index('class="tracks"') :]
    order = re.findall(r"<tr><td>(track \d+|stranger)</td>", rows)
    true_probability = {track.track_id: track.by_task["artist"].true_probability for track in tracks}
    assert order[:-1] == sorted(true_probability, key=true_probability.get)
    assert order[-1] == "stranger"
    assert "label 1&nbsp;✗&nbsp;?" in rows


def test_a_page_without_labelled_tracks_says_so():
    result, _ = evaluation()
    empty = metrics.scores(np.empty((0, 6)), np.empty(0, int), resamples=20)
    result["tasks"]["artist"] |= {"tracks": empty, "segments": empty}
    unknown = TaskPrediction(true="nobody", predicted="label 1", confidence=0.9, true_probability=None, unknown=False)
    page = report.render_report(result, [TrackPrediction(track_id="t", n_segments=1, by_task={"artist": unknown})])
    assert "No evaluated track has a label that is a class" in page
    assert "nan" not in page.lower()
    assert "\N{EN DASH}" in report.format_report(result)


def test_the_text_has_the_scores():
    result, _ = evaluation()
    scores = result["tasks"]["artist"]["tracks"]
    text = report.format_report(result)
    assert f"{100 * scores['auc_pr_macro']:.1f}%" in text
    assert "6 of 6 classes" in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_same_evaluation_gives_the_same_bytes():
    assert report.render_report(*evaluation(), HISTORY) == report.render_report(*evaluation(), HISTORY)


def test_each_of_68_classes_is_labelled_on_both_axes():
    names = [f"artist {c:02}" for c in range(68)]
    svg = plots.plot_confusion("artist", names, np.eye(68, dtype=int) * 3)
    assert all(svg.count(f">{name}<") == 2 for name in names)
    assert svg.count(">3<") == 68


@pytest.mark.parametrize("history", [[{"epoch": 1, "train_loss": 1.0, "validation_loss": None}], HISTORY])
def test_the_training_plot_marks_the_lowest_validation_loss(history):
    svg = plots.plot_training(history)
    assert ("best: epoch 3" in svg) == (history is HISTORY)
