"""A worker's own side, wherever it runs: load the models, take inputs, say what comes of them."""

from __future__ import annotations

from collections.abc import Iterator

from df_data.build.config import BuildConfig
from df_data.build.pool.messages import Message, Models, ModelsFactory, Ready, WorkerFailure
from df_data.sources.listing import Input


class WorkerLoop:
    """The models of one worker.

    Whatever is raised here is no input's fault (:meth:`Models.process` makes a result of those) and ends the build.
    """

    def __init__(self, config: BuildConfig, make: ModelsFactory) -> None:
        self._config, self._make = config, make
        self._models: Models | None = None

    def start(self) -> Iterator[Message]:
        """Load the models; yield one message, whether that went well."""
        try:
            self._models = self._make(self._config)
            yield Ready(self._models.records())
        except Exception as error:
            yield WorkerFailure(_portable(error))

    def work(self, made: Input) -> Iterator[Message]:
        """Yield the messages about one input."""
        assert self._models is not None
        try:
            yield from self._models.process(made)
        except Exception as error:
            yield WorkerFailure(_portable(error))

    def close(self) -> None:
        """Free the models."""
        if self._models is not None:
            self._models.close()


def _portable(error: Exception) -> Exception:
    """Return an error that can be sent to another process; those of libraries often cannot be built anew there."""
    if isinstance(error, ModuleNotFoundError):
        return ModuleNotFoundError(str(error), name=error.name)
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, error.strerror, error.filename)
    plain = type(error) in (ValueError, RuntimeError) or type(error).__module__.startswith("df_")
    return error if plain else RuntimeError(f"{type(error).__name__}: {error}")
