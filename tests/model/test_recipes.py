"""Recipes: the paper's numbers, the schedule, and values that are refused."""

import pytest

from mtl_core.errors import InputError
from mtl_core.model.cnn import EMBEDDING
from mtl_core.model.recipes import RECIPES, Recipe, recipe


def test_paper_has_the_papers_numbers():
    assert RECIPES["paper"] == Recipe(
        learning_rate=1e-3,
        schedule="constant",
        global_batch=32,
        epochs=100,
        alpha=None,
        dropout=0.25,
        batch_norm_momentum=0.01,
    )
    assert {RECIPES["paper"].learning_rate_at(progress) for progress in (0, 0.5, 1)} == {1e-3}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_an_embedding_of_96(name):
    numbers = RECIPES[name]
    config = numbers.model_config({"artist": 2})
    assert (config.trunk, config.dropout) == (numbers.trunk, numbers.dropout)
    assert config.embedding == EMBEDDING


def test_one_cycle_rises_to_its_peak_and_falls_to_0():
    numbers = Recipe(schedule="one_cycle", learning_rate=0.01)
    rates = [numbers.learning_rate_at(i / 100) for i in range(101)]
    assert max(rates) == rates[20] == pytest.approx(0.01)
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[0] > 0
    assert rates[-1] == pytest.approx(0, abs=1e-12)


def test_epochs_replace_the_recipes_own():
    assert recipe("paper").epochs == 100
    assert recipe("paper", epochs=3).epochs == 3
    with pytest.raises(InputError, match="epochs must be >= 1, got 0"):
        recipe("paper", epochs=0)
    with pytest.raises(InputError, match="no recipe 'papier': allowed are paper, best, demo"):
        recipe("papier")


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0.0},
        {"schedule": "cosine"},
        {"global_batch": 0},
        {"epochs": 0},
        {"alpha": -0.1},
        {"dropout": 1.0},
        {"batch_norm_momentum": 0.0},
    ],
)
def test_wrong_values_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}.*got"):
        Recipe(**wrong)
