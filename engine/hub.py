"""Weights, vocabularies and checkpoints by name: a path, or what a hub has as `hf:OWNER/NAME`, fetched once.

    hf:Salesforce/blip-itm-base-coco            a model: its weights and what goes with them
    hf:OWNER/NAME@REVISION                      at a branch, a tag or a commit
    hf:OWNER/NAME/FILE@REVISION                 one file of it

What was fetched lies in `checkpoint/hf/OWNER/NAME[@REVISION]` under the hub's names. A file gets its own name when it is
whole and its digest is right, and weights come last, so a folder with weights in it is complete, whoever filled it: the network is
asked only where they are missing. `huggingface_hub` brings the addresses, the token (HF_TOKEN), HF_ENDPOINT and
HF_HUB_OFFLINE; it does not go on with a file that another process began, so the transfer itself is done here.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.errors import UserError
from engine.log import LOGGER
from retrieval.results import write_atomically

SCHEME = "hf:"
ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "checkpoint" / "hf"
SOURCE = "source.json"  # which commit a folder's files are of

# What a configuration names by default, and what takes its place where it is not there.
ELSEWHERE = {
    "checkpoint/model_base.pth": ("hf:Salesforce/blip-itm-base-coco", "BLIP base, fine-tuned on COCO"),
    "checkpoint/model_base_caption_capfilt_large.pth": (
        "hf:Salesforce/blip-image-captioning-base",
        "the same weights, as transformers saves them",
    ),
    "checkpoint/ViT-B-16.pt": (
        "hf:timm/vit_base_patch16_clip_224.openai",
        "the same weights, as open_clip saves them",
    ),
    "checkpoint/bert-base-uncased": ("hf:google-bert/bert-base-uncased/vocab.txt", "the same file"),
}

# The files of a model, in the order in which they are fetched; weights last. The first of these that a model has is taken:
# safetensors before pickles (which are read as plain tensors), open_clip's before timm's or transformers' of the same model.
_LAYOUTS = (
    ("open_clip_config.json", "open_clip_model.safetensors"),
    ("config.json", "model.safetensors"),
    ("open_clip_config.json", "open_clip_pytorch_model.bin"),
    ("config.json", "pytorch_model.bin"),
)
# A diffusion pipeline is a folder of models; its index is fetched last. Of each part the first of these is taken.
_PIPELINE = "model_index.json"
_PARTS = (
    *("diffusion_pytorch_model.safetensors", "model.safetensors"),
    *("diffusion_pytorch_model.bin", "pytorch_model.bin"),
    *("diffusion_pytorch_model.fp16.safetensors", "model.fp16.safetensors"),
)
_VOCABULARIES = ("vocab.txt", "bpe.txt", "words.txt")  # fetched with a model's weights where it has them
_WEIGHTS = (".safetensors", ".pth", ".pt")

_ATTEMPTS, _PAUSE = 5, 1.0  # of a transfer that gets nowhere; seconds between them
_WAIT = 10.0  # seconds for an answer

Check = Callable[[int, int], None]  # (bytes done, bytes in all); raises to stop, what has arrived is kept


class HubError(UserError):
    """Something that can't be had from a hub; the message says why and how to get it there by hand."""


@dataclass(frozen=True)
class HubName:
    """`hf:OWNER/NAME[/FILE][@REVISION]`, taken apart."""

    repository: str
    file: str = ""
    revision: str = ""

    @classmethod
    def parse(cls, text: str) -> HubName:
        """Raises HubError for anything else."""
        found = re.fullmatch(r"hf:(\w[\w.-]*/\w[\w.-]*)((?:/[\w.+-]+)*)(?:@(\w[\w./+-]*))?", text)
        if found is None or ".." in text:
            raise HubError(
                f"{text!r} is no name on a hub: write hf:OWNER/NAME, hf:OWNER/NAME@REVISION or hf:OWNER/NAME/FILE@REVISION."
            )
        return cls(found[1], found[2].removeprefix("/"), found[3] or "")

    def __str__(self) -> str:
        file = f"/{self.file}" if self.file else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{SCHEME}{self.repository}{file}{revision}"

    @property
    def folder(self) -> Path:
        """Where its files are kept."""
        suffix = f"@{self.revision.replace('/', '--')}" if self.revision else ""
        return FOLDER / f"{self.repository}{suffix}"


