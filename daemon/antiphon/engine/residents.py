"""Several models in memory at once, on one device or on several: each device has one worker, and its models share it.

A device does one thing at a time, so that what has the earliest deadline on it comes first, whosever it is; devices do
not wait for one another.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from antiphon.engine.loaded import LoadedModel
from antiphon.engine.worker import Worker
from antiphon.errors import AntiphonError


class Residents:
    """The models of a process by name, and a worker for every device that has one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: dict[str, LoadedModel] = {}
        self._workers: dict[str, Worker] = {}

    @property
    def models(self) -> Mapping[str, LoadedModel]:
        """All that are in memory."""
        with self._lock:
            return dict(self._models)

    def add(self, name: str, model: LoadedModel) -> None:
        """Take a model, loaded on whatever thread, in; AntiphonError for a name that is taken."""
        with self._lock:
            if name in self._models:
                raise AntiphonError("a model of that name is in memory already", where=name, fix="choose another name")
            self._models[name] = model

    def worker_of(self, device: str) -> Worker:
        """The worker that owns `device`, from now on if there was none."""
        with self._lock:
            if device not in self._workers:
                self._workers[device] = Worker(name=f"model-{device}")
            return self._workers[device]

    def worker_for(self, name: str) -> Worker:
        """The worker on which the model called `name` lives; AntiphonError when there is none."""
        return self.worker_of(self._named(name).runner.device)

    def drop(self, name: str) -> None:
        """Let go of a model between two jobs; its timelines are not used again. AntiphonError when there is none so.

        Waits for the jobs before it. RuntimeError from a job of the model's own worker, which would wait for itself.
        """
        worker = self.worker_for(name)
        if worker.is_current:
            raise RuntimeError("a job cannot wait for its own worker to let go of a model")
        with self._lock:
            model = self._models.pop(name, None)
        if model is None:
            raise _unknown(name)
        worker.submit(model.close).result()

    def close(self) -> None:
        """Stop all workers and let go of all models. May be called again."""
        with self._lock:
            workers, self._workers = self._workers, {}
            models, self._models = self._models, {}
        for worker in workers.values():
            worker.close()
        for model in models.values():
            model.close()

    def __enter__(self) -> Residents:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _named(self, name: str) -> LoadedModel:
        with self._lock:
            model = self._models.get(name)
        if model is None:
            raise _unknown(name)
        return model


def _unknown(name: str) -> AntiphonError:
    return AntiphonError("no model of that name is in memory", where=name)
