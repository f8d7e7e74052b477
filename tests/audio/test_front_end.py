"""From a recording to the segments' mels, and the front end's JSON and hash, which users' data depend on."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from mtl_core.audio.decoding.decode import Excerpt, Recording
from mtl_core.audio.filter_bank import pack
from mtl_core.audio.front_end import FrontEnd, define_front_end, log_mel_segments, sampling_parameters
from mtl_core.audio.mel import MelConfig, log_mel
from mtl_core.errors import TrackError

FIXTURES = Path(__file__).parents[1] / "fixtures" / "version_0_1"


@dataclass(frozen=True, kw_only=True)
class LaterFrontEnd(FrontEnd):
    """A front end with a field that version 0.1 did not have."""

    loudness_lufs: float | None = field(default=None, metadata={"since": "0.3"})


def recording(*lengths: int, start_s: float = 10.25) -> Recording:
    random = np.random.default_rng(0)
    excerpts = tuple(
        Excerpt(samples=random.uniform(-1, 1, length).astype(np.float32), start_s=start_s + 60 * i)
        for i, length in enumerate(lengths)
    )
    return Recording(excerpts=excerpts, duration_s=300.0)


def test_a_full_track_is_forty_segments_back_to_back() -> None:
    track = recording(960_000, 960_000)
    segments = log_mel_segments(track, FrontEnd())
    assert segments.mel_STF.shape == (40, 187, 96) and segments.mel_STF.dtype == np.float32
    assert segments.start_s.dtype == np.float64
    np.testing.assert_array_equal(segments.start_s, 10.25 + 3.0 * np.arange(40))
    segment_1N = track.excerpts[1].samples[None, 96_000:144_000]
    expected_TF = log_mel(segment_1N, MelConfig(), FrontEnd().filter_bank)[0]
    np.testing.assert_allclose(segments.mel_STF[22], expected_TF, rtol=0, atol=1e-6)


def test_fewer_segments_are_spread_and_a_short_recording_is_one() -> None:
    segments = log_mel_segments(recording(960_000, 960_000), FrontEnd(segments_per_excerpt=2))
    np.testing.assert_array_equal(segments.start_s, 10.25 + np.array([13.5, 43.5, 73.5, 103.5]))
    assert log_mel_segments(recording(1600), FrontEnd()).mel_STF.shape == (1, 187, 96)


def test_draws_are_adjacent_and_independent_of_what_came_before() -> None:
    front_end = FrontEnd(segments_per_excerpt=2)
    segments = log_mel_segments(recording(960_000, 960_000), front_end, draws=3, seed=1, track_id="a")
    again = log_mel_segments(recording(960_000, 960_000), front_end, draws=3, seed=1, track_id="a")
    other = log_mel_segments(recording(960_000, 960_000), front_end, draws=3, seed=2, track_id="a")
    np.testing.assert_array_equal(segments.start_s, again.start_s)
    assert (segments.start_s != other.start_s).any()
    slots = (segments.start_s - 10.25 + 1.5) // 30
    assert slots.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


@pytest.mark.parametrize(
    "value, error",
    [
        (np.nan, "not_finite"),
        (np.inf, "not_finite"),
        (-np.inf, "not_finite"),
        (1e30, "out_of_range"),
        (-33.0, "out_of_range"),
    ],
)
def test_samples_that_are_no_sound_fail(value: float, error: str) -> None:
    track = recording(960_000, 100_000)
    track.excerpts[1].samples[10] = value
    with pytest.raises(TrackError) as caught:
        log_mel_segments(track, FrontEnd())
    assert (caught.value.stage, caught.value.error) == ("features", error)


def test_a_loud_float_recording_is_a_recording() -> None:
    track = recording(100_000)
    track.excerpts[0].samples[10] = 31.0
    assert np.isfinite(log_mel_segments(track, FrontEnd()).mel_STF).all()


def test_spread_segments_are_asked_for_in_samples_of_the_whole_recording() -> None:
    spread = FrontEnd(sampling="spread", segments=4)
    stretches = spread.stretches(44_100 * 200, 44_100)
    assert not stretches.are_excerpts
    assert stretches.places == [((2 * i + 1) * 66 * 48_000 // 8 - 24_000, 48_000) for i in range(4)]
    assert spread.stretches(44_100, 44_100).places == [(0, 16_000)]
    drawn = spread.stretches(44_100 * 200, 44_100, draws=2, seed=1, track_id="a")
    assert len(drawn.places) == 8 and drawn == spread.stretches(44_100 * 200, 44_100, draws=2, seed=1, track_id="a")
    assert drawn != spread.stretches(44_100 * 200, 44_100, draws=2, seed=2, track_id="a")


def test_each_stretch_of_spread_is_one_segment() -> None:
    track = recording(48_000, 48_000)
    segments = log_mel_segments(track, FrontEnd(sampling="spread", segments=2))
    np.testing.assert_array_equal(segments.start_s, [10.25, 70.25])
    expected_TF = log_mel(track.excerpts[1].samples[None], MelConfig(), FrontEnd().filter_bank)[0]
    np.testing.assert_allclose(segments.mel_STF[1], expected_TF, rtol=0, atol=1e-6)
    assert log_mel_segments(recording(1600), FrontEnd(sampling="spread", segments=2)).mel_STF.shape == (1, 187, 96)


def test_a_choice_of_sampling_has_its_own_number() -> None:
    assert sampling_parameters("spread", None, None) == {"sampling": "spread", "segments": 32}
    assert sampling_parameters("paper", None, 2) == {"sampling": "paper", "segments_per_excerpt": 2}
    assert FrontEnd(**sampling_parameters("paper", None, None)) == FrontEnd()
    with pytest.raises(ValueError, match="of the sampling paper, got 2 with spread"):
        sampling_parameters("spread", None, 2)
    with pytest.raises(ValueError, match="of the sampling spread, got 8 with paper"):
        sampling_parameters("paper", 8, None)


def test_samples_outside_the_segments_must_be_finite_too() -> None:
    track = recording(100_000)
    track.excerpts[0].samples[-1] = np.nan
    with pytest.raises(TrackError, match="not_finite"):
        log_mel_segments(track, FrontEnd())


def test_read_only_samples_stay_as_they_are() -> None:
    track = recording(100_000)
    track.excerpts[0].samples.flags.writeable = False
    before = track.excerpts[0].samples.copy()
    assert log_mel_segments(track, FrontEnd()).mel_STF.shape[0] == 2
    np.testing.assert_array_equal(track.excerpts[0].samples, before)


def test_a_front_end_survives_json_and_its_hash_tells_it_from_others() -> None:
    front_ends = [
        FrontEnd(),
        FrontEnd(segments_per_excerpt=2),
        FrontEnd(sampling="spread", segments=32),
        FrontEnd(sampling="spread", segments=8),
        define_front_end(mel=MelConfig(fmin_hz=1.0)),
    ]
    for front_end in front_ends:
        values, packed = json.loads(json.dumps(front_end.to_dict())), pack(front_end.filter_bank)
        assert FrontEnd.from_dict(values, packed) == front_end
        np.testing.assert_array_equal(FrontEnd.from_dict(values, packed).filter_bank, front_end.filter_bank)
    assert len({front_end.hash() for front_end in front_ends}) == 5
    assert FrontEnd().hash() == FrontEnd(mel=MelConfig(), segments_per_excerpt=20).hash()
    assert FrontEnd(mel=MelConfig(fmin_hz=0)).hash() == FrontEnd().hash()


def test_the_hash_of_the_default_is_that_of_version_0_1() -> None:
    values = json.loads((FIXTURES / "paper" / "model.json").read_text())["front_end"]
    assert FrontEnd().to_dict() == values and FrontEnd.from_dict(values) == FrontEnd()
    assert FrontEnd().hash() == "1c32623205a20812ffc35595a934bddf6c7c69d97e5d09fc1d18a09f1f34f5d7"


def test_the_filter_bank_is_not_part_of_the_hash() -> None:
    assert define_front_end() == FrontEnd() and define_front_end().hash() == FrontEnd().hash()
    other = replace(FrontEnd(), filter_bank=2 * FrontEnd().filter_bank)
    assert other.hash() == FrontEnd().hash() and "filter_bank" not in other.to_json()


def test_the_mels_use_the_filter_bank_that_is_given() -> None:
    doubled = replace(FrontEnd(), filter_bank=2 * FrontEnd().filter_bank)
    power, twice = (10 ** log_mel_segments(recording(48_000), it).mel_STF - 1 for it in (FrontEnd(), doubled))
    np.testing.assert_allclose(twice, 2 * power, rtol=1e-3)


def test_a_later_field_changes_the_json_only_where_it_is_not_the_default() -> None:
    assert LaterFrontEnd().to_json() == FrontEnd().to_json() and LaterFrontEnd().hash() == FrontEnd().hash()
    assert LaterFrontEnd.from_dict(FrontEnd().to_dict()) == LaterFrontEnd()
    changed = LaterFrontEnd(loudness_lufs=-14.0)
    assert changed.hash() != FrontEnd().hash() and LaterFrontEnd.from_dict(changed.to_dict()) == changed
    with pytest.raises(ValueError, match="loudness_lufs"):
        FrontEnd.from_dict(changed.to_dict())


def test_a_front_end_without_its_filter_bank_is_refused() -> None:
    front_end = define_front_end(mel=MelConfig(fmin_hz=1.0))
    with pytest.raises(ValueError, match="no filter bank is stored"):
        FrontEnd.from_dict(front_end.to_dict())
    with pytest.raises(ValueError, match=r"filter bank must be float32 of shape \(96, 257\)"):
        FrontEnd.from_dict(front_end.to_dict(), pack(np.zeros((96, 100), np.float32)))


def test_the_error_names_what_is_wrong_with_a_front_end() -> None:
    with pytest.raises(ValueError, match="1 to 20"):
        FrontEnd(segments_per_excerpt=0)
    for segments in (None, 0, 1025):
        with pytest.raises(ValueError, match="1 to 1024"):
            FrontEnd(sampling="spread", segments=segments)
    with pytest.raises(ValueError, match="spread, paper, got 'random'"):
        FrontEnd(sampling="random")
    with pytest.raises(ValueError, match="got 8 with paper"):
        FrontEnd(segments=8)
    with pytest.raises(ValueError, match="sample_rate_hz"):
        FrontEnd(mel=MelConfig(sample_rate_hz=22050))
    for mel in (MelConfig(frames=188), MelConfig(bands=64)):
        with pytest.raises(ValueError, match=r"frames and bands must be \(187, 96\)"):
            FrontEnd(mel=mel)
    with pytest.raises(ValueError, match="hop_samples"):
        FrontEnd(mel=MelConfig(hop_samples=512))
    for values in ({}, FrontEnd().to_dict() | {"unknown": 1}, FrontEnd().to_dict() | {"mel": {}}):
        with pytest.raises(ValueError, match="names"):
            FrontEnd.from_dict(values)
