"""A stored run is loaded as it was saved, and is checked against the mels and the recipe."""

import json
from dataclasses import replace

import numpy as np
import pytest
from builders.experiments import make_result, make_run

from mtl_core.errors import InputError
from mtl_core.experiments.run_store import (
    LOGITS_FILE,
    RUN_FILE,
    RUNS_PATH,
    VARIANTS,
    check_same,
    load_run,
    save_run,
    stored_runs,
)
from mtl_core.storage.location import Location


def is_same(a, b):
    if replace(a, predictions=None) != replace(b, predictions=None):
        return False
    a, b = a.predictions, b.predictions
    return (
        a.tracks.equals(b.tracks)
        and a.aggregation == b.aggregation
        and a.vocabularies == b.vocabularies
        and all(np.array_equal(x, y) for task in a.logits for x, y in zip(a.logits[task], b.logits[task], strict=True))
    )


@pytest.mark.parametrize("tasks", VARIANTS)
def test_a_run_is_loaded_as_it_was_saved(root, tasks):
    out, result = Location(root), make_result(make_run(tasks))
    save_run(result, out)
    assert stored_runs(out) == [result.run.key]
    assert is_same(load_run(result.run.key, out), result)


def test_a_run_without_its_last_file_is_not_stored(tmp_path):
    out = Location(str(tmp_path))
    save_run(make_result(), out)
    (out / RUNS_PATH / make_run().key / RUN_FILE).delete()
    assert stored_runs(out) == []


def test_a_run_that_was_stored_before_runs_had_an_alpha_is_loaded(tmp_path):
    out, result = Location(str(tmp_path)), make_result()
    save_run(result, out)
    run_file = out / RUNS_PATH / "paper-both-kfold-fold-0-seed-0-epochs-2" / RUN_FILE
    values = json.loads(run_file.read_bytes())
    del values["run"]["alpha"]
    run_file.write_bytes(json.dumps(values).encode())
    assert is_same(load_run(result.run.key, out), result)


def test_runs_of_another_alpha_have_a_key_of_their_own():
    keys = [make_run(alpha=alpha).key for alpha in (None, 0.0, 1.0, 0.25, 4.0)]
    assert keys[1:] == [f"{keys[0]}-alpha-{alpha}" for alpha in ("0", "1", "0.25", "4")]
    result = make_result(make_run(alpha=1.0))
    check_same([replace(result, recipe={"alpha": 1.0})], "f", Location("nowhere"))
    with pytest.raises(InputError, match=r"had alpha 2\.0, not 1\.0"):
        check_same([replace(result, recipe={"alpha": 2.0})], "f", Location("nowhere"))


def test_the_alpha_of_a_result_is_the_recipe_s_or_the_ratio_of_the_numbers_of_classes():
    assert make_result().alpha == 4 / 2
    assert make_result(make_run(alpha=0.25)).alpha == 0.25
    assert make_result(make_run("artist")).alpha is None


def test_a_damaged_run_is_named(tmp_path):
    out = Location(str(tmp_path))
    save_run(make_result(), out)
    (out / RUNS_PATH / make_run().key / LOGITS_FILE).write_bytes(b"PAR1")
    with pytest.raises(InputError, match=f"{make_run().key} is not a stored run"):
        load_run(make_run().key, out)


def test_runs_of_other_mels_or_of_a_changed_recipe_are_refused(tmp_path):
    out, result = Location(str(tmp_path)), make_result()
    check_same([result], "f", out)
    with pytest.raises(InputError, match="is of other mels"):
        check_same([result], "g", out)
    changed = replace(result, recipe={"learning_rate": 0.5})
    with pytest.raises(InputError, match=r"the recipe 'paper' had learning_rate 0\.5, not 0\.001"):
        check_same([changed], "f", out)
    check_same([replace(changed, run=make_run(recipe="no longer there"))], "f", out)
