"""All sections together, the folders that follow from them, and how to run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from engine.config.captions import GenTextConfig, PreTextConfig, PreTrainConfig
from engine.config.dataset import DatasetConfig
from engine.config.section import Count, Positive, Section
from engine.config.synthetic_images import GenImagesConfig, PersonaliseConfig
from engine.config.training import ClusterConfig, CorrectionConfig, ModelConfig, TestConfig, TrainConfig


class RuntimeConfig(Section):
    """How to run; nothing here changes a result beyond rounding."""

    device: str = "auto"  # auto, cpu, cuda; a single process may name a card, cuda:1
    # of the networks' bodies; auto: bf16 on GPUs that have it, and on CPUs for captioning and search
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    # who computes large products on a CPU; auto: the faster
    linear: Literal["auto", "onednn", "torch"] = "auto"
    compile: bool = False  # training steps, by torch.compile; dropout then draws otherwise
    workers: Positive = 2
    threads: Count = 0  # 0: leave torch's own choice


class Config(Section):
    """Everything a run needs. In ``run`` and ``pre_gen_data`` ``{seed}``, ``{method}`` and ``{dataset}`` stand for theirs."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    run: str = ""  # folder under output/; empty: <dataset>-<method>[-seed<N>]
    output: str = "output"
    pre_gen_data: str = ""  # folder of the generated captions; empty: pre_gen_data/<dataset>
    dataset: DatasetConfig = Field(default_factory=DatasetConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    gen_images: GenImagesConfig | None = None  # none: no synthetic images are made
    gen_pre_train_text: PreTextConfig = Field(default_factory=PreTextConfig)
    pre_train: PreTrainConfig = Field(default_factory=PreTrainConfig)
    gen_text: GenTextConfig = Field(default_factory=GenTextConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    cluster: ClusterConfig = Field(default_factory=ClusterConfig)
    correction: CorrectionConfig = Field(default_factory=CorrectionConfig)
    test: TestConfig = Field(default_factory=TestConfig)
    personalise: PersonaliseConfig = Field(default_factory=PersonaliseConfig)
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig)

    @property
    def run_directory(self) -> Path:
        """``output/<run>``: everything a run writes, except the captions that runs share."""
        suffix = f"-seed{self.seed}" if self.seed else ""
        return Path(self.output) / self._named(
            self.run or f"{self.dataset.label}-{self.model.method}{suffix}"
        )

    @property
    def caption_directory(self) -> Path:
        """Where stages A and C keep their captions."""
        return Path(self._named(self.pre_gen_data or f"pre_gen_data/{self.dataset.label}"))

    def _named(self, template: str) -> str:
        names = {
            "{seed}": str(self.seed),
            "{method}": self.model.method,
            "{dataset}": self.dataset.label,
        }
        for name, value in names.items():
            template = template.replace(name, value)
        return template

    @property
    def captioner_directory(self) -> Path:
        """Where stage B keeps the captioner: it belongs to the captions, which several runs may share."""
        return Path(self.output) / f"captioner-{self.caption_directory.name}"

    def digest(self, *sections: str) -> str:
        """Short hash of the named sections: tells whether a finished stage was run with these settings."""
        chosen = {name: self.model_dump(mode="json")[name] for name in sections}
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:16]
