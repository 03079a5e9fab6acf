"""From files to a `Config`: layers laid over each other, then every value checked, all problems at once.

The defaults lie below, over them antiphon.yaml, over that the files of antiphon.d, sorted by their names.
A mapping is laid over key by key; a list (the players) replaces the one below it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, TypeVar, cast

from antiphon.config.problem import InvalidConfig, Place, Problem
from antiphon.config.rules import Refused, Rule, nearest
from antiphon.config.sections import Config, Limits, Player
from antiphon.config.tree import Listing, Mapping, Scalar, Tree, read_tree
from antiphon.errors import ConfigError

ETC = Path("/etc/antiphon/antiphon.yaml")

S = TypeVar("S")


def load(path: Path | None = None, *, etc: Path = ETC) -> Config:
    """The configuration of this machine, or that of the one file `path`.

    Without `path`: `etc` and its antiphon.d, the defaults where there is neither. With it: that file, which
    must exist, and its antiphon.d only if it is `etc` itself. Raises ConfigError.
    """
    if path is None:
        return load_files([*([etc] if _exists(etc) else []), *_drop_ins(etc)])
    if not _exists(path):
        raise ConfigError("no such file", where=str(path), fix="name a file that exists")
    return load_files([path, *(_drop_ins(etc) if path.absolute() == etc else [])])


def load_files(paths: list[Path]) -> Config:
    """The configuration in `paths`, later ones over earlier ones. Raises InvalidConfig with every problem."""
    problems: list[Problem] = []
    tree = Mapping(Place("the defaults"))
    for path in paths:
        tree = _laid_over(tree, read_tree(path, problems))
    config = _build(Config, tree, "", problems)
    if problems:
        raise InvalidConfig(problems)
    return config


def _exists(path: Path) -> bool:
    """Whether something is there; also where it may not be looked at, which reading it will then tell."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _drop_ins(etc: Path) -> list[Path]:
    folder = etc.with_suffix(".d")
    try:
        names = [path for path in folder.iterdir() if path.suffix == ".yaml" and not path.name.startswith(".")]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError((error.strerror or str(error)).lower(), where=str(folder)) from error
    return sorted(names)


def _laid_over(below: Mapping, above: Mapping) -> Mapping:
    entries = dict(below.entries)
    for key, tree in above.entries.items():
        under = entries.get(key)
        if isinstance(tree, Mapping) and isinstance(under, Mapping):
            entries[key] = _laid_over(under, tree)
        elif not (_is_null(tree) and isinstance(under, (Mapping, Listing))):
            entries[key] = tree
    return Mapping(above.place, entries, below.keys | above.keys)


def _is_null(tree: Tree) -> bool:
    return isinstance(tree, Scalar) and tree.value is None


def _build(kind: type[S], tree: Tree, path: str, problems: list[Problem]) -> S:
    """The section `kind` out of `tree`; a setting that is missing or wrong keeps its default."""
    if _is_null(tree):  # a section whose keys are all commented out
        return kind()
    if not isinstance(tree, Mapping):
        problems.append(Problem(tree.place, path, "is not a section", allowed=f"keys: {_names(kind)}"))
        return kind()
    known = {setting.name: setting for setting in _fields(kind)}
    values: dict[str, Any] = {}
    for key, child in tree.entries.items():
        below = f"{path}.{key}" if path else key
        if key in known:
            values |= _value(known[key], child, below, problems)
        else:
            problems.append(_unknown(kind, key, tree.keys[key], path))
    built = kind(**values)
    _check_together(built, tree, path, problems)
    return built


def _value(setting: Field[Any], tree: Tree, path: str, problems: list[Problem]) -> dict[str, Any]:
    """The setting's value by its name; nothing where the tree has none to give."""
    meta = setting.metadata
    if "section" in meta:
        return {setting.name: _build(meta["section"], tree, path, problems)}
    if "several" in meta:
        return _several(setting, tree, path, problems)
    rule = cast(Rule, meta["rule"])
    if not isinstance(tree, Scalar):
        problems.append(Problem(tree.place, path, "is not a single value", allowed=rule.allowed))
        return {}
    try:
        return {setting.name: rule.read(tree)}
    except Refused as error:
        problems.append(Problem(tree.place, path, error.what, allowed=rule.allowed, hint=error.hint))
        return {}


def _several(setting: Field[Any], tree: Tree, path: str, problems: list[Problem]) -> dict[str, Any]:
    if _is_null(tree):
        return {}
    if not isinstance(tree, Listing) or not tree.items:
        what = "is empty" if isinstance(tree, Listing) else "is not a list"
        problems.append(Problem(tree.place, path, what, allowed="a list of at least one, each beginning with `- `"))
        return {}
    kind = setting.metadata["several"]
    built = tuple(_build(kind, item, f"{path}[{i}]", problems) for i, item in enumerate(tree.items))
    return {setting.name: built}


def _unknown(kind: type, key: str, place: Place, path: str) -> Problem:
    names = tuple(setting.name for setting in _fields(kind))
    hint = nearest(key, names) or next((other for other in _all_paths() if other.endswith(f".{key}")), "")
    shown = key if len(key) <= 60 else key[:57] + "..."
    below = f"{path}.{shown}" if path else shown
    return Problem(place, below, "is not a setting", allowed=_names(kind), hint=hint)


def _names(kind: type) -> str:
    return ", ".join(setting.name for setting in _fields(kind))


def _all_paths(kind: type = Config, path: str = "") -> Iterator[str]:
    for setting in _fields(kind):
        below = f"{path}.{setting.name}" if path else setting.name
        yield below
        if "section" in setting.metadata:
            yield from _all_paths(setting.metadata["section"], below)
        if "several" in setting.metadata:
            yield from _all_paths(setting.metadata["several"], f"{below}[0]")


def _fields(kind: type) -> tuple[Field[Any], ...]:
    return fields(kind)


def _check_together(built: object, tree: Mapping, path: str, problems: list[Problem]) -> None:
    """What no single setting can tell."""
    if isinstance(built, Limits) and built.lowest > built.highest:
        what = f"{built.lowest} is above highest, {built.highest}"
        problems.append(Problem(_place(tree, "lowest", "highest"), f"{path}.lowest", what))
    if isinstance(built, Config) and isinstance(players := tree.entries.get("players"), Listing):
        _check_names(built.players, players, problems)


def _check_names(players: tuple[Player, ...], tree: Listing, problems: list[Problem]) -> None:
    first: dict[str, int] = {}
    for i, (player, item) in enumerate(zip(players, tree.items, strict=False)):
        if player.name in first:
            place = _place(item, "name") if isinstance(item, Mapping) else item.place
            what = f"{player.name!r} is the name of players[{first[player.name]}] already"
            problems.append(Problem(place, f"players[{i}].name", what, allowed="a name of its own"))
        first.setdefault(player.name, i)


def _place(tree: Mapping, *keys: str) -> Place:
    return next((tree.keys[key] for key in keys if key in tree.keys), tree.place)
