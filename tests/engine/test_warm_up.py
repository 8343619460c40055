"""The warm-up that stands in for BLIP's pre-training."""

from __future__ import annotations

import torch

from engine.config import Config
from engine.warm_up import is_wanted, start_captioner
from models import build_model
from models.backbones.captioner import BlipCaptioner
from models.backbones.tokenizer import BlipTokenizer


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
    start_captioner(captioner, weights)
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


def test_a_warm_up_trains_on_the_global_loss_alone(tmp_path):
    from models.batch import Batch, TrainingCaption

    tokenizer = BlipTokenizer.train(["a man in a red jacket", "a woman in a blue dress"], tmp_path)
    model = build_model("pspd", size="tiny", image_size=(32, 16), tokenizer=tokenizer, dropout=0.0).eval()
    texts = model.prepare([TrainingCaption("a man in red"), TrainingCaption("a woman in blue")])
    batch = Batch(torch.randn(2, 3, 32, 16), texts, torch.arange(2))
    warm = model.warm_up_losses(batch)
    assert list(warm) == ["ndf"]
    torch.testing.assert_close(warm["ndf"], model.losses(batch)["ndf"])
