"""Early exit against fixed numbers of segments: python bench/early_exit.py MELS MODELS…

MODELS are those of `unknown_artists.py`, each trained without some artists and songs of the mels; their rules come from
their own folds. Each is measured on these tracks, which it never saw. A number of segments is a prefix of the order in
which rounds take them; the rule reads as many as it asks for. Prints, over all models' tracks pooled:

- of known artists' songs: top-1 and macro AUC-PR (the mean over the models) of both tasks;
- at an unknown share of one half: the precision of the artist's names, and the coverage of known artists' songs;
- the share of tracks whose tags are those of all segments;
- paired differences to all segments, with 95 % intervals of a bootstrap over songs;
- how many segments the rule reads, by known and unknown artists.

With `--manifest`, that of the tracks, the CPU seconds that a track costs are measured too, on some files that the first
model never saw: the whole tagger with its decoder process, and start-up excluded by two numbers of files. `--picture`
draws top-1 against them.
"""

import argparse
import resource
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from mtl_core.audio.segments import rounds
from mtl_core.dataset.mel_dataset import MelDataset, open_mel_dataset
from mtl_core.dataset.vocabulary import MISSING, TASKS
from mtl_core.evaluation import metrics
from mtl_core.evaluation.predictions import Predictions
from mtl_core.inference.artifacts import artifact as artifacts
from mtl_core.inference.file_tagger import FileTagger
from mtl_core.inference.tagging.aggregation import Aggregation, Tag, tag_embedding
from mtl_core.inference.tagging.early_exit import ExitOptions
from mtl_core.inference.tagging.heads import mean_embedding
from mtl_core.pipelines.predict import predict
from mtl_core.storage.location import Location

RULE = "rule"
RESAMPLES = 1000
FEW, MANY = 8, 88  # files whose costs are compared


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a track gets."""

    tags: dict[str, Tag]
    segments: int  # that were read
    embedding_E: np.ndarray


def outcomes(predicted: Predictions, aggregation: Aggregation, contender: str) -> list[Outcome]:
    """What each track gets with a number of segments, or by the rule."""

    def tags(embedding_E: np.ndarray, numbers: Aggregation) -> dict[str, Tag]:
        return {
            task: tag_embedding(embedding_E, head, task, predicted.vocabularies[task], numbers)
            for task, head in predicted.heads.items()
        }

    results = []
    for embedding_SE in predicted.segments:
        total, read, numbers = len(embedding_SE), 0, np.zeros(0, np.int64)
        for taken in rounds(total) if contender == RULE else [np.concatenate(rounds(total))[: int(contender)]]:
            numbers, read = np.sort(np.concatenate((numbers, taken))), read + len(taken)
            embedding_E = mean_embedding(embedding_SE[numbers])
            of = None if read == total else aggregation.round_of(read)
            found = tags(embedding_E, aggregation if of is None else of.numbers)
            if contender == RULE and of is not None and of.decides(found):
                found = of.final(found)
                break
        results.append(Outcome(tags=found, segments=read, embedding_E=embedding_E))
    return results


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Values of the tracks of all models (N,), and the AUC-PR of each model."""

    right_N: dict[str, np.ndarray]  # task -> whether the most probable label is the true one
    named_N: np.ndarray  # whether the artist is named
    same_N: np.ndarray  # whether all tags are those of all segments
    segments_N: np.ndarray
    auc_pr: dict[str, list[float]]


def measure(models: list[tuple[Predictions, Aggregation]], contender: str) -> Measured:
    right: dict[str, list[bool]] = {task: [] for task in TASKS}
    auc_pr: dict[str, list[float]] = {task: [] for task in TASKS}
    named, same, segments = [], [], []
    for predicted, aggregation in models:
        found, whole = (outcomes(predicted, aggregation, name) for name in (contender, "1024"))
        known_N = predicted.vocabularies["artist"].encode(predicted.tracks["artist"].to_pylist()) != MISSING
        for task in TASKS:
            labels = predicted.tracks[task].to_pylist()
            right[task] += [of.tags[task].top[0][0] == label for of, label in zip(found, labels, strict=True)]
            embedding_NE = np.stack([of.embedding_E for of in found])
            logits_NC = predicted.heads[task].all_logits(embedding_NE)[known_N].astype(np.float64)
            p_NC = np.exp(logits_NC - logits_NC.max(1, keepdims=True))
            p_NC /= p_NC.sum(1, keepdims=True)
            target_N = predicted.vocabularies[task].encode(labels)[known_N]
            auc_pr[task].append(metrics.scores(p_NC, target_N, resamples=0)["auc_pr_macro"])
        named += [of.tags["artist"].label is not None for of in found]
        same += [
            all(a.tags[task].label == b.tags[task].label for task in TASKS) for a, b in zip(found, whole, strict=True)
        ]
        segments += [of.segments for of in found]
    return Measured(
        right_N={task: np.array(values) for task, values in right.items()},
        named_N=np.array(named),
        same_N=np.array(same),
        segments_N=np.array(segments),
        auc_pr=auc_pr,
    )


def precision_and_coverage(of: Measured, known_N: np.ndarray, weight_N: np.ndarray) -> tuple[float, float]:
    """At an unknown share of one half; the weights are the draws of a resample."""
    share_N = np.where(known_N, 0.5 / weight_N[known_N].sum(), 0.5 / weight_N[~known_N].sum()) * weight_N
    named = (share_N * of.named_N).sum()
    precision = (share_N * of.named_N * of.right_N["artist"] * known_N).sum() / named if named else float("nan")
    return float(precision), float((weight_N * of.named_N)[known_N].sum() / weight_N[known_N].sum())


