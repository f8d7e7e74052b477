"""mtl-core promote --current URI (--model URI | --back)"""

from dataclasses import dataclass

from mtl_core import cli
from mtl_core.inference.artifacts.model_pointer import find_model, promote, roll_back
from mtl_core.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class Options:
    """Let a pointer name the model in use; --model of every job takes the pointer."""

    current: str
    """The pointer: a file whose name ends with .json. It is made if it does not exist."""
    model: str | None = None
    """Model artifact that the pointer shall name."""
    back: bool = False
    """Let it name the model before instead."""

    def __post_init__(self) -> None:
        if (self.model is None) != self.back:
            raise ValueError("give --model or --back")


def main(options: Options) -> None:
    with cli.flag_errors():
        pointer = Location(options.current)
        model = None if options.model is None else find_model(options.model)
    entry = roll_back(pointer) if model is None else promote(model, pointer)
    print(f"{pointer} names the model {entry.model_id} in {entry.model}")
