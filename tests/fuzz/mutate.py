"""Mutation fuzzer: damaged sound files -> segments, through a real decoder child.

`make fuzz MINUTES=10` runs it. A file is known by the name of the file that is mutated, and a seed. To run one again:

    PYTHONPATH=tests .venv/bin/python -m fuzz.mutate --file "m4a" --seed 17

Every file must give finite segments, as many as the front end plans, or a failure of `errors.ERRORS`. What is a fault:
another exception, a decoder that crashed, timed out or had an exception of Python, a failure of stage fetch, wrong
segments. Faults are printed, and their files saved.
"""

import argparse
import builtins
import concurrent.futures
import contextlib
import itertools
import multiprocessing
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from builders.sound_files import EXACT_FORMATS
from fuzz.base_files import base_files, with_checksums

from mtl_core.audio.decoding.decode import SAMPLE_RATE_HZ, Recording, resampled_length
from mtl_core.audio.decoding.decoder_limits import DecoderLimits
from mtl_core.audio.decoding.decoder_process import Decoder
from mtl_core.audio.front_end import FrontEnd, Segments, log_mel_segments
from mtl_core.audio.mel import MEL_SHAPE
from mtl_core.audio.segments import spread_starts
from mtl_core.errors import TrackError

FRONT_END = FrontEnd(sampling="spread", segments=8)
LIMITS = DecoderLimits(time_limit_s=5, memory_limit_bytes=1 << 30)
WORKERS = 2
BATCH = 39  # files that a worker runs before it tells the results
#: Numbers that headers do not expect: none, negative ones, the largest, and those around them.
LIES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF]
_PYTHON_ERROR = re.compile(r"([A-Za-z_]\w*): ")


def mutated(files: dict[str, bytes], name: str, seed: int) -> bytes:
    """The file of this name with 1 to 4 changes, which the seed decides."""
    rng = random.Random(f"{name}/{seed}")
    data = files[name]
    for _ in range(rng.choice((1, 1, 2, 4))):
        change = rng.choice(_CHANGES)
        data = change(data, rng, files) or data
    return with_checksums(data) if data.startswith(b"OggS") and rng.random() < 0.7 else data


@dataclass(frozen=True)
class Outcome:
    """What became of a mutated file."""

    name: str  # of the file that was mutated
    seed: int
    outcome: str  # "segments", "stage/error", or the name of an exception
    fault: str | None  # what is wrong with it
    seconds: float
    peak_mib: float  # of the decoder's resident memory so far


def run_file(decoder: Decoder, data: bytes) -> tuple[str, str | None]:
    """The outcome of a file's bytes, and what is wrong with it."""
    try:
        rate_hz, n_frames = decoder.open(data)
        stretches = FRONT_END.stretches(n_frames, rate_hz)
        recording = decoder.read(stretches)
        segments = log_mel_segments(recording, FRONT_END)
    except TrackError as error:
        return f"{error.stage}/{error.error}", _fault(error)
    except Exception as error:  # noqa: BLE001  any exception is a fault
        return type(error).__name__, f"an exception in the parent: {error}"
    return "segments", _wrong_result(recording, segments, rate_hz, n_frames)


