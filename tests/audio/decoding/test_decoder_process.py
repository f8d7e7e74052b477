"""A bad file costs one track, whatever it does to the decoder.

This file is also a child that misbehaves: `Decoder(child=__name__)` runs it, and the first bytes of a file tell it how.
"""

import ctypes
import fcntl
import gc
import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from builders.sound_files import encoded, mp3, song

from mtl_core.audio.decoding import decoder_process, node_memory
from mtl_core.audio.decoding.decode import Recording, Stretches, open_sound, read_stretches
from mtl_core.audio.decoding.decoder_child import serve
from mtl_core.audio.decoding.decoder_limits import DecoderLimits
from mtl_core.audio.decoding.decoder_process import Decoder
from mtl_core.audio.decoding.ffmpeg_stream import SoundLimits
from mtl_core.audio.decoding.sound_file import Sound
from mtl_core.errors import TrackError

WHOLE = Stretches(places=[(0, 16_000)], are_excerpts=True)


def misbehave(what: bytes) -> None:
    match what:
        case b"segfault":
            ctypes.string_at(0)
        case b"abort   ":
            os.abort()
        case b"hang    ":
            time.sleep(1000)
        case b"sleepy  ":
            time.sleep(1.5)
            raise TrackError("decode", "corrupt", "awake")
        case b"allocate":
            np.ones(1 << 40)
        case b"greedy  ":
            arrays = []
            while True:
                arrays.append(np.empty(1 << 25))  # reserved: touching it would take long
        case b"large   ":
            np.empty(200 << 20, np.uint8)
        case b"badbug  ":
            raise KeyError("a bug")
        case b"diskfail":
            raise OSError("I/O error")
        case b"openfile":
            open("/etc/passwd").close()
        case b"connect ":
            socket.create_connection(("127.0.0.1", 9))
        case b"process ":
            subprocess.run(["true"])
        case b"whoami  ":
            ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            n_open = sum(_is_open(fd) for fd in range(64))
            raise TrackError("decode", "corrupt", f"{os.getpid()} {n_open} {ignored} {sorted(os.environ)}")
        case b"realtime":
            signal.raise_signal(40)
        case b"lonesurr":
            raise ValueError("\udc80")
        case b"hoarding":  # it asks for bytes, and never receives them
            for _ in range(100):
                send(b'{"read": [0, 1000]}')
            time.sleep(1000)
        case b"endless ":
            while True:
                send(b'{"read": [0, 1]}')
                os.read(int(sys.argv[1]), 2)
        case b"print   ":
            os.write(1, b"noise" * 100)
            print("noise", flush=True)


def send(packet: bytes) -> None:
    os.write(int(sys.argv[1]), packet)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


class Misbehaving:
    """A sound that misbehaves when it is read, not when it is opened."""

    rate_hz, n_frames = 16_000, 32_000

    def __init__(self, what: bytes) -> None:
        self.what = what

    def read(self, start: int, length: int) -> tuple[np.ndarray, int]:
        if start > 0:
            misbehave(self.what)
        return np.zeros(length, np.float32), 0

    def close(self) -> None:
        pass


def open_misbehaving(file: io.BufferedReader, limits: SoundLimits) -> Sound:
    if file.read(6) == b"later ":
        return Misbehaving(file.read(8))
    file.seek(0)
    what = file.read(8)
    if what == b"send    ":
        send(file.read())
    misbehave(what)
    return open_sound(file, limits)


def wav(n_frames: int = 32000, rate_hz: int = 16000) -> bytes:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (n_frames, 1)).astype(np.float32)
    return encoded(samples, "WAV", "FLOAT", rate_hz)


def in_this_process(data: bytes, stretches: Stretches = WHOLE) -> Recording:
    return read_stretches(open_sound(io.BytesIO(data)), stretches)


def decode(decoder: Decoder, source, stretches: Stretches = WHOLE) -> Recording:
    decoder.open(source)
    return decoder.read(stretches)


