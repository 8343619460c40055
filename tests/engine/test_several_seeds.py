"""Several seeds: which are still to be run, and mean and spread of their results."""

from __future__ import annotations

import json
import math
import os

import pytest

from data.errors import UserError
from engine.config import load_config, save_config
from engine.marks import Mark
from engine.several_seeds import configs_of_seeds, main, plan, spread, summarise, summary_path, table

METRICS = {"r1": 30.0, "r5": 50.0, "r10": 60.0, "mAP": 25.0, "mINP": 20.0}
RESULTS = {
    "dataset": "demo",
    "method": "pspd",
    "split": "test",
    "protocol": "plain",
    "selected_on": "val",
    "itc": METRICS,
    "itm": METRICS,
    "queries": 800,
    "gallery": 400,
    "seconds": 1.0,
}


@pytest.fixture
def arguments(tmp_path):
    """Command line of the demo's configuration with everything below the test's folder, and seeds 0, 1, 2."""
    places = [f"output={tmp_path}/output", f"pre_gen_data={tmp_path}/captions-{{seed}}"]
    return [
        "--config",
        "configs/methods/pspd.yaml",
        "configs/demo.yaml",
        "--seeds",
        "0",
        "1",
        "2",
        "--set",
        *places,
    ]


@pytest.fixture
def configs(arguments):
    return configs_of_seeds(arguments[1:3], arguments[arguments.index("--set") + 1 :], (0, 1, 2))


def finish(config, **changes) -> None:
    """What train.py and test.py leave behind that matters here."""
    directory = config.run_directory
    save_config(config, directory / "config.yaml")
    Mark.of("train", config).set()
    (directory / "results.json").write_text(json.dumps({**RESULTS, **changes}), "utf-8")
    Mark.of("test", config).set()


def test_every_seed_that_is_not_finished_is_planned(configs, capsys):
    assert plan(configs) == [(0, ""), (1, ""), (2, "")]
    finish(configs[1])
    assert plan(configs) == [(0, ""), (2, "")]
    assert "Seed 1 is finished" in capsys.readouterr().err
    (configs[1].run_directory / "results.json").unlink()
    assert plan(configs) == [(0, ""), (1, ""), (2, "")]


def test_a_seed_finished_with_other_settings_or_evaluated_before_training_is_not_finished(configs):
    for config in configs.values():
        finish(config)
    other = configs[0].model_copy(deep=True)
    other.train.rounds = 9
    save_config(other, other.run_directory / "config.yaml")
    Mark.of("train", other).set()
    os.utime(Mark.of("test", configs[1]).path, (0, 0))
    configs[2].test.k_test = 3
    assert plan(configs) == [(0, ""), (1, ""), (2, "")]


def test_captions_that_seeds_share_are_made_again_once():
    own = configs_of_seeds(["configs/methods/pspd.yaml", "configs/demo.yaml"], [], (0, 1))
    shared = configs_of_seeds(["configs/methods/pspd.yaml", "configs/cuhk.yaml"], [], (0, 1))
    assert plan(own, "pre_train") == [(0, "pre_train"), (1, "pre_train")]
    assert plan(shared, "pre_train") == [(0, "pre_train"), (1, "train")]
    assert plan(shared, "test") == [(0, "test"), (1, "test")]


def test_two_seeds_in_one_folder_are_refused():
    with pytest.raises(UserError, match=r"Seeds 0 and 2 would both write output/mine: put \{seed\}"):
        configs_of_seeds(["configs/demo.yaml"], ["run=mine"], (0, 2))


@pytest.mark.parametrize(
    ("files", "overrides", "name"),
    [
        (["demo"], [], "output/demo-pspd-seeds.json"),
        (["methods/tsn", "demo"], [], "output/demo-tsn-seeds.json"),
        (["cuhk"], [], "output/cuhk-pspd-seeds.json"),
        (["cuhk"], ["run='x/{method}_{seed}-b'", "output=o"], "o/x/pspd-b-seeds.json"),
        (["cuhk"], ["run='{seed}'"], "output/pspd-seeds.json"),
    ],
)
def test_the_summary_is_named_after_the_run_without_its_seed(files, overrides, name):
    config = load_config([f"configs/{file}.yaml" for file in files], [*overrides, "seed=3"])
    assert str(summary_path(config)) == name
    assert str(summary_path(config, "msm")) == name.replace("-seeds.json", "-seeds-msm.json")


