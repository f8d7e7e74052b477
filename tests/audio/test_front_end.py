import json

import numpy as np
import pytest

from mtl_core.audio.decode import Excerpt, Recording
from mtl_core.audio.front_end import FrontEnd, log_mel_segments
from mtl_core.audio.mel import MelConfig, log_mel
from mtl_core.errors import TrackError


def recording(*lengths: int, start_s: float = 10.25) -> Recording:
    random = np.random.default_rng(0)
    excerpts = tuple(
        Excerpt(samples=random.uniform(-1, 1, length).astype(np.float32), start_s=start_s + 60 * i)
        for i, length in enumerate(lengths)
    )
    return Recording(excerpts=excerpts, duration_s=300.0)


def test_a_full_track_is_forty_segments_back_to_back():
    heard = recording(960_000, 960_000)
    segments = log_mel_segments(heard, FrontEnd())
    assert segments.mel_STF.shape == (40, 187, 96) and segments.mel_STF.dtype == np.float32
    assert segments.start_s.dtype == np.float64
    np.testing.assert_array_equal(segments.start_s, 10.25 + 3.0 * np.arange(40))
    lone = log_mel(heard.excerpts[1].samples[None, 96_000:144_000], MelConfig())[0]
    np.testing.assert_allclose(segments.mel_STF[22], lone, rtol=0, atol=1e-6)


def test_fewer_segments_are_spread_and_a_short_recording_is_one():
    segments = log_mel_segments(recording(960_000, 960_000), FrontEnd(segments_per_excerpt=2))
    np.testing.assert_array_equal(segments.start_s, 10.25 + np.array([13.5, 43.5, 73.5, 103.5]))
    assert log_mel_segments(recording(1600), FrontEnd()).mel_STF.shape == (1, 187, 96)


def test_draws_are_adjacent_and_independent_of_what_came_before():
    front_end = FrontEnd(segments_per_excerpt=2)
    segments = log_mel_segments(recording(960_000, 960_000), front_end, draws=3, seed=1, track_id="a")
    again = log_mel_segments(recording(960_000, 960_000), front_end, draws=3, seed=1, track_id="a")
    other = log_mel_segments(recording(960_000, 960_000), front_end, draws=3, seed=2, track_id="a")
    np.testing.assert_array_equal(segments.start_s, again.start_s)
    assert (segments.start_s != other.start_s).any()
    slots = (segments.start_s - 10.25 + 1.5) // 30
    assert slots.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_what_has_no_finite_power_is_named(value):
    heard = recording(960_000, 100_000)
    heard.excerpts[1].samples[10] = value
    with pytest.raises(TrackError) as caught:
        log_mel_segments(heard, FrontEnd())
    assert (caught.value.stage, caught.value.error) == ("features", "not_finite")


def test_samples_that_no_segment_holds_must_be_finite_too():
    heard = recording(100_000)
    heard.excerpts[0].samples[-1] = np.nan
    with pytest.raises(TrackError, match="not_finite"):
        log_mel_segments(heard, FrontEnd())


def test_read_only_samples_are_left_alone():
    heard = recording(100_000)
    heard.excerpts[0].samples.flags.writeable = False
    before = heard.excerpts[0].samples.copy()
    assert log_mel_segments(heard, FrontEnd()).mel_STF.shape[0] == 2
    np.testing.assert_array_equal(heard.excerpts[0].samples, before)


def test_a_front_end_survives_json_and_its_hash_tells_it_from_others():
    made = [FrontEnd(), FrontEnd(segments_per_excerpt=2), FrontEnd(mel=MelConfig(fmin_hz=1.0))]
    for front_end in made:
        assert FrontEnd.from_dict(json.loads(json.dumps(front_end.to_dict()))) == front_end
    assert len({front_end.hash() for front_end in made}) == 3
    assert FrontEnd().hash() == FrontEnd(mel=MelConfig(), segments_per_excerpt=20).hash()
    assert FrontEnd(mel=MelConfig(fmin_hz=0)).hash() == FrontEnd().hash()
    assert len(FrontEnd().hash()) == 64


def test_wrong_front_ends_are_named():
    with pytest.raises(ValueError, match="1 to 20"):
        FrontEnd(segments_per_excerpt=0)
    with pytest.raises(ValueError, match="sample_rate_hz"):
        FrontEnd(mel=MelConfig(sample_rate_hz=22050))
    with pytest.raises(ValueError, match="frames"):
        FrontEnd(mel=MelConfig(frames=189))
    for values in ({}, FrontEnd().to_dict() | {"unknown": 1}, FrontEnd().to_dict() | {"mel": {}}):
        with pytest.raises(ValueError, match="names"):
            FrontEnd.from_dict(values)
