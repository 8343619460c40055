"""The main stage: rounds of clustering, label correction and training, or one training where none are needed.

A round: features from the best model so far, clusters, corrected labels, then training from the STARTING weights
(pre-trained ones, or those of a warm-up on generated pairs where there are none, or what a training on a synthetic set has
made of these) on every image that is not noise, once with each of its captions. ``best.pth`` is the best model on val, or
the last one where the data set has no val.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from data.holding_out import hold_out_identities
from engine import best_on_test, checkpoints, distributed, warm_up
from engine.best_on_test import BestOnTest
from engine.building import method_class, new_model, pixels_of, supervision
from engine.cluster_source import open_cluster_source
from engine.config import Config, SyntheticTrainingConfig, save_config
from engine.evaluation import Split, evaluate_split, open_split
from engine.feeds import ImageFeed, PairBatches
from engine.hub import located, source_of
from engine.labels import PseudoLabels, log_report, pseudo_labels, report
from engine.log import LOGGER
from engine.loop import Place, Schedule, Trainer
from engine.marks import Mark
from engine.material import Material, compact, materials_of, report_identities
from engine.pair_weights import PairWeights
from engine.run import Run
from engine.sources import named_tokenizer, open_dataset, open_tokenizer, say_what_is_cut
from engine.stage import Context
from models.batch import Batch
from models.methods.base import Method
from retrieval.results import write_atomically

# The best model of a training on a synthetic set that the own training starts from.
SYNTHETIC = "synthetic.pth"


class RetrievalTask(nn.Module):
    """Batch -> the method's named losses (a module, so that DistributedDataParallel can wrap it)."""

    def __init__(self, model: Method) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of this process's share of the batch."""
        return self.model.losses(batch)


def train_search(context: Context) -> None:
    """Write ``best.pth``, the model that finds people.

    Raises:
        UserError: a stage before has not run, weights are missing, or the labels are of no use.
    """
    config = context.config
    directory = config.run_directory
    mark = Mark.of("train", config)
    if not context.force and mark.is_set("train"):
        return
    if context.force and distributed.is_main():
        mark.clear()
        for name in ("train", "labels", "tokenizer"):  # a vocabulary may be of other captions
            shutil.rmtree(directory / name, ignore_errors=True)
        for name in ("best.pth", SYNTHETIC, "metrics.jsonl", best_on_test.FILE):
            (directory / name).unlink(missing_ok=True)
        if warm_up.belongs_to_training(config):  # else it belongs to the captions
            warm_up.forget(config)
    distributed.barrier()
    if distributed.is_main():
        save_config(config, directory / "config.yaml")
    run = Run(directory, "log.txt", context.stop)
    context.compute_in(directory)
    if supervision(config) == "zero-shot":
        keep_released(context, run)
    else:
        SearchTraining(context, run).train()
    mark.set()  # before the states go: a run that is killed in between must not train again
    if distributed.is_main():
        shutil.rmtree(directory / "train", ignore_errors=True)  # resume states; best.pth and the labels stay
        LOGGER.info("Training is finished: the model is %s.", directory / "best.pth")


def keep_released(context: Context, run: Run) -> None:
    """Zero-shot: the pre-trained weights are the model, and no training image or caption is read."""
    config = context.config
    tokenizer = named_tokenizer(method_class(config.model.method).tokenizer_class, config.model.tokenizer)
    model = new_model(config, context.machine, tokenizer)
    source = load_released(model, config, run)
    if distributed.is_main():
        content = description(
            model, config, selected_on="last", started_from=source, trained_on="nothing here"
        )
        checkpoints.save(config.run_directory / "best.pth", content)
    distributed.barrier()


def load_released(model: Method, config: Config, run: Run) -> str:
    """Fills the model with the configured weights, fetched if they have to be, and returns where they are from."""
    path = located(config.model.pretrained, check=run.stop_if_asked)
    LOGGER.info("%s: %s", path, model.load_pretrained(path))
    return source_of(path)


def description(model: Method, config: Config, **meta: Any) -> dict[str, Any]:
    """What the checkpoint of a run holds."""
    meta["config"] = json.dumps(config.model_dump(mode="json"))
    return checkpoints.describe(model, config.model.method, config.model.size, **meta)


