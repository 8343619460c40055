"""The warm-up that stands in for BLIP's pre-training."""

from __future__ import annotations

import pytest
import torch

from engine.config import Config
from engine.warm_up import is_wanted
from models import build_model
from models.backbones.blip.captioner import BlipCaptioner
from models.backbones.blip.tokenizer import BlipTokenizer
from models.batch import Batch, TrainingCaption


def test_it_is_wanted_where_there_are_no_weights_and_epochs_are_given():
    scratch = {"model": {"pretrained": ""}}
    epochs = {"train": {"warm_up": {"max_epoch": 2}}}
    assert is_wanted(Config.model_validate({**scratch, **epochs}))
    assert not is_wanted(Config.model_validate(scratch))
    assert not is_wanted(Config.model_validate(epochs))


def test_the_captioner_takes_what_blip_shares_and_keeps_its_own_self_attention(tmp_path):
    tokenizer = BlipTokenizer.train(["a man in a red jacket", "a woman in a blue dress"], tmp_path)
    model = build_model("pspd", size="tiny", image_size=(32, 16), tokenizer=tokenizer)
    captioner = BlipCaptioner("tiny", (32, 16), tokenizer)
    before = {name: tensor.clone() for name, tensor in captioner.state_dict().items()}
    weights = model.state_dict()
    captioner.start_from(weights)
    after = captioner.state_dict()
    taken = {name for name in after if not torch.equal(before[name], after[name])}
    tied = {"text_decoder.cls.predictions.decoder.weight"}  # the word embeddings, under another name
    for name in taken - tied:
        source = name.replace("text_decoder.bert.", "text_encoder.", 1)
        assert torch.equal(after[name], weights[source])
    assert any(name.startswith("visual_encoder.blocks.2.") for name in taken)
    assert "text_decoder.bert.encoder.layer.0.intermediate.dense.weight" in taken
    assert "text_decoder.bert.encoder.layer.0.crossattention.self.query.weight" in taken
    assert not any(".attention." in name and name.startswith("text_decoder.") for name in taken)


@pytest.fixture
def warming(tmp_path):
    """A model and a batch of four pairs; the second and the third are of one image."""
    words = ["a man in red", "a woman in blue", "the woman wears a dress", "a man"]
    tokenizer = BlipTokenizer.train(words, tmp_path)
    model = build_model("pspd", size="tiny", image_size=(32, 16), tokenizer=tokenizer, dropout=0.0).eval()
    texts = model.prepare([TrainingCaption(text) for text in words])
    images = torch.randn(4, 3, 32, 16, generator=torch.Generator().manual_seed(0))
    return model, Batch(images, texts, torch.tensor([7, 3, 3, 5]))


def test_a_warm_up_begins_with_the_global_loss_alone(warming):
    model, batch = warming
    losses = model.warm_up_losses(batch, matching=False)
    assert list(losses) == ["ndf"]
    torch.testing.assert_close(losses["ndf"], model.losses(batch)["ndf"])


def test_matching_is_learnt_against_the_next_image_of_the_batch(warming):
    model, batch = warming
    losses = model.warm_up_losses(batch, matching=True)
    assert list(losses) == ["ndf", "itm"]
    tokens, _ = model.encode_images(batch.images)
    log_odds = []
    for text in range(4):
        for image, answer in ((text, 1), ((text + 1) % 4, 0)):
            if answer == 0 and batch.labels[text] == batch.labels[image]:
                continue  # another text of the same image is no negative
            logits = model.match(batch.texts[[text]].trim(), tokens[[image]])[0]
            log_odds.append(logits.log_softmax(0)[answer])
    assert len(log_odds) == 4 + 3
    torch.testing.assert_close(losses["itm"], -torch.stack(log_odds).mean())
