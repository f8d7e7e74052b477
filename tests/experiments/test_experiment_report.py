import re
from dataclasses import replace

from builders.experiments import make_results
from builders.html import assert_well_formed

from mtl_core.experiments.alpha_sweep import alpha_effects
from mtl_core.experiments.report import render_experiment
from mtl_core.experiments.scoring import Scorer
from mtl_core.experiments.table1 import build_table1


def results_with_history(*, epochs=0, alpha=None):
    results = make_results(gain=1.0, noise=2.0, seeds=(0,), recipe="<name>")
    if alpha is not None:
        results += make_results(noise=2.0, seeds=(0,), recipe="<name>", variants=("both",), alpha=alpha)
    history = [{"epoch": e, "train_loss": 1 / e, "validation_loss": None, "top1": {}} for e in range(1, epochs + 1)]
    return [replace(result, metrics={"history": history}) for result in results]


def render(results):
    table = build_table1(results, Scorer(20))
    return render_experiment({**table, "alphas": alpha_effects(results, Scorer(20))}, results)


def test_the_page_is_well_formed_and_loads_no_other_file():
    page = render(results_with_history(epochs=3, alpha=1.0))
    assert_well_formed(page)
    assert page.count("<svg") == 3  # differences, alpha, and the training of the three models of the default alpha
    assert "&lt;name&gt;, 2 epochs" in page
    assert page.count("<th>2 (default)</th>") == page.count("<th>1</th>") == 1
    assert not re.search(r"""(src|href|url)[=(]["']?(?!#)[a-z/]""", page.split("</style>")[1])
    assert "nan" not in page.lower()


def test_sections_without_content_are_left_out():
    page = render(results_with_history())
    assert page.count("<svg") == 1
    assert "The effect of alpha" not in page
    assert "<h2>Training</h2>" not in page
    one_model = [result for result in results_with_history() if result.run.tasks == "language"]
    assert render(one_model).count("<svg") == 0
