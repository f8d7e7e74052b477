"""A night that is like those before gives no warning; one that differs says in what."""

import numpy as np
import pytest

from mtl_core.evaluation.drift import MIN_TRACKS, NIGHTS, Mean, NightSummary, unknown_shares, warnings

N_TRACKS, N_ARTISTS = 10_000, 200
SHARES = np.random.default_rng(1).dirichlet(np.full(N_ARTISTS, 0.5)) * 0.6
COMMON, RARE = int(SHARES.argmax()), int(np.argsort(-SHARES)[20])


def night(rng, n=N_TRACKS, *, silent=0.0, twice=None, confidence=0.7, corrupt=0.01, level=1.0):
    shares = SHARES.copy()
    if twice is not None:
        shares[twice] *= 2
    counts = rng.multinomial(round(n * (1 - silent)), [*shares, 1 - shares.sum()])
    found = {f"artist is {i}": int(count) for i, count in enumerate(counts[:-1]) if count}
    found |= {"artist is null": int(counts[-1] + n - counts.sum()), "no segment has sound": round(n * silent)}
    values = np.clip(rng.normal(confidence, 0.2, n), 0, 1)
    seconds = rng.lognormal(5.2, 0.4, n) * level
    return NightSummary(
        tagged=n,
        shares=found,
        means={
            "artist_confidence": Mean(n=n, mean=float(values.mean()), std=float(values.std())),
            "duration_s": Mean(n=n, mean=float(seconds.mean()), std=float(seconds.std())),
        },
        failures={"decode/corrupt": int(rng.binomial(n, corrupt))},
    )


def test_the_unknown_share_is_of_the_tracks_with_sound_and_of_the_tasks_that_a_model_has():
    judged = Mean(n=80, mean=0.5, std=0.1)
    one = NightSummary(
        tagged=100, shares={"artist is null": 60, "language is null": 100}, means={"artist_confidence": judged}
    )
    assert unknown_shares([one]) == {"artist": 40 / 80}, "20 of the 60 have no sound"
    other = NightSummary(tagged=20, shares={"artist is a": 20}, means={"artist_confidence": Mean(n=20, mean=1, std=0)})
    assert unknown_shares([one, other]) == {"artist": 40 / 100}
    assert unknown_shares([]) == unknown_shares([NightSummary()]) == {}


def test_nights_of_one_distribution_give_at_most_one_warning_in_twenty():
    rng = np.random.default_rng(0)
    nights = [night(rng) for _ in range(NIGHTS + 60)]
    warned = [bool(warnings(nights[i], nights[i - NIGHTS : i])) for i in range(NIGHTS, len(nights))]
    assert sum(warned) <= 3


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"silent": 0.1}, "no segment has sound: 10.0% of the tracks, 0.0% in the 7 nights before"),
        ({"twice": COMMON}, f"artist is {COMMON}: "),
        ({"twice": RARE}, f"artist is {RARE}: "),
        ({"confidence": 0.6}, "artist_confidence: 0."),
        ({"level": 1.1}, "duration_s: "),
        ({"corrupt": 0.03}, "failed with decode/corrupt: "),
    ],
)
def test_a_night_that_differs_says_in_what(change, text):
    rng = np.random.default_rng(2)
    before = [night(rng) for _ in range(NIGHTS)]
    for _ in range(10):
        found = warnings(night(rng, **change), before)
        assert any(warning.startswith(text) for warning in found), found


def test_nights_that_always_differ_are_no_news():
    nights = [NightSummary(tagged=1000, shares={"artist is null": n}) for n in (100, 900, 300, 700, 500, 200, 800)]
    assert not warnings(NightSummary(tagged=1000, shares={"artist is null": 600}), nights)
    assert warnings(NightSummary(tagged=1000, shares={"artist is null": 700}), nights[4:5] * 7)


def test_few_tracks_tell_nothing_and_a_summary_survives_json():
    rng = np.random.default_rng(4)
    before = [night(rng) for _ in range(3)]
    assert not warnings(night(rng, MIN_TRACKS - 1, silent=0.9), before)
    assert not warnings(night(rng, silent=0.9), [])
    assert warnings(night(rng, silent=0.9), before[:1])
    assert NightSummary.from_dict(before[0].to_dict()) == before[0]


def test_a_night_in_which_nearly_all_fails_is_told_and_a_frequent_share_that_rises():
    before = [NightSummary(tagged=9_900, failures={"decode/crashed": 100}) for _ in range(NIGHTS)]
    (found,) = warnings(NightSummary(tagged=20, failures={"decode/crashed": 9_980}), before)
    assert found.startswith("failed with decode/crashed: 99.8% of the planned tracks, 1.0%")
    null = [NightSummary(tagged=10_000, shares={"artist is null": 8_500}) for _ in range(NIGHTS)]
    (found,) = warnings(NightSummary(tagged=10_000, shares={"artist is null": 10_000}), null)
    assert found.startswith("artist is null: 100.0%")


def test_a_label_that_a_summary_left_out_is_no_change():
    shares = {"artist is a": 500}
    before = [NightSummary(tagged=1000, shares=shares, left_out=90) for _ in range(NIGHTS)]
    assert not warnings(NightSummary(tagged=1000, shares=shares | {"artist is b": 95}), before)
    assert warnings(NightSummary(tagged=1000, shares=shares | {"artist is b": 195}), before)
