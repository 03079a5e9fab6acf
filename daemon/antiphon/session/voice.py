"""A model that speaks music: the loaded weights, and the vocabulary that its ids are in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from antiphon.engine.loaded import LoadedModel
from antiphon.engine.timeline import Timeline
from antiphon.errors import FileError
from antiphon.tokens.vocabulary import Grid, Vocabulary


@dataclass(frozen=True, slots=True)
class Voice:
    """A loaded model with its vocabulary."""

    model: LoadedModel
    vocabulary: Vocabulary

    @classmethod
    def open(cls, path: Path) -> Voice:
        """Load the music model at `path`. Raises FileError if it is none, or speaks in other tokens than ours."""
        model = LoadedModel.open(path)
        if "tokenizer" not in model.metadata:
            raise FileError("it does not say in which tokens it speaks", where=str(path), fix="use a music model")
        vocabulary = Vocabulary(Grid.from_json(model.metadata["tokenizer"]))
        if vocabulary.size > model.vocab_size:
            told = f"its tokens need {vocabulary.size} rows, but it has {model.vocab_size}"
            raise FileError(told, where=str(path), fix="use a model that was exported whole")
        return cls(model, vocabulary)

    def timeline(self) -> Timeline:
        """A timeline that has heard nothing."""
        return Timeline(self.model)
