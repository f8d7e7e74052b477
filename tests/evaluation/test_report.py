import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread

from mtl_core.evaluation import metrics, plots, ranking, report
from mtl_core.evaluation.predictions import TaskPrediction, TrackPrediction

VOID = {"meta", "br", "path", "use", "rect", "image", "circle", "line", "img"}


def evaluation(n_tracks=12, classes=6, labels=None):
    labels = labels or [f"label {c}" for c in range(classes)]
    rng = np.random.default_rng(0)
    t = np.arange(n_tracks) % classes
    p = rng.dirichlet(np.ones(classes), n_tracks)
    scores = metrics.scores(p, t, resamples=20)
    found = {
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
        "tasks": {"artist": found},
    }
    tracks = [
        TrackPrediction(
            track_id=f"track {i}",
            n_segments=1,
            by_task={
                "artist": TaskPrediction(
                    true=labels[t[i]],
                    first=labels[p[i].argmax()],
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
    rng = np.random.default_rng(0)
    return {"artist": ranking.curves(rng.dirichlet(np.ones(classes), n_tracks), np.arange(n_tracks) % classes)}


MELS = {f"track {i}": np.random.default_rng(i).random((1000, 96)).astype(np.float16) for i in range(12)}


class _Balanced(HTMLParser):
    """Every element that opens closes, in order."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


HISTORY = [{"epoch": e, "train_loss": 2 / e, "validation_loss": 1 + (e - 3) ** 2} for e in range(1, 6)]


def test_page_is_whole_and_needs_nothing_else():
    page = report.render_report(*evaluation(), HISTORY, curves=curves(), mels=MELS)
    parser = _Balanced()
    parser.feed(page)
    assert parser.open == []
    assert page.count("<svg") == 6
    assert page.count("<img") == 8
    assert not re.search(r"""(src|href|url)[=(]["']?(?!#|data:image/png)[a-z/]""", page.split("</style>")[1])
    assert "<script" not in page


def test_every_colour_of_a_picture_comes_from_the_page():
    page = report.render_report(*evaluation(), HISTORY)
    pictures = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert "var(--ink)" in pictures
    assert not re.search(r"(fill|stroke): ?(#|black|white)", pictures)
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


def test_the_best_and_the_worst_tracks_are_others():
    _, tracks = evaluation()
    p_true = {track.track_id: track.by_task["artist"].true_probability for track in tracks}
    ordered = sorted(p_true, key=p_true.get)
    best, worst = ([track.track_id for track in picked] for picked in report.best_and_worst(tracks))
    assert (best, worst) == (ordered[::-1][:4], ordered[:4])
    best, worst = report.best_and_worst(tracks[:5])
    assert len(best) == 4 and len(worst) == 1 and worst[0] not in best
    stranger = TrackPrediction(track_id="s", n_segments=1, by_task={})
    assert report.best_and_worst([stranger]) == ([], [])


def test_of_very_many_classes_the_best_and_the_worst_curves_are_shown(monkeypatch):
    monkeypatch.setattr(report, "MAX_PANELS", 4)
    result, tracks = evaluation()
    page = report.render_report(result, tracks, curves=curves())
    assert "the 2 best and the 2 worst of 6" in page


def test_the_picture_of_a_mel_is_bounded_and_has_low_bands_below():
    mel_TF = np.zeros((5000, 96))
    mel_TF[:, 0] = 1
    picture = plots.mel_picture(mel_TF)
    pixels = imread(io.BytesIO(base64.b64decode(picture.partition(",")[2])))
    assert pixels.shape[:2] == (96, plots.PICTURE_FRAMES)
    assert pixels[-1].sum() > 2 * pixels[-2].sum()
    assert plots.mel_picture(mel_TF[:3]) != picture


def test_worst_track_comes_first_and_those_without_a_class_last():
    result, tracks = evaluation()
    stranger = TaskPrediction(true="nobody", first="label 1", confidence=0.9, true_probability=None, unknown=True)
    rows = report.render_report(
        result, [TrackPrediction(track_id="stranger", n_segments=1, by_task={"artist": stranger}), *tracks]
    )
    rows = rows[rows.index('class="tracks"') :]
    order = re.findall(r"<tr><td>(track \d+|stranger)</td>", rows)
    p_true = {track.track_id: track.by_task["artist"].true_probability for track in tracks}
    assert order[:-1] == sorted(p_true, key=p_true.get)
    assert order[-1] == "stranger"
    assert "label 1&nbsp;✗&nbsp;?" in rows


def test_page_without_scores_says_so():
    result, _ = evaluation()
    nothing = metrics.scores(np.empty((0, 6)), np.empty(0, int), resamples=20)
    result["tasks"]["artist"] |= {"tracks": nothing, "segments": nothing}
    unknown = TaskPrediction(true="nobody", first="label 1", confidence=0.9, true_probability=None, unknown=False)
    page = report.render_report(result, [TrackPrediction(track_id="t", n_segments=1, by_task={"artist": unknown})])
    assert "No track of this part has a label that the model knows" in page
    assert "nan" not in page.lower()
    assert "\N{EN DASH}" in report.format_report(result)


def test_text_has_the_figures():
    result, _ = evaluation()
    scores = result["tasks"]["artist"]["tracks"]
    text = report.format_report(result)
    assert f"{100 * scores['auc_pr_macro']:.1f}%" in text
    assert "6 of 6 classes" in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_same_evaluation_gives_the_same_bytes():
    assert report.render_report(*evaluation(), HISTORY) == report.render_report(*evaluation(), HISTORY)


def test_68_classes_are_labelled_each():
    names = [f"artist {c:02}" for c in range(68)]
    svg = plots.confusion("artist", names, np.eye(68, dtype=int) * 3)
    assert all(svg.count(f">{name}<") == 2 for name in names)
    assert svg.count(">3<") == 68


@pytest.mark.parametrize("history", [[{"epoch": 1, "train_loss": 1.0, "validation_loss": None}], HISTORY])
def test_training_curves_mark_the_best_validation(history):
    svg = plots.training_curves(history)
    assert ("best: epoch 3" in svg) == (history is HISTORY)
