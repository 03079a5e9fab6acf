"""N-grams that answer: the same probabilities as those that are scored, and answers that keep to the grammar."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation.small_calls import VOCABULARY, calls, small_corpus

from antiphon.evaluation.ngram_answers import Cache, Counted, NgramAnswers
from antiphon.evaluation.obedience import obeys
from antiphon.tokens.encoder import encode
from antiphon.tokens.vocabulary import BOS
from antiphon.training.corpus import pack_pieces
from antiphon.training.ngram import ngram_nats

CORPUS = small_corpus(pieces=6)


@pytest.mark.parametrize("order", [1, 2, 3, 8, 15])
def test_an_id_is_foretold_as_the_scored_ngram_foretells_it(order: int) -> None:
    counted = Counted(CORPUS, size=VOCABULARY.size, order=order)
    train = [np.concatenate([[BOS], CORPUS.piece(piece)]).astype(np.int32) for piece in range(len(CORPUS))]
    call = calls()[0]
    asked = np.array([BOS, *encode(call.prompt, VOCABULARY)], np.int32)
    nats = ngram_nats(train, [asked], order=order, size=VOCABULARY.size)[0]
    for index in range(1, len(asked)):
        p = counted.foretold(asked[:index].tolist())
        assert p.sum() == pytest.approx(1)
        assert -np.log(p[asked[index]]) == pytest.approx(nats[index - 1])


def test_the_cache_is_the_same_model_of_the_song_so_far() -> None:
    song = CORPUS.piece(0)[:200].tolist()
    cache = Cache(VOCABULARY.size, order=5)
    for token in song:
        cache.feed(token)
    # Counted puts a BOS before its piece, which the cache has not heard: an n-gram that reaches it is none of its own.
    counted = Counted(pack_pieces([song], ["song"]), size=VOCABULARY.size, order=5)
    assert cache.foretold() == pytest.approx(counted.foretold(song))
    assert Cache(VOCABULARY.size).foretold() == pytest.approx(1 / VOCABULARY.size)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_answers_keep_to_the_grammar_and_to_their_seed(share: float) -> None:
    answers = NgramAnswers(Counted(CORPUS, size=VOCABULARY.size, order=8), VOCABULARY, share)
    given = [answers(call, seed=0) for call in calls()]
    assert all(obeys(call, answer) for call, answer in zip(calls(), given, strict=True))
    assert given == [answers(call, seed=0) for call in calls()]
    assert given != [answers(call, seed=1) for call in calls()]


def test_nothing_is_counted_of_an_empty_order() -> None:
    with pytest.raises(ValueError, match="at least one id"):
        Counted(CORPUS, size=VOCABULARY.size, order=0)
