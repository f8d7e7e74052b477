"""Check and measure training and tagging on GPUs: python bench/on_gpu.py [--device cpu] [--scale 0.01] [--out FOLDER]

One program for a machine where Ray cannot be installed. It needs torch, numpy, scipy, safetensors, soxr, av and
soundfile, and takes under 8 minutes on a GPU. Models are untrained and of the paper's size (68 artists, 17 languages).

- training: an epoch of `best` and of `paper` in float32 and bfloat16, with and without channels_last and torch.compile,
  at the recipe's batch and at a large one. Batches are on the device already.
- ddp: data-parallel training on all GPUs (nccl). Checked: all ranks end with the same weights.
- engine: `TorchEngine` on the device against the CPU. Checked: the largest distance.
- fed: training and tagging, fed by a process on each core that decodes wav files and makes mels.

Measured: segments a second; share of time that the GPU works (nvidia-smi); peak memory. Writes FOLDER/on_gpu.json and
on_gpu.md; exit status 1 where a check fails. On a CPU gloo takes the place of nccl."""

import argparse
import itertools
import json
import math
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's; the feeding processes take one core each
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import soundfile
import torch
from torch import Tensor

from mtl_core.audio.front_end import FrontEnd, log_mel_segments, read_recording
from mtl_core.inference.torch_engine import TorchEngine
from mtl_core.model.cnn import BANDS, FRAMES, MultitaskCNN
from mtl_core.model.recipes import RECIPES, Recipe
from mtl_core.model.train_step import Workers, make_optimizer, train_epoch

CLASSES = {"artist": 68, "language": 17}
MAX_DISTANCE = 1e-4  # of an embedding value between the device and the CPU
#: Name -> (dtype, channels_last, torch.compile). In float32 torch's default lets convolutions use TF32.
VARIANTS = {
    "float32": (torch.float32, True, False),
    "bfloat16": (torch.bfloat16, True, False),
    "bfloat16, default order": (torch.bfloat16, False, False),
    "bfloat16, compiled": (torch.bfloat16, True, True),
}
NVIDIA_SMI = "nvidia-smi -i 0 --query-gpu=utilization.gpu --format=csv,noheader,nounits -lms 200".split()
HAS_NVIDIA_SMI = shutil.which("nvidia-smi") is not None
Row = dict[str, Any]


class Sizes:
    """How much is measured; at a scale of 1 an epoch has 10,800 segments at the recipe's batch of 32."""

    def __init__(self, scale: float) -> None:
        self.batches = (32, 512) if scale >= 1 else (8,)  # segments of an update
        self.updates = max(2, round(338 * scale))  # of an epoch, and of the data-parallel training
        self.segments = max(16, round(10_000 * scale))  # through the engine
        self.tracks = max(3, round(80 * scale * (os.cpu_count() or 1)))  # through the feeding processes
        self.track_s = 130 if scale >= 1 else 7


