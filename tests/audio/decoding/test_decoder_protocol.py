"""What the child sends is what the protocol allows, or it is the error `crashed`."""

import fcntl
import json
import os
import socket

import numpy as np
import pytest

from mtl_core.audio.decoding.decode import Stretches
from mtl_core.audio.decoding.decoder_protocol import MESSAGE_BYTES, PLACES, READ_BYTES, SEALS, ChildMessage
from mtl_core.errors import TrackError

TWO = Stretches(places=[(0, 3), (3, 2)], are_excerpts=True)
ANSWER = {"lengths": [3, 2], "starts_s": [0.0, 0.1], "duration_s": 1.0, "lost_s": 0}


def message(values: object, *fds: int) -> ChildMessage:
    return ChildMessage(json.dumps(values).encode(), fds)


def samples_fd(n_bytes: int = 20, seals: int = SEALS) -> int:
    fd = os.memfd_create("samples", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, np.arange(5, dtype=np.float32).tobytes()[:n_bytes])
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def assert_crashed(read) -> None:
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    with pytest.raises(TrackError, match="wrong message") as caught:
        read()
    assert (caught.value.stage, caught.value.error) == ("decode", "crashed")
    assert len(os.listdir("/proc/self/fd")) <= len(before)  # noqa: PTH208


@pytest.mark.parametrize(
    "packet", [b"", b"words", b"\xff", b"1", b"[]", b"null", b"[" * 60_000, b'{"a":' + b"1" * 9_000]
)
def test_a_message_is_a_json_object(packet):
    assert_crashed(lambda: ChildMessage(packet))


@pytest.mark.parametrize("flag", [socket.MSG_TRUNC, socket.MSG_CTRUNC])
def test_a_message_that_was_cut_is_wrong(flag):
    assert_crashed(lambda: ChildMessage(b"{}", [], flag))


@pytest.mark.parametrize("values", [{}, {"sandbox": 1}, {"sandbox": ["x"]}])
def test_a_child_that_is_ready_says_why_it_has_no_sandbox(values):
    assert message({"sandbox": None}).ready() is None and message({"sandbox": "why"}).ready() == "why"
    assert_crashed(message(values).ready)


@pytest.mark.parametrize(
    "request_",
    [None, 1, [], [0], [0, 1, 2], [0, -1], [0, 0], [-1, 2], [0.0, 1], [True, 1], ["0", 1], [0, READ_BYTES + 1]],
)
def test_the_child_reads_within_the_file(request_):
    size = 2 * READ_BYTES
    assert message({}).read_request(size) is None
    assert message({"read": [READ_BYTES, READ_BYTES]}).read_request(size) == (READ_BYTES, READ_BYTES)
    assert_crashed(lambda: message({"read": [READ_BYTES + 1, READ_BYTES]}).read_request(size))
    assert_crashed(lambda: message({"read": [0, 1]}).read_request(0))
    assert_crashed(lambda: message({"read": request_}).read_request(size))


@pytest.mark.parametrize(
    "failure", [None, [], "abc", ["decode", "corrupt"], ["decode", "nonsense", "x"], ["x", "corrupt", "x"], [[], {}, 1]]
)
def test_an_error_has_a_known_name(failure):
    error = message({"error": ["decode", "corrupt", "\udc80" + 2_000 * "x"]}).error()
    assert error == TrackError("decode", "corrupt", "?" + 999 * "x")
    assert message({}).error() is None
    assert_crashed(lambda: message({"error": failure}).error())


@pytest.mark.parametrize(
    "rate_hz, n_frames", [(0, 1), (1, 0), (-1, 1), (1, -1), (1.5, 1), (True, 1), (1, "1"), (1, None), (1, 1 << 60)]
)
def test_a_rate_and_a_length_are_positive(rate_hz, n_frames):
    assert message({"rate_hz": 44_100, "n_frames": 1}).opened() == (44_100, 1)
    assert_crashed(message({"rate_hz": rate_hz, "n_frames": n_frames}).opened)
    assert_crashed(message({"rate_hz": 44_100, "n_frames": 1}, samples_fd()).opened)


def test_samples_are_mapped_and_cannot_be_changed_or_shortened():
    fd = samples_fd()
    writer = os.dup(fd)
    recording = message(ANSWER, fd).recording(TWO, 16_000)
    for change in (lambda: os.ftruncate(writer, 0), lambda: os.pwrite(writer, b"1234", 0)):
        with pytest.raises(PermissionError):
            change()
    os.close(writer)
    assert [excerpt.samples.tolist() for excerpt in recording.excerpts] == [[0, 1, 2], [3, 4]]
    assert [excerpt.start_s for excerpt in recording.excerpts] == [0.0, 0.1]
    assert (recording.duration_s, recording.lost_s) == (1.0, 0)
    assert not recording.excerpts[0].samples.flags.writeable


@pytest.mark.parametrize(
    "change",
    [
        {"lengths": None},
        {"lengths": [5]},
        {"lengths": [4, 1]},
        {"lengths": [3, 0]},
        {"lengths": [3, -1]},
        {"lengths": [3, 1]},
        {"lengths": [3, 2.0]},
        {"starts_s": [0.0]},
        {"starts_s": [0.0, float("nan")]},
        {"starts_s": [0.0, "1"]},
        {"duration_s": float("inf")},
        {"duration_s": None},
        {"lost_s": -1.0},
        {"lost_s": 10**400},
    ],
)
def test_an_answer_has_the_stretches_that_were_asked_for(change):
    assert_crashed(lambda: message(ANSWER | change, samples_fd()).recording(TWO, 16_000))


def test_the_samples_are_a_sealed_memory_file_of_their_size():
    for n_bytes in (0, 16):
        assert_crashed(lambda n_bytes=n_bytes: message(ANSWER, samples_fd(n_bytes)).recording(TWO, 16_000))
    for seal in (fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_WRITE):
        assert_crashed(lambda seal=seal: message(ANSWER, samples_fd(seals=SEALS & ~seal)).recording(TWO, 16_000))
    assert_crashed(lambda: message(ANSWER, os.open("/dev/null", os.O_RDONLY)).recording(TWO, 16_000))
    assert_crashed(lambda: message(ANSWER).recording(TWO, 16_000))


def test_an_excerpt_is_as_long_at_16_khz():
    """Two excerpts of 3 and 2 frames at 8 kHz have up to 6 and 4 samples."""
    longer = ANSWER | {"lengths": [3, 2]}
    assert len(message(longer, samples_fd()).recording(TWO, 8_000).excerpts) == 2
    assert_crashed(lambda: message(longer, samples_fd()).recording(TWO, 44_100))


def test_the_longest_messages_fit_a_packet():
    """The longest duration and the highest rate that are allowed, a year at 100 MHz, and the longest floats."""
    n_frames = 31_536_000 * 100_000_000
    request = {"places": PLACES * [[n_frames, n_frames]], "are_excerpts": False}
    answer = {"lengths": PLACES * [n_frames], "starts_s": PLACES * [n_frames / 3e8], "duration_s": 0.1, "lost_s": 0.1}
    assert max(len(json.dumps(request)), len(json.dumps(answer))) <= MESSAGE_BYTES
