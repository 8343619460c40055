"""The typed configuration: YAML files merged left to right, then ``--set a.b=c``, then validated.

Defaults live in this package and nowhere else, in a module per group of sections. A key that no field has is
refused with the nearest known key and the file it stands in, because a typo that is silently ignored costs a
training run.
"""

from engine.config.captions import BackendConfig, GenTextConfig, PreTextConfig, PreTrainConfig
from engine.config.dataset import DatasetConfig, SourceConfig, SynthesisConfig
from engine.config.files import load_config, save_config
from engine.config.mistakes import ConfigError
from engine.config.root import Config, RuntimeConfig
from engine.config.synthetic_images import (
    EditorConfig,
    EditsConfig,
    FilterConfig,
    GeneratorConfig,
    GenImagesConfig,
    ImageCaptionsConfig,
    PartConfig,
    PersonaliseConfig,
)
from engine.config.training import (
    ClusterConfig,
    CorrectionConfig,
    ModelConfig,
    SyntheticTrainingConfig,
    TestConfig,
    TrainConfig,
    WarmUpConfig,
)

__all__ = [
    "BackendConfig",
    "ClusterConfig",
    "Config",
    "ConfigError",
    "CorrectionConfig",
    "DatasetConfig",
    "EditorConfig",
    "EditsConfig",
    "FilterConfig",
    "GenImagesConfig",
    "GenTextConfig",
    "GeneratorConfig",
    "ImageCaptionsConfig",
    "ModelConfig",
    "PartConfig",
    "PersonaliseConfig",
    "PreTextConfig",
    "PreTrainConfig",
    "RuntimeConfig",
    "SourceConfig",
    "SynthesisConfig",
    "SyntheticTrainingConfig",
    "TestConfig",
    "TrainConfig",
    "WarmUpConfig",
    "load_config",
    "save_config",
]
