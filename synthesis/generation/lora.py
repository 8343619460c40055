"""DreamBooth with low-rank adapters and learned words: a text-to-image model learns the look of a whole data set.

The adapters (Hu et al., "LoRA", ICLR 2022; by peft) sit on the products of the denoising network's attention: W x + B A x with
A and B of rank 8, B zero at the start. The look is named by two new words, whose embeddings are learned with them (textual
inversion: Gal et al., ICLR 2023), while every weight of the model stays as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data.errors import UserError
from synthesis.generation import pipelines
from synthesis.generation.denoising import Frozen, Noised
from synthesis.generation.personal import NEW_WORDS

ADAPTERS, WORDS = "pytorch_lora_weights.safetensors", "new_words.safetensors"
ADAPTED = ["to_q", "to_k", "to_v", "to_out.0"]


class StyleAdapters(nn.Module):
    """What is trained: `(images with their texts, None) -> named losses`.

    Its own parameters are the adapters' and the new words' alone, so its state is small.

    Args:
        pipeline: of the plain model, in single precision, on its device; it gets the adapters and the words.
        rank: of the adapters.
        seed: of their start.
        recompute: store fewer activations and compute them again (gradient checkpointing).
    """

    def __init__(self, pipeline: Any, rank: int = 8, seed: int = 0, recompute: bool = False) -> None:
        super().__init__()
        self.frozen = Frozen(pipeline)
        pipeline.unet.requires_grad_(False)
        known = pipeline.text_encoder.get_input_embeddings()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed & 0xFFFFFFFF)
            start = torch.randn(len(NEW_WORDS), known.embedding_dim) * known.weight.detach().std().cpu()
            # Drawn on the CPU, so that they are the same on every device.
            device = pipeline.unet.device
            pipeline.unet.to("cpu").add_adapter(
                LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=ADAPTED)
            )
            pipeline.unet.to(device)
        self.words = nn.Parameter(start.to(known.weight.device))
        first = _add_words(pipeline.tokenizer)
        pipeline.text_encoder.set_input_embeddings(_WithNewWords(known, self.words, first))
        if recompute:
            pipeline.unet.enable_gradient_checkpointing()
        learning = [weight for weight in pipeline.unet.parameters() if weight.requires_grad]
        self.adapters = nn.ParameterList(learning)
        self._pipeline = (pipeline,)  # in a tuple: its own weights are none of this module's

    def forward(self, batch: tuple[Noised, None]) -> dict[str, Tensor]:
        """The mean loss of the images."""
        own, _ = batch
        states = self.frozen.states(own.ids)
        return {"own": self.frozen.losses(self._pipeline[0].unet, own, states).mean()}

    def train(self, mode: bool = True) -> StyleAdapters:
        """Also for the network, which recomputes activations while it trains only and is none of this module's own."""
        self._pipeline[0].unet.train(mode)
        return super().train(mode)

    def save(self, folder: Path) -> None:
        """The adapters as diffusers loads them, and the words beside them."""
        from diffusers.utils import convert_state_dict_to_diffusers

        pipeline = self._pipeline[0]
        layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipeline.unet))
        with pipelines.quiet():
            pipeline.save_lora_weights(folder, unet_lora_layers=layers, weight_name=ADAPTERS)
        rows = self.words.detach().float().cpu()
        save_file({name: row.clone() for name, row in zip(NEW_WORDS, rows, strict=True)}, folder / WORDS)


class _WithNewWords(nn.Module):
    """A vocabulary that stays, and new words behind it that learn."""

    def __init__(self, known: nn.Embedding, words: nn.Parameter, first: int) -> None:
        super().__init__()
        self.known, self.words, self.first = known, words, first

    def forward(self, ids: Tensor) -> Tensor:
        new = self.words[(ids - self.first).clamp(min=0)]
        return torch.where((ids >= self.first)[..., None], new, self.known(ids.clamp(max=self.first - 1)))


def add_adapters(pipeline: Any, folder: Path) -> None:
    """Give a plain model's pipeline the adapters and the new words of a folder.

    Raises:
        UserError: files that are missing, damaged, or of another model.
    """
    unet, width = pipeline.unet, pipeline.text_encoder.get_input_embeddings().embedding_dim
    try:
        rows = load_file(folder / WORDS)
        if any(rows[name].shape != (width,) for name in NEW_WORDS):
            raise ValueError(f"words of {rows[NEW_WORDS[0]].shape[-1]} numbers, the model's have {width}")
        pipeline.load_lora_weights(str(folder), weight_name=ADAPTERS, local_files_only=True)
        if not getattr(unet, "peft_config", None):
            raise ValueError("it has no adapters for this network")
    except Exception as error:  # what is damaged or of another size raises whatever that leads to
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"{folder} holds no adapters for this model ({reason}): name the folder that was made with it."
        ) from None
    first = _add_words(pipeline.tokenizer)
    if pipeline.text_encoder.get_input_embeddings().num_embeddings < first + len(NEW_WORDS):
        pipeline.text_encoder.resize_token_embeddings(first + len(NEW_WORDS), mean_resizing=False)
    weight = pipeline.text_encoder.get_input_embeddings().weight
    with torch.no_grad():
        for place, name in enumerate(NEW_WORDS, first):
            weight[place] = rows[name].to(weight)


def _add_words(tokenizer: Any) -> int:
    """Give a tokenizer the new words; the number of the first of them."""
    if tokenizer.add_tokens(list(NEW_WORDS)) != len(NEW_WORDS):
        raise UserError(f"The model knows the words {' and '.join(NEW_WORDS)} already: name the plain one.")
    first, *others = tokenizer.convert_tokens_to_ids(list(NEW_WORDS))
    assert others == [first + 1], "new tokens are numbered in order"
    return first