@pytest.fixture(scope="module", autouse=True)
def own_turns(tmp_path_factory):
    """Turns that no other test shares."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("turns")))
        yield


@pytest.fixture(scope="module")
def decoder():
    with Decoder(DecoderLimits(time_limit_s=1.0), child=__name__) as decoder:
        yield decoder


def error_of(decoder: Decoder, source) -> TrackError:
    with pytest.raises(TrackError) as caught:
        decode(decoder, source)
    return caught.value


def assert_same(actual: Recording, expected: Recording) -> None:
    assert actual.duration_s == expected.duration_s
    assert len(actual.excerpts) == len(expected.excerpts)
    for one, other in zip(actual.excerpts, expected.excerpts, strict=True):
        assert one.start_s == other.start_s
        np.testing.assert_array_equal(one.samples, other.samples)


def whoami(decoder: Decoder) -> tuple[int, int, bool, str]:
    pid, n_open, ignored, names = error_of(decoder, b"whoami  ").message.split(maxsplit=3)
    return int(pid), int(n_open), ignored == "True", names


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"  # it has ended, and its new parent has not reaped it yet


def wait_until(true, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not (is_true := true()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return is_true


def test_bytes_a_path_and_a_file_are_read_as_in_this_process(decoder, tmp_path):
    data = wav(16000 * 130)
    path = tmp_path / "a track.wav"
    path.write_bytes(data)
    stretches = Stretches(places=[(16_000, 960_000), (1_000_000, 960_000)], are_excerpts=True)
    for source in (data, str(path), io.BytesIO(data)):
        assert decoder.open(source) == (16_000, 16_000 * 130)
        recording = decoder.read(stretches)
        assert_same(recording, in_this_process(data, stretches))
        assert not recording.excerpts[0].samples.flags.writeable


def test_a_recording_stays_open_for_further_stretches(decoder):
    data = mp3(song(20))
    decoder.open(io.BytesIO(data))
    for start in (160_000, 0, 200_000):
        stretches = Stretches(places=[(start, 48_000)], are_excerpts=False)
        assert_same(decoder.read(stretches), in_this_process(data, stretches))


@pytest.mark.parametrize("are_excerpts", [True, False])
def test_any_number_of_stretches_is_read(are_excerpts):
    """As many as 50 segments and 100 draws make."""
    data = wav(40_000, 8_000)
    starts = np.random.default_rng(0).integers(0, 30_000, 5_000).tolist()
    stretches = Stretches(places=[(start, 10) for start in starts], are_excerpts=are_excerpts)
    with Decoder() as decoder:
        recording = decode(decoder, data, stretches)
    expected = in_this_process(data, stretches)
    assert (recording.duration_s, recording.lost_s, len(recording.excerpts)) == (5.0, 0.0, 5_000)
    for one, other in zip(recording.excerpts, expected.excerpts, strict=True):
        assert one.start_s == other.start_s
        np.testing.assert_allclose(one.samples, other.samples, atol=1e-6)  # segments of one request share margins


def test_a_recording_stays_valid_after_the_next_one_and_the_decoder():
    with Decoder() as decoder:
        first = decode(decoder, wav())
        decode(decoder, wav(16000))
    assert_same(first, in_this_process(wav()))


def test_a_remote_file_is_read_in_part(decoder):
    class Counted(io.BytesIO):
        read_bytes = 0

        def read(self, size=-1):
            data = super().read(size)
            self.read_bytes += len(data)
            return data

    source = Counted(wav(16000 * 600))  # 10 minutes, of which 2 are decoded
    decode(decoder, source, Stretches(places=[(960_000, 960_000), (7_000_000, 960_000)], are_excerpts=True))
    assert source.read_bytes < 0.25 * len(source.getvalue())


class Slow(io.BytesIO):
    def read(self, size=-1):
        time.sleep(0.4)
        return super().read(size)


def test_the_time_in_which_the_parent_reads_does_not_count(decoder):
    began = time.monotonic()
    decode(decoder, Slow(wav(100_000)))
    assert time.monotonic() - began > decoder.limits.time_limit_s


def test_a_child_that_asks_for_bytes_without_end_times_out(decoder, monkeypatch):
    monkeypatch.setattr(decoder_process, "_READ_TIMEOUT_S", 1.0)
    assert error_of(decoder, Slow(b"endless ")).error == "timed_out"
    decode(decoder, wav())


def test_errors_of_a_track_are_raised_and_the_child_stays(decoder):
    before = whoami(decoder)[0]
    assert error_of(decoder, b"a poem, not a song").error == "not_audio"
    assert error_of(decoder, wav(100)).error == "too_short"
    assert error_of(decoder, b"diskfail").stage == "fetch"
    assert whoami(decoder)[0] == before


@pytest.mark.parametrize("when", [b"", b"later "])
@pytest.mark.parametrize(
    "what, error, words",
    [
        (b"segfault", "crashed", "SIGSEGV"),
        (b"abort   ", "crashed", "SIGABRT"),
        (b"hang    ", "timed_out", "1 s"),
        (b"allocate", "out_of_memory", "allocate"),
        (b"greedy  ", "out_of_memory", "allocate"),
    ],
)
def test_a_track_that_ends_the_child_fails_alone(decoder, what, error, words, when):
    pid = whoami(decoder)[0]
    with pytest.raises(TrackError) as caught:
        decode(decoder, when + what, Stretches(places=[(0, 100), (100, 100)], are_excerpts=True))
    failure = caught.value
    assert (failure.stage, failure.error) == ("decode", error)
    assert words in failure.message
    assert gone(pid)
    assert_same(decode(decoder, wav()), in_this_process(wav()))
    assert whoami(decoder)[0] != pid


@pytest.mark.parametrize("when", [b"", b"later "])
def test_a_recording_that_needs_more_than_its_share_is_decoded_in_a_turn(decoder, when, tmp_path):
    path = tmp_path / "large"
    path.write_bytes(when + b"large   ")
    stretches = Stretches(places=[(0, 100), (100, 100)], are_excerpts=True)
    for source in (when + b"large   ", str(path), io.BytesIO(when + b"large   ")):
        pid = whoami(decoder)[0]
        if when:
            assert len(decode(decoder, source, stretches).excerpts) == 2
            with pytest.raises(BlockingIOError):
                lock_turns()
        else:
            assert error_of(decoder, source).error == "not_audio"  # what is left after it had its memory
        decoder.end_turn()
        lock_turns()
        assert gone(pid)
    assert_same(decode(decoder, wav()), in_this_process(wav()))


def test_a_large_recording_ends_where_the_node_has_no_memory_left(decoder, monkeypatch):
    monkeypatch.setattr(node_memory, "find_memory", lambda: (100, 7))
    failure = error_of(decoder, b"greedy  ")
    assert (failure.error, failure.permanent) == ("killed", False)
    lock_turns()
    assert_same(decode(decoder, wav()), in_this_process(wav()))


def lock_turns() -> None:
    """Raise BlockingIOError where a decoder has a turn."""
    for path in Path(tempfile.gettempdir()).glob("*.lock"):
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_bug_of_the_decoder_fails_the_track_and_the_child_stays(decoder):
    pid = whoami(decoder)[0]
    failure = error_of(decoder, b"badbug  ")
    assert (failure.error, failure.message) == ("corrupt", "KeyError: 'a bug'")
    assert whoami(decoder)[0] == pid


@pytest.mark.parametrize("what", [b"openfile", b"connect ", b"process "])
def test_the_child_is_in_the_sandbox(decoder, what):
    assert "Operation not permitted" in error_of(decoder, what).message
    decode(decoder, wav())


def test_the_child_has_no_credentials(monkeypatch):
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MY_PASSWORD"):
        monkeypatch.setenv(name, "secret")
    with Decoder(child=__name__) as decoder:
        names = whoami(decoder)[3]
    assert "PATH" in names and "AWS" not in names and "PASSWORD" not in names


def test_a_file_beyond_the_limits_is_too_large(tmp_path):
    limits = DecoderLimits(max_bytes=10_000, sound=SoundLimits(max_channels=1))
    path = tmp_path / "large.wav"
    path.write_bytes(wav())
    with Decoder(limits) as decoder:
        for source in (wav(), str(path), io.BytesIO(wav())):
            failure = error_of(decoder, source)
            assert (failure.error, failure.message) == ("too_large", f"{len(wav())} bytes: allowed are up to 10000")
        stereo = encoded(np.zeros((2000, 2), np.float32), "WAV", "PCM_16", 16000)
        assert "2 channels" in error_of(decoder, stereo).message


@pytest.mark.parametrize(
    "packet",
    [
        b"words",
        b'{"error": ["decode", "nonsense", ""]}',
        b'{"rate_hz": 0, "n_frames": 1}',
        b'{"read": [0, -1]}',
        b'{"read": [0, 200000]}',
        b'{"rate_hz": 16000, "n_frames": 1, "more": "' + b"x" * 70_000 + b'"}',
    ],
)
def test_a_child_that_sends_nonsense_crashes_that_track_alone(decoder, packet):
    pid = whoami(decoder)[0]
    failure = error_of(decoder, io.BytesIO(b"send    " + packet))
    assert (failure.stage, failure.error) == ("decode", "crashed")
    assert "wrong message" in failure.message
    assert gone(pid)
    decode(decoder, wav())


def test_a_child_that_reads_what_it_was_given_crashes(decoder):
    assert error_of(decoder, b"send    " + b'{"read": [0, 8]}').error == "crashed"


def test_a_child_that_sends_unasked_is_replaced_before_the_next_track(decoder):
    pid = whoami(decoder)[0]
    for n_frames in (16_000, 17_000):  # the second answer, if it stayed, would be the next track's
        decoder.open(b"send    " + b'{"rate_hz": 16000, "n_frames": %d}' % n_frames)
        assert wait_until(lambda: not decoder._is_idle())
    assert decoder.open(wav()) == (16_000, 32_000)
    assert whoami(decoder)[0] != pid


def test_a_child_that_does_not_receive_times_out(decoder):
    began = time.monotonic()
    assert error_of(decoder, io.BytesIO(b"hoarding" + bytes(1000))).error == "timed_out"
    assert time.monotonic() - began < 10


def test_a_child_that_a_realtime_signal_ends_has_crashed(decoder):
    assert error_of(decoder, b"realtime").message == "the decoder was killed by signal 40"


def test_a_message_can_be_written_as_utf_8(decoder):
    error_of(decoder, b"lonesurr").message.encode()


def test_a_sound_beyond_the_limits_is_too_large(decoder):
    assert error_of(decoder, b"send    " + b'{"rate_hz": 16000, "n_frames": 1000000000}').error == "too_large"


def test_nothing_is_read_where_no_recording_is_open(decoder):
    decoder.open(b"later segfault")
    for words in ("SIGSEGV", "no recording is open"):
        with pytest.raises(TrackError, match=words) as caught:
            decoder.read(Stretches(places=[(1, 1)], are_excerpts=True))
        assert caught.value.error == "crashed"
    error_of(decoder, b"a poem, not a song")
    with pytest.raises(TrackError, match="no recording is open"):
        decoder.read(WHOLE)


def test_a_child_killed_between_two_tracks_is_replaced(decoder):
    pid = whoami(decoder)[0]
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: gone(pid))
    decode(decoder, wav())


def test_a_child_killed_between_two_requests_for_a_track_fails_it_alone(decoder):
    pid = whoami(decoder)[0]
    decoder.open(wav())
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(TrackError, match="SIGKILL") as caught:
        decoder.read(WHOLE)
    assert caught.value.error == "killed"  # as the kernel does where memory runs out: the track may be a good one
    decode(decoder, wav())


def test_the_error_of_reading_the_source_is_raised(decoder):
    class Failing(io.BytesIO):
        def read(self, size=-1):
            raise TrackError("fetch", "unavailable", "the store went away")

    assert error_of(decoder, Failing(wav())).error == "unavailable"
    decode(decoder, wav())


def test_a_path_that_is_not_a_file_raises_at_once(decoder, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "none.wav", tmp_path / "pipe", tmp_path):
        with pytest.raises(OSError):
            decoder.open(str(path))
    decode(decoder, wav())


def test_the_child_inherits_nothing_and_ignores_an_interrupt(decoder):
    secret = os.memfd_create("secret", 0)
    os.set_inheritable(secret, True)
    with Decoder(child=__name__) as fresh:
        pid, n_open, ignored, names = whoami(fresh)
        assert n_open == 5 and ignored  # stdin, stdout, stderr, the socket and the recording
        for _ in range(20):
            decode(fresh, wav())
        assert whoami(fresh) == (pid, n_open, ignored, names)
    os.close(secret)
    assert gone(pid)


def test_this_process_keeps_no_descriptors_open(decoder):
    decode(decoder, wav())
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(20):
        decode(decoder, wav())
        error_of(decoder, b"a poem")
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # noqa: PTH208  the last recording may still be mapped


def test_what_a_child_prints_is_dropped(decoder, capfd):
    assert error_of(decoder, b"print   ").error == "not_audio"
    assert capfd.readouterr() == ("", "")


def test_a_child_that_hangs_ends_with_its_killed_parent(tmp_path):
    script = f"""
