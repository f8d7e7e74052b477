from mtl_core import cli
from mtl_core.jobs.tag_catalogue import Options, main

if __name__ == "__main__":
    cli.main(main, Options)