class Meter:
    """Wall clock, share of GPU time and peak memory of the body of `running`."""

    def __init__(self, device: torch.device) -> None:
        self._device, self.seconds = device, 0.0
        self.busy: float | None = None
        self.peak_mib: float | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure the body."""
        on_gpu = self._device.type == "cuda"
        sampler = subprocess.Popen(NVIDIA_SMI, stdout=subprocess.PIPE, text=True) if on_gpu and HAS_NVIDIA_SMI else None
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = time.monotonic()
        yield
        if on_gpu:
            torch.cuda.synchronize()
            self.peak_mib = torch.cuda.max_memory_allocated() / 2**20
        self.seconds = time.monotonic() - start
        if sampler is not None:
            sampler.terminate()
            samples = [float(line) for line in sampler.communicate()[0].split() if line.replace(".", "").isdigit()]
            self.busy = sum(samples) / len(samples) / 100 if samples else None

    def row(self, segments: int) -> Row:
        """The figures of a table."""
        rate = round(segments / self.seconds, 1)
        return {"segments_per_s": rate, "gpu_busy": self.busy, "peak_mib": self.peak_mib}


def new_model(recipe: Recipe, device: torch.device) -> MultitaskCNN:
    torch.manual_seed(0)
    return MultitaskCNN(recipe.model_config(CLASSES)).to(device)


def random_batches(size: int, device: torch.device) -> list[dict[str, Tensor]]:
    """Four batches of noise on the device."""
    random = torch.Generator().manual_seed(1)
    batches = []
    for _ in range(4):
        targets = {task: torch.randint(count, (size,), generator=random) for task, count in CLASSES.items()}
        batch = {"mel": 3 * torch.rand(size, FRAMES, BANDS, generator=random), **targets}
        batches.append({name: values.to(device) for name, values in batch.items()})
    return batches


def train_updates(
    network: torch.nn.Module, optimizer: Any, recipe: Recipe, batches: list[dict[str, Tensor]], updates: int, **how: Any
) -> float:
    """Train on the batches in turn; the loss, which waits for the device."""
    batches_in_turn = itertools.islice(itertools.cycle(batches), updates)
    return train_epoch(network, optimizer, batches_in_turn, recipe, classes=CLASSES, epoch=1, updates=updates, **how)


def measure_training(sizes: Sizes, device: torch.device, pool: Pool) -> list[Row]:
    rows = []
    for name, size, variant in itertools.product(("best", "paper"), sizes.batches, VARIANTS):
        dtype, channels_last, compiled = VARIANTS[variant]
        if compiled and device.type == "cuda" and not shutil.which("cc"):
            print(f"no C compiler: {variant} is left out", file=sys.stderr)
            continue
        order = torch.channels_last if channels_last else torch.contiguous_format
        model = new_model(RECIPES[name], device).to(memory_format=order)
        optimizer = make_optimizer(model, RECIPES[name])
        backend = "inductor" if device.type == "cuda" else "eager"  # on a CPU inductor takes more than a minute
        network = torch.compile(model, backend=backend) if compiled else model
        run = partial(train_updates, network, optimizer, RECIPES[name], random_batches(size, device), dtype=dtype)
        run(1 if device.type == "cpu" else 5)  # warms up and compiles
        updates, meter = max(2, sizes.updates * sizes.batches[0] // size), Meter(device)
        with meter.running():
            loss = run(updates)
        row = {"recipe": name, "batch": size, "variant": variant, "loss": loss, **meter.row(updates * size)}
        rows.append({**row, "passed": math.isfinite(loss)})
    return rows


def measure_ddp(sizes: Sizes, device: torch.device, pool: Pool) -> list[Row]:
    world_size = torch.cuda.device_count() if device.type == "cuda" else 2
    rows = []
    for size in sizes.batches:
        with tempfile.TemporaryDirectory() as folder:
            arguments = (world_size, device.type, size, sizes.updates, folder)
            torch.multiprocessing.spawn(train_data_parallel, args=arguments, nprocs=world_size)
            ranks = [torch.load(f"{folder}/{rank}.pt", weights_only=True) for rank in range(world_size)]
        same = all(torch.equal(ranks[0]["weights"], rank["weights"]) for rank in ranks)
        rate = round(world_size * size * sizes.updates / max(rank["seconds"] for rank in ranks), 1)
        rows.append({"workers": world_size, "batch_per_worker": size, "segments_per_s": rate, "passed": same})
    return rows


def train_data_parallel(rank: int, world_size: int, kind: str, size: int, updates: int, folder: str) -> None:
    """One rank of `measure_ddp`: writes its seconds and its weights to FOLDER/RANK.pt."""
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // world_size))
    warnings.filterwarnings("ignore", message=".*broadcast_buffers")
    torch.distributed.init_process_group(
        "nccl" if kind == "cuda" else "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size
    )
    recipe, model = RECIPES["best"], new_model(RECIPES["best"], device)
    network = torch.nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
    optimizer = make_optimizer(model, recipe)
    workers = Workers(size=world_size)
    batches = random_batches(size, device)
    for count in (2, updates):  # the first ones warm up
        start = time.monotonic()
        train_updates(network, optimizer, recipe, batches, count, workers=workers)
    weights = torch.cat([parameter.detach().cpu().flatten() for parameter in model.parameters()])
    torch.save({"seconds": time.monotonic() - start, "weights": weights}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def measure_engine(sizes: Sizes, device: torch.device, pool: Pool) -> list[Row]:
    mel_STF = 3 * np.random.default_rng(0).random((sizes.segments, FRAMES, BANDS), np.float32)
    few_STF = mel_STF[: min(256, len(mel_STF) // 4)]
    rows = []
    for name in ("best", "paper"):
        on_cpu = TorchEngine(new_model(RECIPES[name], torch.device("cpu")), "cpu").infer(few_STF)
        engine = TorchEngine(new_model(RECIPES[name], device), device.type)
        on_device = engine.infer(few_STF)
        distance = float(np.abs(on_cpu - on_device).max())
        meter = Meter(device)
        with meter.running():
            engine.infer(mel_STF)
        row = {"recipe": name, "largest_distance": distance, **meter.row(len(mel_STF))}
        rows.append({**row, "passed": distance < MAX_DISTANCE})
    return rows


def make_mels(path: str) -> np.ndarray:
    """The segments of a track, (S, 187, 96) float32; runs in a feeding process."""
    with Path(path).open("rb") as file:
        return log_mel_segments(read_recording(file, FrontEnd()), FrontEnd()).mel_STF


def measure_fed(sizes: Sizes, device: torch.device, pool: Pool) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = list(itertools.islice(itertools.cycle(write_tracks(Path(folder), sizes)), sizes.tracks))
        for name, (what, consume) in itertools.product(("best", "paper"), (("tagging", tag), ("training", train))):
            meter, model = Meter(device), new_model(RECIPES[name], device)
            with meter.running():
                segments = consume(model, RECIPES[name], pool.imap_unordered(make_mels, paths), device)
            row = {"recipe": name, "what": what, "processes": os.cpu_count(), **meter.row(segments)}
            rows.append({**row, "passed": segments > 0})
    return rows


def write_tracks(folder: Path, sizes: Sizes) -> list[str]:
    """A few stereo wav files of noise."""
    random = np.random.default_rng(0)
    paths = [str(folder / f"{number}.wav") for number in range(min(sizes.tracks, 16))]
    for path in paths:
        soundfile.write(path, 0.1 * random.standard_normal((sizes.track_s * 44_100, 2), np.float32), 44_100)
    return paths


def tag(model: MultitaskCNN, recipe: Recipe, tracks: Iterable[np.ndarray], device: torch.device) -> int:
    """Infer all tracks, one at a time; the number of segments."""
    engine = TorchEngine(model, device.type)
    return sum(len(engine.infer(mel_STF)) for mel_STF in tracks)


def train(model: MultitaskCNN, recipe: Recipe, tracks: Iterable[np.ndarray], device: torch.device) -> int:
    """Train on each track's segments; their number."""
    sizes = []

    def batches() -> Iterator[dict[str, Tensor]]:
        for mel_BTF in (batch for mel_STF in tracks for batch in torch.from_numpy(mel_STF).split(recipe.global_batch)):
            sizes.append(len(mel_BTF))
            labels = {task: torch.randint(count, (len(mel_BTF),)) for task, count in CLASSES.items()}
            yield {name: values.to(device) for name, values in {"mel": mel_BTF, **labels}.items()}

    train_epoch(model, make_optimizer(model, recipe), batches(), recipe, classes=CLASSES, epoch=1, updates=100_000)
    return sum(sizes)


