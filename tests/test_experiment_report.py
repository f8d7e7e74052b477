import re
from dataclasses import replace

from test_comparison import results
from test_report import _Balanced

from mtl_core import comparison, experiment_report


def made(*, epochs=0, alpha=None):
    found = results(gain=1.0, noise=2.0, seeds=(0,))
    if alpha is not None:
        others = results(noise=2.0, seeds=(0,), recipe="alpha <1>", variants=("both",))
        found += [replace(x, recipe={**x.recipe, "alpha": alpha}) for x in others]
    history = [{"epoch": e, "train_loss": 1 / e, "validation_loss": None, "top1": {}} for e in range(1, epochs + 1)]
    return [replace(x, metrics={"history": history}) for x in found]


def page(found):
    return experiment_report.html(comparison.table(found, resamples=20), found)


def test_the_page_is_whole_and_needs_nothing_else():
    shown = page(made(epochs=3, alpha=1.0))
    parser = _Balanced()
    parser.feed(shown)
    assert parser.open == []
    assert shown.count("<svg") == 4  # gains, alpha, the training of two recipes
    assert "alpha &lt;1&gt;" in shown
    assert not re.search(r"""(src|href|url)[=(]["']?(?!#)[a-z/]""", shown.split("</style>")[1])
    assert "nan" not in shown.lower()


def test_what_is_not_there_is_not_drawn():
    shown = page(made())
    assert shown.count("<svg") == 2
    assert "<h2>Training</h2>" not in shown
    alone = [x for x in made() if x.run.tasks == "language"]
    assert page(alone).count("<svg") == 0
