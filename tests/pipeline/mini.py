"""The five scripts, run in this process on a data set of a few drawn people."""

from __future__ import annotations

import runpy
import socket
import sys
from pathlib import Path

from engine.config import Config, load_config

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("gen_pre_train_text", "pre_train", "gen_text", "train", "test")

MINI = """
run: "mini-{{method}}"
output: {root}/output
pre_gen_data: {root}/captions
dataset:
  name: {name}
  tag: mini
  root: {data}
  synthesis: {synthesis}
model: {{size: tiny, image_size: [48, 24], pretrained: "", tokenizer: "", vocabulary_size: 200}}
gen_pre_train_text: {{samples: 14}}
pre_train: {{pretrained: "", init_lr: 1.0e-3, max_epoch: 1, batch_size: 14}}
gen_text: {{batch_size: 7, min_length: 4, max_length: 24}}
train:
  rounds: 1
  max_epoch: 1
  batch_size: 16
  init_lr: 5.0e-4
  k_test: 4
  crop_padding: 2
  word_dropout: 0.2
  warm_up: {{max_epoch: 1, matching_epochs: 1, init_lr: 1.0e-3}}
cluster: {{min_samples: 2, ratio: 0.1, k1: 6, k2: 2}}
correction: {{k_tests: 6, k: 4}}
test: {{k_test: 4, rank_lists: 2}}
runtime: {{device: cpu, workers: 1}}
"""
DRAWN = "{train: 12, val: 4, test: 4, images: 2, seed: 0}"


class Pipeline:
    """Runs stages on one configuration and keeps what they say."""

    def __init__(self, path: Path, messages: list[str]) -> None:
        self.path, self.messages = path, messages

    @property
    def config(self) -> Config:
        return load_config(self.path)

    def __call__(self, stage: str, *arguments: str) -> int:
        """The exit code of one script; ``messages`` then holds what it logged."""
        self.messages.clear()
        before = sys.argv
        sys.argv = [f"{stage}.py", "--config", str(self.path), *arguments]
        try:
            runpy.run_path(str(ROOT / f"{stage}.py"), run_name="__main__")
        except SystemExit as end:
            return end.code
        finally:
            sys.argv = before
        raise AssertionError("a script ends with an exit code")

    def all(self, *arguments: str) -> None:
        """Every stage in order."""
        for stage in STAGES:
            assert self(stage, *arguments) == 0, (stage, self.messages[-1:])

    def said(self, words: str) -> bool:
        """Whether the last stage logged these words."""
        return any(words in message for message in self.messages)


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def make_pipeline(root: Path, messages: list[str], name="cuhk_pedes", data=None, synthesis=DRAWN) -> Pipeline:
    root.mkdir(parents=True, exist_ok=True)
    path = root / "mini.yaml"
    path.write_text(
        MINI.format(root=root, name=name, data=data or root / "datasets", synthesis=synthesis), "utf-8"
    )
    return Pipeline(path, messages)
