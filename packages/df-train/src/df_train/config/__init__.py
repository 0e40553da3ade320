"""Everything a training run can be told, with its defaults; the resolved values are written into the run."""

from df_train.config.data import MOST_BUCKETS, DataConfig
from df_train.config.model import AdapterConfig, ModelConfig
from df_train.config.objective import (
    FlameLossConfig,
    GivenFieldsConfig,
    HistorySettings,
    ObjectiveConfig,
    SyncLossConfig,
)
from df_train.config.records import CheckpointConfig, LogConfig, ProfileConfig, ResumeConfig, SampleConfig
from df_train.config.run import TrainConfig
from df_train.config.steps import BudgetConfig, EmaConfig, OptimConfig, PrecisionConfig, ShardingConfig

__all__ = [
    "MOST_BUCKETS",
    "AdapterConfig",
    "BudgetConfig",
    "CheckpointConfig",
    "DataConfig",
    "EmaConfig",
    "FlameLossConfig",
    "GivenFieldsConfig",
    "HistorySettings",
    "LogConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimConfig",
    "PrecisionConfig",
    "ProfileConfig",
    "ResumeConfig",
    "SampleConfig",
    "ShardingConfig",
    "SyncLossConfig",
    "TrainConfig",
]