def is_hub_name(name: str | Path) -> bool:
    """Whether this is meant as a name on a hub."""
    return str(name).startswith(SCHEME)


def located(name: str | Path, vocabulary: str = "", check: Check | None = None) -> Path:
    """The file or folder behind a name, fetched if it has to be. A path that is not there is returned as it is.

    Args:
        name: a path, or a hub's name.
        vocabulary: the file that is wanted of a model, where it is not its weights.
        check: called while a file arrives and while another process fetches.

    Returns:
        The folder of a model, or the file where one was named or is all that there is.

    Raises:
        HubError: it can't be had.
    """
    if is_hub_name(name):
        return _had(HubName.parse(str(name)), vocabulary, check)
    path = Path(name)
    if path.exists() or path.as_posix() not in ELSEWHERE:
        return path
    if (ROOT / path).exists():  # asked for from another folder
        return ROOT / path
    other, what = ELSEWHERE[path.as_posix()]
    LOGGER.info("%s is not there; %s takes its place: %s.", path, other, what)
    try:
        return _had(HubName.parse(other), vocabulary, check)
    except HubError as error:
        raise HubError(
            f"There is no {path} (checkpoint/README.md says what to put there), and in its place {error}"
        ) from None


def source_of(path: Path) -> str:
    """Where a located file or folder is from: the hub's name with the commit, or the path's own last part."""
    content = _noted(path if path.is_dir() else path.parent)
    commit = content["files"].get(content["model"] if path.is_dir() else path.name)
    return f"{SCHEME}{content['repository']}@{commit}" if commit else path.name