def test_mean_and_spread_are_those_of_the_textbook(configs):
    values = {0: 20.0, 1: 26.5, 2: 24.0}
    for seed, config in configs.items():
        finish(config, itc={**METRICS, "r1": values[seed]}, itm={**METRICS, "mAP": values[seed]})
    content = summarise(configs)
    mean = sum(values.values()) / 3
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values.values()) / 2)
    for found in (content["itc"]["r1"], content["itm"]["mAP"]):
        assert found["mean"] == pytest.approx(mean, abs=1e-4)
        assert found["std"] == pytest.approx(deviation, abs=1e-4)
        assert (found["min"], found["max"], found["values"]) == (20.0, 26.5, [20.0, 26.5, 24.0])
    assert content["itc"]["r5"]["std"] == 0
    assert (content["seeds"], content["selected_on"], content["queries"]) == ([0, 1, 2], "val", 800)
    lines = table(content).splitlines()
    assert "selected on val" in lines[0]
    assert "23.50" in next(line for line in lines if line.startswith("features alone"))


def test_what_choosing_on_test_would_report_is_summarised_where_every_run_has_it(configs):
    for seed, config in configs.items():
        best = {"phase": "round-0", "epoch": 1, "itc": METRICS, "itm": {**METRICS, "r1": 33.0 + seed}}
        finish(config, if_selected_on_test=best)
    content = summarise(configs)
    assert content["if_selected_on_test"]["itm"]["r1"]["values"] == [33.0, 34.0, 35.0]
    assert content["itm"]["r1"]["mean"] == METRICS["r1"], "the honest result is as it was"
    lines = table(content).splitlines()
    assert "34.00" in next(line for line in lines if line.startswith("chosen on test: with ITM"))
    finish(configs[2])
    assert "if_selected_on_test" not in summarise(configs)
    assert "chosen on test" not in table(summarise(configs))


def test_one_seed_has_no_deviation_and_a_run_may_lack_reranking(configs):
    assert spread([3.0])["std"] is None
    finish(configs[0], itm=None)
    content = summarise({0: configs[0]})
    assert content["itm"] is None
    assert "re-ranking" not in table(content)
    assert " -" in table(content)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda config: setattr(config.train, "rounds", 7), r"train.rounds \d -> 7"),
        (lambda config: setattr(config.dataset.synthesis, "seed", 5), "dataset.synthesis.seed 0 -> 5"),
        (lambda config: setattr(config.test, "k_test", 5), r"test.k_test \d+ -> 5"),
    ],
)
def test_seeds_of_different_settings_are_refused(configs, change, words):
    for seed, config in configs.items():
        if seed == 1:
            change(config)
        finish(config)
    with pytest.raises(UserError, match=words):
        summarise(configs)


def test_results_that_are_not_comparable_are_refused(configs):
    for seed, config in configs.items():
        finish(config, selected_on="last" if seed == 2 else "val")
    with pytest.raises(UserError, match=r"Seeds 0 and 2 .*selected_on 'val' -> 'last'"):
        summarise(configs)


def test_threads_and_devices_may_differ(configs):
    for config in configs.values():
        config.runtime.threads = 1 + config.seed
        finish(config)
    assert summarise(configs)["seeds"] == [0, 1, 2]


def test_results_of_another_checkpoint_are_not_a_seeds_results(configs):
    for config in configs.values():
        finish(config)
    Mark.of("test", configs[1]).clear()
    with pytest.raises(UserError, match="Seed 1 has no results of its own model"):
        summarise(configs)


def test_the_command_writes_the_file_and_prints_the_table(configs, arguments, capsys):
    for config in configs.values():
        finish(config)
    assert main(["plan", *arguments]) == 0
    assert capsys.readouterr().out == ""
    assert main(["plan", *arguments, "--from", "test"]) == 0
    assert capsys.readouterr().out == "0 test\n1 test\n2 test\n"
    assert main(["summary", *arguments]) == 0
    printed = capsys.readouterr().out
    path = configs[0].run_directory.parent / "demo-pspd-seeds.json"
    assert str(path) in printed
    assert json.loads(path.read_text("utf-8"))["itc"]["r1"]["mean"] == 30.0
    (configs[2].run_directory / "results.json").write_text("{", "utf-8")
    assert main(["summary", *arguments]) == 1
    assert "is damaged" in capsys.readouterr().err
