"""What a state file of a training contains."""

import io

import torch

from mtl_core.storage.location import Location


def completed_epochs(file: Location) -> int:
    """Epochs that are done according to the file; 0 without one."""
    if not file.exists():
        return 0
    return len(torch.load(io.BytesIO(file.read_bytes()), map_location="cpu", weights_only=True)["history"])