def load(model: Location, mels: Location, dataset: MelDataset) -> tuple[Predictions, Aggregation]:
    artifact = artifacts.load_artifact(model)
    predicted, _ = predict(artifact, dataset, model, mels, on="new", all_segments=True)
    return predicted, artifact.aggregation


def cpu_s_per_track(model: Path, files: list[str], contender: str) -> float:
    """CPU seconds to tag a file, of this process and its decoder process."""
    by_number = {"all": ExitOptions(exit="never"), RULE: ExitOptions()}
    options = by_number.get(contender) or ExitOptions(segments=int(contender))

    def cost(paths: list[str]) -> float:
        before = used()
        with FileTagger(str(model), exit_options=options) as tagger:
            assert not [row for row in tagger.tag(paths) if "error" in row]
        return used() - before

    def used() -> float:
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    return (cost(files[:MANY]) - cost(files[:FEW])) / (len(files[:MANY]) - FEW)


def draw(costs: dict[str, float], measured: dict[str, Measured], known_N: np.ndarray, path: Path) -> None:
    """Top-1 of known artists' songs against CPU seconds a track."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    for task, colour in (("artist", "#3b6fb6"), ("language", "#c2571a")):
        top1 = {name: 100 * measured[name].right_N[task][known_N].mean() for name in costs}
        fixed = [name for name in costs if name != RULE]
        axes.plot([costs[name] for name in fixed], [top1[name] for name in fixed], "o-", color=colour, label=task)
        axes.plot(costs[RULE], top1[RULE], "*", color=colour, markersize=14, label=f"{task}, the rule")
        for name in fixed if task == "artist" else ():
            axes.annotate(name, (costs[name], top1[name]), textcoords="offset points", xytext=(0, 7), ha="center")
    axes.set(xlabel="CPU seconds a track", ylabel="top-1, %", xlim=(0, None))
    axes.set_title("Top-1 of new songs, by the number of segments read", loc="left")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.margins(y=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    figure.savefig(path)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("mels", type=Path)
    arguments.add_argument("models", type=Path, nargs="+")
    arguments.add_argument("--numbers", nargs="*", default=["4", "8", "16"])
    arguments.add_argument("--manifest", type=Path)
    arguments.add_argument("--picture", type=Path)
    flags = arguments.parse_args()
    mels = Location(str(flags.mels.absolute()))
    dataset = open_mel_dataset(mels)
    models = [load(Location(str(path.absolute())), mels, dataset) for path in flags.models]
    known_N = np.concatenate(
        [p.vocabularies["artist"].encode(p.tracks["artist"].to_pylist()) != MISSING for p, _ in models]
    )
    n = len(known_N)
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)
    measured = {name: measure(models, "1024" if name == "all" else name) for name in [*flags.numbers, "all", RULE]}
    whole, ruled = measured["all"], measured[RULE]
    costs: dict[str, float] = {}
    if flags.manifest:
        new = models[0][0].tracks["track_id"]
        rows = pq.read_table(flags.manifest, columns=["track_id", "uri"])
        files = rows.filter(pc.is_in(rows["track_id"], new.combine_chunks()))["uri"].to_pylist()
        costs = {name: cpu_s_per_track(flags.models[0], files, name) for name in measured}
    print(f"{known_N.sum()} songs of known artists, {(~known_N).sum()} of unknown ones, {len(models)} models\n")
    print(
        "| segments | mean | artist top-1 | AUC-PR | language top-1 | AUC-PR | precision | coverage | same tags | CPU |"
    )
    print("| --- |" + " ---: |" * 9)
    lines = []
    for contender, of in measured.items():
        cells = [f"{of.segments_N.mean():.1f}"]
        for task in TASKS:
            cells += [f"{100 * of.right_N[task][known_N].mean():.1f}", f"{100 * np.mean(of.auc_pr[task]):.1f}"]
        cells += [f"{100 * value:.1f}" for value in precision_and_coverage(of, known_N, np.ones(n))]
        cells += [f"{100 * of.same_N.mean():.1f}", f"{costs[contender]:.3f}" if costs else ""]
        print(f"| {contender} | {' | '.join(cells)} |")
        for task in TASKS:
            change_N = (of.right_N[task].astype(float) - whole.right_N[task])[known_N]
            drawn_R = weights[:, known_N]
            means_R = (drawn_R @ change_N) / drawn_R.sum(1)
            low, high = np.quantile(means_R, (0.025, 0.975))
            lines.append(
                f"| {contender} | {task} | {100 * change_N.mean():+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] |"
            )
    print("\nTop-1 minus that of all segments, points\n\n| segments | task | difference |\n| --- | --- | ---: |")
    print("\n".join(lines))
    agreement_R = (weights @ ruled.same_N) / weights.sum(1)
    low, high = np.quantile(agreement_R, (0.025, 0.975))
    interval = f"{100 * ruled.same_N.mean():.2f} % [{100 * low:.2f}, {100 * high:.2f}]"
    print(f"\nThe rule's tags are those of all segments: {interval}")
    for name, of_N in (("known", known_N), ("unknown", ~known_N)):
        counts = Counter(ruled.segments_N[of_N].tolist())
        shares = ", ".join(
            f"{segments}: {100 * count / of_N.sum():.0f} %" for segments, count in sorted(counts.items())
        )
        print(f"segments read, {name} artists: {shares}; mean {ruled.segments_N[of_N].mean():.1f}")
    if flags.picture:
        draw(costs, measured, known_N, flags.picture)


if __name__ == "__main__":
    main()
