"""Thin file for `ray job submit`; the job is `mtl_core/jobs/build_manifest.py`."""

from mtl_core import cli
from mtl_core.jobs.build_manifest import Options, main

if __name__ == "__main__":
    cli.main(main, Options)
