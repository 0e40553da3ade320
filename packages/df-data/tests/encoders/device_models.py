"""A worker's models that say which device they were given; a module of its own, which workers import by its name."""

from __future__ import annotations

from df_data.build.config import BuildConfig
from df_data.format.sample import EncoderRecord


class DeviceModels:
    """Its only record is the device of its configuration."""

    def __init__(self, config: BuildConfig) -> None:
        self._device = str(config.device)

    def records(self) -> dict[str, EncoderRecord]:
        return {"device": EncoderRecord(id=self._device, sha256="0")}

    def close(self) -> None:
        pass
