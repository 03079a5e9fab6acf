"""Files to a Config: layers, and every mistake at once with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from antiphon.config import Clock, Config, InvalidConfig, Limits, Player, load, load_files
from antiphon.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def problems_of(path: Path) -> list[str]:
    with pytest.raises(InvalidConfig) as caught:
        load(path)
    return [str(problem).removeprefix(str(path)) for problem in caught.value.problems]


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(write(tmp_path / "a.yaml", "")) == Config()
    assert load(write(tmp_path / "b.yaml", "# nothing\n---\n")) == Config()


def test_the_defaults_are_one_player_on_any_keyboard() -> None:
    assert Config().players == (Player(name="player", input="*", output="same"),)


def test_sections_whose_keys_are_all_commented_out_are_the_defaults(tmp_path: Path) -> None:
    assert load(write(tmp_path / "a.yaml", "clock:\n  # bpm: 90\nplayers:\nmidi:\n")) == Config()


def test_values_reach_their_settings(tmp_path: Path) -> None:
    text = """
clock: {source: midi, bpm: 96, meter: 6/8}
players:
  - {name: left, input: 'keys*', listen_bars: 2, limits: {lowest: 40}}
  - name: right
    channel: 3
    sampling: {seed: 7, top_p: 1}
"""
    config = load(write(tmp_path / "a.yaml", text))
    assert config.clock == Clock(source="midi", bpm=96.0, meter="6/8")
    assert isinstance(config.clock.bpm, float)
    left, right = config.players
    assert (left.name, left.input, left.listen_bars, left.limits) == ("left", "keys*", 2, Limits(lowest=40))
    assert (right.channel, right.sampling.seed, right.sampling.top_p) == (3, 7, 1.0)


def test_three_mistakes_are_told_at_once_with_line_and_path(tmp_path: Path) -> None:
    text = """clock:
  bmp: 90
  meter: 4/5
players:
  - name: keys
    listen_bars: 0
