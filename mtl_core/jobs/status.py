"""mtl-core status --out URI [--json]"""

import json
from dataclasses import asdict, dataclass

from mtl_core import cli
from mtl_core.pipelines.night.run_status import describe, read_status
from mtl_core.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class Options:
    """Show what a nightly job is doing: who is at work, done of planned, failures by name, rate, time left, and the
    last runs. It reads files only, so any machine that reaches OUT can ask."""

    out: str
    """Folder of the tables, as given to tag_catalogue."""
    json: bool = False
    """Print JSON instead of words."""


def main(options: Options) -> None:
    with cli.flag_errors():
        out = Location(options.out)
    status = read_status(out)
    print(json.dumps(asdict(status), indent=1) if options.json else describe(status, out))
