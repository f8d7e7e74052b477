import re
from dataclasses import replace

from test_report import _Balanced
from test_table1 import results

from mtl_core.experiments import alpha_sweep, report, table1


def made(*, epochs=0, alpha=None):
    found = results(gain=1.0, noise=2.0, seeds=(0,), recipe="<one>")
    if alpha is not None:
        found += results(noise=2.0, seeds=(0,), recipe="<one>", variants=("both",), alpha=alpha)
    history = [{"epoch": e, "train_loss": 1 / e, "validation_loss": None, "top1": {}} for e in range(1, epochs + 1)]
    return [replace(x, metrics={"history": history}) for x in found]


def page(found):
    table = table1.table(found, resamples=20)
    return report.render_experiment({**table, "alphas": alpha_sweep.alpha_effects(found, resamples=20)}, found)


def test_the_page_is_whole_and_needs_nothing_else():
    shown = page(made(epochs=3, alpha=1.0))
    parser = _Balanced()
    parser.feed(shown)
    assert parser.open == []
    assert shown.count("<svg") == 3  # gains, alpha, the training of the three models of the default alpha
    assert "&lt;one&gt;, 2 epochs" in shown
    assert shown.count("<th>2 (default)</th>") == shown.count("<th>1</th>") == 1
    assert not re.search(r"""(src|href|url)[=(]["']?(?!#)[a-z/]""", shown.split("</style>")[1])
    assert "nan" not in shown.lower()


def test_what_is_not_there_is_not_drawn():
    shown = page(made())
    assert shown.count("<svg") == 1
    assert "The effect of alpha" not in shown
    assert "<h2>Training</h2>" not in shown
    alone = [x for x in made() if x.run.tasks == "language"]
    assert page(alone).count("<svg") == 0
