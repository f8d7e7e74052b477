"""Damaged files give finite segments or a failure with a name; the fuzzer's own judgement is tested too."""

import struct
from collections.abc import Iterator

import numpy as np
import pytest
from builders.sound_files import EXACT_FORMATS, RATE_HZ, by_ffmpeg, song
from fuzz.base_files import base_files, remuxed, settled, with_checksums
from fuzz.mutate import FRONT_END, mutated, run_file

from mtl_core.audio.decoding.decode import Excerpt, Recording, Stretches
from mtl_core.audio.decoding.decoder_limits import DecoderLimits
from mtl_core.audio.decoding.decoder_process import Decoder
from mtl_core.errors import TrackError

SEEDS = range(7)  # of each file
#: What `make fuzz` has found: (name, seed) of files that were at fault.
FOUND = [
    *[("aac in ts", seed) for seed in (1016, 1042, 1138, 1192)],  # streams that begin behind the header
    *[("aac in flv", seed) for seed in (1035, 1095)],
    *[("aac", 482749140), ("alac", 482749225), ("mp2", 482749167)],  # bytes before the first frame that decodes
    ("m4a", 1163),  # more than 8 channels
    ("aac", 1184),
    ("aac in flv", 1241),  # a stream of subtitles
]
NAMES = [*EXACT_FORMATS, "5.1 wav", "wav, 96 kHz", "chained vorbis", "chained vorbis and opus", "joined flac"]
NAMES += ["joined wav", "joined mp3", "mp3 behind a tag", "aac behind zeros", "mp4 of fragments"]
NAMES += ["mp2 in ts, half of it lost", "flv with a subtitle", "wavpack, 12 channels"]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return base_files()


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(DecoderLimits(time_limit_s=30, memory_limit_bytes=1 << 30)) as decoder:
        yield decoder


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_gives_segments_or_a_failure_with_a_name(name, files, decoder):
    faults = {}
    for seed in [*SEEDS, *(seed for found, seed in FOUND if found == name)]:
        _, fault = run_file(decoder, mutated(files, name, seed))
        if fault:
            faults[seed] = fault
    assert not faults


def test_each_file_is_in_the_list_and_decodes_before_it_is_damaged(files, decoder):
    assert list(files) == NAMES and len(NAMES) * len(SEEDS) >= 300
    lost = {}
    for name, data in files.items():
        assert run_file(decoder, data) == ("segments", None), name
        _, n_frames = decoder.open(data)
        lost[name] = decoder.read(Stretches(places=[(0, n_frames)], are_excerpts=True)).lost_s
        assert n_frames > 2.9 * RATE_HZ, name
    assert [name for name in NAMES if lost[name] > 0.05] == ["mp2 in ts, half of it lost"]


def test_thousands_of_gaps_fit_in_memory(decoder):
    data = remuxed(by_ffmpeg(song(150, channels=1), "mp2", "mp2"), "mpegts", keep_every=2)
    assert run_file(decoder, data) == ("segments", None)


def test_a_seed_decides_the_mutated_bytes(files):
    names = ("vorbis", "flac in mka", "wav, float", "m4a")
    for name in names:
        assert mutated(files, name, 3) == mutated(files, name, 3) != mutated(files, name, 4)
    assert len({mutated(files, "mp3", seed) for seed in range(20)}) == 20


def test_what_encoders_draw_at_random_is_taken_out():
    for name in ("vorbis", "opus in webm", "flac in mka", "wav, float"):
        first, second = (settled(EXACT_FORMATS[name](song(0.5))) for _ in range(2))
        assert first == second


def test_checksums_are_as_encoders_write_them(files):
    assert with_checksums(files["vorbis"]) == files["vorbis"]
    broken = files["vorbis"][:100] + b"?" + files["vorbis"][101:]
    assert with_checksums(broken) != broken


class OwnDecoder:
    """Has one outcome, whatever it is given."""

    def __init__(self, error: Exception | None = None, samples: float = 0.0, lost_s: float = 0.0) -> None:
        self._error, self._samples, self._lost_s = error, samples, lost_s

    def open(self, _: bytes) -> tuple[int, int]:
        if self._error:
            raise self._error
        return 16_000, 480_000

    def read(self, stretches: Stretches) -> Recording:
        excerpts = tuple(
            Excerpt(samples=np.full(length, self._samples, np.float32), start_s=start / 16_000)
            for start, length in stretches.places
        )
        return Recording(excerpts=excerpts, duration_s=30.0, lost_s=self._lost_s)


def test_allowed_outcomes_are_no_faults():
    assert run_file(OwnDecoder(), b"") == ("segments", None)
    assert run_file(OwnDecoder(samples=np.nan), b"") == ("features/not_finite", None)
    allowed = [
        ("corrupt", "ffmpeg: Invalid data found"),
        ("corrupt", "mp3: nothing can be decoded"),
        ("not_audio", "?"),
    ]
    for name, message in allowed:
        assert run_file(OwnDecoder(TrackError("decode", name, message)), b"") == (f"decode/{name}", None)


@pytest.mark.parametrize(
    "error",
    [
        TrackError("decode", "crashed", "the decoder was killed by SIGSEGV"),
        TrackError("decode", "timed_out", "decoding took longer than 5 s"),
        TrackError("fetch", "unavailable", "[Errno 5]"),
        TrackError("decode", "corrupt", "IndexError: list index out of range"),
        TrackError("decode", "corrupt", "error: unpack requires a buffer of 4 bytes"),
        struct.error("unpack"),
        RuntimeError("it does not start"),
    ],
)
def test_exceptions_and_lost_decoders_are_faults(error):
    _, fault = run_file(OwnDecoder(error), b"")
    assert fault and str(error.args[-1]) in fault


def test_wrong_segments_are_a_fault():
    outcome, fault = run_file(OwnDecoder(lost_s=40), b"")
    assert outcome == "segments" and fault == "40 s lost of 24.0 s"
    assert FRONT_END.segments == 8