def main() -> int:
    """Mutate and run files until the time is over; 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--files", type=int, help="end after so many files")
    parser.add_argument("--seed", type=int, help="the first one; default: a random one")
    parser.add_argument("--file", help="run the file of this name and --seed, and no other")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="the folder of faulty files")
    options = parser.parse_args()
    seed = random.randrange(10**9) if options.seed is None else options.seed
    files = base_files()
    if options.file:
        return _run_one(files, options.file, seed, options.out)
    print(f"{len(files)} files are mutated, the first seed is {seed}", flush=True)
    cases = ((name, number) for number in itertools.count(seed) for name in files)
    report = _Report(files, options.out)
    for outcome in _outcomes(files, itertools.islice(cases, options.files), time.monotonic() + 60 * options.minutes):
        report.add(outcome)
    print(report.summary())
    return 1 if report.faults else 0


# Changes: (data, rng, files) -> the changed data.


def _flip_bits(data: bytes, rng: random.Random, _: dict[str, bytes]) -> bytes:
    changed, window = bytearray(data), _window(data, rng)
    for _ in range(rng.choice((1, 4, 32, 256))):
        changed[rng.choice(window)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _lie(data: bytes, rng: random.Random, _: dict[str, bytes]) -> bytes:
    """Another number of 1 to 8 bytes in place of one of the header."""
    at, size, order = rng.choice(_window(data, rng)), rng.choice((1, 2, 4, 4, 4, 8)), rng.choice(("big", "little"))
    number = int.from_bytes(data[at : at + size], order)
    number = rng.choice([*LIES, number + 1, number - 1, 2 * number, number // 2, rng.getrandbits(8 * size)])
    return data[:at] + (number % (1 << 8 * size)).to_bytes(size, order) + data[at + size :]


def _truncate(data: bytes, rng: random.Random, _: dict[str, bytes]) -> bytes:
    at = rng.choice(_window(data, rng))
    return data[at:] if rng.random() < 0.2 else data[:at]


def _splice(data: bytes, rng: random.Random, files: dict[str, bytes]) -> bytes:
    other = files[rng.choice(list(EXACT_FORMATS))]
    return data[: rng.choice(_window(data, rng))] + other[rng.choice(_window(other, rng)) :]


def _punch(data: bytes, rng: random.Random, _: dict[str, bytes]) -> bytes:
    at, size = rng.choice(_window(data, rng)), rng.choice((4, 64, 1000, 4096, 30_000))
    return data[:at] + (bytes(size) if rng.random() < 0.5 else rng.randbytes(size)) + data[at + size :]


def _repeat(data: bytes, rng: random.Random, _: dict[str, bytes]) -> bytes:
    """A piece of the file once more, or many times, somewhere else or behind itself."""
    at, size = rng.choice(_window(data, rng)), rng.choice((8, 100, 5000, 50_000))
    to = rng.choice((at + size, rng.choice(_window(data, rng))))
    return data[:to] + data[at : at + size] * rng.choice((1, 1, 3, 30)) + data[to:]


def _cut_out(data: bytes, rng: random.Random, _: dict[str, bytes]) -> bytes:
    at = rng.choice(_window(data, rng))
    return data[:at] + data[at + rng.choice((1, 4, 100, 5000)) :]


_CHANGES: list[Callable[[bytes, random.Random, dict[str, bytes]], bytes]]
_CHANGES = [_flip_bits, _flip_bits, _lie, _lie, _lie, _truncate, _splice, _punch, _repeat, _cut_out]


def _window(data: bytes, rng: random.Random) -> range:
    """Where a change begins: near the file's start, where headers are, near its end, or anywhere."""
    n = len(data)
    return rng.choice((range(min(n, 64)), range(min(n, 600)), range(max(0, n - 3000), n), range(n), range(n)))


def _fault(error: TrackError) -> str | None:
    """What is wrong with a failure; None for one that a damaged file may have."""
    found = _PYTHON_ERROR.match(error.message)
    is_python = found and (found[1] in vars(builtins) or found[1].lower().endswith(("error", "exception")))
    if error.stage == "fetch" or error.error in ("crashed", "timed_out") or is_python:
        return f"{error.stage}/{error.error}: {error.message}"
    return None


def _wrong_result(recording: Recording, segments: Segments, rate_hz: int, n_frames: int) -> str | None:
    """What is wrong with the segments of a file; None where nothing is."""
    starts = spread_starts(resampled_length(n_frames, rate_hz), 8)
    mels, asked_s = segments.mel_STF, sum(len(excerpt.samples) for excerpt in recording.excerpts) / SAMPLE_RATE_HZ
    wrong = {
        f"segments of shape {mels.shape} for {len(starts)} starts": mels.shape != (len(starts), *MEL_SHAPE),
        "segments that are not finite": not np.isfinite(mels).all() or mels.dtype != np.float32,
        f"starts {segments.start_s}": not np.array_equal(segments.start_s, starts / SAMPLE_RATE_HZ),
        f"{recording.duration_s} s": recording.duration_s != n_frames / rate_hz,
        f"{recording.lost_s} s lost of {asked_s} s": not 0 <= recording.lost_s <= asked_s + 0.2 * len(starts),
    }
    return "; ".join(text for text, is_wrong in wrong.items() if is_wrong) or None


