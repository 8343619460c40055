"""Names on a hub, against a server that speaks its protocol: what is fetched, what is not, and every way it can go wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine import hub
from engine.distributed import Interrupted
from engine.hub import HubError, HubName, located, source_of
from tests.hub_server import Repository, serving

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = bytes(range(256)) * 2000  # 512 kB


@pytest.fixture
def server(monkeypatch, tmp_path):
    with serving() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))  # no token of this machine's
        monkeypatch.setattr(hub, "FOLDER", tmp_path / "hf")
        monkeypatch.setattr(hub, "_PAUSE", 0.01)
        running.repositories["some/model"] = Repository(
            {
                "README.md": b"# a model",
                "vocab.txt": b"[PAD]\n",
                "config.json": b"{}",
                "model.safetensors": WEIGHTS,
                "pytorch_model.bin": b"a pickle",
            }
        )
        yield running


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != ".lock"}


def test_a_model_is_fetched_once_and_nothing_but_what_is_needed_of_it(server):
    folder = located("hf:some/model")
    assert folder == hub.FOLDER / "some/model"
    assert files(folder) == {"vocab.txt", "config.json", "model.safetensors", "source.json"}
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    asked = len(server.requests)
    assert located("hf:some/model") == folder
    assert len(server.requests) == asked, "what is there is not asked for again"
    commit = server.repositories["some/model"].commits[0]
    assert source_of(folder) == source_of(folder / "vocab.txt") == f"hf:some/model@{commit}"


def test_weights_come_last_so_that_a_folder_with_weights_is_complete(server):
    located("hf:some/model")
    order = [path.rsplit("/", 1)[1] for _, path, _ in server.requests if "/resolve/" in path]
    assert order == ["vocab.txt", "config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (("config.json", "model.safetensors", "open_clip_config.json", "open_clip_model.safetensors"), "open_clip_model.safetensors"),
        (("open_clip_config.json", "open_clip_pytorch_model.bin"), "open_clip_pytorch_model.bin"),
        (("config.json", "pytorch_model.bin", "flax_model.msgpack"), "pytorch_model.bin"),
        (("EVA02_CLIP_B_psz16_s8B.pt", "README.md"), "EVA02_CLIP_B_psz16_s8B.pt"),
    ],
)  # fmt: skip
def test_which_weights_of_several_are_taken(server, listed, expected):
    server.repositories["other/model"] = Repository({file: file.encode() for file in listed})
    found = located("hf:other/model")
    folder = found if found.is_dir() else found.parent
    kept = [file for file in files(folder) if file.endswith((".safetensors", ".bin", ".pt", ".msgpack"))]
    assert kept == [expected]
    assert found.is_dir() or found.name == expected
    assert located("hf:other/model") == found


def test_one_file_a_vocabulary_and_a_revision(server):
    assert located("hf:some/model/vocab.txt").read_bytes() == b"[PAD]\n"
    assert files(hub.FOLDER / "some/model") == {"vocab.txt", "source.json"}
    at_v1 = located("hf:some/model@v1", vocabulary="vocab.txt")
    assert at_v1 == hub.FOLDER / "some/model@v1/vocab.txt"
    assert server.asked("/revision/v1$")
    assert located("hf:some/model/config.json@refs/pr/1") == hub.FOLDER / "some/model@refs--pr--1/config.json"
    assert located("hf:some/model") == hub.FOLDER / "some/model", "a vocabulary alone is no model"


def test_a_file_by_its_own_name_does_not_stand_for_the_model(server):
    server.repositories["some/model"].files["other.pth"] = b"something else"
    assert located("hf:some/model/other.pth").name == "other.pth"
    assert located("hf:some/model") == hub.FOLDER / "some/model"
    assert (hub.FOLDER / "some/model/model.safetensors").is_file()
    server.repositories["some/lone"] = Repository({"a.pth": b"a", "notes.txt": b""})
    assert located("hf:some/lone/notes.txt").read_bytes() == b"", "an empty file"
    assert located("hf:some/lone/a.pth") == located("hf:some/lone") == hub.FOLDER / "some/lone/a.pth"
    asked = len(server.requests)
    assert located("hf:some/lone").name == "a.pth"
    assert len(server.requests) == asked


def test_files_of_several_commits_are_told_apart(server):
    first = server.repositories["some/model"].commits[0]
    vocabulary = located("hf:some/model/vocab.txt")
    second = "b" * 40
    server.repositories["some/model"].commits.append(second)
    folder = located("hf:some/model")
    assert source_of(vocabulary) == f"hf:some/model@{first}"
    assert source_of(folder) == source_of(folder / "model.safetensors") == f"hf:some/model@{second}"


def test_a_name_that_the_hub_does_not_allow_is_a_sentence(server):
    with pytest.raises(HubError, match="hf:a--b/c is no name that a hub allows"):
        located("hf:a--b/c")


@pytest.mark.parametrize(
    "name",
    ["hf:", "hf:model", "hf:a/b@", "hf:a/../b", "hf:a/b/../../c", "hf:a b/c", "hf:/a/b", "hf:./b", "hf:a/.b", "hf:a/b/", "hf:a/b c.pth"],
)  # fmt: skip
def test_what_is_no_name_is_refused(server, name):
    with pytest.raises(HubError, match="write hf:OWNER/NAME"):
        located(name)
    assert not server.requests


def test_a_name_can_be_written_again():
    for text in ("hf:a/b", "hf:a/b@v1", "hf:a/b/c/d.pth@refs/pr/1"):
        assert str(HubName.parse(text)) == text


def test_paths_are_left_alone(server, tmp_path):
    for path in (tmp_path, tmp_path / "absent.pth", Path("checkpoint/other.pth")):
        assert located(path) == path
    assert not server.requests


def test_broken_connections_are_taken_up_where_they_broke(server):
    server.breaks["model.safetensors"] = [1000, 0, 200_000]
    folder = located("hf:some/model")
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    ranges = [headers.get("Range") for headers in server.asked("^/cdn/")]
    assert ranges == ["bytes=0-", "bytes=1000-", "bytes=1000-", "bytes=201000-"]


def test_a_server_without_ranges_sends_all_of_it_again(server):
    server.ranges = False
    server.breaks["model.safetensors"] = [1000]
    assert (located("hf:some/model") / "model.safetensors").read_bytes() == WEIGHTS


def test_a_connection_that_brings_nothing_more_ends_in_a_sentence_and_what_came_is_kept(server):
    server.breaks["model.safetensors"] = [1000] + [0] * 20
    with pytest.raises(HubError, match=r"can't be had from http://127.*By hand: hf download some/model"):
        located("hf:some/model")
    folder = hub.FOLDER / "some/model"
    assert files(folder) >= {"config.json"}
    assert "model.safetensors" not in files(folder)
    server.breaks.clear()
    assert (located("hf:some/model") / "model.safetensors").read_bytes() == WEIGHTS
    assert server.asked("^/cdn/")[-1]["Range"] == "bytes=1000-"


_KILLED = """
import sys, os
from engine import hub
from pathlib import Path
hub.FOLDER = Path(sys.argv[1])
def die(done, total):
    if done > 100_000:
        os.kill(os.getpid(), 9)
