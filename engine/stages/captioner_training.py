"""Stage B: the captioner learns from stage A's captions, under both of its prompts.

The base caption follows the fixed question, the styled caption follows its own opening; the prompt's tokens are
not part of the loss (``losses``: LM cross-entropy with label smoothing).
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from captioning.files import PRE_CAPTIONS, PreCaption, both_captions, load_pre_captions
from captioning.prompts import CAPTIONER_QUESTION
from data import PedesDataset
from data.errors import UserError
from engine import checkpoints, distributed, warm_up
from engine.building import captioner_method, new_captioner, pixels_of
from engine.feeds import ImageFeed, PairBatches, Pairs
from engine.hub import located
from engine.log import LOGGER
from engine.loop import Place, Schedule, Trainer
from engine.marks import Mark
from engine.run import Run
from engine.sources import open_dataset, open_tokenizer, training_images
from engine.stage import Context
from engine.stages.caption_needs import captions_are_there, not_needed
from models import Captioner
from models.batch import Batch
from models.texts import TextTokenizer
from models.world import World

STAGE = "pre_train"


class CaptioningTask(nn.Module):
    """Batch -> the language-model loss; its mean over processes is the loss of the global batch."""

    def __init__(self, captioner: Captioner, world: World, label_smoothing: float) -> None:
        super().__init__()
        self.captioner, self.world, self.label_smoothing = captioner, world, label_smoothing

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Images and texts to {"language": scalar}; ``batch.labels`` holds the prompt lengths in tokens."""
        tokens = self.captioner.encode_images(batch.images)
        loss = self.captioner.loss(tokens, batch.texts, batch.labels, self.label_smoothing)
        if self.world.size == 1:
            return {"language": loss}
        # A process's loss is a mean over its own tokens: weigh it by its share of the global batch's tokens.
        counted = (batch.texts.mask.sum(1) - batch.labels).sum().float()
        return {"language": loss * counted * self.world.size / distributed.sum_over_ranks(counted)}


def train_captioner(context: Context) -> None:
    """Write ``captioner.pth``.

    Raises:
        UserError: stage A has not run, or the pre-trained weights are missing or of another model.
    """
    config = context.config
    directory = config.captioner_directory
    mark = Mark.of(STAGE, config)
    state_path = directory / "last.pth"
    if (not context.force and mark.is_set(STAGE)) or not_needed(config, STAGE):
        return
    if config.gen_text.source == "pre_captions":
        LOGGER.info("%s: not needed, gen_text.source uses the captions of stage A as they are.", STAGE)
        return
    dataset = open_dataset(config)
    if not context.force and captions_are_there(config, training_images(dataset)):
        LOGGER.info("%s: not needed, %s has captions of all images.", STAGE, config.caption_directory)
        return
    if context.force:
        mark.clear()
        distributed.barrier()
        if distributed.is_main():
            state_path.unlink(missing_ok=True)
            warm_up.forget(config, captioner_method(config))
        distributed.barrier()
    run = Run(directory, "log.txt", context.stop)
    context.compute_in(directory)
    machine = context.machine
    model, batches = _prepare(context, dataset, run)
    settings = config.pre_train
    model.visual_encoder.requires_grad_(not settings.freeze_image_encoder)
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    trainer = Trainer(
        CaptioningTask(model, machine.world, settings.label_smoothing),
        [{"params": learnt, "lr": settings.init_lr, "weight_decay": settings.weight_decay}],
        batches,
        Schedule(settings.init_lr, settings.max_epoch, settings.min_lr, settings.lr_warmup_steps),
        Place("pre_train"),
        run,
        machine,
        state_path,
        seed=config.seed,
        on_epoch=lambda epoch, losses, seconds: _report(run, epoch, losses, seconds),
        log_every=config.train.log_every,
        save_minutes=config.train.save_minutes,
    )
    trainer.fit()
    if distributed.is_main():
        content = checkpoints.describe(model, "captioner", config.model.size)
        checkpoints.save(directory / "captioner.pth", content)
        state_path.unlink(missing_ok=True)
        LOGGER.info("Stage B: the captioner is %s.", directory / "captioner.pth")
    mark.set()


def _report(run: Run, epoch: int, losses: dict[str, float], seconds: float) -> None:
    run.record("epoch", phase="pre_train", epoch=epoch, losses=losses, seconds=round(seconds, 2))
    LOGGER.info("pre_train epoch %d: language %.4f (%.0f s)", epoch + 1, losses["language"], seconds)


def _prepare(context: Context, dataset: PedesDataset, run: Run) -> tuple[Captioner, PairBatches]:
    """The captioner with its starting weights, and the batches it learns from."""
    config, machine = context.config, context.machine
    path = config.caption_directory / PRE_CAPTIONS
    records = load_pre_captions(path)
    # An imported file may know images of other splits, too.
    images = sorted(records.keys() & set(training_images(dataset)))
    if not images:
        raise UserError(
            f"{path} holds no caption of a training image: run gen_pre_train_text.py again (see its log)."
        )
    named = config.model.tokenizer if config.pre_train.tokenizer is None else config.pre_train.tokenizer
    tokenizer = open_tokenizer(
        Captioner.tokenizer_class,
        named,
        both_captions(records, images),
        config.caption_directory / "tokenizer",
        config.model.vocabulary_size,
    )
    model = new_captioner(config, tokenizer)
    if config.pre_train.pretrained:
        path = located(config.pre_train.pretrained, check=run.stop_if_asked)
        LOGGER.info("%s: %s", path, model.load_pretrained(path))
    elif warm_up.is_wanted(config):
        method = captioner_method(config)
        model.start_from(warm_up.warm_up(context, dataset, tokenizer, run, method))
    paths = [dataset.image_root / image for image in images]
    feed = ImageFeed.of(paths, config, model.image_size, pixels=pixels_of(model))
    pairs = caption_pairs(records, images, tokenizer, config.gen_text.max_length)
    batches = PairBatches(
        feed,
        pairs,
        config.pre_train.batch_size,
        machine.world,
        machine.device,
        seed=config.seed,
        name="pre_train",
        erasing=0.0,  # an erased shoe must not be learnt as a shoe that is there
        padding=config.train.crop_padding,
        text_multiple=machine.text_multiple,
    )
    return machine.place(model), batches


def caption_pairs(
    records: dict[str, PreCaption], images: list[str], tokenizer: TextTokenizer, length: int
) -> Pairs:
    """Both captions of each image under their prompts; ``labels`` holds the prompts' lengths in tokens."""
    prompts, texts, owners = [], [], []
    for index, image in enumerate(images):
        record = records[image]
        for prompt, caption in (
            (CAPTIONER_QUESTION, record.base_caption),
            (record.opening, record.styled_caption),
        ):
            if not caption:
                continue
            rest = (
                caption[len(prompt) :] if prompt and caption.lower().startswith(prompt.lower()) else caption
            )
            prompts.append(prompt)
            texts.append(f"{prompt} {rest}".strip())
            owners.append(index)
    lengths = np.asarray([len(tokenizer.prompt_ids(prompt)) for prompt in prompts], dtype=np.int64)
    return Pairs(np.asarray(owners), tokenizer(texts, max_length=length), lengths)