def _noted(folder: Path) -> dict[str, Any]:
    """What was noted of a folder's files: the commit of each, and which of them was taken for the model's weights."""
    try:
        content = json.loads((folder / SOURCE).read_text(encoding="utf-8"))
        return {
            "repository": content["repository"],
            "files": dict(content["files"]),
            "model": content["model"],
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {"repository": "", "files": {}, "model": ""}


def _had(name: HubName, vocabulary: str, check: Check | None) -> Path:
    found = _present(name, vocabulary)
    if found is None:
        with _alone(name.folder, check):
            found = _present(name, vocabulary) or _fetch(name, vocabulary, check)
    return found


def _present(name: HubName, vocabulary: str) -> Path | None:
    """What is there already, without asking anybody."""
    folder, file = name.folder, name.file or vocabulary
    if file:
        return folder / file if (folder / file).is_file() else None
    for layout in _LAYOUTS:
        if all((folder / part).is_file() for part in layout):
            return folder
    noted = _noted(folder)
    by_itself = _PIPELINE in noted["files"] and noted["model"] != _PIPELINE  # and the parts may not be there
    if (folder / _PIPELINE).is_file() and not by_itself:
        return folder
    alone = [path for path in folder.glob("[!.]*") if path.suffix in _WEIGHTS]
    # A file that was fetched by its own name need not be what stands for the whole model.
    is_model = len(alone) == 1 and (alone[0].name not in noted["files"] or alone[0].name == noted["model"])
    return alone[0] if is_model else None


@contextlib.contextmanager
def _alone(folder: Path, check: Check | None) -> Iterator[None]:
    """One process at a time; the others wait and then find everything there."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        waited = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waited:
                    LOGGER.info("Another process fetches %s: waiting for it.", folder)
                waited = True
            if check is not None:
                check(0, 1)
            time.sleep(0.2)
        yield


def _fetch(name: HubName, vocabulary: str, check: Check | None) -> Path:
    with _told(name, vocabulary):
        listing = _listing(name)
        files = {sibling.rfilename: sibling for sibling in listing.siblings or ()}
        wanted = _chosen(name, vocabulary, files)
        todo = [file for file in wanted if not (name.folder / file).is_file()]
        size = sum(files[file].size or 0 for file in todo)
        LOGGER.info(
            "Fetching %s (%.1f MB) from %s/%s at %s into %s.",
            ", ".join(todo),
            size / 1e6,
            endpoint(),
            name.repository,
            listing.sha[:12],
            name.folder,
        )
        _check_room(name, size)
        for file in todo:
            _fetch_file(name, listing.sha, files[file], check)
    noted = _noted(name.folder)
    model = noted["model"] if name.file or vocabulary else wanted[-1]
    commits = noted["files"] | dict.fromkeys(todo, listing.sha)
    content = {"repository": name.repository, "revision": name.revision, "files": commits, "model": model}
    write_atomically(name.folder / SOURCE, json.dumps(content, indent=1) + "\n")
    last = {_PIPELINE, *(layout[-1] for layout in _LAYOUTS)}
    is_layout = wanted[-1] in last and not (name.file or vocabulary)
    return name.folder if is_layout else name.folder / wanted[-1]


def endpoint() -> str:
    """The hub's address."""
    from huggingface_hub import constants

    return os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")


def _listing(name: HubName) -> Any:
    """The model's commit, and its files with their sizes and digests."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint())
    return api.model_info(name.repository, revision=name.revision or None, files_metadata=True, timeout=_WAIT)


def _chosen(name: HubName, vocabulary: str, files: Sequence[str]) -> list[str]:
    """Which of a model's files are fetched, in order. Raises HubError where there is nothing of use."""
    if file := name.file or vocabulary:
        if file not in files:
            raise HubError(f"{name.repository} has no file {file}{_some(files)}.")
        return [file]
    if _PIPELINE in files:
        return _of_pipeline(name, files)
    beside = [file for file in _VOCABULARIES if file in files]
    for layout in _LAYOUTS:
        if all(file in files for file in layout):
            return [*beside, *layout]
    alone = [file for file in files if "/" not in file and Path(file).suffix in _WEIGHTS]
    if len(alone) != 1:
        in_parts = any(".index.json" in file for file in files)
        known = (
            "its weights come in parts"
            if in_parts
            else f"it has none of {', '.join(each[-1] for each in _LAYOUTS)}"
        )
        raise HubError(
            f"{name} has no weights that can be chosen for you, {known}{_some(files)}: name a file, as in {name.repository}/FILE."
        )
    return [*beside, *alone]


def _of_pipeline(name: HubName, files: Sequence[str]) -> list[str]:
    """Settings, vocabularies and weights of every part, and the index last. Raises HubError for parts in pieces."""
    chosen = []
    inside = [file for file in files if file.count("/") == 1]
    for part in sorted({file.partition("/")[0] for file in inside}):
        own = {file.partition("/")[2]: file for file in inside if file.startswith(f"{part}/")}
        if any(".index." in file for file in own) and not any(kind in own for kind in _PARTS):
            raise HubError(
                f"{name}: the weights of its part {part} come in pieces: fetch it by hand and name the folder."
            )
        settings = [file for file in own if Path(file).suffix in (".json", ".txt") and ".index." not in file]
        weights = [kind for kind in _PARTS if kind in own][:1]
        chosen += [own[file] for file in (*settings, *weights) if settings]
    return [*chosen, _PIPELINE]


def _some(files: Sequence[str]) -> str:
    listed = sorted(files)
    return f" (it has {', '.join(listed[:8])}{' and more' if len(listed) > 8 else ''})" if listed else ""


def _check_room(name: HubName, size: int) -> None:
    have = sum(part.stat().st_size for part in name.folder.glob("**/.*.part"))
    free = shutil.disk_usage(name.folder).free
    if size - have > free:
        raise HubError(
            f"{name} needs {size / 1e9:.1f} GB in {name.folder}, where {free / 1e9:.1f} GB are free: make room there."
        )


def _fetch_file(name: HubName, commit: str, sibling: Any, check: Check | None) -> None:
    """One file, whole and with the digest that the hub names, or not at all."""
    digest = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
    target = name.folder / sibling.rfilename
    target.parent.mkdir(parents=True, exist_ok=True)
    # The digest in its name keeps what was begun of another commit's file from being gone on with.
    part = target.with_name(f".{target.name}.{digest[:12]}.part")
    for stale in set(target.parent.glob(f".{target.name}.*.part")) - {part}:
        stale.unlink()
    _transfer(name, commit, sibling, part, check)
    found = _digest(part, is_git=not sibling.lfs)
    if found != digest:
        part.unlink()
        raise HubError(
            f"{sibling.rfilename} of {name} arrived with the digest {found[:12]}, the hub names {digest[:12]}: it was deleted. "
            "Give the same command again; if it happens again, something between here and the hub changes files."
        )
    part.replace(target)


def _transfer(name: HubName, commit: str, sibling: Any, part: Path, check: Check | None) -> None:
    """Goes on with what is there of a file until all of it is; broken connections are taken up again."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    url = hf_hub_url(name.repository, sibling.rfilename, revision=commit, endpoint=endpoint())
    size, session = sibling.size, get_session()
    broken = sys.modules[type(session).__module__.partition(".")[0]].TransportError  # httpx, or its successor
    left = _ATTEMPTS
    part.touch()
    with tqdm(desc=part.name.split(".", 2)[1], total=size, unit="B", unit_scale=True, disable=None) as bar:
        while (have := _size(part)) < size:
            headers = build_hf_headers(headers={"Accept-Encoding": "identity", "Range": f"bytes={have}-"})
            try:
                with session.stream("GET", url, headers=headers, timeout=_WAIT) as response:
                    hf_raise_for_status(response)
                    with part.open("ab" if response.status_code == 206 else "wb") as file:
                        for chunk in response.iter_raw():  # as it comes: a broken connection loses nothing
                            file.write(chunk)
                            bar.update(file.tell() - bar.n)
                            if check is not None:
                                check(file.tell(), size)
            except broken as error:
                reason = error
            else:
                reason = None
            if _size(part) > have:
                left = _ATTEMPTS
            elif (left := left - 1) <= 0:
                raise reason or ConnectionError("it sends nothing")
            else:
                time.sleep(_PAUSE)
    if _size(part) > size:
        part.unlink()
        raise HubError(f"{sibling.rfilename} of {name} arrived longer than the hub says: it was deleted.")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _digest(path: Path, *, is_git: bool) -> str:
    """A file's SHA-256, or git's name of it, as hubs name the digests of large and of small files."""
    with path.open("rb") as file:
        if not is_git:
            return hashlib.file_digest(file, "sha256").hexdigest()
        content = file.read()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextlib.contextmanager
def _told(name: HubName, vocabulary: str) -> Iterator[None]:
    """What a hub or the network refuse, as one sentence with the way to do it by hand."""
    try:
        yield
    except HubError:
        raise
    except Exception as error:
        reason = refusal(error)
        if reason is None:
            raise
        raise HubError(f"{name} {reason}. {_by_hand(name, vocabulary)}") from None


def refusal(error: Exception) -> str | None:
    """What a hub or the network said no with, in words that follow a name; None for what is no such thing."""
    from huggingface_hub import errors

    if isinstance(error, errors.HFValidationError):
        return "is no name that a hub allows"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "can't be reached, HF_HUB_OFFLINE is set"
    if isinstance(error, errors.GatedRepoError):
        return "is given to those who agree to its terms: do so on its page, and set HF_TOKEN to a token of that account"
    if isinstance(error, errors.RevisionNotFoundError):
        return "has no such revision"
    if isinstance(error, errors.HfHubHTTPError):
        status = getattr(error.response, "status_code", "no status")
        if isinstance(error, errors.RepositoryNotFoundError):
            return f"is not on {endpoint()}, or is private ({status}): check the name, or set HF_TOKEN to a token that may use it"
        if status in (401, 403):
            return f"is refused by {endpoint()} ({status}): set HF_TOKEN to a token that may use it"
        return f"can't be had, {endpoint()} answers with {status}"
    # The client's own complaints (httpx, or its successor), and those of the sockets below it.
    package = type(error).__module__.partition(".")[0]
    if package.startswith(("httpx", "httpcore")) or isinstance(error, ConnectionError | TimeoutError):
        said = (str(error).splitlines() or ["no answer"])[0][:100]
        return f"can't be had from {endpoint()} ({type(error).__name__}: {said})"
    return None


def _by_hand(name: HubName, vocabulary: str) -> str:
    file = name.file or vocabulary
    revision = f" --revision {name.revision}" if name.revision else ""
    return (
        f"By hand: hf download {name.repository}{f' {file}' if file else ''}{revision} --local-dir DIR on a machine with a network, "
        f"then copy DIR to {name.folder}."
    )