hub.located("hf:some/model", check=die)
"""


@pytest.mark.integration
def test_a_killed_process_is_gone_on_with(server):
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(hub.FOLDER)], cwd=ROOT, env=dict(os.environ))
    assert killed.returncode == -9
    (part,) = (hub.FOLDER / "some/model").glob(".model.safetensors.*.part")
    have = part.stat().st_size
    assert 100_000 < have < len(WEIGHTS)
    assert (located("hf:some/model") / "model.safetensors").read_bytes() == WEIGHTS
    assert server.asked("^/cdn/")[-1]["Range"] == f"bytes={have}-"
    assert not list((hub.FOLDER / "some/model").glob(".*.part"))


def test_what_was_begun_of_another_commits_file_is_not_gone_on_with(server, monkeypatch):
    monkeypatch.setattr(hub, "_ATTEMPTS", 1)
    server.breaks["model.safetensors"] = [1000, 0]
    with pytest.raises(HubError):
        located("hf:some/model")
    server.breaks.clear()
    server.repositories["some/model"].files["model.safetensors"] = WEIGHTS[::-1]
    assert (located("hf:some/model") / "model.safetensors").read_bytes() == WEIGHTS[::-1]


def test_a_stop_ends_a_transfer_and_keeps_what_came(server):
    def stop(done, total):
        if done > 1000:
            raise Interrupted("Stopped.")

    with pytest.raises(Interrupted):
        located("hf:some/model", check=stop)
    assert list((hub.FOLDER / "some/model").glob(".model.safetensors.*.part"))
    located("hf:some/model")


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_wrong_digest_is_refused_and_the_file_deleted(server, file):
    server.damaged.add(file)
    with pytest.raises(
        HubError, match=rf"{file} of hf:some/model arrived with the digest \w+, the hub names"
    ):
        located("hf:some/model")
    assert not [name for name in files(hub.FOLDER / "some/model") if file in name]
    server.damaged.clear()
    located("hf:some/model")


def test_private_gated_and_unknown_models(server, monkeypatch):
    server.repositories["some/private"] = Repository({"model.pth": b"x"}, token="hf_secret")
    server.repositories["some/gated"] = Repository({"model.pth": b"x"}, token="hf_secret", gated=True)
    with pytest.raises(HubError, match=r"some/absent is not on .* or is private \(401\)"):
        located("hf:some/absent")
    with pytest.raises(HubError, match=r"some/private is not on .* HF_TOKEN"):
        located("hf:some/private")
    with pytest.raises(HubError, match="some/gated is given to those who agree"):
        located("hf:some/gated")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HubError, match=r"\(404\)"):
        located("hf:some/absent")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert located("hf:some/private").name == located("hf:some/gated").name == "model.pth"
    assert not [headers for headers in server.asked("^/cdn/") if "Authorization" in headers], "another host's"


def test_no_token_in_any_message(server, monkeypatch, caplog):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    server.repositories["some/private"] = Repository({"model.pth": b"x"}, token="hf_secret")
    with pytest.raises(HubError) as refused:
        located("hf:some/private")
    assert "hf_wrong" not in str(refused.value) + caplog.text


@pytest.mark.parametrize(
    ("name", "vocabulary", "words"),
    [
        ("hf:some/model@v9", "", "hf:some/model@v9 has no such revision"),
        ("hf:some/model/absent.pth", "", r"has no file absent\.pth \(it has README\.md, config\.json"),
        ("hf:some/model", "bpe.txt", r"has no file bpe\.txt"),
        ("hf:some/parts", "", "its weights come in parts.*name a file"),
        ("hf:some/pages", "", r"it has none of .*model\.safetensors.*name a file"),
    ],
)
def test_what_a_model_does_not_have(server, name, vocabulary, words):
    server.repositories["some/parts"] = Repository(
        {
            "config.json": b"",
            "model.safetensors.index.json": b"",
            "model-00001-of-2.safetensors": b"",
            "b.pth": b"",
        }
    )
    server.repositories["some/pages"] = Repository({"README.md": b""})
    with pytest.raises(HubError, match=words):
        located(name, vocabulary)


@pytest.mark.parametrize("status", [500, 403])
def test_a_hub_that_is_out_of_order(server, status):
    server.fails = status
    with pytest.raises(HubError, match=rf"{status}.*By hand"):
        located("hf:some/model")


def test_no_network_is_one_sentence_with_the_way_by_hand(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        HubError, match=r"can't be had from http://127.0.0.1:9 .*--local-dir DIR .*copy DIR to"
    ):
        located("hf:some/model@v1")
    folder = HubName.parse("hf:some/model@v1").folder
    for file, content in server.repositories["some/model"].files.items():
        (folder / file).write_bytes(content)
    assert located("hf:some/model@v1") == folder, "a folder that was filled by hand"


_OFFLINE = """
import sys
from engine import hub
from pathlib import Path
hub.FOLDER = Path(sys.argv[1])
for name in ("hf:some/model", "hf:some/other"):
    try:
        print(hub.located(name))
    except hub.HubError as error:
        print(error)
