"""Stapes: connect any pretrained speech encoder to any pretrained LLM through a small adapter.

import stapes
model = stapes.load("stapes-base")
model.transcribe("talk.wav").text
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stapes.api import Stapes as Stapes
    from stapes.api import load as load

__version__ = "0.1.0"
__all__ = ["Stapes", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """``load`` and ``Stapes``, imported when first asked for: torch takes seconds, ``import stapes`` none."""
    if name not in ("Stapes", "load"):
        raise AttributeError(f"module 'stapes' has no attribute '{name}'")
    from stapes import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
