"""Loading CLIP's files: every layout, other image and text lengths, and every way a file can be wrong."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile

import open_clip
import pytest
import timm
import torch
from open_clip.transformer import TextTransformer
from safetensors.torch import save_file

from models.backbones.clip.checkpoints import WORDS, _renamed, load_clip, stretch_positions
from models.backbones.clip.retrieval import ClipRetrieval
from models.backbones.clip.sizes import SIZES, Size, architecture
from models.backbones.clip.tokenizer import ClipTokenizer
from models.backbones.torchscript import read_torchscript
from models.backbones.weights import CheckpointError, read_weights

SIZE = Size(40, 64, 2, 1, 8, 32, 2, 2, (32, 32), quick_gelu=True)
EVA = Size(40, 64, 2, 2, 16, 32, 2, 2, (64, 64), vision_mlp=8 / 3, rotary=True)
MASK_ROW = f"{WORDS} of the mask"


@pytest.fixture(scope="module")
def words(captions, tmp_path_factory) -> ClipTokenizer:
    return ClipTokenizer.train(captions * 2, tmp_path_factory.mktemp("pairs"), vocab_size=160)


@pytest.fixture(scope="module")
def released(words, randomise) -> open_clip.CLIP:
    """open_clip's own model without the mask, as it would have been released."""
    vision = open_clip.CLIPVisionCfg(layers=2, width=64, patch_size=8, image_size=32)
    text = open_clip.CLIPTextCfg(vocab_size=words.vocab_size - 1, width=32, heads=2, layers=2)
    model = open_clip.CLIP(40, vision, text, quick_gelu=True)
    randomise(model)
    for name in ("input_resolution", "context_length", "vocab_size"):
        value = torch.tensor(int(getattr(model, name, 32)))
        vars(model).pop(name, None)
        model.register_buffer(name, value)
    return model.eval()