_worker: tuple[Decoder, dict[str, bytes]]  # of a worker process


def _start_worker(files: dict[str, bytes]) -> None:
    global _worker
    _worker = Decoder(LIMITS), files


def _run_batch(cases: list[tuple[str, int]]) -> list[Outcome]:
    decoder, files = _worker
    outcomes = []
    for name, seed in cases:
        data, began = mutated(files, name, seed), time.monotonic()
        outcome, fault = run_file(decoder, data)
        if outcome == "decode/timed_out":
            outcome, fault = _run_slowly(data)
        outcomes.append(Outcome(name, seed, outcome, fault, time.monotonic() - began, _peak_mib()))
    return outcomes


def _run_slowly(data: bytes) -> tuple[str, str | None]:
    """As `run_file`, by CPU time: the machine may have been busy."""
    with Decoder(replace(LIMITS, time_limit_s=60)) as decoder:
        cpu_s = decoder.cpu_s()
        outcome, fault = run_file(decoder, data)
        cpu_s = decoder.cpu_s() - cpu_s
    return outcome, f"{cpu_s:.1f} s of CPU" if cpu_s > LIMITS.time_limit_s else fault


def _peak_mib() -> float:
    """The most resident memory of the child of this process so far."""
    peak = 0
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in children.read_text().split():
            with contextlib.suppress(OSError):  # it has just ended
                found = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())
                peak = max(peak, int(found[1]) if found else 0)
    return peak / 1024


def _outcomes(files: dict[str, bytes], cases: Iterator[tuple[str, int]], deadline: float) -> Iterator[Outcome]:
    """The outcomes of cases, which two processes run until the deadline."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(WORKERS, context, _start_worker, (files,)) as workers:
        pending: set[concurrent.futures.Future[list[Outcome]]] = set()
        while True:
            while len(pending) < 2 * WORKERS and time.monotonic() < deadline:
                batch = list(itertools.islice(cases, BATCH))
                if not batch:
                    break
                pending.add(workers.submit(_run_batch, batch))
            if not pending:
                return
            done, pending = concurrent.futures.wait(pending, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                yield from future.result()


class _Report:
    """Counts outcomes, prints a line each 10 s, and saves the files of faults."""

    def __init__(self, files: dict[str, bytes], folder: Path) -> None:
        self.faults: list[Outcome] = []
        self._files, self._folder = files, folder
        self._counts: Counter[str] = Counter()
        self._slowest: Outcome | None = None
        self._peak_mib = 0.0
        self._began = self._printed = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        self._counts[outcome.outcome] += 1
        self._peak_mib = max(self._peak_mib, outcome.peak_mib)
        if self._slowest is None or outcome.seconds > self._slowest.seconds:
            self._slowest = outcome
        if outcome.fault:
            self.faults.append(outcome)
            path = _save(self._files, outcome.name, outcome.seed, self._folder)
            print(f"FAULT --file {outcome.name!r} --seed {outcome.seed}: {outcome.fault} ({path})", flush=True)
        if time.monotonic() - self._printed > 10:
            self._printed = time.monotonic()
            print(self._line(), flush=True)

    def summary(self) -> str:
        lines = [self._line(), *(f"{n:8} {name}" for name, n in self._counts.most_common())]
        if self._slowest:
            lines.append(f"slowest: {self._slowest.seconds:.2f} s, {self._slowest.name!r} {self._slowest.seed}")
        return "\n".join([*lines, f"the decoder's largest resident memory: {self._peak_mib:.0f} MiB"])

    def _line(self) -> str:
        seconds = time.monotonic() - self._began
        return f"{self._counts.total()} files in {seconds:.0f} s, {len(self.faults)} faults"


def _save(files: dict[str, bytes], name: str, seed: int, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{re.sub(r'[^a-z0-9]+', '-', name)}-{seed}"
    path.write_bytes(mutated(files, name, seed))
    return path


def _run_one(files: dict[str, bytes], name: str, seed: int, folder: Path) -> int:
    with Decoder(LIMITS) as decoder:
        outcome, fault = run_file(decoder, mutated(files, name, seed))
    print(f"{outcome}: {fault or 'no fault'} ({_save(files, name, seed, folder)})")
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
