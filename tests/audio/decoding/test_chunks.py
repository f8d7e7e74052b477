"""The sound of a file of chunks is as long as its bytes, whatever its header claims and whatever follows it."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
from builders.sound_files import RATE_HZ, claiming_bytes, encoded, id3_tag, song

from mtl_core.audio.decoding.decode import open_sound
from mtl_core.errors import TrackError

SONG = song(4)
N_BYTES = 4 * 4 * RATE_HZ  # of its samples in 16 bits


def written(container: str, endian: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, SONG, RATE_HZ, "PCM_16", endian, container)
    return file.getvalue()


def with_size(data: bytes, at: int, size: int, n_bytes: int, order: str = "big") -> bytes:
    return data[:at] + size.to_bytes(n_bytes, order) + data[at + n_bytes :]


def rf64(size: int) -> bytes:
    data = written("RF64")
    return with_size(data, data.index(b"ds64") + 16, size, 8, "little")


def w64(size: int) -> bytes:
    data = written("W64")
    return with_size(data, data.index(b"data") + 16, size + 24, 8, "little")


def aiff(size: int) -> bytes:
    data = written("AIFF")
    data = with_size(data, data.index(b"COMM") + 10, size // 4, 4)
    return with_size(data, data.index(b"SSND") + 4, size + 8 if size else 0, 4)


def caf(size: int) -> bytes:
    data = written("CAF")
    return with_size(data, data.index(b"data") + 4, size + 4, 8)


def rifx(size: int) -> bytes:
    data = written("WAV", "BIG")
    return with_size(data, data.index(b"data") + 4, size, 4)


@pytest.mark.parametrize("share", [0, 0.25, 0.5, 1])
@pytest.mark.parametrize("claiming", [rf64, w64, aiff, caf, rifx])
def test_a_header_that_claims_too_few_bytes_is_not_trusted(claiming: Callable[[int], bytes], share: float):
    sound = open_sound(io.BytesIO(claiming(int(share * N_BYTES))))
    assert sound.n_frames == len(SONG)
    samples, lost = sound.read(3 * RATE_HZ, RATE_HZ)
    assert lost == 0
    np.testing.assert_allclose(samples, SONG[3 * RATE_HZ :].mean(1), atol=1e-4)


def chunk(name: bytes, claim: int, body: bytes) -> bytes:
    return name + claim.to_bytes(4, "little") + body


JUNK = np.random.default_rng(0).bytes(250_000)
BEHIND = {
    "an ID3 tag": id3_tag(250_000),
    "an APE tag": b"APETAGEX" + JUNK,
    "a chunk": chunk(b"LIST", 250_000, JUNK),
    "a chunk that is cut": chunk(b"LIST", 300_000, JUNK),
    "less than a second of anything": JUNK[:100_000],
}


@pytest.mark.parametrize("name", BEHIND)
def test_what_follows_the_sound_of_a_wav_file_is_no_sound(name):
    data = encoded(SONG, "WAV", "PCM_16") + BEHIND[name]
    assert open_sound(io.BytesIO(data)).n_frames == len(SONG)


def test_a_chunk_behind_an_odd_number_of_bytes_may_lack_the_padding():
    mono = SONG[: RATE_HZ - 1, :1]  # 3 bytes a sample
    data = encoded(mono, "WAV", "PCM_24")[: 44 + 3 * len(mono)]
    assert open_sound(io.BytesIO(data + BEHIND["a chunk"])).n_frames == len(mono)
    second = open_sound(io.BytesIO(data + data))
    assert second.n_frames == 2 * len(mono)


@pytest.mark.parametrize("container, endian", [("WAV", None), ("WAV", "BIG"), ("AIFF", None), ("W64", None)])
def test_joined_files_of_chunks_are_one_recording(container, endian):
    data = written(container, endian)
    sound = open_sound(io.BytesIO(data + data))
    assert sound.n_frames == 2 * len(SONG)
    np.testing.assert_allclose(sound.read(0, RATE_HZ)[0], SONG[:RATE_HZ].mean(1), atol=1e-4)
    np.testing.assert_array_equal(sound.read(0, RATE_HZ)[0], sound.read(len(SONG), RATE_HZ)[0])


def test_a_wav_file_that_claims_half_of_its_bytes_is_read_to_its_end():
    assert open_sound(io.BytesIO(claiming_bytes(encoded(SONG, "WAV", "PCM_16"), 0.5))).n_frames == len(SONG)


def test_packets_that_claim_more_samples_than_they_hold_are_refused():
    """Each packet of one sample claims three: a gap behind every sample."""
    data = written("CAF")
    with pytest.raises(TrackError, match=r"corrupt.*more than 10,000 gaps"):
        open_sound(io.BytesIO(with_size(data, data.index(b"desc") + 32, 3, 4)))
