"""Captions of images on the pretended GPU: both passes of the captioner, with the CPU's texts."""

from __future__ import annotations

import numpy as np
import torch

from engine.config import Config
from engine.machine import Machine
from engine.stages.image_captions import two_pass_captions
from models.backbones.blip.captioner import BlipCaptioner
from models.backbones.blip.tokenizer import BlipTokenizer
from tests.cuda.pretend_gpu import put


def test_both_captions_of_a_batch(words, feed, on_both, gpu, machine):
    config = Config(gen_text={"min_length": 14, "max_length": 17})
    chosen = np.array([0, 5, 9])
    images = feed((32, 16))
    names = [images.paths[i].name for i in chosen]

    def run(machine: Machine) -> list[tuple[str, str, str]]:
        torch.manual_seed(0)
        model = put(BlipCaptioner("tiny", images.image_size, words[BlipTokenizer]), machine.place)
        (pixels,) = images.batches(8, machine.device, chosen)
        with torch.inference_mode(), machine.autocast():
            return two_pass_captions(model, pixels, names, chosen, config)

    theirs, ours = on_both(run)
    assert gpu.count > 1000
    assert all(len(styled) > len(start) for _, styled, start in ours)
    if machine.precision == torch.float32:
        assert ours == theirs
