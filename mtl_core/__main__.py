"""The command line: `mtl-core COMMAND …`, also `python -m mtl_core COMMAND …`.

`tag` needs the core alone: no Ray, no torch. A command's module is imported when it is called.
"""

import importlib
import sys

from mtl_core import cli, configuration, log, standard_output

COMMANDS = {
    "tag": "tag files and print their artists and languages",
    "explain": "explain the tags of a file, segment by segment",
    "build_manifest": "list a catalogue's tracks and join their labels",
    "extract_mels": "extract the log-mel segments of every track",
    "train": "train a model on mels",
    "evaluate": "score a model on labelled tracks",
    "tag_catalogue": "tag every track of a manifest that is not tagged yet",
    "nightly": "run tag_catalogue for one night, on a cluster or here, and resume it if it fails",
    "status": "show what a nightly job is doing, from any machine",
    "enrol": "add, remove or rename classes of a model without training",
    "find_neighbours": "find each track's nearest tracks, and likely duplicates",
    "maintain_tables": "restore, compact and clean the tables of tags and failures, and remove tracks from them",
    "promote": "let a pointer name the model in use, or the one before",
    "run_experiment": "train many models and compare them (Table 1)",
    "make_demo_catalogue": "make a synthetic catalogue",
}
#: Package -> the extra of pyproject.toml that installs it.
EXTRAS = {
    "ray": "ray",
    "soundfile": "ray",
    "torch": "train",
    "librosa": "train",
    "tensorboardX": "train",
    "matplotlib": "report",
    "faiss": "neighbours",
}
_WIDTH = max(map(len, COMMANDS))
USAGE = "usage: mtl-core COMMAND [--help] …\n\n" + "".join(
    f"  {command:{_WIDTH}}  {purpose}\n" for command, purpose in COMMANDS.items()
)


def main() -> None:
    """Run the command that the process's arguments name, and exit with its status."""
    standard_output.install()
    log.configure(configuration.early_format(sys.argv[1:]))
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in ("-h", "--help"):
        print(USAGE, end="")
        cli.end(cli.DONE)
    command = name.replace("-", "_")
    if command not in COMMANDS:
        problem = f"unknown command {name!r}" if name else "no command"
        cli.end(cli.WRONG_INPUT, f"error: {problem}: allowed are {', '.join(COMMANDS)}")
    sys.argv[:2] = [f"mtl-core {command}"]
    try:
        job = importlib.import_module(f"mtl_core.jobs.{command}")
        cli.main(job.main, job.Options)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        cli.end(cli.WRONG_INPUT, f"error: {command} needs {error.name}: pip install 'mtl-core[{extra}]'")


if __name__ == "__main__":
    main()
