"""Every command and every configuration on a page is taken by the project, and a broken one is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.documents import Block, Checker, PageError, blocks_of, inline_commands, make_clone
from tests.pipeline.mini import ROOT

PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    + [ROOT / folder / "README.md" for folder in ("checkpoint", "datasets", "output", "pre_gen_data")]
)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def checker(tmp_path_factory) -> Checker:
    return Checker(make_clone(tmp_path_factory.mktemp("clone")))


@pytest.mark.integration
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_tells_to_type_is_understood(checker, page) -> None:
    text = page.read_text("utf-8")
    blocks = blocks_of(name_of(page), text)
    checker.prepare(blocks)
    fenced = [command for block in blocks if block.language in ("", "bash") for command in block.commands()]
    for command in dict.fromkeys([*fenced, *inline_commands(text)]):
        checker.check(command)
    for block in blocks:
        if block.language == "yaml":
            checker.check_yaml(block)
        elif block.language == "python":
            checker.check_python(block)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("bash train.bash cuk", "There is no configuration"),
        ("bash train.bash cuhk pdsp", "There is no method 'pdsp'"),
        ("bash train.bash cuhk --sed 1", "Unknown argument '--sed'"),
        ("bash train.bash cuhk --set train.max_epch=3", "did you mean 'train.max_epoch'"),
        ("bash train.bash cuhk --from tran", "--from needs one of"),
        ("NPROC=8 NNODES=2 bash train.bash cuhk --set sed=1", "did you mean 'seed'"),
        ("sbatch --nodes 2 scripts/slurm.sbatch cuhk --set sed=1", "did you mean 'seed'"),
        ("bash eval.bash cuk", "There is no configuration"),
        ("bash eval.bash cuhk --check best.pth --sed 1", "its parser ends with 2"),
        ("python train.py --confg configs/cuhk.yaml", "its parser ends with 2"),
        ("python train.py --config configs/cuk.yaml", "does not exist"),
        ("torchrun --nproc-per-node 4 train.py --config configs/cuhk.yaml --set sed=1", "did you mean 'seed'"),
        ("python search.py qury --index INDEX words", "its parser ends with 2"),
        ("python search.py query --index INDEX words --rerank many", "its parser ends with 2"),
        ("python -m data.validat", "there is no data/validat.py"),
        ("python -m data.validate --name cuhk", "its parser ends with 2"),
        ("python trian.py", "there is no trian.py"),
        ("bash benchmarks/run.bash blip_stp", "There is no benchmark 'blip_stp'"),
        ("bash run_tests.bash -m sloww", "sloww"),
        ("pip install -r requirements-none.txt", "there is no requirements-none.txt"),
        ("python scripts/packages.py freez > constraints.txt", "scripts/packages.py knows no freez"),
        ("python data/errors.py", "data/errors.py has no parser"),
        ("curl https://example.org", "nobody knows how to check"),
        ("python -c 'print(1)'", "make it a block of python"),
    ],
)  # fmt: skip
def test_a_broken_command_is_found(checker, command, reason) -> None:
    checker.prepare([])
    with pytest.raises(PageError) as caught:
        checker.check(command)
    assert str(caught.value).startswith(command)
    assert reason in str(caught.value).removeprefix(command)


@pytest.mark.parametrize(
    ("language", "text", "reason"),
    [
        ("yaml", "train: {max_epch: 3}", "did you mean 'train.max_epoch'"),
        ("yaml", "train: {max_epoch: many}", "valid integer"),
        ("yaml", "gen_pre_train_text: {backend: openai, options: {modl: x}}", "openai has no option modl"),
        ("python", "x = = 1", "invalid syntax"),
    ],
)
def test_a_broken_block_is_found(checker, language, text, reason) -> None:
    block = Block("page.md", 7, language, text)
    with pytest.raises(PageError) as caught:
        (checker.check_yaml if language == "yaml" else checker.check_python)(block)
    assert reason in str(caught.value)
    assert "page.md:7" in str(caught.value)


def test_blocks_and_commands_are_found() -> None:
    text = "a `python x.py --a` b `train.py`\n```\nbash a  # why\n# no\n\n```\n - in a list\n  ```python\n  x\n  ```\n"
    first, second = blocks_of("p.md", text)
    assert (first.line, first.language, first.commands()) == (2, "", ["bash a"])
    assert (second.language, second.text) == ("python", "  x")
    assert inline_commands(text) == ["python x.py --a"]


def test_a_block_that_nobody_checks_is_a_mistake() -> None:
    with pytest.raises(PageError, match="nobody knows how to check a block of 'json'"):
        blocks_of("p.md", "```json\n{}\n```\n")
    with pytest.raises(PageError, match=r"p\.md:1: this block is not closed"):
        blocks_of("p.md", "```\nbash a\n")
