"""Who does a build's work: this process, a few processes of this machine, or the workers of a Ray cluster.

=================  ==================================  =========================================================
config             crew                                an input that crashes or hangs
=================  ==================================  =========================================================
``workers: 1``     :mod:`df_data.build.crew.here`            takes the build with it
``workers: n``     processes, :mod:`df_data.build.crew.local`  loses its worker; tried again alone, then failed
``executor: ray``  actors, :mod:`df_data.build.crew.on_ray`  the same
=================  ==================================  =========================================================

What comes out does not depend on the choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from df_data.build.config import BuildConfig
from df_data.build.crew.here import HereCrew
from df_data.build.crew.local import LocalSite
from df_data.build.crew.messages import Crew, ModelsFactory
from df_data.build.crew.supervisor import SupervisedCrew

__all__ = ["Crew", "open_crew"]


@contextmanager
def open_crew(config: BuildConfig, make: ModelsFactory) -> Iterator[Crew]:
    """Yield the crew that a configuration asks for; its workers start when they are needed and end with the block.

    Raises:
        UserError: Ray is not installed, or its cluster cannot be reached or is too small.
    """
    crew = _crew(config, make)
    try:
        yield crew
    except BaseException:
        crew.close(now=True)
        raise
    crew.close(now=False)


def _crew(config: BuildConfig, make: ModelsFactory) -> Crew:
    if config.executor == "ray":
        from df_data.build.crew.on_ray import RaySite

        site = RaySite(config, make)
    elif config.workers == 1:
        return HereCrew(config, make)
    else:
        site = LocalSite(config, make)
    return SupervisedCrew(site, workers=config.workers, timeout_s=config.timeout_s, retries=config.retries)