"""


@pytest.mark.integration
def test_offline_mode_asks_nobody(server):
    folder = located("hf:some/model")
    asked = len(server.requests)
    command = [sys.executable, "-c", _OFFLINE, str(hub.FOLDER)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    there, absent = ended.stdout.splitlines()
    assert there == str(folder)
    assert absent.startswith("hf:some/other can't be reached, HF_HUB_OFFLINE is set. By hand: hf download")
    assert len(server.requests) == asked


def test_one_fetches_while_the_others_wait(server):
    found, waits = [], threading.Barrier(4)

    def locate():
        waits.wait()
        found.append(located("hf:some/model"))

    threads = [threading.Thread(target=locate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [hub.FOLDER / "some/model"] * 4
    assert len(server.asked("^/cdn/")) == 1


def test_too_little_room_is_told_before_anything_comes(server, monkeypatch):
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(HubError, match="make room there"):
        located("hf:some/model")
    assert not server.asked("resolve|cdn")


def test_a_default_that_is_not_there_is_had_elsewhere_and_said_so(server, monkeypatch, tmp_path, messages):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "ROOT", tmp_path / "project")
    name, (other, _) = "checkpoint/model_base.pth", hub.ELSEWHERE["checkpoint/model_base.pth"]
    with pytest.raises(HubError, match=r"no checkpoint/model_base\.pth .*README.*in its place hf:Salesforce"):
        located(name)
    server.repositories[other.removeprefix("hf:")] = server.repositories["some/model"]
    assert located(name) == hub.FOLDER / "Salesforce/blip-itm-base-coco"
    assert any(name in line and other in line for line in messages)
    assert any(re.search(rf"Fetching .* from {server.address}/Salesforce", line) for line in messages)
    Path("checkpoint").mkdir()
    Path(name).write_bytes(b"the authors'")
    assert located(name) == Path(name), "a file that is there keeps working"
    (tmp_path / "project/checkpoint").mkdir(parents=True)
    (tmp_path / "project" / name).write_bytes(b"the authors'")
    Path(name).unlink()
    assert located(name) == tmp_path / "project" / name, "and from another folder"


def test_the_defaults_are_those_of_the_configuration():
    from engine.config import Config, load_config

    config = Config()
    named = {config.model.pretrained, config.pre_train.pretrained, config.model.tokenizer}
    irra = load_config([ROOT / "configs/methods/irra.yaml"]).model.pretrained
    assert set(hub.ELSEWHERE) == named | {irra}
    for other, _ in hub.ELSEWHERE.values():
        HubName.parse(other)


def test_where_the_source_is_not_known(tmp_path):
    assert source_of(tmp_path / "model_base.pth") == "model_base.pth"
    (tmp_path / "source.json").write_text(json.dumps([1]))
    assert source_of(tmp_path / "model_base.pth") == "model_base.pth"


def test_the_server_is_one_for_the_hubs_own_client(server, tmp_path):
    """The protocol that these tests rely on, as `huggingface_hub` itself speaks it."""
    script = "import sys, huggingface_hub; print(huggingface_hub.hf_hub_download('some/model', 'model.safetensors', local_dir=sys.argv[1]))"
    command = [sys.executable, "-c", script, str(tmp_path / "theirs")]
    subprocess.run(command, check=True, env=dict(os.environ), stdout=subprocess.DEVNULL)
    assert (tmp_path / "theirs/model.safetensors").read_bytes() == WEIGHTS


PIPELINE = [
    *("README.md", "model_index.json", "v1-5-pruned.safetensors", "images/sheet.png"),
    *("unet/config.json", "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.bin"),
    *("unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.non_ema.safetensors"),
    *("vae/config.json", "vae/diffusion_pytorch_model.bin"),
    *("tokenizer/vocab.json", "tokenizer/merges.txt", "scheduler/scheduler_config.json"),
    *("text_encoder/config.json", "text_encoder/model.safetensors", "text_encoder/pytorch_model.bin"),
]


def test_a_diffusion_pipeline_is_a_folder_of_models_whose_index_comes_last(server):
    server.repositories["some/pipeline"] = Repository({file: file.encode() for file in PIPELINE})
    folder = located("hf:some/pipeline")
    assert folder == hub.FOLDER / "some/pipeline"
    fetched = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert fetched - {".lock", "source.json"} == {
        *("model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"),
        *("vae/config.json", "vae/diffusion_pytorch_model.bin", "scheduler/scheduler_config.json"),
        *("tokenizer/vocab.json", "tokenizer/merges.txt"),
        *("text_encoder/config.json", "text_encoder/model.safetensors"),
    }
    order = [path.rsplit("/", 1)[1] for _, path, _ in server.requests if "/resolve/" in path]
    assert order[-1] == "model_index.json"
    asked = len(server.requests)
    assert located("hf:some/pipeline") == folder
    assert len(server.requests) == asked, "what is there is not asked for again"
    commit = server.repositories["some/pipeline"].commits[0]
    assert source_of(folder) == f"hf:some/pipeline@{commit}"


def test_a_pipelines_index_by_its_own_name_does_not_stand_for_the_pipeline(server):
    server.repositories["some/pipeline"] = Repository({file: file.encode() for file in PIPELINE})
    assert located("hf:some/pipeline/model_index.json").is_file()
    assert (located("hf:some/pipeline") / "unet/config.json").is_file()


def test_a_pipeline_in_pieces_is_refused(server):
    pieces = ["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors.index.json"]
    server.repositories["some/large"] = Repository({file: file.encode() for file in pieces})
    with pytest.raises(HubError, match="part unet come in pieces"):
        located("hf:some/large")