@pytest.fixture(scope="module")
def archive(released, words, tmp_path_factory):
    """As OpenAI published: a traced module in half precision."""
    path = tmp_path_factory.mktemp("archive") / "ViT-B-16.pt"
    example = torch.zeros(1, 3, 32, 32), full_length(words(["a man"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(released, example, check_trace=False)
        traced.half().save(str(path))
    released.float()
    return path


def full_length(texts) -> torch.Tensor:
    """open_clip's text towers take nothing but all of their positions."""
    return torch.nn.functional.pad(texts.ids, (0, 77 - texts.ids.shape[1]))


def write(layout: str, released: open_clip.CLIP, archive, directory):
    state = {name: tensor.contiguous() for name, tensor in released.state_dict().items()}
    path = directory / "weights.pt"
    if layout == "archive":
        return archive
    if layout == "safetensors":
        path = directory / "open_clip_model.safetensors"
        save_file(state, path)
    elif layout == "training":
        content = {f"module.{name}": tensor for name, tensor in state.items()}
        torch.save({"epoch": 3, "name": "run", "state_dict": content}, path)
    elif layout == "towers":
        text = {
            name
            for name in state
            if name.startswith(("transformer.", "token_", "ln_final", "positional", "text_p"))
        }
        torch.save({f"text.{name}" if name in text else name: tensor for name, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("layout", ["archive", "plain", "training", "towers", "safetensors"])
@torch.no_grad()
def test_every_layout_of_clip_loads_in_full(layout, released, archive, words, captions, tmp_path):
    model = ClipRetrieval(SIZE, (32, 32), words).eval()
    mask = model.text.token_embedding.weight[words.mask_id].clone()
    report = load_clip(model, write(layout, released, archive, tmp_path))
    assert report.missing == (MASK_ROW,)
    assert report.unexpected == report.interpolated == ()
    described = {"logit_scale", "input_resolution", "context_length", "vocab_size"}
    assert set(report.ignored) - {"attn_mask"} == described
    assert model.text.token_embedding.weight[words.mask_id].equal(mask)
    close = {"rtol": 0.05, "atol": 0.02} if layout == "archive" else {"rtol": 1e-4, "atol": 1e-4}
    images, texts = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)), words(captions)
    torch.testing.assert_close(model.encode_images(images)[1], released.encode_image(images), **close)
    torch.testing.assert_close(
        model.encode_texts(texts)[1], released.encode_text(full_length(texts)), **close
    )


def test_an_archive_has_the_numbers_that_torch_reads(archive):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = torch.jit.load(str(archive)).state_dict()
    tensors = read_torchscript(archive)
    assert set(tensors) - set(expected) <= {"attn_mask"}
    assert all(tensors[name].equal(expected[name]) for name in expected)
    assert {tensor.dtype for tensor in tensors.values()} >= {torch.float16, torch.int64}


@torch.no_grad()
def test_eva_in_the_names_of_timm_and_open_clip(words, captions, randomise, tmp_path):
    """And both towers are those that open_clip would compose."""
    trunk = timm.create_model(
        "eva02_base_patch16_clip_224", img_size=64, embed_dim=64, depth=2, num_heads=2, num_classes=40
    )
    text = TextTransformer(77, words.vocab_size, width=32, heads=2, layers=2, output_dim=40)
    randomise(trunk, 1)
    randomise(text, 2)
    state = {f"visual.trunk.{name}": tensor for name, tensor in trunk.state_dict().items()}
    state |= {f"text.{name}": tensor for name, tensor in text.state_dict().items()}
    torch.save(state | {"logit_scale": torch.tensor(4.6)}, tmp_path / "eva.bin")
    model = ClipRetrieval(EVA, (64, 64), words).eval()
    report = load_clip(model, tmp_path / "eva.bin")
    assert (report.missing, report.unexpected, report.interpolated, report.ignored) == (
        (),
        (),
        (),
        ("logit_scale",),
    )
    images, texts = torch.randn(2, 3, 64, 64), words(captions)
    torch.testing.assert_close(model.encode_images(images)[1], trunk.eval()(images), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        model.encode_texts(texts)[1], text.eval()(full_length(texts)), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("size", "name"), [("base", "ViT-B-16"), ("eva02-base", "EVA02-B-16"), (None, "ViT-L-14-336-quickgelu")]
)
def test_the_sizes_are_those_of_the_released_models(size, name):
    """Every weight of the real architecture has its place and its shape, and nothing else is there but the mask."""
    words = ClipTokenizer.load("bpe_simple_vocab_16e6.txt.gz")
    with torch.device("meta"):
        theirs = open_clip.create_model(name, pretrained=None, device="meta").state_dict()
        options = {"size": size} if size else {"arch": name}
        model = ClipRetrieval(image_size=tuple(architecture(name).image_size), tokenizer=words, **options)
    shapes = {new: tensor.shape for new, tensor in (_renamed(*item) for item in theirs.items())}
    shapes.pop("logit_scale")
    own = {name: tensor.shape for name, tensor in model.state_dict().items()}
    rows, width = own[WORDS]
    assert own | {WORDS: (rows - 1, width)} == shapes


def test_sizes_by_open_clips_names():
    assert architecture("ViT-B-16-quickgelu") == SIZES["base"]
    assert architecture("EVA02-B-16") == SIZES["eva02-base"]
    assert architecture("ViT-B-16") == Size(512, 768, 12, 12, 16, 512, 12, 8, (224, 224))
    with pytest.raises(ValueError, match=r"no architecture 'ViT-B-17': the nearest of .* are ViT-B-16"):
        architecture("ViT-B-17")
    for name in ("RN50", "coca_ViT-B-32", "ViT-B-16-SigLIP", "EVA02-E-14", "convnext_base"):
        with pytest.raises(ValueError, match="no CLIP of two transformers"):
            architecture(name)


def test_positions_are_interpolated_and_stretched(released, words, tmp_path):
    torch.save(released.state_dict(), tmp_path / "clip.pt")
    model = ClipRetrieval(SIZE, (96, 48), words, text_length=248)
    report = load_clip(model, tmp_path / "clip.pt")
    assert report.interpolated == ("visual.positional_embedding", "text.positional_embedding")
    positions = released.visual.positional_embedding.detach()
    grid = torch.nn.functional.interpolate(
        positions[1:].T.reshape(1, 64, 4, 4), (12, 6), mode="bicubic", align_corners=False
    )
    expected = torch.cat([positions[:1], grid[0].reshape(64, -1).T])
    torch.testing.assert_close(model.visual.positional_embedding.detach(), expected)
    long = words(["a red blue white t-shirt, " * 40])
    assert long.ids.shape == (1, 77)
    assert model.tokenizer(["a red blue white t-shirt, " * 40]).ids.shape == (1, 248)
    assert model.encode_texts(["a red blue white t-shirt, " * 40])[0].shape == (1, 248, 40)
    with pytest.raises(ValueError, match="text_length is 60"):
        ClipRetrieval(SIZE, (96, 48), words, text_length=60)


def test_texts_are_stretched_as_in_long_clip():
    """Four places for one, from the paper's formula: quarters between neighbours, and on beyond the last."""
    old = torch.randn(77, 5)
    expected = [old[place] for place in range(20)]
    for place in range(20, 76):
        expected += [old[place] * (1 - part / 4) + old[place + 1] * part / 4 for part in range(4)]
    expected += [old[76] + (old[76] - old[75]) * part / 4 for part in range(4)]
    torch.testing.assert_close(stretch_positions(old, 248), torch.stack(expected))


class _Runs:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_code_in_an_archive_is_refused_and_not_run(archive, words, tmp_path, capsys):
    path = tmp_path / "evil.pt"
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            evil = name.endswith("/data.pkl")
            target.writestr(name, pickle.dumps(_Runs(), protocol=2) if evil else source.read(name))
    with pytest.raises(CheckpointError, match=r"holds more than tensors \(.*print\)"):
        load_clip(ClipRetrieval(SIZE, (32, 32), words), path)
    torch.save({"visual.proj": torch.zeros(1), "more": _Runs()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        read_weights(tmp_path / "evil.pth")
    assert capsys.readouterr().out == ""


def test_damaged_archives_are_refused_in_a_sentence(archive, words, tmp_path):
    model = ClipRetrieval(SIZE, (32, 32), words)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = tmp_path / "damaged.pt"
    content = archive.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="download it again"):
        load_clip(model, path)
    for damage in ("data.pkl", "data/3"):
        with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as target:
            for name in source.namelist():
                cut = name.split("/", 1)[1] == damage
                target.writestr(name, source.read(name)[:9] if cut else source.read(name))
        with pytest.raises(CheckpointError, match="download it again"):
            load_clip(model, path)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_clip(model, tmp_path / "nothing.pt")
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


def test_weights_of_another_model_are_refused(released, words, captions, tmp_path):
    path = tmp_path / "clip.pt"
    torch.save(released.state_dict(), path)
    with pytest.raises(CheckpointError, match=r"another architecture: \d+ weights differ"):
        load_clip(ClipRetrieval("tiny", (32, 32), words), path)
    fewer = ClipTokenizer.train(captions * 2, tmp_path, vocab_size=100)
    with pytest.raises(CheckpointError, match=r"vocabulary of \d+ tokens, the tokenizer"):
        load_clip(ClipRetrieval(SIZE, (32, 32), fewer), path)
    state = released.state_dict()
    del state["visual.proj"]
    torch.save(state | {"stray": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="lacks 1 weights of the towers: image_proj"):
        load_clip(ClipRetrieval(SIZE, (32, 32), words), path)
    torch.save(released.state_dict() | {"stray": torch.zeros(2)}, path)
    assert load_clip(ClipRetrieval(SIZE, (32, 32), words), path).unexpected == ("stray",)


CONFIG = {
    "model_cfg": {
        "embed_dim": 40,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 160, "width": 32, "heads": 2, "layers": 2},
    },
    "preprocess_cfg": {"mean": list(ClipRetrieval.pixel_mean), "std": list(ClipRetrieval.pixel_std)},
}


def open_clip_folder(folder, released, **changes):
    folder.mkdir(exist_ok=True)
    model = CONFIG["model_cfg"] | changes.pop("model", {})
    content = {**CONFIG, **changes, "model_cfg": model}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    state = {name: tensor.contiguous() for name, tensor in released.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


@torch.no_grad()
def test_open_clips_folder_loads_as_its_file_does(released, words, captions, tmp_path):
    folder = open_clip_folder(tmp_path / "hub", released)
    model = ClipRetrieval(SIZE, (32, 32), words).eval()
    report = load_clip(model, folder)
    assert (report.missing, report.unexpected, report.interpolated) == ((MASK_ROW,), (), ())
    texts = words(captions)
    expected = released.encode_text(full_length(texts))
    torch.testing.assert_close(model.encode_texts(texts)[1], expected, rtol=1e-4, atol=1e-4)
    (folder / "open_clip_model.safetensors").unlink()
    torch.save(released.state_dict(), folder / "open_clip_pytorch_model.bin")
    again = ClipRetrieval(SIZE, (32, 32), words).eval()
    load_clip(again, folder)
    torch.testing.assert_close(again.encode_texts(texts)[1], expected, rtol=1e-4, atol=1e-4)


def test_open_clips_folder_says_what_shapes_do_not(released, words, tmp_path):
    model = ClipRetrieval(SIZE, (32, 32), words)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    text = CONFIG["model_cfg"]["text_cfg"]
    for changes, said in (
        ({"model": {"quick_gelu": False}}, "without QuickGELU"),
        ({"model": {"text_cfg": text | {"heads": 4}}}, "1 and 4 attention heads"),
        ({"preprocess_cfg": {"mean": [0.5, 0.5, 0.5]}}, "another mean"),
        ({"model": {"vision_cfg": None}}, "no configuration of open_clip's"),
    ):
        with pytest.raises(CheckpointError, match=said):
            load_clip(model, open_clip_folder(tmp_path / "hub", released, **changes))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no configuration of open_clip's"):
        load_clip(model, tmp_path / "empty")
    folder = open_clip_folder(tmp_path / "hub", released)
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="neither open_clip_model"):
        load_clip(model, folder)
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
