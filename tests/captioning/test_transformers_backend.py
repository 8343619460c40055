"""The transformers backend on tiny models of the real families, loaded from disk as real ones are."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from captioning.backends import BackendError, Request, make_backend
from captioning.backends.transformers import _dtype
from captioning.pipeline import caption_sample
from captioning.store import CaptionStore
from tests.captioning.tiny_models import CLASSES, save_text_model, save_vision_model


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """These matrices are far too small to share out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight noisy images of different sizes."""
    directory = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for index in range(8):
        pixels = generator.integers(0, 255, (90 + 14 * index, 40 + 7 * index, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(directory / f"{index}.png")
    return directory


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    made = {}

    def model(family: str):
        if family not in made:
            directory = tmp_path_factory.mktemp(family)
            made[family] = (
                save_text_model(directory) if family == "text" else save_vision_model(family, directory)
            )
        return str(made[family])

    return model


@pytest.fixture
def requests(folder):
    return [
        Request(f"{index}", folder / f"{index}.png", "Describe the coat " + "well " * index)
        for index in range(8)
    ]


@pytest.mark.integration
@pytest.mark.parametrize("family", CLASSES)
def test_batch_of_eight_answers_as_one_by_one(family, models, requests):
    backend = make_backend(
        "transformers", model=models(family), batch_size=8, max_tokens=16, precision="fp32"
    )
    together = list(backend.answer(requests))
    alone = [reply for request in requests for reply in backend.answer([request])]
    assert [reply.key for reply in together] == [request.key for request in requests]
    assert together == alone
    assert {reply.status for reply in together} == {"done"}
    assert len({reply.text for reply in together}) == 8
    assert together[0].usage["prompt_tokens"] < together[7].usage["prompt_tokens"]


@pytest.mark.integration
def test_the_picture_and_the_prompt_both_decide(models, folder):
    backend = make_backend("transformers", model=models("qwen2_vl"), max_tokens=12)
    looks = [Request(f"{i}", folder / f"{i}.png", "Describe the coat") for i in (0, 1)]
    reads = [Request("c", folder / "0.png", "Describe the skirt")]
    first, second, third = [reply.text for reply in backend.answer([*looks, *reads])]
    assert len({first, second, third}) == 3


@pytest.mark.integration
def test_texts_and_images_mix_and_broken_images_fail(models, folder, tmp_path, requests):
    (tmp_path / "broken.png").write_bytes(b"no image")
    backend = make_backend("transformers", model=models("qwen2_vl"), batch_size=4, max_tokens=8)
    mixed = [
        requests[0],
        Request("text", None, "Shorten this"),
        Request("broken", tmp_path / "broken.png", "Describe"),
        requests[1],
        Request("gone", tmp_path / "gone.png", "Describe"),
    ]
    replies = {reply.key: reply for reply in backend.answer(mixed)}
    assert {key: reply.status for key, reply in replies.items()} == {
        "0": "done",
        "1": "done",
        "text": "done",
        "broken": "failed",
        "gone": "failed",
    }
    assert "broken.png" in replies["broken"].error


@pytest.mark.integration
def test_half_precision_and_two_users_of_one_model(models, requests):
    """What looks and what simplifies may be one model: it is in memory once for each device and precision."""
    half = make_backend("transformers", model=models("qwen2_vl"), precision="bf16", max_tokens=8)
    again = make_backend("transformers", model=models("qwen2_vl"), precision="bf16", max_tokens=4)
    full = make_backend("transformers", model=models("qwen2_vl"), precision="fp32", max_tokens=8)
    assert half._network is again._network
    assert half._network is not full._network
    assert {parameter.dtype for parameter in half._network.parameters()} == {torch.bfloat16}
    assert {reply.status for reply in half.answer(requests)} == {"done"}


@pytest.mark.integration
def test_text_model_simplifies_and_refuses_images(models, requests):
    backend = make_backend("transformers", model=models("text"), batch_size=4, max_tokens=8)
    texts = [Request(f"{i}", None, "Shorten " + "a red coat " * i) for i in range(4)]
    together = list(backend.answer(texts))
    assert together == [reply for request in texts for reply in backend.answer([request])]
    with pytest.raises(BackendError, match="takes no images"):
        list(backend.answer(requests))


@pytest.mark.integration
def test_sampling_follows_the_seed_only(models, requests):
    def texts(**options):
        backend = make_backend("transformers", model=models("qwen2_vl"), max_tokens=12, **options)
        return [reply.text for reply in backend.answer(requests)]

    sampled = texts(temperature=1.5, seed=1)
    torch.manual_seed(99)
    assert texts(temperature=1.5, seed=1) == sampled
    assert texts(temperature=1.5, seed=2) != sampled
    assert texts() != sampled


@pytest.mark.integration
def test_a_batch_too_large_for_the_memory_is_halved(models, requests, monkeypatch):
    backend = make_backend("transformers", model=models("qwen2_vl"), batch_size=8, max_tokens=8)
    expected = list(backend.answer(requests))
    generate, sizes, failed = backend._network.generate, [], []

    def small_memory(limit):
        def generate_if_it_fits(**inputs):
            assert all(tensor() is None for tensor in failed), "what filled the memory is still held"
            sizes.append(len(inputs["input_ids"]))
            large = torch.zeros(4)
            if sizes[-1] > limit:
                failed.append(weakref.ref(large))
                raise torch.OutOfMemoryError("CUDA out of memory")
            return generate(**inputs)

        return generate_if_it_fits

    monkeypatch.setattr(backend._network, "generate", small_memory(2))
    assert list(backend.answer(requests)) == expected
    assert sizes == [8, 4, 2, 2, 4, 2, 2]
    monkeypatch.setattr(backend._network, "generate", small_memory(0))
    with pytest.raises(BackendError, match="does not fit into the memory"):
        list(backend.answer(requests))


@pytest.mark.integration
def test_stage_a_runs_with_the_real_models(models, folder, tmp_path):
    backend = make_backend("transformers", model=models("qwen2_vl"), batch_size=4, max_tokens=16)
    writer = make_backend("transformers", model=models("text"), batch_size=4, max_tokens=8)
    images = [f"{index}.png" for index in range(4)]
    with CaptionStore(tmp_path / "s.jsonl") as store:
        report = caption_sample(images, folder, backend, store, text_backend=writer)
        assert report.summary.done == 4
        assert list(report.summary.models) == [models("qwen2_vl")]


@pytest.mark.parametrize(("capability", "found"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16)])
def test_auto_is_bf16_on_cards_that_compute_in_it(monkeypatch, capability, found):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert _dtype("auto", torch.device("cuda", 1)) is found
    assert _dtype("auto", torch.device("cpu")) is torch.float32


def test_what_cannot_be_loaded_is_told_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "config.json").write_text("{}")
    for name in (str(tmp_path), str(tmp_path / "none")):
        with pytest.raises(BackendError, match="Cannot load the captioning model") as caught:
            make_backend("transformers", model=name)
        assert "\n" not in str(caught.value)


@pytest.mark.integration
def test_models_without_chat_template_and_wrong_precision_are_told(tmp_path):
    directory = save_text_model(tmp_path)
    (directory / "chat_template.jinja").unlink()
    with pytest.raises(BackendError, match="Instruct"):
        make_backend("transformers", model=str(directory))
    with pytest.raises(BackendError, match="choose auto, fp32, bf16, fp16"):
        make_backend("transformers", model=str(directory), precision="int3")
