"""A YAML file as a tree of places: YAML 1.2 core scalars, every value with its line, bounded in size.

PyYAML reads YAML 1.1, in which `6:8` is the number 368, `010` is 8 and `on` is true. Here the implicit types
are those of the YAML 1.2 core schema (https://yaml.org/spec/1.2.2/#103-core-schema). Nothing is constructed
from the file but plain scalars, mappings and lists; a tag of any other kind is a problem.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.reader import ReaderError

from antiphon.config.problem import Place, Problem

# The file with every key and its reasons has some 6 KiB; these bounds keep a hostile file from eating memory.
MOST_BYTES = 128 * 1024
MOST_NODES = 20_000
MOST_DEPTH = 16
MOST_CHARACTERS = 1024


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value: `text` as written, `value` as the YAML 1.2 core schema understands it."""

    place: Place
    text: str
    value: bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys and what stands under them; `keys` tells where each key stands."""

    place: Place
    entries: dict[str, Tree] = field(default_factory=dict)
    keys: dict[str, Place] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listing:
    """Items in their order."""

    place: Place
    items: tuple[Tree, ...] = ()


Tree = Scalar | Mapping | Listing


def read_tree(path: Path, problems: list[Problem]) -> Mapping:
    """The mapping that the file holds (an empty one where it cannot be read); adds to `problems`."""
    whole = Place(str(path))
    text = _read_text(path, whole, problems)
    if text is None:
        return Mapping(whole)
    try:
        root = _Loader(text).get_single_node()
    except _TooDeep as error:
        problems.append(Problem(Place(str(path), error.line), "", f"nested more than {MOST_DEPTH} levels deep"))
        return Mapping(whole)
    except yaml.MarkedYAMLError as error:
        problems.append(_syntax_problem(path, error))
        return Mapping(whole)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problems.append(Problem(Place(str(path), line), "", "not YAML: holds a control character"))
        return Mapping(whole)
    tree = _Planter(str(path), problems).plant(root) if root is not None else Mapping(whole)
    if isinstance(tree, Mapping):
        return tree
    if not (isinstance(tree, Scalar) and tree.value is None):
        problems.append(Problem(tree.place, "", "not a configuration", allowed="sections such as `clock:`"))
    return Mapping(whole)


def _read_text(path: Path, whole: Place, problems: list[Problem]) -> str | None:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except IsADirectoryError:
        problems.append(Problem(whole, "", "is a directory, not a file"))
        return None
    except OSError as error:
        problems.append(Problem(whole, "", f"cannot be read: {(error.strerror or str(error)).lower()}"))
        return None
    if len(data) > MOST_BYTES:
        problems.append(Problem(whole, "", f"longer than {MOST_BYTES // 1024} KiB: not a configuration"))
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"not text in UTF-8 (byte 0x{data[error.start]:02x})"
        problems.append(Problem(Place(str(path), line), "", what))
        return None


def _syntax_problem(path: Path, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark is not None else 0
    said = ", ".join(part for part in (error.context, error.problem) if part)
    return Problem(Place(str(path), line), "", f"not YAML: {said}")


class _TooDeep(Exception):
    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the implicit types of YAML 1.2 core, and a floor under nesting."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own name)
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise _TooDeep(self.peek_event().start_mark.line + 1)  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_TAG = "tag:yaml.org,2002:"
_TRUE = ("true", "True", "TRUE")
_TYPES: dict[str, tuple[re.Pattern[str], Callable[[str], bool | int | float | None]]] = {
    "null": (re.compile(r"~|null|Null|NULL|"), lambda text: None),
    "bool": (re.compile(r"true|True|TRUE|false|False|FALSE"), lambda text: text in _TRUE),
    "int": (re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"), lambda text: _whole(text)),
    "float": (
        re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
        lambda text: float(text.replace(".inf", "inf").replace(".nan", "nan")),
    ),
}
for _name, (_pattern, _) in _TYPES.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern.pattern})\Z"), None)


def _whole(text: str) -> int:
    if text.startswith(("0o", "0x")):
        return int(text, 0)
    return int(text)


class _Planter:
    """Turns PyYAML's nodes into a tree; shared nodes (aliases) are counted each time they are used."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems = problems
        self.nodes_left = MOST_NODES

    def plant(self, node: yaml.Node, *, path: str = "", depth: int = 1) -> Tree:
        place = Place(self.file, node.start_mark.line + 1)
        self.nodes_left -= 1
        if self.nodes_left <= 0 or depth > MOST_DEPTH:
            if self.nodes_left >= 0:  # said once, not for every node beyond
                self.nodes_left = -1
                self.problems.append(Problem(place, path, "aliases unfold into too much"))
            return Scalar(place, "", None)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, place, path, depth)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            items = (self.plant(item, path=f"{path}[{i}]", depth=depth + 1) for i, item in enumerate(node.value))
            return Listing(place, tuple(items))
        return self._scalar(node, place, path)

    def _mapping(self, node: yaml.MappingNode, place: Place, path: str, depth: int) -> Mapping:
        mapping = Mapping(place)
        for key_node, value_node in node.value:
            here = Place(self.file, key_node.start_mark.line + 1)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(here, path, "a key must be a word"))
                continue
            key = key_node.value
            below = f"{path}.{key}" if path else key
            if key in mapping.entries:
                first = mapping.keys[key].line
                self.problems.append(Problem(here, below, f"stands here a second time, first in line {first}"))
                continue
            mapping.entries[key] = self.plant(value_node, path=below, depth=depth + 1)
            mapping.keys[key] = here
        return mapping

    def _scalar(self, node: yaml.Node, place: Place, path: str) -> Scalar:
        kind = node.tag.removeprefix(_TAG)
        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        if len(text) > MOST_CHARACTERS:
            self.problems.append(Problem(place, path, f"longer than {MOST_CHARACTERS} characters"))
            return Scalar(place, "", None)
        if kind == "str" and isinstance(node, yaml.ScalarNode):
            return Scalar(place, text, text)
        pattern, convert = _TYPES.get(kind, (None, None))
        if pattern is None or convert is None or pattern.fullmatch(text) is None:
            self.problems.append(Problem(place, path, f"the tag {node.tag} is not used here"))
            return Scalar(place, text, None)
        return Scalar(place, text, convert(text))
