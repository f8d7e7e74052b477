"""mtl-core explain PATH --model MODEL [--exit never] [--json] [--html FILE]"""

import json
from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from mtl_core import cli
from mtl_core.audio.read_limits import ReadLimits
from mtl_core.errors import TrackError
from mtl_core.inference.artifacts.model_pointer import find_model
from mtl_core.inference.explanation import Explanation, SegmentVote, clock
from mtl_core.inference.file_tagger import FileTagger
from mtl_core.inference.tagging.early_exit import ExitOptions
from mtl_core.storage.checks import check_writable
from mtl_core.storage.location import Location

_WIDTH = 24


@dataclass(frozen=True, kw_only=True)
class Options(ReadLimits):
    """Explain the tags of a file: what each segment says, where reading stopped, and why a tag is null. Status 3 when
    the file cannot be tagged."""

    path: Positional[str]
    """An audio file, local or s3://."""
    model: str
    """Model artifact, as train writes it: a folder or s3:// prefix; or a model pointer, see promote."""
    exit: Literal["rule", "never"] = "rule"
    """rule: read as many segments as tagging does; never: all of them."""
    json: bool = False
    """Print one JSON object instead of tables."""
    html: str | None = None
    """File to write a page to, with pictures (needs the extra report)."""


def main(options: Options) -> int:
    with cli.flag_errors():
        model, file = find_model(options.model), Location(options.path)
        page = None if options.html is None else Location(options.html)
    if page is not None:
        check_writable(page, folder=False)
    with FileTagger(model.uri, limits=options, exit_options=ExitOptions(exit=options.exit)) as tagger:
        try:
            explanation = tagger.explain(file.uri)
        except TrackError as error:
            print(f"failed: {error.stage} {error.error} {options.path}: {error.message}")
            return cli.TOO_MANY_FAILED
    print(json.dumps(explanation.to_dict()) if options.json else _text(explanation))
    if page is not None:
        from mtl_core.evaluation.pages.explanation_page import explanation_page

        page.write_bytes(explanation_page(explanation).encode())
        if not options.json:
            print(f"-> {page}")
    return cli.DONE


def _text(explanation: Explanation) -> str:
    tasks = list(explanation.reasons)
    n_silent = sum(not segment.has_sound for segment in explanation.segments)
    lines = [
        f"{explanation.path}: {clock(explanation.duration_s)}, {len(explanation.segments)} of "
        f"{explanation.n_segments} segments read, {n_silent} without sound; {explanation.stopped}",
        "",
    ]
    for task in tasks:
        tag = explanation.tags.get(task)
        label = "null" if tag is None or tag.label is None else f"{tag.label}, confidence {tag.confidence:.2f}"
        lines += [f"{task}: {label}", f"    {explanation.reasons[task]}"]
    lines += ["", f"{'time':>6}  " + "  ".join(f"{f'{task} of this segment':{_WIDTH}}    p " for task in tasks)]
    return "\n".join([*lines, *(_segment_line(segment, tasks) for segment in explanation.segments)])


def _segment_line(segment: SegmentVote, tasks: list[str]) -> str:
    start = f"{clock(segment.start_s):>6}  "
    if not segment.has_sound:
        return f"{start}no sound"
    best = [segment.top[task][0] for task in tasks]
    return start + "  ".join(f"{label[:_WIDTH]:{_WIDTH}} {p:5.2f}" for label, p in best)
