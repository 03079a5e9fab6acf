"""A small model for the session, loaded by the real engine."""

from __future__ import annotations

import pytest

from antiphon.engine.loaded import LoadedModel
from tests.small_model import small_checkpoint


@pytest.fixture(scope="session")
def model() -> LoadedModel:
    loaded = LoadedModel.of(small_checkpoint())
    loaded.warm()
    return loaded
