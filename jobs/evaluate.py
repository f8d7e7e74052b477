from mtl_core import cli
from mtl_core.jobs.evaluate import Options, main

if __name__ == "__main__":
    cli.main(main, Options)
