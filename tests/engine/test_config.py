"""Configurations: strict, merged in order, and every mistake is one sentence that says where it stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.config import Config, ConfigError, load_config, save_config
from models import METHODS

ROOT = Path(__file__).resolve().parents[2]
TARGETS = sorted((ROOT / "configs").glob("*.yaml"))
METHOD_FILES = sorted((ROOT / "configs" / "methods").glob("*.yaml"))
RELEASED = sorted((ROOT / "configs" / "released").glob("*.yaml"))  # tests/docs/test_fidelity.py
BOTH = sorted(
    path
    for path in (ROOT / "configs").glob("*/*.yaml")
    if path not in [*METHOD_FILES, *RELEASED] and path.stem != "released"
)


def write(directory: Path, text: str, name: str = "mine.yaml") -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


def complaint(paths=(), overrides=()) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(paths, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_typo_is_told_with_the_nearest_key_and_its_line(tmp_path):
    path = write(tmp_path, "seed: 1\ntrain:\n  # a comment\n  max_epohc: 3\n")
    message = complaint([path])
    assert "'train.max_epohc'" in message
    assert f"{path}, line 4" in message
    assert "'train.max_epoch'" in message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("tran.rounds=1", "did you mean 'train'?"),
        ("train.round=1", "did you mean 'train.rounds'?"),
        ("min_samples=3", "did you mean 'cluster.min_samples'?"),  # right key, section forgotten
        ("train.zzzz=1", "known here: augmentation, average, batch_size"),
        ("train=5", "is a section"),
        ("train.max_epoch", "KEY=VALUE"),
        ("=3", "KEY=VALUE"),
        ("train..max_epoch=3", "KEY=VALUE"),
        ("seed=[", "not valid YAML"),
        ("seed=two", "valid integer"),
        ("seed=-1", "greater than or equal to 0"),
        ("gen_text.top_p=0", "greater than 0"),
        ("gen_text.top_p=1.1", "less than or equal to 1"),
        ("seed=" + "9" * 5000, "not valid YAML"),
        ("seed.x=3", "valid integer"),
        ("train.max_epoch=0", "greater than or equal to 1"),
        ("train.captions=[base, other]", "'styled'"),
        ("train.init_lr=.inf", "finite"),
        ("train.lr_steps=20", "valid list"),
        ("train.lr_steps=[0]", "greater than or equal to 1"),
        ("train.lr_step_factor=0", "greater than 0"),
        ("train.betas=[0.9, 1]", "less than 1"),
        ("train.eps=0", "greater than 0"),
        ("model.options.scale=.nan", "finite"),
        ("model.image_size=true", "tuple"),
        ("cluster.eps=often", "'auto' or "),
        ("cluster.source.name=cuk", "there is no such data set"),
        ("cluster.source={rot: x}", "did you mean 'cluster.source.root'"),
        ("cluster.source={captions: both}", "'own' or 'generated'"),
        ("cluster.source=5", "valid string"),
        ("correction.first_token=dec", "'enc' or 'cls'"),
        ("gen_text.top_k=-1", "greater than or equal to 0"),
        ("model.options.day=2020-01-01", "quote it"),
        ("model.options.loop=&a [*a]", "refers to itself"),
    ],
)
def test_wrong_overrides_are_one_sentence_that_names_them(override, expected):
    message = complaint(overrides=[override])
    assert expected in message
    assert override[:30] in message


def test_a_wrong_value_names_its_file_even_when_other_files_follow(tmp_path):
    first = write(tmp_path, "train:\n  batch_size: many\n", "first.yaml")
    second = write(tmp_path, "seed: 2\n", "second.yaml")
    message = complaint([first, second], ["seed=3"])
    assert f"{first}, line 2" in message
    assert "'many'" in message


def test_a_section_given_as_a_value_is_not_silently_replaced_later(tmp_path):
    assert "is a section" in complaint([write(tmp_path, "train: 5\n")], ["train.rounds=2"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1\n", "not readable as YAML"),
        ("a: b: c\n", "not readable as YAML"),
        ("\x00", "not readable as YAML"),
        ("seed: 1\nseed: 2\n", 'duplicate key "seed"'),
        ("- 1\n- 2\n", "must hold sections"),
        ("just words\n", "must hold sections"),
        ("? [1, 2]\n: 3\n", "Unknown key"),
        ("1: 2\n", "Unknown key '1'"),
        ("~: 2\n", "Unknown key 'None'"),
        ("train: [1]\n", "is a section"),
        ("model: {options: {x: !!set {a}}}\n", "quote it"),
    ],
)
def test_broken_files_are_one_sentence_that_names_them(tmp_path, text, expected):
    path = write(tmp_path, text)
    message = complaint([path])
    assert expected in message
    assert str(path) in message


def test_missing_files_name_those_that_are_there(tmp_path):
    there = write(tmp_path, "seed: 1\n", "there.yaml")
    message = complaint([tmp_path / "absent.yaml"])
    assert "does not exist" in message
    assert str(there) in message
    assert "can't be read" in complaint([tmp_path])
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not readable as YAML" in complaint([tmp_path / "bytes.yaml"])


def test_empty_files_and_empty_sections_change_nothing(tmp_path):
    empty = write(tmp_path, "", "empty.yaml")
    commented = write(tmp_path, "train:\n  # rounds: 3\nmodel:\n  options:\n")
    assert load_config([empty, commented]) == Config()
    assert load_config([]) == Config()
    assert load_config(empty) == Config()


def test_later_files_win_key_by_key_and_overrides_win_over_all(tmp_path):
    first = write(tmp_path, "seed: 1\ntrain: {rounds: 2, max_epoch: 4}\nmodel: {options: {a: 1}}\n", "1.yaml")
    second = write(tmp_path, "train: {max_epoch: 5}\nmodel: {options: {b: [{c: 2}]}}\n", "2.yaml")
    config = load_config([first, second], ["train.batch_size=7", "train.init_lr=1e-3", "model.options.a=x"])
    assert (config.seed, config.train.rounds, config.train.max_epoch) == (1, 2, 5)
    assert (config.train.batch_size, config.train.init_lr) == (7, 1e-3)
    assert config.model.options == {"a": "x", "b": [{"c": 2}]}
    assert load_config([second, first]).train.max_epoch == 4
    assert load_config([], ["seed=1", "seed=2"]).seed == 2


def test_a_rate_that_steps_has_no_end_of_a_cosine(tmp_path):
    path = write(tmp_path, "train:\n  lr_steps: [20, 40]\n")
    expected = (
        f"'train.lr_steps' ({path}, line 2) has the value [20, 40]: it takes the place of the cosine, which train.min_lr "
        "is the end of; set one of the two."
    )
    assert complaint([path], ["train.min_lr=1e-6"]) == expected
    assert load_config(path, ["train.min_lr=0"]).train.lr_steps == [20, 40]
    assert load_config(path, ["train.min_lr=1e-6", "train.lr_steps=[]"]).train.min_lr == 1e-6


def test_a_source_is_a_data_set_or_a_file(tmp_path):
    path = write(tmp_path, "cluster:\n  source: {name: icfg_pedes, root: elsewhere, tag: other}\n")
    source = load_config(path, ["cluster.source.captions=generated"]).cluster.source
    assert (source.name, source.root, source.label, source.captions) == (
        "icfg_pedes",
        "elsewhere",
        "other",
        "generated",
    )
    for value, expected in (("a.npy", "a.npy"), ("''", "")):
        config = load_config(path, [f"cluster.source={value}"])
        assert config.cluster.source == expected
        save_config(config, tmp_path / "saved.yaml")
        assert load_config(tmp_path / "saved.yaml") == config
    wrong = write(tmp_path, "cluster:\n  source:\n    captions: all\n", "wrong.yaml")
    assert complaint([path, wrong]) == (
        f"'cluster.source.captions' ({wrong}, line 3) has the value 'all': input should be 'own' or 'generated'."
    )


def test_an_optional_section_can_be_switched_off_again(tmp_path):
    demo = write(tmp_path, "dataset: {synthesis: {train: 3}}\n")
    assert load_config(demo).dataset.synthesis.train == 3
    assert load_config(demo, ["dataset.synthesis=null"]).dataset.synthesis is None


def test_paths_follow_seed_method_and_data_set():
    config = load_config([], ["dataset.tag=x"])
    assert config.run_directory == Path("output/x-pspd")
    assert config.caption_directory == Path("pre_gen_data/x")
    assert config.captioner_directory == Path("output/captioner-x")
    config = load_config(
        [], ["seed=4", "model.method=tsn", "run=a-{method}-s{seed}", "pre_gen_data=p/{seed}"]
    )
    assert config.run_directory == Path("output/a-tsn-s4")
    assert config.caption_directory == Path("p/4")
    config = load_config([], ["dataset.tag=x", "run=of-{dataset}-{method}"])
    assert config.run_directory == Path("output/of-x-pspd")
    assert load_config([], ["seed=4"]).run_directory == Path("output/cuhk_pedes-pspd-seed4")


def test_numbers_that_yaml_reads_are_numbers():
    """Without its dot, 1e-3 is a text to many YAML readers."""
    assert load_config([], ["train.init_lr=1e-3"]).train.init_lr == 1e-3
    assert load_config([], ["model.image_size=384"]).model.image_size == (384, 384)
    assert load_config([], ["model.image_size=[384, 128]"]).model.image_size == (384, 128)
    assert load_config([], ["cluster.eps=0.4"]).cluster.eps == 0.4
    assert load_config([], ["cluster.eps=auto"]).cluster.eps == "auto"


def test_a_value_is_checked_when_code_assigns_it_too():
    config = Config()
    with pytest.raises(ValueError):
        config.train.max_epoch = 0


@pytest.mark.parametrize("target", TARGETS, ids=lambda path: path.stem)
@pytest.mark.parametrize("method", METHOD_FILES, ids=lambda path: path.stem)
def test_every_configuration_loads_with_every_method_and_survives_saving(tmp_path, target, method):
    config = load_config([method, target])
    assert config.model.method == method.stem
    assert config.model.method in METHODS
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    assert list(tmp_path.iterdir()) == [tmp_path / "config.yaml"]


@pytest.mark.parametrize("path", BOTH, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_file_for_one_method_on_one_data_set_follows_both(path):
    target = path.parent.with_suffix(".yaml")
    assert target in TARGETS
    before = [ROOT / "configs" / "methods" / path.name, target]
    assert load_config([*before, path]) != load_config(before), "it changes nothing"


def test_all_methods_have_the_same_budget_on_the_demo():
    """In steps, after one warm-up: supervised epochs against PSPD's rounds, TSN's with half as many captions per image."""
    plain = load_config(["configs/methods/pspd.yaml", "configs/demo.yaml"]).train
    tsn, cada, ssan, *on_clip = (
        load_config([f"configs/methods/{name}.yaml", "configs/demo.yaml", f"configs/demo/{name}.yaml"]).train
        for name in ("tsn", "cada", "ssan", "irra", "rde", "tbps_clip", "syntbpr")
    )
    assert {one.max_epoch for one in (cada, *on_clip)} == {plain.rounds * plain.max_epoch}
    warm_up = plain.warm_up.max_epoch + plain.warm_up.matching_epochs
    assert ssan.warm_up.max_epoch + ssan.max_epoch == warm_up + cada.max_epoch  # it learns identities at once
    assert tsn.rounds == plain.rounds
    assert all(one.warm_up == plain.warm_up for one in (tsn, cada, *on_clip))
    captions = [len(METHODS[name].caption_kinds) for name in ("pspd", "tsn")]
    assert tsn.max_epoch * captions[1] == plain.max_epoch * captions[0]
    assert {one.batch_size for one in (tsn, cada, ssan, *on_clip)} == {plain.batch_size}


def test_from_the_pre_trained_start_methods_have_the_same_budget():
    target = "configs/demo-pretrained.yaml"
    plain = load_config(["configs/methods/pspd.yaml", target]).train
    tsn, cada, irra = (
        load_config([f"configs/methods/{name}.yaml", target, f"configs/demo-pretrained/{name}.yaml"]).train
        for name in ("tsn", "cada", "irra")
    )
    assert cada.max_epoch == irra.max_epoch == plain.rounds * plain.max_epoch
    assert (tsn.rounds, tsn.max_epoch) == (
        plain.rounds,
        2 * plain.max_epoch,
    )  # one caption per image, not two


def test_digests_tell_sections_apart():
    first, second = load_config([], ["train.rounds=2"]), load_config([], ["train.rounds=3"])
    assert first.digest("train") != second.digest("train")
    assert first.digest("cluster") == second.digest("cluster")


KEYS = st.sampled_from(
    [
        "seed",
        "run",
        "train",
        "model",
        "options",
        "dataset",
        "synthesis",
        "eps",
        "rounds",
        "image_size",
        "x",
        "<<",
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["2020-01-01", "!!set {a}", "&a", "*a", "!x y", "0x1f", "1_000", ".inf", "|", ">", "%"])
)


def as_yaml(value: object) -> str:
    """Flow style, with texts left unquoted: some become other kinds of scalars, some break the syntax."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {as_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    return "null" if value is None else str(value)


TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def check(tmp_path: Path, paths: list[Path], overrides: list[str]) -> None:
    """Whatever is given: a configuration that can be saved and read again, or a ConfigError."""
    try:
        config = load_config(paths, overrides)
    except ConfigError:
        return
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config


@FUZZ
@given(st.dictionaries(KEYS, TREES, max_size=4))
def test_any_tree_is_a_configuration_or_a_sentence(tmp_path, tree):
    text = "\n".join(f"{key}: {as_yaml(value)}" for key, value in tree.items())
    path = tmp_path / "fuzz.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    check(tmp_path, [path], [])


@FUZZ
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_a_configuration_or_a_sentence(tmp_path, content):
    path = tmp_path / "fuzz.yaml"
    path.write_bytes(content)
    check(tmp_path, [path], [])


PATHS = st.lists(KEYS, min_size=1, max_size=4).map(".".join) | st.sampled_from(
    [
        "train.init_lr",
        "cluster.eps",
        "model.image_size",
        "model.options.x",
        "gen_pre_train_text.text",
        "output",
    ]
)


@FUZZ
@given(st.lists(st.tuples(PATHS, TREES | st.text(max_size=12)), max_size=3), st.text(max_size=10))
def test_any_overrides_are_a_configuration_or_a_sentence(tmp_path, pairs, text):
    overrides = [f"{path}={as_yaml(value)}" for path, value in pairs]
    check(tmp_path, [], overrides)
    check(tmp_path, [], [text])