import sys, threading
sys.path[:0] = {sys.path!r}
from mtl_core.audio.decoding.decoder_process import Decoder
decoder = Decoder(child={__name__!r})
def first():  # the thread that starts the child ends; the child must stay
    try: decoder.open(b"whoami  ")
    except Exception as error: print(error.message.split()[0], flush=True)
thread = threading.Thread(target=first); thread.start(); thread.join()
try: decoder.open(b"whoami  ")
except Exception as error: print(error.message.split()[0], flush=True)
decoder.open(b"hang    ")
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    first, second = int(parent.stdout.readline()), int(parent.stdout.readline())
    assert first == second
    time.sleep(0.1)
    assert not gone(second)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_until(lambda: gone(second))


def test_a_child_decodes_on_while_its_parent_exits():
    """Python joins threads at exit. The child must not end before: a good track would seem to have crashed it."""
    script = f"""
import sys, threading, time
sys.path[:0] = {sys.path!r}
from mtl_core.audio.decoding.decoder_process import Decoder
decoder = Decoder(child={__name__!r})
decoder.open(b"later   " + bytes(8))
def work():
    try: decoder.open(b"sleepy  ")
    except Exception as error: print(error.message)
threading.Thread(target=work).start()
time.sleep(0.3)  # the main thread ends while the other decodes
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.stdout == "awake\n", ended


def test_a_child_that_cannot_start_is_not_an_error_of_the_track():
    with (
        Decoder(child="mtl_core.no_such_module") as decoder,
        pytest.raises(RuntimeError, match=r"does not start.*No module named"),
    ):
        decode(decoder, wav())


def test_the_smallest_memory_limit_is_enough_to_decode():
    with Decoder(DecoderLimits(memory_limit_bytes=1 << 29)) as decoder:
        assert_same(decode(decoder, wav(16000 * 119)), in_this_process(wav(16000 * 119)))
    with pytest.raises(ValueError, match=r"time limit .* 86400 s, got 0"):
        DecoderLimits(time_limit_s=0)
    with pytest.raises(ValueError, match=r"memory limit .* 512 to .* MiB, got 100"):
        DecoderLimits(memory_limit_bytes=100 << 20)
    with pytest.raises(ValueError, match=r"1 byte or more, got 0"):
        DecoderLimits(max_bytes=0)


def test_the_child_imports_nothing_slow():
    modules = ("scipy", "librosa", "torch", "ray", "pyarrow", "fsspec", "mtl_core.audio.decoding.decoder_process")
    script = (
        f"import sys, mtl_core.audio.decoding.decoder_child; print([name for name in {modules} if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n"


if __name__ == "__main__":
    serve(open_misbehaving)  # type: ignore[arg-type]
