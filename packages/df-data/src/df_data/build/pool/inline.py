"""One worker, and it is this process: nothing to start, nothing to send, and nobody left if an input crashes it."""

from __future__ import annotations

from collections.abc import Iterator

from df_data.build.config import BuildConfig
from df_data.build.devices import resolve_devices
from df_data.build.pool.messages import Heartbeat, Models, ModelsFactory, Outcome
from df_data.common.processes import one_thread
from df_data.format.sample import EncoderRecord
from df_data.sources.listing import Input


class InlinePool:
    """Does everything in this process, on one arithmetic thread as all workers do: the last bits depend on it."""

    def __init__(self, config: BuildConfig, make: ModelsFactory) -> None:
        device = resolve_devices(config.device)[0]
        self._give_back_threads = one_thread()
        self._config, self._make = config.model_copy(update={"device": device}), make
        self._models: Models | None = None

    def records(self) -> dict[str, EncoderRecord]:
        """See :class:`df_data.build.pool.messages.WorkerPool`."""
        return self._loaded().records()

    def run(self, todo: list[Input]) -> Iterator[tuple[Input, Outcome]]:
        """See :class:`df_data.build.pool.messages.WorkerPool`."""
        for made in todo:
            for outcome in self._loaded().process(made):
                if not isinstance(outcome, Heartbeat):
                    yield made, outcome

    def close(self, *, now: bool) -> None:
        """See :class:`df_data.build.pool.messages.WorkerPool`."""
        if self._models is not None:
            self._models.close()
        self._give_back_threads()

    def _loaded(self) -> Models:
        self._models = self._models or self._make(self._config)
        return self._models
