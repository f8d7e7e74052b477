"""Artist and language tags for a whole music catalogue.

Contents: `load_tagger` (tag files in Python), `TagTracks` and `ExtractMels` (batch classes for Ray Data). They are
imported on first use, so that a decoder process, which imports this package, starts in 0.2 s.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtl_core.inference.file_tagger import load_tagger
    from mtl_core.pipelines.workers.track_workers import ExtractMels, TagTracks

__all__ = ["ExtractMels", "TagTracks", "load_tagger"]

_MODULES = {
    "load_tagger": "mtl_core.inference.file_tagger",
    "TagTracks": "mtl_core.pipelines.workers.track_workers",
    "ExtractMels": "mtl_core.pipelines.workers.track_workers",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
