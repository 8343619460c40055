"""The commands and programs of the pages are run, in a clone of the repository whose demo is a handful of people.

What needs a data set, weights, a server, a GPU or hours is only read, by the scripts' own parsers (`test_documents.py`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from synthesis.demo import make_demo
from tests.docs.documents import Block, bash, blocks_of, make_clone
from tests.docs.test_documents import PAGES, name_of
from tests.pipeline.mini import DRAWN, MINI, ROOT

NOT_RUN = {  # commands that are only read, and why
    r"(train|eval)\.bash (cuhk|icfg|rstp|folder|my\.yaml|crops\.yaml)\b": "a data set, weights",
    r"^(torchrun|sbatch|git|pip|cd)\b": "several processes, SLURM, a network",
    r"gen_pre_train_text\.py": "a server",
    r"import_released": "files that authors have released",
    r"search\.py serve": "it does not end",
    r"milvus:http": "a Milvus server",
    r"--against": "a second data set",
    r"hf:OWNER|hf:Salesforce|checkpoint/(model_base|ViT)": "a hub, released weights",
    r"search\.py crop|--images CROPS|--source VIDEO": "a video",
    r"retrieval\.matrix": "several evaluated runs",
    r"engine\.pretraining": "an hour",
    r"engine\.personalisation": "a diffusion model",
    r"^python train\.py .*configs/cuhk\.yaml": "a data set, weights",
    r"train\.bash syn\b": "minutes",
    r"run_tests\.bash": "the tests run this test",
    r"benchmarks?/run\.bash": "hours",
}
PLACES = {  # what a reader puts in, and where that lies in the clone
    r"/data\b": "data",
    r"output/RUN/": "output/mini-pspd/",
    r"\bDIR\b": "data/crops",
    r"\bINDEX\b": "output/index",
    r"--checkpoint FILE\b": "--checkpoint output/mini-pspd/best.pth",
    r"pre_gen_data/cuhk/": "captions/",
    r"datasets/demo\b": "datasets/drawn",  # the other one is that of the run, in other sizes
}
SMALLER = {  # what is added to a command, so that it takes seconds
    r"synthesis\.demo": " --train 2 --val 1 --test 4 --images 2 --workers 1",
    r"contact_sheet": " --identities 2",
    r"gen_images\.py": " --set gen_images.prompts=2 gen_images.per_prompt=1",
}
PROGRAMS = {  # what a page's program finds: code before it, and what in it is made smaller or put in by a reader
    "docs/captioning.md": (
        "from pathlib import Path\nfrom PIL import Image\n"
        "folder = Path('datasets/CUHK-PEDES/imgs/cam_a')\nfolder.mkdir(parents=True)\n"
        "for n in range(5):\n    Image.new('RGB', (64, 128)).save(folder / f'{n:05d}.png')\n",
        (("range(5000)", "range(5)"),),
    ),
    "docs/clustering.md": (
        "import numpy as np\n"
        "rng = np.random.default_rng(0)\n"
        "features = np.repeat(rng.normal(size=(8, 32)), 8, axis=0) + rng.normal(size=(64, 32)) * 0.05\n"
        "image_to_text = text_to_image = np.arange(64)[:, None] // 8 * 8 + np.arange(8)\n",
        (),
    ),
    "docs/palette.md": (
        "from PIL import Image\nImage.effect_noise((64, 160), 90).convert('RGB').save('crop.jpg')\n",
        (),
    ),
    "docs/sharing.md": (
        "import subprocess, sys\nfrom pathlib import Path\nfrom PIL import Image\n"
        "from engine import checkpoints\nfrom models import build_model\n"
        "from models.backbones.blip.tokenizer import BlipTokenizer\n"
        "words = BlipTokenizer.train(['a woman in a red coat'] * 2, 'words', vocab_size=100)\n"
        "model = build_model('pspd', size='tiny', image_size=(48, 32), tokenizer=words)\n"
        "checkpoints.save(Path('best.pth'), checkpoints.describe(model, 'pspd', 'tiny'))\n"
        "Path('crops').mkdir()\n"
        "for n in range(3):\n    Image.new('RGB', (32, 64), (80 * n, 0, 0)).save(f'crops/{n}.png')\n"
        f"command = [sys.executable, '{ROOT}/search.py', 'index', '--images', 'crops']\n"
        "subprocess.run([*command, '--checkpoint', 'best.pth', '--out', 'INDEX'], check=True)\n",
        (("PATH/OF/A/CLONE", str(ROOT)), ("hf:OWNER/NAME", "best.pth")),
    ),
}


def is_run(command: str) -> bool:
    return not any(re.search(pattern, command) for pattern in NOT_RUN)


def in_the_clone(command: str) -> str:
    """The command with the clone's places in it, and less to do."""
    for pattern, place in PLACES.items():
        command = re.sub(pattern, place, command)
    return command + "".join(more for pattern, more in SMALLER.items() if re.search(pattern, command))


def commands_of(page: Path) -> list[str]:
    blocks = blocks_of(name_of(page), page.read_text("utf-8"))
    return [command for block in blocks if block.language in ("", "bash") for command in block.commands()]


def programs_of(page: Path) -> list[Block]:
    return [
        block for block in blocks_of(name_of(page), page.read_text("utf-8")) if block.language == "python"
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A clone with the small demo in the place of the demo, which has run, and drawn data sets where a reader has real ones."""
    clone = make_clone(tmp_path_factory.mktemp("trained"))
    demo = MINI.format(root=".", name="cuhk_pedes", data="datasets/demo", synthesis=DRAWN)
    for name in ("demo-pretrained.yaml", "demo.yaml"):
        (clone / "configs" / name).write_text(demo.replace("[48, 24]", "[96, 48]"), "utf-8")
    for name in ("cuhk_pedes", "icfg_pedes"):
        make_demo(clone / "data", fmt=name, train=2, val=1, test=2, images=2, seed=0, workers=1)
    shutil.copytree(clone / "data" / "CUHK-PEDES" / "imgs", clone / "data" / "crops")
    done = bash(clone, "train.bash")
    assert done.returncode == 0, done.stderr
    return clone


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if any(map(is_run, commands_of(page)))], ids=name_of)
def test_the_commands_of_a_page_work(page, trained, tmp_path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(trained, clone, symlinks=True)
    commands = [in_the_clone(command) for command in commands_of(page) if is_run(command)]
    if not any(command.startswith("ln ") for command in commands):
        (clone / "datasets" / "CUHK-PEDES").symlink_to(clone / "data" / "CUHK-PEDES")
    for command in commands:
        command = command.replace("ln -s data", f"ln -s {clone}/data")
        done = bash(clone, "-euo", "pipefail", "-c", command)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.integration
@pytest.mark.parametrize("page", [page for page in PAGES if programs_of(page)], ids=name_of)
def test_the_programs_of_a_page_work(page, tmp_path) -> None:
    before, changes = PROGRAMS[name_of(page)]
    for block in programs_of(page):
        text = block.text
        for written, instead in changes:
            assert written in text
            text = text.replace(written, instead)
        done = subprocess.run(
            [sys.executable, "-c", f"{before}\n{text}"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{block.page}:{block.line}\n{done.stderr}"


def test_every_exception_is_used() -> None:
    """Or a page has changed, and what was an exception stands here without a reason."""
    every = "\n".join(command for page in PAGES for command in commands_of(page))
    for pattern in (*NOT_RUN, *PLACES, *SMALLER):
        assert re.search(pattern, every, flags=re.MULTILINE), pattern
    assert set(PROGRAMS) == {name_of(page) for page in PAGES if programs_of(page)}
