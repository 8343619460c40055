"""`search.py publish`: a trained model for others, as a folder or on a hub, with its card.

What goes out is an allowlist: weights, how to build the model, its vocabulary, the settings of its training without places,
servers and options of this machine, and results. A repository on a hub is made private unless --public says otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import torch

from data import DATASETS
from data.errors import UserError
from engine import published
from engine.building import reads_captions, supervision
from engine.config import Config
from engine.hub import HubError, HubName, endpoint, is_hub_name, refusal
from engine.log import LOGGER
from engine.material import CAPTIONER_KINDS, caption_kinds
from engine.opening import Opened, open_model
from engine.several_seeds import SHARED, summary_path
from retrieval.results import write_atomically
from serving.card import DRAWN, OWN, Facts, card

CARD, RESULTS = "README.md", "results.json"
# Of the configuration; the rest is places, this machine, or of no use to others.
_SECTIONS = ("seed", "dataset", "model", "gen_pre_train_text", "pre_train", "gen_text", "train", "cluster", "correction")  # fmt: skip
_DROPPED = {"root", "attributes", "text", "image_cache", "log_every", "save_minutes"}
_NAMES = {"pretrained", "tokenizer", "source"}


def publish(options: argparse.Namespace) -> int:
    """Write the folder or push it; returns the exit code.

    Raises:
        UserError: no trained model, terms that nobody said, a folder of something else, or a hub that refuses.
    """
    opened = open_model(options.checkpoint)
    config = _config(opened)
    if not opened.trained or (config and supervision(config) == "zero-shot"):
        raise UserError(
            f"{opened.path} is {opened.content['method']} as it was released, which its authors publish: train it first."
        )
    if is_hub_name(options.to):
        address = _push(opened, options)
        print(f"Published as {options.to}: {address}")
        return 0
    directory = Path(options.to)
    _refuse_others(directory, opened)
    _write(opened, directory, options.terms, directory.resolve().name)
    print(f"Published in {directory}: read {directory / CARD} before you pass it on.")
    return 0


def _refuse_others(directory: Path, opened: Opened) -> None:
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory} is a file: name a folder behind --to.")
    holds = directory.is_dir() and any(not entry.name.startswith(".") for entry in directory.iterdir())
    if holds and not published.is_published(directory):
        raise UserError(
            f"{directory} holds other files: name a new or an empty folder, nothing is overwritten."
        )
    if opened.path.is_dir() and directory.resolve() == opened.path.resolve():
        raise UserError(f"{directory} is the model itself: name another folder behind --to.")


def _write(opened: Opened, directory: Path, terms: str, name: str) -> None:
    """The folder, read again and compared before anybody is told that it is there."""
    facts = _facts(opened, terms, name)
    published.write(directory, opened.content, facts.training)
    again = published.read(directory)["model"]
    for key, tensor in opened.content["model"].items():
        if again[key].dtype != tensor.dtype or not torch.equal(again[key], tensor):
            raise UserError(
                f"{directory} does not hold what was written to it ({key} differs): is its disk sound?"
            )
    if facts.results is None:
        LOGGER.warning(
            "There are no results of this checkpoint: evaluate it (bash eval.bash) before you publish it."
        )
        (directory / RESULTS).unlink(missing_ok=True)
    else:
        write_atomically(directory / RESULTS, json.dumps(facts.results, indent=2) + "\n")
    write_atomically(directory / CARD, card(facts))


def _facts(opened: Opened, terms: str, name: str) -> Facts:
    config = _config(opened)
    made = config.train.data if config else "real"
    kind = DATASETS.get("synthetic" if made == "synthetic" else config.dataset.name) if config else None
    drawn = config is not None and config.dataset.synthesis is not None and made != "synthetic"
    if not terms and not drawn and not getattr(kind, "terms", ""):
        raise UserError(
            "Nothing is known here about the images that this model was trained on: say with --terms where they are from and on "
            "what ground they were used; it goes into the model's card."
        )
    data = config.dataset.label if config else "images of the publisher's own"
    data = opened.content["meta"].get("trained_on") or data
    known = DRAWN if drawn else getattr(kind, "terms", "") or OWN
    if made in ("mixed", "synthetic_then_real"):
        known += f" {DATASETS['synthetic'].terms}"
    results = _results(opened)
    return Facts(
        name=name,
        content=opened.content,
        training=_public(config.model_dump(mode="json")) if config else {},
        data=data,
        terms=" ".join(filter(None, (known, terms))),
        source="" if drawn or made == "synthetic" else getattr(kind, "source", ""),
        is_free=drawn and made == "real" and not terms and not opened.content["meta"].get("started_from"),
        results=results,
        seeds=_seeds(opened, config, results) if config and results else None,
        **(_supervision(config) if config else {}),
    )


def _supervision(config: Config) -> dict[str, str]:
    """What stood in for identities, and where the texts came from."""
    made = {"supervision": "those that generated people have", "captions": "those that generated images have"}
    if config.train.data == "synthetic":
        return made
    real = _supervision_of_dataset(config)
    if config.train.data == "real":
        return real
    joint = "and" if config.train.data == "mixed" else "after"
    return {name: f"{text}; {joint} {made[name]}" for name, text in real.items()}


def _supervision_of_dataset(config: Config) -> dict[str, str]:
    if reads_captions(config):
        known = (
            "the data set's identities"
            if supervision(config) == "labels"
            else "none: each image is its own class"
        )
        return {"supervision": known, "captions": "the data set's own"}
    settings = config.gen_pre_train_text
    model = settings.options.get("model")
    written = f"generated by `{settings.backend}`{f' ({_named(model)})' if model else ''}"
    others = {"captioner": "all images", "both": "the other images"}.get(config.gen_text.source)
    if CAPTIONER_KINDS & set(caption_kinds(config)) and others:
        written += f" for a sample, and by a captioner that learnt from those for {others}"
    clusters = (
        "clusters of images and generated captions"
        if config.cluster.enabled
        else "each image as its own class"
    )
    return {"supervision": f"none: {clusters} stand in for identities", "captions": written}


def _config(opened: Opened) -> Config | None:
    """The settings of the training, from the checkpoint; None where it has none or they are another version's."""
    try:
        return Config.model_validate(json.loads(opened.content["meta"]["config"]))
    except (KeyError, ValueError):  # pydantic's errors are ValueErrors
        return None


