"""Workers as actors of a Ray cluster: one processor each, and a share of a GPU where encoders compute on one.

Every machine must see the videos, the models' files and the working directory under the same paths (shared storage).
Shards and ledger are written by the process that builds, from the bytes that the actors send.

Sources: docs.ray.io, "Ray Generators" (actor methods that yield; ``ray.wait`` on their generators), "Actors".
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from df_data.build.config import BuildConfig
from df_data.build.devices import gpu_share
from df_data.build.pool.messages import Heartbeat, MadeSample, Message, ModelsFactory, WorkerFailure
from df_data.build.pool.supervisor import WorkerHandle, WorkerLost
from df_data.build.pool.worker_loop import WorkerLoop
from df_data.common.processes import one_thread
from df_data.sources.listing import Input
from df_models.errors import UserError
from df_models.settings import dump_config

SAMPLES_AHEAD = 2
"""Samples that an actor makes before the build has taken them."""


class RayHost:
    """Starts actors on the cluster of ``RAY_ADDRESS``, or on one of this machine that ends with the build.

    Raises:
        UserError: Ray is not installed, or its cluster cannot be reached, has fewer processors than workers, or has
            not the device that is asked for.
    """

    def __init__(self, config: BuildConfig, make: ModelsFactory) -> None:
        try:
            import ray
        except ModuleNotFoundError as error:
            raise UserError("executor=ray needs the package ray; install df-data[ray] or use executor=local") from error
        self._ray, self._make = ray, make
        self._ours = not ray.is_initialized()
        if self._ours:
            _connect(ray, config.workers)
        cores = int(ray.cluster_resources().get("CPU", 0))
        if cores < config.workers:
            self.close()
            raise UserError(
                f"workers={config.workers}, but the Ray cluster has {cores} processors; ask for fewer workers"
            )
        try:
            share = gpu_share(config.device, config.workers, int(ray.cluster_resources().get("GPU", 0)))
        except UserError:
            self.close()
            raise
        self._config = config.model_copy(update={"device": "cuda" if share else "cpu"})
        self._actor = ray.remote(num_cpus=1, num_gpus=share, max_restarts=0)(_RayWorker)

    def start_worker(self) -> RayHandle:
        """See :class:`df_data.build.pool.supervisor.WorkerHost`."""
        return RayHandle(self._ray, self._actor.remote(self._config, self._make, os.getcwd(), _variables(self._config)))

    def listen(self, handles: Sequence[WorkerHandle], timeout_s: float) -> list[WorkerHandle]:
        """See :class:`df_data.build.pool.supervisor.WorkerHost`."""
        speaking = {handle.speaking: handle for handle in handles if isinstance(handle, RayHandle) and handle.streams}
        if not speaking:
            return []
        ready, _ = self._ray.wait(list(speaking), num_returns=1, timeout=timeout_s, fetch_local=False)
        return [speaking[stream] for stream in ready]

    def close(self) -> None:
        """See :class:`df_data.build.pool.supervisor.WorkerHost`."""
        if self._ours:
            self._ray.shutdown()


class RayHandle:
    """One actor, and the streams of messages that were asked of it, in order.

    All messages but samples and signs of life end their stream.
    """

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor
        self.streams: deque[Any] = deque([self._ask(actor.start)])

    @property
    def speaking(self) -> Any:
        """The stream from which the next message will come."""
        return self.streams[0]

    def give(self, made: Input) -> None:
        """See :class:`df_data.build.pool.supervisor.WorkerHandle`."""
        self.streams.append(self._ask(self._actor.work, made))

    def take(self) -> Message:
        """See :class:`df_data.build.pool.supervisor.WorkerHandle`."""
        try:
            message = self._ray.get(next(self.speaking))
        except self._ray.exceptions.RayActorError as error:
            raise WorkerLost("crashed its worker (the Ray actor died)") from error
        except self._ray.exceptions.RayError as error:
            return WorkerFailure(RuntimeError(f"Ray: {type(error).__name__}: {str(error).strip().splitlines()[-1]}"))
        if not isinstance(message, MadeSample | Heartbeat):
            self.streams.popleft()
        return message

    def kill(self) -> None:
        """See :class:`df_data.build.pool.supervisor.WorkerHandle`."""
        self._ray.kill(self._actor)

    def close(self) -> None:
        """See :class:`df_data.build.pool.supervisor.WorkerHandle`."""
        self.kill()

    def _ask(self, method: Any, *given: Input) -> Any:
        return method.options(num_returns="streaming", _generator_backpressure_num_objects=SAMPLES_AHEAD).remote(*given)


class _RayWorker:
    """What runs in an actor."""

    def __init__(self, config: BuildConfig, make: ModelsFactory, folder: str, variables: dict[str, str]) -> None:
        one_thread()
        os.environ.update(variables)
        self._folder = folder
        self._loop = WorkerLoop(config, make)

    def start(self) -> Iterator[Message]:
        try:
            os.chdir(self._folder)  # relative paths mean the same as in the build
        except OSError:
            trouble = UserError(
                f"a Ray worker does not see {self._folder}; every machine needs the same shared folders"
            )
            yield WorkerFailure(trouble)
            return
        yield from self._loop.start()

    def work(self, made: Input) -> Iterator[Message]:
        yield from self._loop.work(made)


def _connect(ray: Any, workers: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS")
    cores = None if address else max(workers, os.cpu_count() or 1)
    try:
        ray.init(address=address or "local", num_cpus=cores, include_dashboard=None if address else False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"no Ray cluster at {address or 'this machine'}: {str(error).splitlines()[0]}") from error


def _variables(config: BuildConfig) -> dict[str, str]:
    """Return the environment variables that a configuration's paths name."""
    names = re.findall(r"\$\{([A-Za-z_][A-Za-z0-9_]*)", dump_config(config))
    return {name: os.environ[name] for name in names if name in os.environ}
