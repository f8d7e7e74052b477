from mtl_core import cli
from mtl_core.jobs.status import Options, main

if __name__ == "__main__":
    cli.main(main, Options)
