"""Helpers of the course "Transfer Learning with Keras, hands on".

Submodules load on first use, so that ``import tlhelpers`` is quick and does not import a deep-learning
framework.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_SUBMODULES = (
    "audit",
    "backbones",
    "cache",
    "claims",
    "data",
    "evaluation",
    "features",
    "losses",
    "own_images",
    "plots",
    "profiles",
    "recipes",
    "report",
    "run",
    "transfer",
)

__all__ = [*_SUBMODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBMODULES])
