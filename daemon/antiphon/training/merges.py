"""Learning merges from a corpus: byte-pair encoding over groups, each id a character of its own."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.trainers import BpeTrainer

from antiphon.errors import AntiphonError
from antiphon.tokens.merges import LONGEST_MERGE, MOST_IDS, Merges, groups
from antiphon.tokens.vocabulary import Vocabulary

_FIRST_CHARACTER = 0xF0000
"""Id 0. A private plane of Unicode: none of its characters is a space or changes when text is normalised."""


def learn_merges(pieces: Iterable[Iterable[int]], vocabulary: Vocabulary, *, size: int) -> Merges:
    """The merges that leave `pieces` shortest, greedily, until there are `size` ids (fewer if no pair comes twice).

    A vocabulary of `size` ids includes the base ids. Gage, "A New Algorithm for Data Compression", 1994. Raises
    AntiphonError for a size below the vocabulary's or above MOST_IDS.
    """
    if not vocabulary.size <= size <= MOST_IDS:
        raise AntiphonError(f"a merged vocabulary has {vocabulary.size} to {MOST_IDS} ids, not {size}")
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = WhitespaceSplit()
    trainer = BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=[_written((token,)) for token in range(vocabulary.size)],
        max_token_length=LONGEST_MERGE,
    )
    tokenizer.train_from_iterator(
        (" ".join(map(_written, groups(piece, vocabulary))) for piece in pieces), trainer=trainer
    )
    learnt = json.loads(tokenizer.to_str())["model"]["merges"]
    ids: dict[tuple[int, ...], int] = {(token,): token for token in range(vocabulary.size)}
    pairs: list[tuple[int, int]] = []
    for left, right in ((_read(left), _read(right)) for left, right in learnt):
        pairs.append((ids[left], ids[right]))
        ids.setdefault(left + right, len(ids))
    return Merges(vocabulary, tuple(pairs))


def _written(group: tuple[int, ...]) -> str:
    return "".join(chr(_FIRST_CHARACTER + token) for token in group)


def _read(text: str) -> tuple[int, ...]:
    return tuple(ord(character) - _FIRST_CHARACTER for character in text)
