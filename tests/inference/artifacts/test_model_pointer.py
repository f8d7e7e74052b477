"""A pointer names a model, goes back, and is never changed by two programs at once."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from builders.models import save, untrained_artifact

from mtl_core.errors import InputError
from mtl_core.inference.artifacts import model_pointer
from mtl_core.inference.artifacts.model_pointer import find_model, promote, roll_back
from mtl_core.inference.file_tagger import load_tagger
from mtl_core.inference.tagging.aggregation import Aggregation
from mtl_core.storage.location import Location


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Location]:
    folder = Location(str(tmp_path_factory.mktemp("models")))
    return [
        save(untrained_artifact(aggregation=Aggregation(temperature={"artist": t})), folder / f"model {t}")
        for t in (1.0, 2.0, 3.0)
    ]


def test_a_pointer_names_a_model_and_goes_back(root: str, models: list[Location]) -> None:
    pointer = Location(root) / "current.json"
    first, second, third = models
    assert promote(first, pointer).model == first.uri == find_model(pointer.uri).uri
    promote(second, pointer)
    promote(third, pointer)
    assert find_model(pointer.uri).uri == third.uri
    assert roll_back(pointer).model == second.uri
    assert roll_back(pointer).model == first.uri
    promote(third, pointer)
    assert roll_back(pointer).model == first.uri
    history = json.loads(pointer.read_bytes())["history"]
    named = (first, second, third, second, first, third, first)
    assert [entry["model"] for entry in history] == [of.uri for of in named]
    with load_tagger(pointer.uri) as tagger:
        assert tagger.model_id == history[-1]["model_id"]
    assert find_model(first.uri).uri == first.uri, "a folder is itself"


def test_a_repeated_promotion_is_one_and_a_model_that_was_replaced_is_told(root: str, models: list[Location]) -> None:
    pointer, place = Location(root) / "current.json", Location(root) / "in place"
    aggregation = Aggregation(temperature={"artist": 5.0})
    save(untrained_artifact(), place)
    promote(place, pointer)
    promote(models[0], pointer)
    assert promote(models[0], pointer).model == models[0].uri
    assert roll_back(pointer).model == place.uri
    promote(models[0], pointer)
    save(untrained_artifact(aggregation=aggregation), place)
    with pytest.raises(InputError, match=r"was the model .* when it was promoted, and is .* now"):
        roll_back(pointer)
    promote(place, pointer)
    assert find_model(pointer.uri).uri == place.uri
    save(untrained_artifact(), place)
    with pytest.raises(InputError, match="when it was promoted"):
        find_model(pointer.uri)


def test_one_of_two_changes_at_the_same_time_is_refused(
    root: str, models: list[Location], monkeypatch: pytest.MonkeyPatch
) -> None:
    pointer = Location(root) / "current.json"
    promote(models[0], pointer)
    read = model_pointer._read(pointer)
    monkeypatch.setattr(model_pointer, "_read", lambda _: read)

    def change(model: Location) -> str:
        try:
            return promote(model, pointer).model
        except InputError as error:
            assert "another program changed the pointer" in str(error)
            return ""

    with ThreadPoolExecutor(2) as pool:
        done = [model for model in pool.map(change, models[1:]) if model]
    assert len(done) == 1
    monkeypatch.undo()
    assert find_model(pointer.uri).uri == done[0]


def test_what_is_no_pointer_or_no_model_is_refused(root: str, models: list[Location]) -> None:
    at = Location(root)
    (at / "other.json").write_bytes(b"[1]")
    back_first = [{"model": models[0].uri, "model_id": "x", "at": "", "back": True}]
    (at / "back.json").write_bytes(json.dumps({"history": back_first}).encode())
    for change, message in (
        (lambda: find_model((at / "gone.json").uri), "no model pointer is there"),
        (lambda: find_model((at / "other.json").uri), "is not a model pointer"),
        (lambda: promote(models[0], at / "current"), "must end with .json"),
        (lambda: promote(at / "nothing", at / "current.json"), "is not a model artifact"),
        (lambda: roll_back(at / "current.json"), "no model before"),
        (lambda: roll_back(at / "back.json"), "no model before"),
    ):
        with pytest.raises(InputError, match=message):
            change()
    promote(models[0], at / "current.json")
    with pytest.raises(InputError, match="no model before"):
        roll_back(at / "current.json")
