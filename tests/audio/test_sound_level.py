"""Which segments hold sound, by their mel spectra."""

import numpy as np
import pytest

from mtl_core.audio.front_end import FrontEnd
from mtl_core.audio.mel import log_mel
from mtl_core.audio.sound_level import has_sound

FRONT_END = FrontEnd()
N, RATE_HZ = 48_000, 16_000


def sounds(*segments, dtype=np.float32):
    mel_STF = log_mel(np.stack(segments).astype(np.float32), FRONT_END.mel, FRONT_END.filter_bank)
    return has_sound(mel_STF.astype(dtype), FRONT_END.mel, FRONT_END.filter_bank).tolist()


def noise(level_db):
    return 10 ** (level_db / 20) * np.random.default_rng(0).normal(size=N)


def tone(level_db, hz):
    return 10 ** (level_db / 20) * np.sqrt(2) * np.sin(2 * np.pi * hz * np.arange(N) / RATE_HZ)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_sound_begins_at_minus_60_db(dtype):
    quiet, loud = [noise(-63), *(tone(-63, hz) for hz in (100, 440, 2_000, 6_000))], [noise(-57)]
    loud += [tone(-57, hz) for hz in (100, 440, 2_000, 6_000)]
    assert sounds(*quiet, dtype=dtype) == [False] * 5
    assert sounds(*loud, dtype=dtype) == [True] * 5


def test_a_click_is_no_sound_and_a_tenth_of_a_second_is():
    click, short = np.zeros(N), np.zeros(N)
    click[20_000:20_020] = 1
    short[20_000:21_600] = tone(-6, 440)[:1600]
    assert sounds(np.zeros(N), click, short) == [False, False, True]


def test_no_segments():
    assert has_sound(np.zeros((0, 187, 96), np.float32), FRONT_END.mel, FRONT_END.filter_bank).shape == (0,)
