"""When the stages that make captions have nothing to do: whoever has captions already does not pay for them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from captioning.files import CAPTIONS, PRE_CAPTIONS, load_captions, load_pre_captions, store_beside
from captioning.store import CaptionStore
from engine import warm_up
from engine.building import reads_captions, supervision
from engine.config import Config
from engine.log import LOGGER
from engine.material import CAPTIONER_KINDS, caption_kinds
from engine.outstanding import learns_no_real_image


def not_needed(config: Config, stage: str) -> bool:
    """True, and said so, where training has no use for what this stage makes for base and styled captions."""
    if supervision(config) == "zero-shot":
        LOGGER.info("%s: not needed, nothing is trained.", stage)
        return True
    if learns_no_real_image(stage, config):
        return True
    if reads_captions(config):
        LOGGER.info(
            "%s: not needed, '%s' learns from the data set's own captions.", stage, config.model.method
        )
        return True
    if CAPTIONER_KINDS & set(caption_kinds(config)):
        return False
    # A warm-up learns stage A's captions whatever the method's own style is, unless it learns a synthetic set's.
    if stage == "gen_pre_train_text" and warm_up.is_wanted(config) and not warm_up.on_own_captions(config):
        return False
    LOGGER.info(
        "%s: no captioner is needed, '%s' learns from texts in one fixed style, which the captioning backend writes.",
        stage,
        config.model.method,
    )
    return True


def kept_of_stage_a(config: Config, images: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Stage A's captions that stage C keeps as they are, by image; none where the captioner describes all.

    Raises:
        UserError: they are wanted, and stage A has not run.
    """
    if config.gen_text.source == "captioner":
        return {}
    known = load_pre_captions(config.caption_directory / PRE_CAPTIONS)
    return {image: asdict(known[image]) for image in images if image in known}


def captions_are_there(config: Config, images: Sequence[str]) -> bool:
    """True when stage C's captions of all these images are known: generated before, imported, or put there by hand.

    Images that were refused or came back empty count as settled: nobody asks for them again by himself.
    """
    path = config.caption_directory / CAPTIONS
    store = CaptionStore(store_beside(path))
    if len(store):
        missing = set(store.missing(images))
        if missing and path.with_name(PRE_CAPTIONS).exists():  # else stage A, which asks this, has yet to run
            missing -= kept_of_stage_a(config, images).keys()
        return not missing
    return path.exists() and load_captions(path).keys() >= set(images)
