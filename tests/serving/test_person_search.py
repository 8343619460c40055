"""The three lines: features, searches and what is refused; and `torch.hub` from a program with packages of the same names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from data.errors import UserError
from engine import checkpoints, published
from models import build_model
from serving.opening import decoder
from serving.person_search import PersonSearch
from tests.serving.commands import ROOT, run

SENTENCES = ["a woman in a red coat", "a man with a blue jacket and grey trousers"]
ROOMS = (
    "captioning",
    "clustering",
    "data",
    "engine",
    "losses",
    "models",
    "retrieval",
    "serving",
    "synthesis",
)


@pytest.fixture(scope="module")
def index(demo, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("index") / "demo"
    assert run("index", "--images", demo.crops, "--checkpoint", demo.checkpoint, "--out", directory).code == 0
    return directory


@pytest.fixture(scope="module")
def search(demo) -> PersonSearch:
    return PersonSearch(demo.checkpoint, device="cpu")


def test_a_file_and_a_picture_are_explained_alike(demo, search):
    path = demo.dataset.path(demo.records[0])
    of_file, of_picture = (search.explain(SENTENCES[0], image) for image in (path, Image.open(path)))
    assert of_file.size == of_picture.size
    below_the_name = (0, 80, *of_file.size)  # which a picture in memory does not have
    assert of_file.crop(below_the_name).tobytes() == of_picture.crop(below_the_name).tobytes()
    with pytest.raises(UserError, match="no word in it"):
        search.explain("?!", path)


@torch.no_grad()
def test_features_are_those_of_the_model(demo, search):
    paths = [demo.dataset.path(record) for record in demo.records][:5]
    images = torch.stack([decoder((48, 24))(path) for path in paths])
    expected = torch.nn.functional.normalize(search.model.encode_images(images)[1], dim=1)
    features = search.encode_images(paths)
    assert features.dtype == torch.float32
    assert features.shape == (5, search.feature_size)
    assert torch.allclose(features, expected, atol=1e-6)
    opened = [Image.open(path) for path in paths]
    assert search.encode_images(opened).equal(features)
    assert search.encode_images([str(paths[0]), opened[1]]).equal(search.encode_images(paths[:2]))
    assert search.encode_images(paths[0]).shape == (1, search.feature_size)
    texts = search.encode_texts(SENTENCES)
    said = torch.nn.functional.normalize(search.model.encode_texts(SENTENCES)[1], dim=1)
    assert torch.allclose(texts, said, atol=1e-6)
    assert search.encode_images([]).shape == search.encode_texts([]).shape == (0, search.feature_size)


def test_images_of_every_kind_and_size(search, tmp_path):
    for mode, size in (("RGBA", (7, 300)), ("L", (500, 20)), ("P", (24, 48)), ("I;16", (30, 60))):
        image = Image.new(mode, size)
        image.save(tmp_path / "x.png")
        assert search.encode_images([image]).equal(search.encode_images([tmp_path / "x.png"])), mode


def test_a_search_finds_what_the_command_finds(search, index):
    for arguments, options in (((), {}), (("--rerank", 6), {"rerank": 6})):
        ended = run("query", "--index", index, SENTENCES[0], "--json", "--top", 4, *arguments)
        expected = [(hit["path"], hit["score"], hit["cosine"]) for hit in ended.json()["hits"]]
        found = search.search(SENTENCES[0], index, top=4, **options)
        assert [(str(hit.path), round(hit.score, 6), round(hit.cosine, 6)) for hit in found] == expected
    best = search.search(SENTENCES[0], str(index), top=1)[0]
    product = (search.encode_texts([SENTENCES[0]]) @ search.encode_images([best.path]).T).item()
    assert abs(product - best.cosine) < 1e-5


def test_an_index_that_is_brought_up_to_date_is_read_anew(demo, crops, search, tmp_path):
    arguments = ("index", "--images", crops, "--checkpoint", demo.checkpoint, "--out", tmp_path / "index")
    assert run(*arguments).code == 0
    gone = search.search(SENTENCES[0], tmp_path / "index", top=1)[0].path
    gone.unlink()
    assert run(*arguments).code == 0
    assert gone not in [hit.path for hit in search.search(SENTENCES[0], tmp_path / "index", top=100)]


def test_a_published_model_searches_the_index_of_its_checkpoint_and_another_does_not(demo, index, tmp_path):
    content = checkpoints.load(demo.checkpoint)
    published.write(tmp_path / "shared", content, {})
    again = PersonSearch(tmp_path / "shared", device="cpu")
    assert len(again.search(SENTENCES[0], index)) == 10
    assert "shared" in repr(again) or "model" in repr(again)
    weight = "itm_head.weight"
    changed = content["model"] | {weight: content["model"][weight] + 1e-4}
    checkpoints.save(tmp_path / "other.pth", content | {"model": changed})
    with pytest.raises(UserError, match=r"made with another model than other\.pth"):
        PersonSearch(tmp_path / "other.pth", device="cpu").search(SENTENCES[0], index)


def test_what_can_not_be_used_is_told(demo, search, index, tmp_path):
    with pytest.raises(UserError, match="does not open"):
        search.encode_images([tmp_path / "absent.jpg"])
    with pytest.raises(TypeError, match="a path or a PIL image, not a int"):
        search.encode_images([3])
    with pytest.raises(UserError, match="no word in it"):
        search.encode_texts(["..."])
    with pytest.raises(UserError, match="is no search index"):
        search.search(SENTENCES[0], tmp_path)
    with pytest.raises(UserError, match="top is 0"):
        search.search(SENTENCES[0], index, top=0)
    with pytest.raises(UserError, match="There is no checkpoint"):
        PersonSearch(tmp_path / "absent.pth")
    with pytest.raises(UserError, match="There is no precision 'fp16'"):
        PersonSearch(demo.checkpoint, precision="fp16")


def test_a_dual_encoder_refuses_re_ranking(demo, tmp_path, crops):
    from models.backbones.resnet_lstm.words import Words

    words = Words(["man", "red", "woman", "coat"])
    torch.manual_seed(0)
    model = build_model("ssan", size="tiny", image_size=(96, 32), tokenizer=words)
    checkpoints.save(tmp_path / "best.pth", checkpoints.describe(model, "ssan", "tiny"))
    arguments = ("index", "--images", crops, "--checkpoint", tmp_path / "best.pth", "--out", tmp_path / "i")
    assert run(*arguments).code == 0
    search = PersonSearch(tmp_path / "best.pth", device="cpu")
    assert not search.can_rerank
    with pytest.raises(UserError, match="can't re-rank"):
        search.search(SENTENCES[0], tmp_path / "i", rerank=3)


_PROGRAM = """
import json, sys
from pathlib import Path
import data, models.deep
import torch

