"""One worker, and it is this process: nothing to start, nothing to send, and nobody left if an input crashes it."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from df_data.build_config import BuildConfig
from df_data.crew.messages import Models, ModelsFactory, Outcome
from df_data.sample import EncoderRecord
from df_data.sources import Input


class HereCrew:
    """Does everything in this process, on one arithmetic thread as all workers do: the last bits depend on it."""

    def __init__(self, config: BuildConfig, make: ModelsFactory) -> None:
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)
        self._config, self._make = config, make
        self._models: Models | None = None

    def records(self) -> dict[str, EncoderRecord]:
        """See :class:`df_data.crew.messages.Crew`."""
        return self._loaded().records()

    def run(self, todo: list[Input]) -> Iterator[tuple[Input, Outcome]]:
        """See :class:`df_data.crew.messages.Crew`."""
        for made in todo:
            for outcome in self._loaded().process(made):
                yield made, outcome

    def close(self, *, now: bool) -> None:
        """See :class:`df_data.crew.messages.Crew`."""
        if self._models is not None:
            self._models.close()
        torch.set_num_threads(self._threads)

    def _loaded(self) -> Models:
        self._models = self._models or self._make(self._config)
        return self._models
