"""From a `Config` to YAML: all of it, what differs from the defaults, or every key with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, fields
from typing import Any

import yaml

from antiphon.config.rules import Rule
from antiphon.config.sections import Config


def dump(config: Config, *, changed: bool = False) -> str:
    """The configuration as YAML that `load` reads back to an equal one.

    changed: only what differs from the defaults. Where the players differ, each of them is named.
    """
    plain = _plain(config, None if not changed else Config())
    if not plain:
        return "# everything is at its default\n"
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)


class _Dumper(yaml.SafeDumper):
    """Indents lists below their key, as people write them.

    PyYAML quotes what YAML 1.1 would misread, more than our reader needs, so that other tools read the same.
    """

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _plain(section: Any, default: Any | None) -> dict[str, Any]:
    """The section as plain values; without those that equal `default`'s where it is given."""
    plain: dict[str, Any] = {}
    for setting in fields(section):
        value = getattr(section, setting.name)
        usual = getattr(default, setting.name) if default is not None else None
        if default is not None and value == usual:
            continue
        if "section" in setting.metadata:
            plain[setting.name] = _plain(value, usual)
        elif "several" in setting.metadata:
            kind = setting.metadata["several"]
            usual = kind() if default is not None else None
            plain[setting.name] = [{"name": item.name} | _plain(item, usual) for item in value]
        else:
            plain[setting.name] = value
    return plain


def reference() -> str:
    """The text of etc/antiphon.yaml: every key, its default, what may stand there, one line of why."""
    head = (
        "# Antiphon's configuration. Every key is here with its default; delete what you do not change.\n"
        "# /etc/antiphon/antiphon.yaml is read first, then /etc/antiphon/antiphon.d/*.yaml by name, each\n"
        "# over the one before. `antiphon check FILE` tells every mistake, `antiphon dump` what holds.\n"
    )
    return head + "".join(f"{line}\n" if line else "\n" for line in _reference_lines(Config(), ""))


def _reference_lines(section: Any, indent: str) -> Iterator[str]:
    for setting in fields(section):
        value = getattr(section, setting.name)
        if "section" in setting.metadata or "several" in setting.metadata:
            if not indent:
                yield ""
            yield f"{indent}# {setting.metadata['why']}"
            yield f"{indent}{setting.name}:"
            items = value if "several" in setting.metadata else (value,)
            for item in items:
                yield from _nested_lines(item, indent + "  ", listed="several" in setting.metadata)
        else:
            yield from _setting_lines(setting, value, indent)


def _nested_lines(section: Any, indent: str, *, listed: bool) -> Iterator[str]:
    if not listed:
        yield from _reference_lines(section, indent)
        return
    first = True
    for line in _reference_lines(section, indent + "  "):
        is_key = not line.lstrip().startswith("#")
        yield f"{indent}- {line.lstrip()}" if first and is_key else line
        first = first and not is_key


def _setting_lines(setting: Field[Any], value: object, indent: str) -> Iterator[str]:
    rule: Rule = setting.metadata["rule"]
    yield f"{indent}# {setting.metadata['why']}"
    entry = yaml.safe_dump({setting.name: value}, allow_unicode=True, width=10**6).strip()
    yield f"{indent}{entry}  # {rule.allowed}"