before, path = set(sys.modules), list(sys.path)
search = torch.hub.load(sys.argv[1], "person_search", checkpoint=sys.argv[2], device="cpu", source="local")
paths = sorted(Path(sys.argv[3]).rglob("*.jpg"))[:3]
result = {
    "images": search.encode_images(paths).tolist(),
    "texts": search.encode_texts(json.loads(sys.argv[4])).tolist(),
    "hits": [[str(hit.path), hit.score] for hit in search.search(json.loads(sys.argv[4])[0], sys.argv[5], rerank=4)],
}
assert sys.path == path, "sys.path changed"
rooms = json.loads(sys.argv[6])
mine = {name for name in set(sys.modules) - before if name.split(".")[0] in rooms}
assert not mine, mine
assert data.MINE and models.deep.MINE
assert search.model.__module__.startswith("person_search_rooms.models")
import engine  # the caller's own, imported for the first time only now
assert engine.MINE
again = torch.hub.load(sys.argv[1], "person_search", checkpoint=sys.argv[2], device="cpu", source="local")
assert again.encode_texts(["a man"]).equal(search.encode_texts(["a man"]))
print(json.dumps(result))
"""


@pytest.mark.integration
def test_torch_hub_from_another_folder_leaves_the_callers_packages_alone(demo, index, search, tmp_path):
    """The caller has `data.py`, `models/` and `engine.py` of its own, imported before and after."""
    (tmp_path / "data.py").write_text("MINE = True\n")
    (tmp_path / "engine.py").write_text("MINE = True\n")
    (tmp_path / "models").mkdir()
    (tmp_path / "models/__init__.py").write_text("")
    (tmp_path / "models/deep.py").write_text("MINE = True\n")
    (tmp_path / "program.py").write_text(_PROGRAM)
    arguments = [str(ROOT), str(demo.checkpoint), str(demo.crops), json.dumps(SENTENCES), str(index), json.dumps(ROOMS)]  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "program.py", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout.splitlines()[-1])
    paths = sorted(demo.crops.rglob("*.jpg"))[:3]
    assert torch.allclose(torch.tensor(result["images"]), search.encode_images(paths), atol=1e-6)
    assert torch.allclose(torch.tensor(result["texts"]), search.encode_texts(SENTENCES), atol=1e-6)
    expected = search.search(SENTENCES[0], index, rerank=4)
    assert [path for path, _ in result["hits"]] == [str(hit.path) for hit in expected]


def test_a_second_copy_of_the_project_in_one_process_is_refused(tmp_path):
    script = (
        "import sys, importlib.util as u; s = u.spec_from_file_location('i', sys.argv[1]); i = u.module_from_spec(s);"
        "s.loader.exec_module(i); from pathlib import Path; i.room_module(Path(sys.argv[2]), 'data.errors');"
        "i.room_module(Path('.'), 'data.errors')"
    )
    command = [sys.executable, "-c", script, str(ROOT / "serving/isolation.py"), str(ROOT)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "has loaded the project from" in ended.stderr
