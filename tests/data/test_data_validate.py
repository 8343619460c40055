"""The validator: what it prints, how it exits, and that it never prints a traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from data.validate import main

ROOT = Path(__file__).resolve().parents[2]


def run(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def test_a_good_set_is_ready_and_differences_are_notes(write_dataset, capsys):
    status, text = run(capsys, "--name", "cuhk_pedes", "--root", write_dataset())
    assert status == 0
    assert "The dataset is ready." in text
    assert "error" not in text
    assert "3 / 34,054" in text
    assert "6 / 68,126" in text
    assert "(found / published)" in text
    assert "note:    The counts of train and val and test differ" in text


@pytest.mark.parametrize("deep", [[], ["--deep"], ["--deep", "--workers", "2"]])
def test_unreadable_images(write_dataset, capsys, deep):
    root = write_dataset()
    image = root / "CUHK-PEDES" / "imgs" / "cam_1" / "0_1.png"
    content = image.read_bytes()
    image.write_bytes(content[: len(content) - 30])
    status, text = run(capsys, "--name", "cuhk_pedes", "--root", root, *deep)
    assert status == bool(deep)
    image.write_bytes(b"")
    status, text = run(capsys, "--name", "cuhk_pedes", "--root", root, *deep)
    assert status == 1
    assert "1 of 9 images do not open" in text
    assert "0_1.png" in text


def test_missing_images_by_folder_and_count(write_dataset, capsys):
    root = write_dataset()
    images = root / "CUHK-PEDES" / "imgs"
    (images / "cam_0" / "0_0.png").unlink()
    for image in (images / "cam_1").iterdir():
        image.unlink()
    (images / "cam_1" / "other.png").write_bytes(b"")
    shutil.rmtree(images / "cam_2")
    status, text = run(capsys, "--name", "cuhk_pedes", "--root", root)
    assert status == 1
    assert "7 of 9 images are missing" in text
    assert "cam_0/0_0.png, cam_1/0_1.png" in text
    assert "are missing: cam_2 (3 images)" in text
    assert "without any of the images: cam_1 (3 images)" in text
    assert "1 identities of train have no image on disk at all, first 0" in text
    row = next(line.split() for line in text.splitlines() if line.startswith("cam_1/"))
    assert row == ["cam_1/", "3", "3", "1"]


def test_missing_image_root_and_a_hint_where_it_lies(write_dataset, capsys):
    root = write_dataset()
    images = root / "CUHK-PEDES" / "imgs"
    for folder in list(images.iterdir()):
        folder.rename(root / "CUHK-PEDES" / folder.name)
    images.rmdir()
    status, text = run(capsys, "--name", "cuhk_pedes", "--root", root)
    assert status == 1
    assert "9 of 9 images are missing" in text
    assert "imgs does not exist" in text
    assert f"They seem to lie in {root / 'CUHK-PEDES'}" in text


def test_other_case_of_file_names(write_dataset, capsys):
    root = write_dataset()
    image = root / "CUHK-PEDES" / "imgs" / "cam_1" / "0_1.png"
    image.rename(image.with_suffix(".PNG"))
    if image.exists():
        pytest.skip("this file system does not tell upper from lower case")
    status, text = run(capsys, "--name", "cuhk_pedes", "--root", root)
    assert status == 1
    assert "1 of the missing images are there with other upper/lower case" in text


def test_links_that_leave_the_images(write_dataset, capsys, tmp_path):
    root = write_dataset()
    image = root / "CUHK-PEDES" / "imgs" / "cam_1" / "0_1.png"
    image.rename(tmp_path / "outside.png")
    image.symlink_to(tmp_path / "outside.png")
    status, text = run(capsys, "--name", "cuhk_pedes", "--root", root)
    assert status == 1
    assert "1 image(s) are links that leave" in text


def test_doubtful_identities_and_captions_are_warnings(write_dataset, items, capsys):
    doubtful = items()
    doubtful[6]["id"] = doubtful[0]["id"]
    doubtful[8]["captions"] = [""]
    doubtful.append({**doubtful[3], "id": 12})
    doubtful.append(dict(doubtful[4]))
    status, text = run(capsys, "--name", "cuhk_pedes", "--root", write_dataset(items=doubtful))
    assert status == 0
    assert "warning: 1 identity is in both train and test, first 0" in text
    assert "1 empty caption(s) were left out" in text
    assert "1 test image(s) have no caption" in text
    assert "1 image(s) are listed with two identities or in two splits, first cam_0/1_0.png" in text
    assert "1 record(s) repeat an image" in text


def test_empty_splits(write_dataset, items, capsys):
    only_train = [item for item in items() if item["split"] == "train"]
    status, text = run(capsys, "--name", "cuhk_pedes", "--root", write_dataset(items=only_train))
    assert status == 1
    assert "error:   The test split is empty" in text
    assert "warning: The val split is empty" in text
    silent = [{**item, "captions": []} for item in items()]
    status, text = run(capsys, "--name", "cuhk_pedes", "--root", write_dataset(items=silent))
    assert status == 1
    assert "No image of the test split has a caption" in text


def test_icfg_without_val_is_complete(write_dataset, items, capsys):
    two = [item for item in items("icfg_pedes") if item["split"] != "val"]
    status, text = run(capsys, "--name", "icfg_pedes", "--root", write_dataset("icfg_pedes", items=two))
    assert status == 0
    assert "val split is empty" not in text


def test_bare_folder(tmp_path, capsys):
    for number in range(30):
        (tmp_path / f"cam{number:02}").mkdir()
        Image.new("RGB", (8, 16)).save(tmp_path / f"cam{number:02}" / "a.jpg")
    status, text = run(capsys, "--name", "folder", "--root", tmp_path)
    assert status == 0
    assert "10 more folders" in text
    assert "can be trained on and searched, not evaluated" in text
    assert "identities of" not in text


def test_damage_is_one_sentence(write_dataset, capsys, tmp_path):
    root = write_dataset()
    (root / "CUHK-PEDES" / "reid_raw.json").write_text("[{")
    status, text = run(capsys, "--name", "cuhk_pedes", "--root", root)
    assert status == 1
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert "breaks off" in text
    assert run(capsys, "--name", "rstpreid", "--root", tmp_path / "nowhere")[0] == 1


def test_config_files(write_dataset, capsys, tmp_path):
    root = write_dataset("rstpreid")
    config = tmp_path / "some.yaml"
    config.write_text(f"# bash train.bash\ndataset:\n  name: rstpreid\n  root: {root}\ntrain:\n  lr: 1e-5\n")
    assert run(capsys, "--config", config)[0] == 0
    assert run(capsys, "--config", config, "--root", tmp_path / "nowhere")[0] == 1
    for content, words in (
        ("dataset: [1", "is not YAML"),
        ("train: {}\n", "needs dataset.name"),
        ("dataset: {name: 3}\n", "needs dataset.name"),
        ("- a\n", "needs dataset.name"),
        ("dataset: {name: market}\n", "There is no dataset 'market'"),
    ):
        config.write_text(content)
        status, text = run(capsys, "--config", config)
        assert status == 1
        assert words in text
        assert text.count("\n") == 1
    status, text = run(capsys, "--config", tmp_path / "gone.yaml")
    assert status == 1
    assert "cannot be read" in text


def test_config_without_root_means_datasets(write_dataset, capsys, tmp_path, monkeypatch):
    write_dataset("icfg_pedes")
    (tmp_path / "c.yaml").write_text("dataset:\n  name: icfg_pedes\n")
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "--config", "c.yaml")[0] == 0


def test_wrong_command_line():
    for arguments in ([], ["--name", "market"], ["--config"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2


def test_as_a_module_without_torch_or_engine(write_dataset):
    root = write_dataset()
    probe = (
        "import runpy, sys; sys.argv = ['validate', '--name', 'cuhk_pedes', '--root', sys.argv[1]]\n"
        "try: runpy.run_module('data.validate', run_name='__main__')\n"
        "finally: assert not {'torch', 'engine', 'models'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", probe, root], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "The dataset is ready." in done.stdout
