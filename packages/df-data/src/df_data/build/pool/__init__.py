"""Who does a build's work: this process, a few processes of this machine, or the workers of a Ray cluster.

=================  ===================================  ================================================
config             worker pool                          an input that crashes or hangs
=================  ===================================  ================================================
``workers: 1``     :mod:`df_data.build.pool.inline`     takes the build with it
``workers: n``     :mod:`df_data.build.pool.processes`  loses its worker; tried again alone, then failed
``executor: ray``  :mod:`df_data.build.pool.on_ray`     the same
=================  ===================================  ================================================

What comes out does not depend on the choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from df_data.build.config import BuildConfig
from df_data.build.pool.inline import InlinePool
from df_data.build.pool.messages import ModelsFactory, WorkerPool
from df_data.build.pool.processes import LocalHost
from df_data.build.pool.supervisor import SupervisedPool

__all__ = ["WorkerPool", "open_pool"]


@contextmanager
def open_pool(config: BuildConfig, make: ModelsFactory) -> Iterator[WorkerPool]:
    """Yield the worker pool that a configuration asks for; its workers start when needed and end with the block.

    Raises:
        UserError: Ray is not installed, or its cluster cannot be reached or is too small.
    """
    pool = _pool(config, make)
    try:
        yield pool
    except BaseException:
        pool.close(now=True)
        raise
    pool.close(now=False)


def _pool(config: BuildConfig, make: ModelsFactory) -> WorkerPool:
    if config.executor == "ray":
        from df_data.build.pool.on_ray import RayHost

        host = RayHost(config, make)
    elif config.workers == 1:
        return InlinePool(config, make)
    else:
        host = LocalHost(config, make)
    return SupervisedPool(host, workers=config.workers, timeout_s=config.timeout_s, retries=config.retries)