def _results(opened: Opened) -> Mapping[str, Any] | None:
    """What `test.py` wrote beside the checkpoint, if it is this checkpoint's."""
    folder = opened.path if opened.path.is_dir() else opened.path.parent
    path = folder / RESULTS
    if not path.is_file():
        return None
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        fits = results["method"] == opened.content["method"] and {"itc", "itm", "split", "protocol"} <= set(
            results
        )
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path} is damaged: evaluate the model again (bash eval.bash) or delete it."
        ) from None
    if not fits or (opened.is_own_file and path.stat().st_mtime_ns < opened.path.stat().st_mtime_ns):
        LOGGER.warning("%s is older than the checkpoint or another model's, and is left out.", path)
        return None
    return results


def _seeds(opened: Opened, config: Config, results: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The summary over several seeds, where this run is one of them and it tells the same story."""
    run = opened.path.resolve().parent
    path = run.parent / summary_path(config).name
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        is_one = run.name in {PurePath(other).name for other in content["runs"]} and len(content["seeds"]) > 1
        alike = all(content[name] == results[name] for name in SHARED)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content if is_one and alike else None


def _public(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that others may read: no place on this machine, no server, no option of a backend but its model."""
    chosen = {name: settings[name] for name in _SECTIONS}
    backend = chosen["gen_pre_train_text"]
    model = backend.get("options", {}).get("model")
    public = _without_places(chosen)
    public["gen_pre_train_text"].pop("options", None)
    if model:
        public["gen_pre_train_text"]["model"] = _named(model)
    return public


def _without_places(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _without_places(part, name) for name, part in value.items() if name not in _DROPPED}
    return _named(value) if key in _NAMES and value else value


def _named(value: Any) -> Any:
    """A name on a hub as it is, of a path on this machine the last part."""
    path = PurePath(str(value))
    return path.name if path.is_absolute() or ".." in path.parts or "~" in path.parts else value


def _push(opened: Opened, options: argparse.Namespace) -> str:
    """Create the repository where there is none, and send the folder; its address."""
    from huggingface_hub import HfApi

    name = HubName.parse(options.to)
    if name.file or name.revision:
        raise HubError(f"{options.to} names a file or a revision: publish to hf:OWNER/NAME.")
    token = os.environ.get("HF_TOKEN")
    if not token:
        raise HubError(
            "Publishing on a hub needs a token that may write: set HF_TOKEN to it, in the environment and nowhere else."
        )
    api = HfApi(endpoint=endpoint(), token=token)
    with tempfile.TemporaryDirectory(prefix="publish-") as folder:
        _write(opened, Path(folder), options.terms, str(name))
        try:
            api.create_repo(name.repository, private=not options.public, exist_ok=True)
            commit = api.upload_folder(
                repo_id=name.repository,
                folder_path=folder,
                commit_message=f"{opened.content['method']}, published with search.py publish",
            )
        except Exception as error:
            reason = refusal(error)
            if reason is None:
                raise
            raise HubError(f"{name} {reason}. The same command goes on.") from None
    return str(commit.commit_url)
