"""Captions from a local model: Qwen-VL families and whatever else AutoModelForImageTextToText loads, or a text model.

Prompts of a batch are padded on the left, so that every answer starts where its prompt ends and a batch gives the
greedy answers that its members give alone. On several GPUs each process makes its own backend, and `rank` and
`world_size` of `captioning.pipeline.caption_sample` divide the images; all processes write one store.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any
from weakref import WeakValueDictionary

import torch
from PIL.Image import Image
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)

from captioning.backends import BackendError, Reply, Request
from captioning.backends.picture import PictureError, read_picture
from captioning.replies import cut_unfinished

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

logger = logging.getLogger(__name__)


class TransformersBackend:
    """Asks a model in this process, `batch_size` questions at a time.

    Args:
        model: a directory, or a name on the Hugging Face hub. A text-only model answers requests without images.
        device: "auto" (this process's GPU by LOCAL_RANK, else the CPU) or a torch device.
        precision: "auto" (bf16 on a GPU that has it, else fp32), "bf16", "fp16" or "fp32".
        batch_size: questions per batch; halved for a batch that does not fit into the GPU's memory.
        image_size: longest side in pixels an image is scaled down to.
        max_tokens: of an answer.
        temperature: 0 answers greedily; above, answers are sampled within `top_p`.
        seed: of the sampling.
        attention: torch's scaled-dot-product attention ("sdpa") or another implementation transformers knows.
        template_options: for the model's chat template, e.g. {"enable_thinking": False}.

    Raises:
        BackendError: the model cannot be loaded or an option is wrong.
    """

    name = "transformers"

    def __init__(
        self,
        *,
        model: str,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int = 16,
        image_size: int = 512,
        max_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 0.9,
        seed: int = 0,
        attention: str = "sdpa",
        template_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = str(model)
        self._device = _device(device)
        self._batch_size = batch_size
        self._image_size = image_size
        self._seed = seed
        self._template_options = dict(template_options or {})
        self._generation = {"max_new_tokens": max_tokens, **_sampling(temperature, top_p)}
        self._sampled = temperature > 0
        self._max_tokens = max_tokens
        self._loaded = _load(self.model, self._device, _dtype(precision, self._device), attention)
        self._network, self._processor = self._loaded.network, self._loaded.processor
        self._tokenizer = getattr(self._processor, "tokenizer", self._processor)
        self._sees = self._tokenizer is not self._processor
        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token

    def answer(self, requests: Iterable[Request]) -> Generator[Reply, None, None]:
        """Answer every request once, batch by batch; images and texts are batched apart."""
        for block in _blocks(requests, self._batch_size):
            pictures: dict[str, Image] = {}
            kinds: dict[bool, list[Request]] = {True: [], False: []}
            for request in block:
                error = self._open(request, pictures)
                if error:
                    yield Reply(request.key, "", "failed", error)
                else:
                    kinds[request.image is not None].append(request)
            for batch in kinds.values():
                if batch:
                    yield from self._answer_batch(batch, pictures)

    def close(self) -> None:
        """Nothing runs between two answers; the model's memory is freed with the object."""

    def _open(self, request: Request, pictures: dict[str, Image]) -> str:
        """Add the request's picture to `pictures`; what is wrong with it, or ""."""
        if request.image is None:
            return ""
        if not self._sees:
            raise BackendError(f"The model {self.model} takes no images: use it as the text model only.")
        try:
            pictures[request.key] = read_picture(request.image, self._image_size)
        except PictureError as error:
            return str(error)
        return ""

    def _answer_batch(self, batch: list[Request], pictures: dict[str, Image]) -> Iterator[Reply]:
        try:
            replies = self._generate(batch, pictures)
        except torch.OutOfMemoryError:
            replies = None  # go on outside: in here the error still holds what filled the memory
        if replies is not None:
            yield from replies
            return
        if len(batch) == 1:
            raise BackendError(
                f"The model {self.model} does not fit into the memory of {self._device} even with one question; "
                "lower image_size or max_tokens, or use a smaller model."
            )
        logger.warning("a batch of %d does not fit into the memory; halving it", len(batch))
        torch.cuda.empty_cache()
        half = len(batch) // 2
        for part in (batch[:half], batch[half:]):
            yield from self._answer_batch(part, pictures)

    @torch.inference_mode()
    def _generate(self, batch: list[Request], pictures: dict[str, Image]) -> list[Reply]:
        inputs = self._inputs(batch, pictures)
        if self._sampled:
            # From the batch's own keys, so that a resumed run does not repeat the draws of the first one.
            # One 32-bit number of both: the CPU generator drops the upper half of a longer seed.
            keys = "\n".join([str(self._seed), *(request.key for request in batch)])
            torch.manual_seed(zlib.crc32(keys.encode("utf-8", "surrogateescape")))
        output = self._network.generate(
            **inputs, **self._generation, pad_token_id=self._tokenizer.pad_token_id
        )
        answers = output[:, inputs["input_ids"].shape[1] :].cpu()
        prompt_tokens = inputs["attention_mask"].sum(dim=1).tolist()
        return [
            self._reply(request, tokens, count)
            for request, tokens, count in zip(batch, answers, prompt_tokens, strict=True)
        ]

    def _inputs(self, batch: list[Request], pictures: dict[str, Image]) -> dict[str, torch.Tensor]:
        texts = [self._chat(request) for request in batch]
        # A chat template writes the beginning-of-sequence token itself where there is one.
        first = self._tokenizer.bos_token
        special = {"add_special_tokens": not (first and texts[0].startswith(first))}
        images = [[pictures[request.key]] for request in batch if request.image is not None]
        options = {"images": images} if images else {}
        inputs = self._processor(text=texts, **options, padding=True, return_tensors="pt", **special)
        dtype = self._network.dtype
        return {
            name: value.to(self._device, dtype if value.is_floating_point() else value.dtype)
            for name, value in inputs.items()
        }

    def _chat(self, request: Request) -> str:
        content: Any = request.prompt
        if self._sees:
            content = [{"type": "text", "text": request.prompt}]
            if request.image is not None:
                content.insert(0, {"type": "image"})
        message = [{"role": "user", "content": content}]
        return self._processor.apply_chat_template(
            message, tokenize=False, add_generation_prompt=True, **self._template_options
        )

    def _reply(self, request: Request, tokens: torch.Tensor, prompt_tokens: int) -> Reply:
        ends = self._network.generation_config.eos_token_id
        ends = {*(ends if isinstance(ends, list) else [ends]), self._tokenizer.eos_token_id}
        length = next((at + 1 for at, token in enumerate(tokens.tolist()) if token in ends), len(tokens))
        text = self._tokenizer.decode(tokens[:length], skip_special_tokens=True).strip()
        if length == self._max_tokens and tokens[-1].item() not in ends:
            text = cut_unfinished(text)
        usage = {"requests": 1, "prompt_tokens": prompt_tokens, "completion_tokens": length}
        if not text:
            return Reply(request.key, "", "empty", "the model said nothing", usage)
        return Reply(request.key, text, "done", usage=usage)


@dataclass(eq=False)
class _Loaded:
    """A network in evaluation mode, and its processor (or its tokenizer, for a text-only model)."""

    network: Any
    processor: Any


# One model that both looks and simplifies is in memory once, for as long as a backend uses it.
_LOADED: WeakValueDictionary[tuple[object, ...], _Loaded] = WeakValueDictionary()


def _load(name: str, device: torch.device, dtype: torch.dtype, attention: str) -> _Loaded:
    key = (name, device, dtype, attention)
    loaded = _LOADED.get(key)
    if loaded is None:
        loaded = _LOADED[key] = _Loaded(*_read(name, dtype, attention))
        loaded.network.to(device).eval()
    return loaded


def _read(name: str, dtype: torch.dtype, attention: str) -> tuple[Any, Any]:
    """Network and processor from a directory or the hub."""
    options = {"dtype": dtype, "attn_implementation": attention}
    try:
        config = AutoConfig.from_pretrained(name)
        if type(config) in AutoModelForImageTextToText._model_mapping:
            network = AutoModelForImageTextToText.from_pretrained(name, **options)
            processor = AutoProcessor.from_pretrained(name)
        else:
            network = AutoModelForCausalLM.from_pretrained(name, **options)
            processor = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, ImportError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise BackendError(
            f"Cannot load the captioning model {name!r}: {reason} Give a directory that holds the model's config, "
            "weights and tokenizer, or a hub name on a machine that reaches the hub."
        ) from None
    if getattr(processor, "chat_template", None) is None:
        raise BackendError(
            f"The captioning model {name!r} has no chat template: it is no instruction-tuned model; "
            "choose its Instruct version."
        )
    return network, processor


def _device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision == "auto":
        # Cards before Ampere only imitate bf16; many models overflow in fp16, so that is for their user to choose.
        has_bf16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if has_bf16 else torch.float32
    if precision not in DTYPES:
        raise BackendError(f"Unknown precision {precision!r}; choose auto, {', '.join(DTYPES)}.")
    return DTYPES[precision]


def _sampling(temperature: float, top_p: float) -> dict[str, Any]:
    """Arguments of `generate`; None unsets what the model's own generation config says."""
    if temperature > 0:
        return {"do_sample": True, "temperature": temperature, "top_p": top_p}
    return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}


def _blocks(requests: Iterable[Request], size: int) -> Iterator[list[Request]]:
    queue = iter(requests)
    while block := list(islice(queue, size)):
        yield block