def _steps_of(mark: Path) -> int:
    """The optimiser steps of a finished round; 0 where its mark is missing or damaged: the round is then gone through again."""
    try:
        return int(mark.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return 0


@dataclass(frozen=True)
class Lesson:
    """What one training learns from, its images opened, and where its best model is kept."""

    material: Material
    feed: ImageFeed
    best: Path


class SearchTraining:
    """One run of the main stage: what it reads, its starting weights, and its rounds."""

    def __init__(self, context: Context, run: Run) -> None:
        self.context, self.config, self.machine, self.run = context, context.config, context.machine, run
        self.directory = context.config.run_directory
        dataset, held_out = open_dataset(self.config), self.config.train.val_identities
        if held_out:
            dataset = hold_out_identities(dataset, held_out, self.config.seed)
        if self.config.train.data == "synthetic":
            dataset = replace(dataset, train=[])  # nothing of it is to be reached from here
        own, self.before = materials_of(dataset, self.config)
        self.report_identities = report_identities(dataset, own.images[: own.unlabelled])
        kind = method_class(self.config.model.method)
        self.tokenizer = open_tokenizer(
            kind.tokenizer_class,
            self.config.model.tokenizer,
            own.texts(),
            own.tokenizer_directory,
            self.config.model.vocabulary_size,
        )
        self.lesson = self._lesson(own, "best.pth")
        size = self.config.model.image_size
        self.source = open_cluster_source(self.config, dataset, pixels_of(kind))
        self.val: Split | None = open_split(dataset, "val", self.config, size, pixels_of(kind))
        self.selected_on = f"{held_out} identities of train" if held_out else "val" if self.val else "last"
        self.best_on_test: BestOnTest | None = None
        if self.config.test.also_select_on_test:
            test = open_split(dataset, "test", self.config, size, pixels_of(kind))
            self.best_on_test = test and BestOnTest(test, self.config, self.machine, run)
        wanted = warm_up.is_wanted(self.config)
        self.start = warm_up.warm_up(context, dataset, self.tokenizer, run) if wanted else None
        self.states = self.directory / "train"
        self.steps_done = 0
        self.started_from = ""  # which released weights, by name

    def train(self) -> None:
        """What this run is: one training on labels that are there, or rounds on those that it makes."""
        if self.before is not None:
            self.start_from_synthetic(self.before)
        lesson, material, done = self.lesson, self.lesson.material, self.steps_done
        if self.config.train.data == "synthetic":
            self._train(lesson, Place("synthetic"), material.labels(), self._schedule(synthetic=True))
        elif not material.unlabelled:
            self._train(lesson, Place("supervised", 0, done), material.labels(), self._schedule())
        elif self.config.train.rounds == 0:
            self.keep_start()
        elif not self.config.cluster.enabled:
            labels = material.labels(np.arange(material.unlabelled))
            self._train(lesson, Place("own-classes", 0, done), labels, self._schedule())
        else:
            for number in range(self.config.train.rounds):
                self.round(number)

    def _lesson(self, material: Material, best: str) -> Lesson:
        pixels = pixels_of(method_class(self.config.model.method))
        feed = ImageFeed.of(material.images, self.config, pixels=pixels)
        return Lesson(material, feed, self.directory / best)

    def start_from_synthetic(self, material: Material) -> None:
        """Train on a synthetic set, and start from its best model from then on, as from pre-trained weights."""
        path, done = self.directory / SYNTHETIC, self.states / "synthetic.done"
        if not _steps_of(done):
            lesson = self._lesson(material, SYNTHETIC)
            steps = self._train(lesson, Place("synthetic"), material.labels(), self._schedule(synthetic=True))
            if distributed.is_main():
                write_atomically(done, str(steps))
            distributed.barrier()
        self.steps_done = _steps_of(done)
        content = checkpoints.load(path)
        self.start, self.started_from = content["model"], content["meta"]["started_from"]

    def new_model(self) -> Method:
        """The method's model with its starting weights: a training's or a warm-up's, else released ones, else random ones."""
        model = new_model(self.config, self.machine, self.tokenizer)
        if self.start is not None:
            model.load_state_dict(self.start, strict=False)
        elif self.config.model.pretrained:
            self.started_from = load_released(model, self.config, self.run)
        return model

    def keep_start(self) -> None:
        """No rounds: the starting weights are the model (an ablation)."""
        if distributed.is_main():
            model = self.new_model()
            meta = {"selected_on": "last", "started_from": self.started_from}
            meta["trained_on"] = self.lesson.material.source
            checkpoints.save(self.lesson.best, description(model, self.config, **meta))
        distributed.barrier()

    def round(self, number: int) -> None:
        """Label the images with the best model so far, then train from the starting weights on the labels."""
        done = self.states / f"round-{number}.done"
        labels = self._labels(number)
        if not _steps_of(done):
            place = Place(f"round-{number}", number, self.steps_done)
            after = self.lesson.material.labels(labels.after)
            steps = self._train(self.lesson, place, after, self._schedule())
            if distributed.is_main():
                write_atomically(done, str(steps))
            distributed.barrier()
        self.steps_done += _steps_of(done)

    def _schedule(self, synthetic: bool = False) -> Schedule:
        settings = self.config.train
        differing = settings.synthetic if synthetic else SyntheticTrainingConfig()
        return Schedule(
            differing.init_lr or settings.init_lr,
            differing.max_epoch or settings.max_epoch,
            settings.min_lr,
            settings.lr_warmup_steps,
            settings.lr_steps,
            settings.lr_step_factor,
            settings.lr_warmup_epochs,
            settings.lr_warmup_start,
            per_step=settings.schedule == "step",
        )

    def _labels(self, number: int) -> PseudoLabels:
        """The round's pseudo labels: made by all processes, written by the main one, read by all."""
        path = self.directory / "labels" / f"round-{number}.npz"
        missing = distributed.is_main() and not path.exists()
        if distributed.any_rank(missing, self.machine.device):
            self._label(number, path)
        distributed.barrier()
        return PseudoLabels.load(path)

    def _label(self, number: int, path: Path) -> None:
        """Make the round's pseudo labels, write them and report on them."""
        model = self.new_model()
        material, best = self.lesson.material, self.lesson.best
        feed = self.lesson.feed.first(material.unlabelled)
        if number > 0:
            model.load_state_dict(checkpoints.load(best)["model"], strict=False)
        LOGGER.info("Round %d: labelling %d images.", number, len(feed))
        eps = PseudoLabels.load(path.with_name("round-0.npz")).eps if number else None
        labels = pseudo_labels(
            model,
            feed,
            material.cluster_texts[: len(feed)],
            self.config,
            self.machine,
            eps,
            progress=self.run.stop_if_asked,
            figure=path.with_suffix(".png"),
            source=self.source,
            correction_captions=material.correction_texts,
        )
        if labels is None:
            return
        content = report(labels, self.report_identities)
        log_report(number, content)
        self.run.forget_metrics(event="clusters", round=number)  # a kill may come before the labels are saved
        self.run.record("clusters", round=number, total_step=self.steps_done, **content)
        labels.save(path)

    def _train(self, lesson: Lesson, place: Place, labels: np.ndarray, schedule: Schedule) -> int:
        """Train a fresh model on labels (N,), -1 left out; returns the number of steps. The best one is kept in its file."""
        settings, material = self.config.train, lesson.material
        model = self.new_model()
        labels, count = compact(labels)
        model.set_identities(count)
        if place.phase != "synthetic":
            model.freeze(settings.frozen)
        model.to(self.machine.device)
        if place.round == 0:
            say_what_is_cut(model.tokenizer, [caption.text for caption in material.captions], "training")
        batches = self._batches(lesson, model, labels, place)

        def on_epoch(epoch: int, losses: dict[str, float], seconds: float) -> None:
            last = epoch + 1 == schedule.max_epoch
            wanted = last or (epoch + 1) % settings.evaluate_every == 0
            val = self._evaluate(model) if wanted else None
            if wanted and self.best_on_test is not None and lesson is self.lesson:
                self.best_on_test.look(model, place, epoch)
            if distributed.is_main():
                self._keep(lesson, model, place, epoch, val, last)
                step = place.steps_before + (epoch + 1) * batches.steps
                self._record_epoch(place, epoch, schedule.max_epoch, step, losses, val, seconds)
            distributed.barrier()

        trainer = Trainer(
            RetrievalTask(model),
            model.parameter_groups(schedule.init_lr, settings.weight_decay, settings.decay_vectors),
            batches,
            schedule,
            place,
            self.run,
            self.machine,
            self.states / "last.pth",
            seed=self.config.seed,
            on_epoch=on_epoch,
            before_epoch=self._pair_weights(model, batches, place),
            log_every=settings.log_every,
            save_minutes=settings.save_minutes,
            betas=settings.betas,
            eps=settings.eps,
            average=settings.average,
        )
        trainer.fit()
        return batches.steps * schedule.max_epoch

    def _batches(self, lesson: Lesson, model: Method, labels: np.ndarray, place: Place) -> PairBatches:
        """The lesson's pairs with labels (N,), as the model and the configuration want them."""
        settings, material = self.config.train, lesson.material
        return PairBatches(
            lesson.feed,
            material.pairs(model.prepare(material.captions), labels),
            settings.batch_size,
            self.machine.world,
            self.machine.device,
            seed=self.config.seed,
            name=place.phase,
            erasing=settings.random_erasing,
            padding=settings.crop_padding,
            words=settings.word_dropout,
            text_multiple=self.machine.text_multiple,
            companions=model.wants_companions,
            augmentation=settings.augmentation,
            views=model.wants_views,
            images_per_identity=settings.images_per_identity if settings.sampler == "identity" else None,
        )

    def _pair_weights(self, model: Method, batches: PairBatches, place: Place) -> PairWeights | None:
        settings, path = self.config.train, self.states / "pair_weights.pth"
        if settings.pair_weights == "none":
            return None
        return PairWeights(
            model,
            batches,
            settings.pair_weights,
            path,
            place,
            self.run,
            self.machine,
            settings.pair_opinions,
        )

    def _evaluate(self, model: Method) -> dict[str, Any] | None:
        """Metrics on val, where there is one."""
        if self.val is None:
            return None
        evaluation = evaluate_split(
            model, self.val, self.config, self.machine, self.config.train.k_test, self.run.stop_if_asked
        )
        return {"itc": evaluation.itc, "itm": evaluation.itm}

    def _keep(
        self,
        lesson: Lesson,
        model: Method,
        place: Place,
        epoch: int,
        val: Mapping[str, Any] | None,
        last: bool,
    ) -> None:
        """Selection: the highest Rank-1 + mAP on val, with re-ranking where there is matching; the last epoch without one; never test."""
        meta = {"selected_on": self.selected_on, "round": place.round, "epoch": epoch}
        meta |= {"started_from": self.started_from, "trained_on": lesson.material.source}
        if self.val is None and last:
            checkpoints.save(lesson.best, description(model, self.config, **meta))
        if val is None:
            return
        ranked = val["itm"] or val["itc"]
        score = ranked["r1"] + ranked["mAP"]
        if not lesson.best.exists() or score > checkpoints.load(lesson.best)["meta"]["score"]:
            checkpoints.save(lesson.best, description(model, self.config, **meta, score=score))

    def _record_epoch(
        self,
        place: Place,
        epoch: int,
        epochs: int,
        step: int,
        losses: dict[str, float],
        val: Mapping[str, Any] | None,
        seconds: float,
    ) -> None:
        where = {"phase": place.phase, "round": place.round, "epoch": epoch, "total_step": step}
        self.run.record("epoch", **where, losses=losses, val=val, seconds=round(seconds, 2))
        parts = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
        ranked = (val["itm"] or val["itc"]) if val else None
        found = f"  val Rank-1 {ranked['r1']:.2f} mAP {ranked['mAP']:.2f}" if ranked else ""
        LOGGER.info("%s epoch %d/%d: %s%s (%.0f s)", place.phase, epoch + 1, epochs, parts, found, seconds)
