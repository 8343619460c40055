"""search.py export: what it writes computes what torch does, and is used by a program that can't import torch."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch.nn.functional import normalize

from engine import checkpoints
from models import METHODS, build_model
from models.backbones.clip.sizes import Size
from retrieval.encode import encode_queries
from serving.opening import decoder
from tests.serving.commands import ROOT, run

pytest.importorskip("onnxruntime", reason="exporting needs pip install -r requirements-export.txt")
pytest.importorskip("onnxscript", reason="exporting needs pip install -r requirements-export.txt")

EXAMPLE = ROOT / "docs" / "examples" / "onnx_search.py"
TEXTS = [
    "A woman in a red coat, with a (black) backpack; blue trousers!",
    "a man",
    "An old man's T-shirt &amp; grey jacket, naïve über zqxj",
    "a woman in a red coat and " * 40,
    "",
]
# Makes `import torch` fail in the process that runs the example.
WITHOUT_TORCH = """
import runpy, sys
sys.modules["torch"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
assert not {"torchvision", "models", "engine"} & set(sys.modules)
"""


def export(checkpoint: Path, directory: Path, *options: str) -> dict:
    assert run("export", "--checkpoint", checkpoint, "--to", directory, *options).code == 0
    return json.loads((directory / "config.json").read_text("utf-8"))


def graph(directory: Path, name: str):
    import onnxruntime

    return onnxruntime.InferenceSession(directory / f"{name}.onnx", providers=["CPUExecutionProvider"])


def apart(directory: Path, model) -> float:
    """The largest difference to torch, for batches of one and of four, of texts of any length."""
    found = []
    image_encoder, text_encoder = graph(directory, "image_encoder"), graph(directory, "text_encoder")
    for texts in (TEXTS[:1], TEXTS[1:2], TEXTS[:4]):
        images = torch.randn(len(texts), 3, *model.image_size)
        batch = model.tokenizer(texts)
        with torch.no_grad():
            tokens, seen = model.encode_images(images)
            said = model.encode_texts(batch)[1]
        written = {"ids": batch.ids.numpy(), "mask": batch.mask.numpy()}
        got = image_encoder.run(None, {"images": images.numpy()})
        pairs = [
            (got[0], normalize(seen, dim=1)),
            (text_encoder.run(None, written)[0], normalize(said, dim=1)),
        ]
        if model.has_matching:
            with torch.no_grad():
                logits = model.match(batch, tokens)
            matched = graph(directory, "match").run(None, {**written, "image_tokens": got[1]})
            pairs += [(got[1], tokens), (matched[0], logits)]
        found += [np.abs(ours - theirs.numpy()).max() for ours, theirs in pairs]
    return max(found)


def ids_by_the_rules(tokenizer: Tokenizer, rules: dict, text: str) -> list[int]:
    """What `PortableTokenizer` says, step by step."""
    for _ in range(2 if rules["unescape"] else 0):
        text = html.unescape(text)
    text = text.lower()
    if rules["dropped"]:
        text = re.sub(rules["dropped"], " ", text)
    encoding = tokenizer.encode(" ".join(text.split()[: rules["max_words"]]))
    kept, words = [], encoding.word_ids
    for number, word in zip(encoding.ids, words, strict=True):
        whole = [other for other, its in zip(encoding.ids, words, strict=True) if its == word]
        if not set(whole) & set(rules["left_out_ids"]):
            kept.append(number)
    first = [] if rules["first_id"] is None else [rules["first_id"]]
    last = [] if rules["last_id"] is None else [rules["last_id"]]
    return first + kept[: rules["max_pieces"]] + last


@pytest.mark.parametrize("method", ["pspd", "irra", "ssan"])
def test_a_portable_tokenizer_gives_the_same_ids(method, demo, tmp_path):
    captions = [caption for record in demo.records for caption in record.captions]
    words = METHODS[method].tokenizer_class.train(captions, tmp_path, 300)
    portable = words.portable()
    tokenizer, rules = Tokenizer.from_str(portable.json), json.loads(json.dumps(portable.rules))
    for text in [*TEXTS, *captions]:
        batch = words([text])
        assert ids_by_the_rules(tokenizer, rules, text) == batch.ids[batch.mask].tolist()


@pytest.fixture(scope="module")
def exported(demo, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("export") / "model"
    export(demo.checkpoint, directory)
    return directory


@pytest.mark.integration
def test_onnxruntime_computes_what_torch_does(demo, exported):
    model, _ = checkpoints.load_retrieval_model(demo.checkpoint)
    assert apart(exported, model) < 1e-4
    config = json.loads((exported / "config.json").read_text("utf-8"))
    assert config["has_matching"]
    assert {path.name for path in exported.iterdir()} == {"config.json", *config["files"]}
    assert [path.name for path in exported.parent.iterdir()] == ["model"]  # nothing unfinished is left


@pytest.mark.integration
def test_the_example_searches_without_torch(demo, exported):
    caption = demo.records[0].captions[0]
    command = [sys.executable, "-c", WITHOUT_TORCH, EXAMPLE, exported, demo.crops, caption]
    done = subprocess.run(command, capture_output=True, text=True, cwd=exported)
    assert done.returncode == 0, done.stderr
    found = dict(reversed(line.split(" ", 1)) for line in done.stdout.splitlines())
    assert len(found) == 10
    model, content = checkpoints.load_retrieval_model(demo.checkpoint)
    decode = decoder(tuple(content["image_size"]))
    images = torch.stack([decode(Path(path)) for path in found])
    with torch.no_grad():
        seen = normalize(model.encode_images(images)[1], dim=1)
    cosines = seen @ encode_queries(model, [caption])[0]
    # Pillow resizes by other roundings than this project.
    np.testing.assert_allclose([float(cosine) for cosine in found.values()], cosines, atol=0.02)


@pytest.mark.integration
def test_a_folder_of_other_things_is_left_alone(demo, exported, tmp_path, messages):
    (tmp_path / "mine.txt").write_text("mine")
    assert run("export", "--checkpoint", demo.checkpoint, "--to", tmp_path).code == 1
    assert "holds other files" in messages[-1]
    note = exported / "note.txt"
    note.write_text("mine, beside an export")
    try:
        assert run("export", "--checkpoint", demo.checkpoint, "--to", exported).code == 1
        assert "holds other files" in messages[-1]
    finally:
        note.unlink()
    assert run("export", "--checkpoint", demo.checkpoint, "--to", tmp_path / "mine.txt").code == 1
    assert "is a file" in messages[-1]


@pytest.mark.integration
def test_an_export_that_fails_leaves_what_was_there(demo, exported, monkeypatch, messages):
    from engine import onnx_graphs

    before = {path: path.read_bytes() for path in exported.iterdir()}

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(onnx_graphs, "write", stopped)
    assert run("export", "--checkpoint", demo.checkpoint, "--to", exported).code == 130
    assert {path: path.read_bytes() for path in exported.iterdir()} == before

    # Graphs that compute something else are found, and do not take the place of good ones.
    monkeypatch.setattr(
        onnx_graphs, "write", lambda graph, path, half: path.write_bytes(before[exported / path.name])
    )
    other = exported.parent / "other.pth"
    content = checkpoints.load(demo.checkpoint)
    content["model"]["text_proj.weight"] *= 2
    content["model"]["text_proj.weight"][0] += 1
    checkpoints.save(other, content)
    try:
        assert run("export", "--checkpoint", other, "--to", exported).code == 1
        assert "differs from torch by" in messages[-1]
        assert {path: path.read_bytes() for path in exported.iterdir()} == before
    finally:
        other.unlink()
    assert [path.name for path in exported.parent.iterdir()] == ["model"]
    # With the right ones the same command puts itself in the place of its own export.
    assert run("export", "--checkpoint", demo.checkpoint, "--to", exported).code == 0
    assert {path.name for path in exported.iterdir()} == {path.name for path in before}


@pytest.mark.integration
def test_a_missing_package_is_named(demo, tmp_path, monkeypatch, messages):
    from serving import exporting

    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda name: None)
    assert run("export", "--checkpoint", demo.checkpoint, "--to", tmp_path / "export").code == 1
    assert messages[-1].endswith("pip install -r requirements-export.txt.")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["irra", "rde", "ssan"])
def test_every_backbone_computes_what_torch_does(method, demo, tmp_path):
    captions = [caption for record in demo.records for caption in record.captions]
    words = METHODS[method].tokenizer_class.train(captions, tmp_path, 300)
    torch.manual_seed(1)
    image_size = (96, 32) if method == "ssan" else (48, 24)
    model = build_model(method, size="tiny", image_size=image_size, tokenizer=words).eval()
    checkpoints.save(tmp_path / "best.pth", checkpoints.describe(model, method, "tiny"))
    export(tmp_path / "best.pth", tmp_path / "export")
    assert apart(tmp_path / "export", model) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True])
def test_evas_towers_compute_what_torch_does(half, demo, tmp_path):
    """SynTBPR's: rotary positions, SwiGLU. They have no small size by name, so no checkpoint of one can be small."""
    from engine import onnx_graphs

    captions = [caption for record in demo.records for caption in record.captions]
    words = METHODS["syntbpr"].tokenizer_class.train(captions, tmp_path, 300)
    torch.manual_seed(1)
    size = Size(64, 64, 2, 2, 16, 64, 2, 2, (64, 64), vision_mlp=8 / 3, rotary=True)
    model = build_model("syntbpr", size=size, image_size=(96, 32), tokenizer=words).eval()
    for one in onnx_graphs.graphs_of(model):
        onnx_graphs.write(one, tmp_path / f"{one.name}.onnx", half=half)
    assert apart(tmp_path, model) < (2e-2 if half else 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pspd", "ssan"])
def test_half_precision_stays_close(method, demo, tmp_path):
    captions = [caption for record in demo.records for caption in record.captions]
    words = METHODS[method].tokenizer_class.train(captions, tmp_path, 300)
    torch.manual_seed(1)
    image_size = (96, 32) if method == "ssan" else (48, 24)
    model = build_model(method, size="tiny", image_size=image_size, tokenizer=words).eval()
    checkpoints.save(tmp_path / "best.pth", checkpoints.describe(model, method, "tiny"))
    assert export(tmp_path / "best.pth", tmp_path / "export", "--half")["half"]
    assert 1e-6 < apart(tmp_path / "export", model) < 2e-2
    if method == "ssan":  # its LSTM stays in float32, and what both encoders share is in both files
        return
    sizes = [path.stat().st_size for path in (tmp_path / "export").glob("*_encoder.onnx")]
    assert sum(sizes) < 0.75 * (tmp_path / "best.pth").stat().st_size
