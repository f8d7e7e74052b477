"""A bad file costs one track, whatever it does to the decoder.

This file is also a child that misbehaves: `Decoder(child=__name__)` runs it, and the first bytes of a file tell it how.
"""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mtl_core.audio.decode import Recording, read_recording
from mtl_core.audio.decoder_child import serve
from mtl_core.audio.decoder_process import Decoder, DecoderLimits
from mtl_core.errors import TrackError


def misbehaving(file: io.BufferedReader) -> Recording:
    match file.read(8):
        case b"segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case b"hang    ":
            time.sleep(1000)
        case b"allocate":
            np.ones(1 << 40)
        case b"badbug  ":
            raise KeyError("a bug")
        case b"diskfail":
            raise OSError("I/O error")
        case b"whoami  ":
            open_files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  the fewest open files while counting
            ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            raise TrackError("decode", "corrupt", f"{os.getpid()} {open_files} {ignored}")
        case b"print   ":
            os.write(1, b"noise" * 100)
            print("noise", flush=True)
    file.seek(0)
    return read_recording(file)


def wav(n_frames: int = 32000, rate_hz: int = 16000) -> bytes:
    file = io.BytesIO()
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, n_frames).astype(np.float32)
    soundfile.write(file, samples, rate_hz, "FLOAT", format="WAV")
    return file.getvalue()


@pytest.fixture(scope="module")
def decoder():
    with Decoder(DecoderLimits(time_limit_s=1.0), child=__name__) as decoder:
        yield decoder


def error_of(decoder: Decoder, source) -> TrackError:
    with pytest.raises(TrackError) as caught:
        decoder.decode(source)
    return caught.value


def assert_same(actual: Recording, expected: Recording) -> None:
    assert actual.duration_s == expected.duration_s
    assert len(actual.excerpts) == len(expected.excerpts)
    for one, other in zip(actual.excerpts, expected.excerpts, strict=True):
        assert one.start_s == other.start_s
        np.testing.assert_array_equal(one.samples, other.samples)


def whoami(decoder: Decoder) -> tuple[int, int, bool]:
    pid, open_files, ignored = error_of(decoder, b"whoami  ").message.split()
    return int(pid), int(open_files), ignored == "True"


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
    expected = read_recording(io.BytesIO(data))
    for source in (data, str(path), io.BytesIO(data)):
        recording = decoder.decode(source)
        assert_same(recording, expected)
        assert not recording.excerpts[0].samples.flags.writeable


def test_a_recording_stays_valid_after_the_next_one_and_the_decoder():
    with Decoder() as decoder:
        first = decoder.decode(wav())
        decoder.decode(wav(16000))
    assert_same(first, read_recording(io.BytesIO(wav())))


def test_a_remote_file_is_read_in_part(decoder):
    class Counted(io.BytesIO):
        read_bytes = 0

        def read(self, size=-1):
            data = super().read(size)
            self.read_bytes += len(data)
            return data

    source = Counted(wav(16000 * 600))  # 10 minutes, of which 2 are decoded
    decoder.decode(source)
    assert source.read_bytes < 0.25 * len(source.getvalue())


def test_the_time_in_which_the_parent_reads_does_not_count(decoder):
    class Slow(io.BytesIO):
        def read(self, size=-1):
            time.sleep(0.4)
            return super().read(size)

    began = time.monotonic()
    decoder.decode(Slow(wav(100_000)))
    assert time.monotonic() - began > decoder.limits.time_limit_s


def test_errors_of_a_track_are_raised_and_the_child_stays(decoder):
    before = whoami(decoder)[0]
    assert error_of(decoder, b"a poem, not a song").error == "not_audio"
    assert error_of(decoder, wav(100)).error == "too_short"
    assert error_of(decoder, b"diskfail").stage == "fetch"
    assert whoami(decoder)[0] == before


