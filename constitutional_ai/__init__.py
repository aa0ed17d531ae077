"""Write a constitution, align a chat model to it, prove that it worked.

Names load when they are asked for: importing the package is cheap and leaves torch alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from constitutional_ai.version import __version__

if TYPE_CHECKING:
    from constitutional_ai.lesson import ConstitutionalAI, ConstitutionalPrinciple
    from constitutional_ai.principles import Constitution, Principle, load_constitution


__all__ = [
    "Constitution",
    "ConstitutionalAI",
    "ConstitutionalPrinciple",
    "Principle",
    "__version__",
    "load_constitution",
]

_HOMES = {
    "Constitution": "principles",
    "Principle": "principles",
    "load_constitution": "principles",
    "ConstitutionalAI": "lesson",
    "ConstitutionalPrinciple": "lesson",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