PARTS = {"training": measure_training, "ddp": measure_ddp, "engine": measure_engine, "fed": measure_fed}


def markdown(results: dict[str, Any]) -> str:
    """The results as tables for docs/gpu.md."""

    def cell(value: Any) -> str:
        return "-" if value is None else f"{value:,.4g}" if isinstance(value, float) else str(value)

    parts = [", ".join(f"{name} {value}" for name, value in results["machine"].items())]
    for part in PARTS:
        if rows := results.get(part):
            lines = [list(rows[0]), ["---"] * len(rows[0]), *([cell(value) for value in row.values()] for row in rows)]
            parts.append(f"### {part}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines))
    return "\n\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Check and measure training and tagging on GPUs.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--scale", type=float, default=1.0, help="of the amounts that are measured, above 0")
    parser.add_argument("--out", type=Path, default=Path("bench-run"))
    given = parser.parse_args()
    pool = multiprocessing.get_context("fork").Pool(os.cpu_count())  # before CUDA starts, which forbids to fork
    device = torch.device(given.device)
    card = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
    machine = {"card": card, "cards": torch.cuda.device_count(), "cores": os.cpu_count(), "torch": torch.__version__}
    results: dict[str, Any] = {"machine": machine | {"scale": given.scale}, "seconds": {}}
    given.out.mkdir(parents=True, exist_ok=True)
    with pool:
        for part, measure in PARTS.items():
            start = time.monotonic()
            results[part] = measure(Sizes(given.scale), device, pool)
            results["seconds"][part] = round(time.monotonic() - start, 1)
            (given.out / "on_gpu.json").write_text(json.dumps(results, indent=1) + "\n")
            (given.out / "on_gpu.md").write_text(markdown(results))
    print(markdown(results))
    failed = [row for part in PARTS for row in results[part] if not row["passed"]]
    print(f"seconds: {results['seconds']}; failed checks: {failed or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