"""
    assert problems_of(write(tmp_path / "a.yaml", text)) == [
        ":2: clock.bmp: is not a setting; allowed: source, bpm, meter, start, count_in_bars, input, output"
        " (did you mean bpm?)",
        ":3: clock.meter: '4/5' is not a meter; allowed: a meter such as 4/4, 3/4 or 6/8, a bar being at most"
        " 12 quarters long",
        ":6: players[0].listen_bars: '0' is below the range; allowed: a whole number, 1 to 64",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "clok: {}",
            ":1: clok: is not a setting; allowed: midi, clock, click, players, model, log (did you mean clock?)",
        ),
        (
            "midi: {api: jakc}",
            ":1: midi.api: 'jakc' is not known; allowed: auto, alsa, jack or loopback (did you mean jack?)",
        ),
        (
            "clock: 5",
            ":1: clock: is not a section; allowed: keys: source, bpm, meter, start, count_in_bars, input, output",
        ),
        ("clock:\n  bpm: [1]", ":2: clock.bpm: is not a single value; allowed: a number, 20 to 400"),
        ("players: {}", ":1: players: is not a list; allowed: a list of at least one, each beginning with `- `"),
        ("players: []", ":1: players: is empty; allowed: a list of at least one, each beginning with `- `"),
        (
            "players:\n- {channel: true}",
            ":2: players[0].channel: 'true' is not a whole number; allowed: a whole number, 0 to 16",
        ),
        (
            "players:\n- {channel: 1.0}",
            ":2: players[0].channel: '1.0' is not a whole number; allowed: a whole number, 0 to 16",
        ),
        (
            "players:\n- {enabled: yes}",
            ":2: players[0].enabled: 'yes' is neither true nor false; allowed: true or false",
        ),
        ("clock: {bpm: .nan}", ":1: clock.bpm: '.nan' is not a number; allowed: a number, 20 to 400"),
        ("clock: {bpm: .inf}", ":1: clock.bpm: '.inf' is above the range; allowed: a number, 20 to 400"),
        ("clock: {bpm: }", ":1: clock.bpm: '' is not a number; allowed: a number, 20 to 400"),
        (
            "clock: {meter: 13/4}",
            ":1: clock.meter: a bar of 13/4 is too long; allowed: a meter such as 4/4, 3/4"
            " or 6/8, a bar being at most 12 quarters long",
        ),
        ("clock: {input: ''}", ":1: clock.input: is empty; allowed: a pattern on port names such as 'keys*'"),
        ('players:\n- {name: "a\\u0007"}', ":2: players[0].name: 'a\\x07' holds a control character; allowed: a name"),
        (
            "players:\n- {name: a}\n- {channel: 2,\n  name: a}",
            ":4: players[1].name: 'a' is the name of players[0] already; allowed: a name of its own",
        ),
        (
            "players:\n- limits:\n    lowest: 60\n    highest: 59",
            ":3: players[0].limits.lowest: 60 is above highest, 59",
        ),
        (
            "a: &a {b: 1}\nclock:\n  <<: *a",
            ":3: clock.<<: is not a setting; allowed: source, bpm, meter, start, count_in_bars, input, output",
        ),
    ],
)
def test_each_mistake_says_where_what_and_what_is_allowed(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in problems_of(write(tmp_path / "a.yaml", text))


def test_a_setting_in_the_wrong_section_is_shown_its_place(tmp_path: Path) -> None:
    [problem] = problems_of(write(tmp_path / "a.yaml", "bpm: 90"))
    assert problem.endswith("(did you mean clock.bpm?)")
    [problem] = problems_of(write(tmp_path / "b.yaml", "clock: {temperature: 1}"))
    assert problem.endswith("(did you mean players[0].sampling.temperature?)")


def test_many_mistakes_are_counted_but_not_all_shown(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "".join(f"key{i}: 1\n" for i in range(300)))
    with pytest.raises(InvalidConfig) as caught:
        load(path)
    assert len(caught.value.problems) == 300
    assert str(caught.value).startswith("300 problems in the configuration\n")
    assert str(caught.value).endswith("\n  and 250 more")


def test_drop_ins_are_laid_over_the_file_in_the_order_of_their_names(tmp_path: Path) -> None:
    etc = write(tmp_path / "antiphon.yaml", "clock: {bpm: 60, meter: 3/4}\nplayers: [{name: a}, {name: b}]\n")
    folder = tmp_path / "antiphon.d"
    folder.mkdir()
    write(folder / "20-b.yaml", "clock: {bpm: 80}\nplayers: [{name: c}]\nlog:\n")
    write(folder / "10-a.yaml", "clock: {bpm: 70, count_in_bars: 1}\nlog: {level: debug}\n")
    write(folder / ".hidden.yaml", "clock: {bpm: 50}\n")
    write(folder / "README", "not YAML: [")
    config = load(etc=etc)
    assert config.clock == Clock(bpm=80.0, meter="3/4", count_in_bars=1)
    assert [player.name for player in config.players] == ["c"]
    assert config.log.level == "debug"
    assert load(etc, etc=etc) == config


def test_drop_ins_alone_are_enough(tmp_path: Path) -> None:
    folder = tmp_path / "antiphon.d"
    folder.mkdir()
    write(folder / "a.yaml", "clock: {bpm: 70}")
    assert load(etc=tmp_path / "antiphon.yaml").clock.bpm == 70.0


def test_a_named_file_is_read_without_its_drop_ins(tmp_path: Path) -> None:
    path = write(tmp_path / "antiphon.yaml", "clock: {bpm: 60}")
    (tmp_path / "antiphon.d").mkdir()
    write(tmp_path / "antiphon.d" / "a.yaml", "clock: {bpm: 70}")
    assert load(path).clock.bpm == 60.0


def test_mistakes_of_several_files_are_told_together(tmp_path: Path) -> None:
    one = write(tmp_path / "1.yaml", "clock: {bpm: fast}")
    two = write(tmp_path / "2.yaml", "click: [")
    three = write(tmp_path / "3.yaml", "log: {level: loud}")
    with pytest.raises(InvalidConfig) as caught:
        load_files([one, two, three])
    assert [Path(problem.place.file).name for problem in caught.value.problems] == [
        "1.yaml",
        "2.yaml",
        "3.yaml",
    ]


def test_no_configuration_at_all_is_the_defaults(tmp_path: Path) -> None:
    assert load(etc=tmp_path / "nowhere" / "antiphon.yaml") == Config()


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "none.yaml")


def test_a_file_that_may_not_even_be_looked_at_is_not_taken_for_missing(tmp_path: Path) -> None:
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    with pytest.raises(InvalidConfig, match="cannot be read: too many levels of symbolic links"):
        load(etc=loop)


def test_a_file_that_cannot_be_read_says_so() -> None:
    assert problems_of(Path("/proc/self/mem")) == [": cannot be read: input/output error"]
