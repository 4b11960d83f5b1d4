"""The four registries of the bench: a name in a config file becomes a class here."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any


class RegistryError(KeyError):
    """A name is unknown to a registry, or already taken in it."""

    #: Exit code of a command that ends with this error.
    exit_code = 2

    def __str__(self) -> str:
        # KeyError would print the quoted repr of the message.
        return str(self.args[0]) if self.args else ""


def _owner(module: Any) -> str:
    return f"{getattr(module, '__module__', '?')}.{getattr(module, '__qualname__', repr(module))}"


class Registry:
    """Maps a name to a class.

    Attributes:
        name: What the registry holds; used in messages.
        data: The registered classes by name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.data: dict[str, Any] = {}

    def register_module(self, module_name: str | None = None) -> Callable[[Any], Any]:
        """Return a decorator that registers a class.

        Registering one class again (an import under a second name, a reload) changes nothing but the
        reference.

        Args:
            module_name: The name to register under; the class's own name when None.

        Raises:
            RegistryError: Another class holds the name; the message names its owner.
        """

        def register(module: Any) -> Any:
            key = module_name if module_name is not None else module.__name__
            held = self.data.get(key)
            if held is not None and held is not module and _owner(held) != _owner(module):
                raise RegistryError(
                    f"{self.name} already holds '{key}', registered by {_owner(held)}; "
                    f"{_owner(module)} needs another name"
                )
            self.data[key] = module
            return module

        return register

    def __getitem__(self, key: str) -> Any:
        if key not in self.data:
            known = sorted(self.data)
            near = difflib.get_close_matches(str(key), known, n=3)
            hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
            raise RegistryError(f"{self.name} has no '{key}'; {hint}known: {', '.join(known) or 'none'}")
        return self.data[key]

    def __contains__(self, key: object) -> bool:
        return key in self.data

    def __repr__(self) -> str:
        return f"Registry({self.name!r}, {sorted(self.data)})"


BACKBONE = Registry("BACKBONE")
DETECTOR = Registry("DETECTOR")
TRAINER = Registry("TRAINER")
LOSSFUNC = Registry("LOSSFUNC")
