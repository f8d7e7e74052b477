"""A rule of early exit is as cautious as the tracks that it is chosen on ask for."""

from dataclasses import replace

import numpy as np
import pytest

from mtl_core.inference.tagging.early_exit import ExitOptions, RoundScores, TaskScores, choose_stops

N, CLASSES, SEGMENTS = 3000, 10, 32
THRESHOLD = 1.0


def logits_after(ends, seed, noise):
    """Cumulative means of the logits of segments; a third of the tracks are of no class."""
    rng = np.random.default_rng(seed)
    signal_NC = np.zeros((N, CLASSES))
    signal_NC[np.arange(N), np.arange(N) % CLASSES] = np.where(np.arange(N) % 3 == 0, 0.0, rng.uniform(0, 5, N))
    segments_NSC = signal_NC[:, None] + noise * rng.normal(size=(N, SEGMENTS, CLASSES))
    return {end: segments_NSC[:, :end].mean(1) for end in ends}


def odds(logits_NC, label_N):
    own_N = logits_NC[np.arange(N), label_N]
    others_NC = logits_NC.copy()
    others_NC[np.arange(N), label_N] = -np.inf
    return own_N - others_NC.max(1)


def scores(logits_NC, final_NC):
    label_N = logits_NC.argmax(1)
    return TaskScores(
        label_N=label_N,
        odds_N=odds(logits_NC, label_N),
        score_N=logits_NC.max(1),
        final_odds_N=odds(final_NC, label_N),
    )


def chosen(seed=0, noise=1.0, threshold=THRESHOLD, convert=None, probabilities=()):
    logits = logits_after((4, 8, 16, SEGMENTS), seed, noise)
    final_NC = logits.pop(SEGMENTS)
    rounds = [
        RoundScores(segments=end, reached_N=np.ones(N, bool), tasks={"artist": scores(logits_NC, final_NC)})
        for end, logits_NC in logits.items()
    ]
    final = {"artist": scores(final_NC, final_NC)}
    if convert:
        rounds, final = convert(rounds, final)
    stops = choose_stops(
        rounds,
        final,
        {"artist": threshold},
        known_N=np.arange(N) % 3 != 0,
        groups_N=np.arange(N) % 100,
        unknown_share=0.5,
        seed=0,
        probabilities=probabilities,
    )
    return stops, rounds, final


def follow(stops, rounds, final, threshold=THRESHOLD):
    """The label of each track where it stops (-1: null), that of all segments, and the segments read."""
    last = final["artist"]
    whole_N = np.where(last.score_N < threshold, -1, last.label_N)
    label_N, read_N = whole_N.copy(), np.full(N, SEGMENTS)
    for of in reversed(rounds):
        task, stop = of.tasks["artist"], stops[of.segments]["artist"]
        null_N = task.score_N < stop.null_below
        named_N = (task.score_N >= stop.named_from) & (task.odds_N >= np.log(stop.odds_from))
        label_N = np.where(null_N, -1, np.where(named_N, task.label_N, label_N))
        read_N = np.where(null_N | named_N, of.segments, read_N)
    return label_N, whole_N, read_N


@pytest.mark.parametrize(("noise", "read"), [(0.5, 10), (2.0, 28)])
def test_new_tracks_get_the_tags_of_all_segments(noise, read):
    stops, _, _ = chosen(noise=noise)
    _, rounds, final = chosen(seed=1, noise=noise)
    label_N, whole_N, read_N = follow(stops, rounds, final)
    assert (label_N == whole_N).mean() > 0.985
    assert read_N.mean() < read


def test_a_probability_near_1_is_decided_although_it_hardly_changes():
    """A threshold of .99: on the scale of the probability itself, no name would be far enough above it."""

    def with_probabilities(rounds, final):
        to_probability = [replace(of, tasks={"artist": as_probability(of.tasks["artist"])}) for of in rounds]
        return to_probability, {"artist": as_probability(final["artist"])}

    def as_probability(of):
        return replace(of, score_N=1 / (1 + np.exp(-3 * (of.score_N - 1))))

    read = {}
    for probabilities in ((), ("artist",)):
        stops, rounds, final = chosen(threshold=0.99, convert=with_probabilities, probabilities=probabilities)
        label_N, whole_N, read_N = follow(stops, rounds, final, threshold=0.99)
        assert (label_N == whole_N).mean() > 0.985
        read[probabilities] = read_N[whole_N >= 0].mean()
        assert all(0 < stop["artist"].null_below < stop["artist"].named_from for stop in stops.values())
    assert read["artist",] < 0.7 * read[()]


def test_more_noise_asks_for_more_segments():
    read = [follow(*chosen(noise=noise))[2].mean() for noise in (0.3, 1.0, 3.0)]
    assert read == sorted(read) and read[0] < 6 < read[2]


def test_without_a_threshold_only_the_label_is_decided():
    stops, rounds, final = chosen(threshold=None)
    label_N, whole_N, _ = follow(stops, rounds, final, threshold=-np.inf)
    assert (label_N == whole_N).mean() > 0.985
    assert (label_N >= 0).all()


def test_a_model_that_names_nothing_is_decided_at_once():
    stops, rounds, final = chosen(threshold=1e30)
    assert (follow(stops, rounds, final, threshold=1e30)[2] == 4).all()


@pytest.mark.parametrize(("options", "message"), [({"exit": "maybe"}, "'maybe'"), ({"segments": 0}, "got 0")])
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ExitOptions(**options)
