"""mtl-core nightly --manifest URI --model URI --out URI [--retries N] [--json] [every flag of tag_catalogue]"""

import json
from dataclasses import asdict, dataclass

from mtl_core import cli, configuration, log
from mtl_core.jobs import tag_catalogue
from mtl_core.pipelines.nightly import NightOptions, describe, run_night
from mtl_core.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class Options(tag_catalogue.Options, NightOptions):
    """Tag a catalogue for one night: submit tag_catalogue to the cluster that RAY_API_SERVER_ADDRESS names, or run it
    here; resume it if it fails; end with its own exit status and one line of result."""

    json: bool = False
    """Print the tries and the records of the runs as JSON instead of the line."""

    def __post_init__(self) -> None:
        tag_catalogue.Options.__post_init__(self)
        NightOptions.__post_init__(self)
        if self.plan_only:
            raise ValueError("--plan-only is for tag_catalogue")


def main(options: Options) -> None:
    with cli.flag_errors():  # whole paths: the driver has another working directory
        out = Location(options.out)
        places = {
            name: Location(getattr(options, name)).uri
            for name in ("manifest", "model", "out", "export_parquet")
            if getattr(options, name) is not None
        }
    # All of the configuration is read here: the driver's machine has other variables and files.
    common = ["--config", configuration.FLAGS_ALONE, "--log-format", log.current_format()]
    flags = configuration.flags_of(vars(options) | places, tag_catalogue.Options)
    night = run_night(["tag_catalogue", *common, *flags], out, options)
    result = asdict(night) | {"exit_status": night.exit_status}
    print(json.dumps(result, indent=1) if options.json else describe(night))
    if night.exit_status != cli.DONE:
        cli.end(night.exit_status, night.tries[-1].message)
