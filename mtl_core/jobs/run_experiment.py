"""mtl-core run_experiment --mels URI --out URI [--recipes paper] [--split kfold --folds 0 1] [--seeds 0 1 2]"""

from dataclasses import dataclass

from mtl_core import cli
from mtl_core.experiments.runner import ExperimentOptions
from mtl_core.pipelines.run_experiment import run_experiment
from mtl_core.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class Options(ExperimentOptions):
    """Train artist-only, language-only and multi-task models on the same splits and seeds, and print Table 1.

    Each run is stored when it ends. The same command does the runs that are missing. With other seeds, folds or recipes
    it adds runs, and the table is of all stored runs.
    """

    mels: str
    """Folder or s3:// prefix of mels, as extract_mels writes them."""
    out: str
    """Folder or s3:// prefix of the experiment: runs, models, table1.json, table1.md, alphas.md, report.html."""


def main(options: Options) -> None:
    with cli.flag_errors():
        mels, out = Location(options.mels), Location(options.out)
    run_experiment(mels, out, options)