@pytest.mark.parametrize(
    "what, error, words",
    [
        (b"segfault", "crashed", "SIGSEGV"),
        (b"hang    ", "timed_out", "1 s"),
        (b"allocate", "out_of_memory", "allocate"),
        (b"badbug  ", "crashed", "KeyError: 'a bug'"),
    ],
)
def test_a_track_that_ends_the_child_fails_alone(decoder, what, error, words):
    pid = whoami(decoder)[0]
    failure = error_of(decoder, what)
    assert (failure.stage, failure.error) == ("decode", error)
    assert words in failure.message
    assert gone(pid)
    assert_same(decoder.decode(wav()), read_recording(io.BytesIO(wav())))
    assert whoami(decoder)[0] != pid


def test_a_child_killed_between_two_tracks_is_replaced(decoder):
    pid = whoami(decoder)[0]
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: gone(pid))
    decoder.decode(wav())


def test_the_error_of_reading_the_source_is_raised(decoder):
    class Failing(io.BytesIO):
        def read(self, size=-1):
            raise TrackError("fetch", "unavailable", "the store went away")

    assert error_of(decoder, Failing(wav())).error == "unavailable"
    decoder.decode(wav())


def test_a_path_that_is_not_a_file_raises_at_once(decoder, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "none.wav", tmp_path / "pipe", tmp_path):
        with pytest.raises(OSError):
            decoder.decode(str(path))
    decoder.decode(wav())


def test_the_child_inherits_nothing_and_ignores_an_interrupt(decoder):
    secret = os.memfd_create("secret", 0)
    os.set_inheritable(secret, True)
    with Decoder(child=__name__) as fresh:
        pid, open_files, ignored = whoami(fresh)
        # stdin, stdout, stderr, the socket, the recording and the listing itself
        assert open_files == 6 and ignored
        for _ in range(20):
            fresh.decode(wav())
        assert whoami(fresh) == (pid, open_files, ignored)
    os.close(secret)
    assert gone(pid)


def test_this_process_keeps_no_descriptors_open(decoder):
    decoder.decode(wav())
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(20):
        decoder.decode(wav())
        error_of(decoder, b"a poem")
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # noqa: PTH208  the last recording may still be mapped


def test_what_a_child_prints_is_dropped(decoder, capfd):
    assert error_of(decoder, b"print   ").error == "not_audio"
    assert capfd.readouterr() == ("", "")


def test_a_child_that_hangs_ends_with_its_killed_parent(tmp_path):
    script = f"""
import sys, threading
sys.path[:0] = {sys.path!r}
from mtl_core.audio.decoder_process import Decoder
decoder = Decoder(child={__name__!r})
def first():  # the thread that starts the child ends; the child must stay
    try: decoder.decode(b"whoami  ")
    except Exception as error: print(error.message.split()[0], flush=True)
thread = threading.Thread(target=first); thread.start(); thread.join()
try: decoder.decode(b"whoami  ")
except Exception as error: print(error.message.split()[0], flush=True)
decoder.decode(b"hang    ")
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


def test_a_child_that_cannot_start_is_not_an_error_of_the_track():
    with (
        Decoder(child="mtl_core.no_such_module") as decoder,
        pytest.raises(RuntimeError, match=r"does not start.*No module named"),
    ):
        decoder.decode(wav())


def test_the_smallest_memory_limit_is_enough_to_decode():
    with Decoder(DecoderLimits(memory_limit_bytes=1 << 29)) as decoder:
        assert_same(decoder.decode(wav(16000 * 119)), read_recording(io.BytesIO(wav(16000 * 119))))
    with pytest.raises(ValueError, match=r"time limit .* 86400 s, got 0"):
        DecoderLimits(time_limit_s=0)
    with pytest.raises(ValueError, match=r"memory limit .* 512 to .* MiB, got 100"):
        DecoderLimits(memory_limit_bytes=100 << 20)


def test_the_child_imports_nothing_slow():
    modules = ("scipy", "librosa", "torch", "ray", "pyarrow", "fsspec", "mtl_core.audio.decoder_process")
    script = f"import sys, mtl_core.audio.decoder_child; print([name for name in {modules} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n"


if __name__ == "__main__":
    serve(misbehaving)  # type: ignore[arg-type]
