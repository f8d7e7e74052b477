from mtl_core import cli
from mtl_core.jobs.nightly import Options, main

if __name__ == "__main__":
    cli.main(main, Options)
