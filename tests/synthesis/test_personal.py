"""What personalised weights have seen, and what they may be used for."""

from __future__ import annotations

import json

import pytest

from data.errors import UserError
from synthesis.generation.personal import (
    RECORD,
    Personalisation,
    check_scenario,
    read_record,
    write_record,
)

FEW = Personalisation("few", "sd", "cuhk", (3, 9), 12, False, 800, 0)
ALL = Personalisation("all", "sd", "cuhk", (3, 9, 11), 40, True, 4000, 1)


@pytest.mark.parametrize("record", [FEW, ALL])
def test_a_record_is_read_as_it_was_written(tmp_path, record):
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    assert check_scenario(record.scenario, tmp_path) == record


def test_a_plain_model_has_none(tmp_path):
    assert read_record(tmp_path) is None
    assert read_record(tmp_path / "nowhere") is None
    assert check_scenario("none", tmp_path) is None


@pytest.mark.parametrize(
    ("record", "wanted", "words"),
    [
        (None, "few", "holds weights of 'none': make such weights with python -m engine.personalisation"),
        (None, "all", "personalise.scenario=all"),
        (FEW, "all", "holds weights of 'few'"),
        (ALL, "few", "holds weights of 'all'"),
        (ALL, "none", "name the plain model"),
        (None, "some", "There is no scenario 'some'"),
    ],
)
def test_weights_of_another_scenario_are_refused(tmp_path, record, wanted, words):
    if record:
        write_record(tmp_path, record)
    with pytest.raises(UserError, match=words):
        check_scenario(wanted, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"scenario": "none"},
        {"reads_real_captions": "no"},
        {"identities": None},
        {"reads_real_captions": ...},
    ],
)
def test_a_record_that_says_too_little_is_refused_and_not_taken_for_none(tmp_path, change):
    write_record(tmp_path, ALL)
    content = json.loads((tmp_path / RECORD).read_text()) | change
    content = {name: value for name, value in content.items() if value is not ...}
    (tmp_path / RECORD).write_text(json.dumps(content))
    with pytest.raises(UserError, match="does not say what these weights have seen"):
        read_record(tmp_path)
    (tmp_path / RECORD).write_text("{")
    with pytest.raises(UserError, match="does not say"):
        check_scenario("none", tmp_path)
