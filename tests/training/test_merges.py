"""Learning merges: what they save, and that another implementation of byte-pair encoding applies them alike."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE

from antiphon.errors import AntiphonError
from antiphon.tokens.merges import Merges, groups
from antiphon.training.merges import learn_merges
from tests.training.small_corpus import VOCABULARY, random_corpus, simple_corpus

SIZE = VOCABULARY.size
CORPORA = [simple_corpus(pieces=20), random_corpus(pieces=20, seed=1)]
PIECES = [corpus.piece(index).tolist() for corpus in CORPORA for index in range(len(corpus))]


@pytest.fixture(scope="module")
def merges() -> Merges:
    return learn_merges(PIECES, VOCABULARY, size=SIZE + 200)


def test_there_are_as_many_ids_as_asked_and_the_pieces_get_shorter(merges: Merges) -> None:
    assert merges.size == SIZE + 200
    for piece in PIECES:
        merged = merges.encode(piece)
        assert merges.decode(merged) == piece
        assert len(merged) < len(piece)
    scales = [piece for piece in PIECES[:20] if len(piece) > 50]
    assert scales
    assert all(3 * len(merges.encode(piece)) < 2 * len(piece) for piece in scales), "music that repeats saves most"


def test_a_small_vocabulary_is_the_beginning_of_a_large_one(merges: Merges) -> None:
    small = learn_merges(PIECES, VOCABULARY, size=SIZE + 50)
    assert small.pairs == merges.pairs[: len(small.pairs)]
    assert learn_merges(PIECES, VOCABULARY, size=SIZE) == Merges(VOCABULARY, ())


def test_learning_twice_gives_the_same(merges: Merges) -> None:
    assert learn_merges(PIECES, VOCABULARY, size=SIZE + 200) == merges


def test_byte_pair_encoding_as_others_write_it_gives_the_same_ids(merges: Merges) -> None:
    spelling = ["".join(chr(0xF0000 + token) for token in spelt) for spelt in merges.spelt]
    pairs = [(spelling[left], spelling[right]) for left, right in merges.pairs]
    other = Tokenizer(BPE(vocab={text: token for token, text in enumerate(spelling)}, merges=pairs))
    fresh = random_corpus(pieces=5, seed=2)
    for piece in [*PIECES, *(fresh.piece(index).tolist() for index in range(len(fresh)))]:
        for group in groups(piece, VOCABULARY):
            assert merges.encode(group) == other.encode("".join(spelling[token] for token in group)).ids


def test_where_nothing_comes_twice_there_is_nothing_to_merge() -> None:
    pitches = [VOCABULARY.pitches.at(index) for index in range(10)]
    assert learn_merges([pitches], VOCABULARY, size=SIZE + 10).pairs == ()
    assert learn_merges([], VOCABULARY, size=SIZE + 10).pairs == ()


def test_ids_from_an_array_are_taken_as_well() -> None:
    arrays = [np.array(piece, np.int32) for piece in PIECES]
    assert learn_merges(arrays, VOCABULARY, size=SIZE + 20) == learn_merges(PIECES, VOCABULARY, size=SIZE + 20)


@pytest.mark.parametrize("size", [0, SIZE - 1, (1 << 16) + 1])
def test_a_size_that_cannot_be_is_refused(size: int) -> None:
    with pytest.raises(AntiphonError, match="a merged vocabulary has"):
        learn_merges(PIECES, VOCABULARY, size=size)
