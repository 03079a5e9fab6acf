"""A Config to YAML and back."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from antiphon.config import Clock, Config, Limits, Player, dump, load, load_files, reference
from antiphon.config.rules import Flag, MeterText, Number, OneOf, Rule, Text, Whole

ETC = Path(__file__).parents[2] / "etc" / "antiphon.yaml"


def values(rule: Rule) -> st.SearchStrategy[Any]:
    """Everything that the rule takes."""
    match rule:
        case OneOf(words):
            return st.sampled_from(words)
        case Whole(low, high, optional):
            return st.integers(low, high) | st.none() if optional else st.integers(low, high)
        case Number(low, high):
            return st.floats(low, high)
        case Flag():
            return st.booleans()
        case MeterText():
            return st.sampled_from(["4/4", "6/8", "3/4", "12/16", "3/1", "24/16"])
        case Text():
            traps = st.sampled_from(["on", "010", "6:8", "null", "~", "true", "- a", "#", "a: b", "1e3", "*", "'"])
            words = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)
            words = words.filter(lambda text: text.strip())
            return traps | words | st.just("") if rule.may_be_empty else traps | words
    raise AssertionError(rule)


def sections(kind: type) -> st.SearchStrategy[Any]:
    parts: dict[str, st.SearchStrategy[Any]] = {}
    for setting in dataclasses.fields(kind):
        if "section" in setting.metadata:
            parts[setting.name] = sections(setting.metadata["section"])
        elif "several" in setting.metadata:
            items = sections(setting.metadata["several"])
            parts[setting.name] = st.lists(items, min_size=1, max_size=3, unique_by=lambda item: item.name).map(tuple)
        else:
            parts[setting.name] = values(setting.metadata["rule"])
    if kind is Limits:
        return st.builds(kind, **parts).filter(lambda limits: limits.lowest <= limits.highest)
    return st.builds(kind, **parts)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dump") / "a.yaml"


@given(config=sections(Config), changed=st.booleans())
def test_a_dump_loads_back_equal(path: Path, config: Config, changed: bool) -> None:
    path.write_text(dump(config, changed=changed))
    assert load(path) == config


def test_a_dump_holds_every_key() -> None:
    plain = yaml.safe_load(dump(Config()))
    assert plain["players"][0]["sampling"]["seed"] is None
    assert list(plain) == [setting.name for setting in dataclasses.fields(Config)]
    assert list(plain["players"][0]) == [setting.name for setting in dataclasses.fields(Player)]


def test_changed_shows_only_what_differs() -> None:
    config = Config(clock=Clock(bpm=90.0), players=(Player(), Player(name="two", limits=Limits(lowest=40))))
    assert yaml.safe_load(dump(config, changed=True)) == {
        "clock": {"bpm": 90.0},
        "players": [{"name": "player"}, {"name": "two", "limits": {"lowest": 40}}],
    }
    assert dump(Config(), changed=True) == "# everything is at its default\n"


def test_the_file_in_etc_is_the_one_that_the_settings_give() -> None:
    assert ETC.read_text() == reference(), "write it anew: antiphon dump --reference > etc/antiphon.yaml"


def test_the_file_in_etc_holds_the_defaults() -> None:
    assert load_files([ETC]) == Config()


def test_the_file_in_etc_names_every_key() -> None:
    assert yaml.safe_load(ETC.read_text()) == yaml.safe_load(dump(Config()))


@pytest.mark.parametrize(
    "kind",
    [*(type(getattr(Config(), s.name)) for s in dataclasses.fields(Config) if s.name != "players"), Player, Limits],
)
def test_every_default_meets_its_rule_and_its_type(kind: type, tmp_path: Path) -> None:
    hints = typing.get_type_hints(kind)
    for setting in dataclasses.fields(kind):
        if (rule := setting.metadata.get("rule")) is None:
            continue
        if isinstance(rule, OneOf):
            assert rule.words == typing.get_args(hints[setting.name])
            assert typing.get_origin(hints[setting.name]) is Literal
            assert setting.default in rule.words
        else:
            assert isinstance(setting.default, hints[setting.name])
        assert setting.metadata["why"].endswith(".")
