"""Music beside texts: every date is asked for and told, whatever else the worker does."""

from __future__ import annotations

import threading

from antiphon.engine.bench_first import Heard, Load, Session, play
from antiphon.engine.loaded import LoadedModel

SESSION = Session(every_ns=10_000_000, bar_ns=100_000_000, commit_ns=30_000_000, unsettled=3, first=2)
LEN_NS = 300_000_000


def test_music_alone_is_told_id_by_id_and_answer_by_answer(model: LoadedModel) -> None:
    heard = play(model, SESSION, load=None, len_ns=LEN_NS, ended=threading.Event())
    assert len(heard.late) == 31  # asked for one id ahead
    assert len(heard.answers_late) == 4
    assert len(heard.waited) == 35
    assert min(heard.waited) >= 0
    assert min(heard.late) > -SESSION.every_ns
    assert min(heard.answers_late) > -SESSION.commit_ns
    assert (heard.slices, heard.prefills, heard.text_ids) == ([], [], 0)
    assert heard.lasted_ns >= LEN_NS


def test_texts_and_prompts_go_on_beside_music_and_end_with_it(model: LoadedModel) -> None:
    load = Load(model=model, texts=3, prefill=70)
    heard = play(model, SESSION, load=load, len_ns=LEN_NS, ended=threading.Event())
    assert len(heard.late) == 31
    assert heard.text_ids > 3
    assert heard.slices
    assert heard.prefills
    assert heard.text_per_s > 0


def test_texts_can_be_run_alone(model: LoadedModel) -> None:
    heard = play(None, SESSION, load=Load(model=model, texts=2, prefill=0), len_ns=LEN_NS, ended=threading.Event())
    assert heard.text_ids > 2
    assert (heard.late, heard.answers_late, heard.prefills) == ([], [], [])


def test_a_scene_that_is_stopped_tells_what_it_heard(model: LoadedModel) -> None:
    ended = threading.Event()
    ended.set()
    heard = play(model, SESSION, load=None, len_ns=10 * LEN_NS, ended=ended)
    assert isinstance(heard, Heard)
    assert heard.lasted_ns < LEN_NS
