"""The one reader of YAML: no key with two values, no aliases that expand without end, a bounded size.

A key that stands twice with the same value loses nothing, and DeepfakeBench's own files have such: it is let
through.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from effort_finetune.core.errors import UserError, UserErrors
from effort_finetune.core.files import require_regular

#: A complete settings file has 8 kB; a host's with every dataset's labels 6 kB.
MOST_BYTES = 2**20
#: Values a document may stand for once its aliases are written out (a 363-byte file can ask for 10^9).
MOST_VALUES = 5 * 10**4
MOST_DEPTH = 50
#: Of a number; one of base 60 (1:30) takes the square of its length to read.
MOST_DIGITS = 1000
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class _Loader(yaml.SafeLoader):
    """Stops where a document passes a bound; counting what was read whole would come too late.

    A megabyte of ``[1,1,1`` takes half a minute to read, and ``[[[`` the square of its length.
    """

    def __init__(self, text: str, source: str) -> None:
        super().__init__(text)
        self.source, self.values, self.depth = source, 0, 0

    def fetch_flow_collection_start(self, token: Any) -> None:
        if self.flow_level > MOST_DEPTH:  # the scanner runs ahead of what is composed
            raise _too_deep(self.source)
        super().fetch_flow_collection_start(token)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.values += 1
        self.depth += 1
        if self.values > MOST_VALUES:
            raise _too_much(self.source, self.values)
        if self.depth > MOST_DEPTH + 1:
            raise _too_deep(self.source)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is not None and node.tag in _NUMBERS and len(node.value) > MOST_DIGITS:
            got = f"a number of {len(node.value)} characters in line {_line(node)}"
            raise UserError(f"{self.source} asks for too much", got=got, expected=f"up to {MOST_DIGITS}")
        return node


def read_yaml(path: Path | str, *, next_step: str | None = None, last_wins: Collection[str] = ()) -> Any:
    """Reads a YAML file.

    Args:
        path: The file.
        next_step: What to do where there is no such file.
        last_wins: Keys that may have two values, since nothing of ours reads them: the last one counts, as
            it does for the host that reads them.

    Raises:
        UserError: If it is missing, no YAML, too large, or gives a key two values; all of these at once.
    """
    path = Path(path)
    try:
        require_regular(path)
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError("settings file not found", got=path, next_step=next_step) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read", got=error, expected="a YAML text file") from error
    if len(content) > MOST_BYTES:
        raise UserError(f"{path} is too large", got=f"more than {MOST_BYTES} bytes", expected="settings")
    return parse_yaml(text, str(path), last_wins)


def parse_yaml(text: str, source: str, last_wins: Collection[str] = ()) -> Any:
    """Reads a YAML text.

    Args:
        text: The document.
        source: What errors call it.
        last_wins: Keys that may have two values.

    Raises:
        UserError: If it is no YAML, asks for too much, or gives a key two values.
    """
    try:
        loader = _Loader(text, source)
    except yaml.YAMLError as error:  # a character that no YAML may hold
        raise UserError(f"{source} is not a YAML file", got=error, expected="YAML") from error
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _bounded(node, source)
        doubles = [
            UserError(
                f"{source} holds {first.value!r} twice, with two values",
                got=f"lines {first.start_mark.line + 1} and {second.start_mark.line + 1}",
                expected="each key once",
                next_step="remove one, or put the entries of both under one",
            )
            for first, second in _doubles(node, set())
            if first.value not in last_wins
        ]
        if doubles:
            raise doubles[0] if len(doubles) == 1 else UserErrors(doubles)
        return loader.construct_document(node)
    except UserError:
        raise
    except Exception as error:  # PyYAML stumbles in its own ways over a tag: !!bool x, !!int '', 59:59.0
        raise UserError(f"{source} is not a YAML file", got=error, expected="YAML") from error
    finally:
        loader.dispose()


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _bounded(root: yaml.Node, source: str) -> None:
    """Counts values as if every alias were written out, which is what a dump or a copy would do."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, depth: int) -> int:
        if depth > MOST_DEPTH:
            raise _too_deep(source)
        if id(node) not in sizes:
            sizes[id(node)] = 0
            sizes[id(node)] = 1 + sum(size(child, depth + 1) for child in _children(node))
        elif not sizes[id(node)]:
            raise UserError(f"{source} holds an alias inside what it stands for", got=f"line {_line(node)}")
        return sizes[id(node)]

    if size(root, 0) > MOST_VALUES:
        raise _too_much(source, sizes[id(root)])


def _too_deep(source: str) -> UserError:
    return UserError(f"{source} is nested too deeply", got=f"more than {MOST_DEPTH} levels")


def _too_much(source: str, values: int) -> UserError:
    got = f"{values} values" if values > MOST_VALUES + 1 else f"more than {MOST_VALUES} values"
    return UserError(f"{source} expands to too much", got=got, expected=f"up to {MOST_VALUES}")


def _plain(node: yaml.Node) -> Any:
    """Returns what a node says, as something that can be compared."""
    if isinstance(node, yaml.ScalarNode):
        return node.tag, node.value
    if isinstance(node, yaml.MappingNode):
        return frozenset((_plain(key), _plain(value)) for key, value in node.value)
    return tuple(map(_plain, node.value))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _doubles(node: yaml.Node, visited: set[int]) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    if id(node) in visited:
        return
    visited.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen: dict[Any, tuple[yaml.Node, Any]] = {}
        for key, value in node.value:
            name, plain = _plain(key), _plain(value)
            if name in seen and seen[name][1] != plain:
                yield seen[name][0], key
            seen.setdefault(name, (key, plain))
    for child in _children(node):
        yield from _doubles(child, visited)
