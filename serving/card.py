"""The model card of a published model: what it is, from what, how good, under which terms, and what it must not be used for.

It is filled from the checkpoint, from `results.json` and from `<run>-seeds.json`; what nobody measured is said to be unknown.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retrieval.results import ROWS, TITLES

DRAWN = "Drawn people and drawn sentences of this project's own demo: nobody's photograph is in it. MIT, as the code."
OWN = "Images of the publisher's own."

_RESPONSIBLE = """\
People are in the images that such a model is for, and they have not been asked. Before it is used on images of yours: a legal basis, the
consent or the information that your law asks for, and a limit on how long they are kept.

A ranked list is a list of similar images, never an identification: it must not be grounds for a decision about anybody. Errors are not
spread evenly over people, clothes, skin and light, and nobody has measured here how. Words such as "man" and "woman" follow clothes and
hair in the texts that the model learnt from; they say nothing about a person. This is a research model, not a surveillance product, and no
claim is made that it is fit for one.
"""


@dataclass(frozen=True)
class Facts:
    """What a card is made of.

    Attributes:
        name: of the model, as a reader would call it by `--checkpoint`.
        content: of its checkpoint; `training` the settings it was trained with.
        data: the data set's name; `terms` under which it may be used, and `source` where it is to be had, "" where unknown.
        is_free: whether data and weights have no terms but this project's own.
        results: `results.json`, None where there is none; `seeds`: the summary over several seeds of the same settings.
        supervision, captions: what stood in for identities and where the texts came from, in words.
    """

    name: str
    content: Mapping[str, Any]
    training: Mapping[str, Any]
    data: str
    terms: str
    source: str
    is_free: bool
    results: Mapping[str, Any] | None = None
    seeds: Mapping[str, Any] | None = None
    supervision: str = ""
    captions: str = ""


def card(facts: Facts) -> str:
    """The page, with the head that a hub reads."""
    content = facts.content
    height, width = content["image_size"]
    parts = [
        f"---\n{_head(facts)}---",
        f"# {content['method']} ({content['size']}) trained on {facts.data}",
        "Text-based person search: finds the images of a person by an English sentence, such as *a woman in a red coat with a black "
        f"backpack*. Images are read at {height} x {width} pixels (height x width), one person in each.",
        f"## Use\n\n```\npython search.py index --images DIR --checkpoint {facts.name} --out INDEX\n"
        f'python search.py query --index INDEX "a woman in a red coat"\npython test.py --config FILE --checkpoint {facts.name}\n```\n\n'
        "with the project that it was trained with (PSPD). From Python, `torch.hub.load(PROJECT, \"person_search\", "
        f"checkpoint={facts.name!r}, source=\"local\")`.",
        f"## Results\n\n{_results(facts)}",
        f"## Training\n\n{_training(facts)}",
        f"## Data and licence\n\n{_data(facts)}",
        f"## Responsible use\n\n{_RESPONSIBLE.strip()}",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _head(facts: Facts) -> str:
    from ruamel.yaml import YAML

    head: dict[str, Any] = {
        "language": "en",
        "license": "mit" if facts.is_free else "other",
        "tags": ["person-search", "text-based-person-retrieval", "image-text-retrieval", facts.content["method"]],
    }  # fmt: skip
    if not facts.is_free:
        head |= {"license_name": "terms-of-the-training-data", "license_link": facts.source or "README.md"}
    if facts.results is not None:
        head["model-index"] = [{"name": facts.name, "results": [_index_entry(facts, facts.results)]}]
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(head, stream)
    return stream.getvalue()


def _index_entry(facts: Facts, results: Mapping[str, Any]) -> dict[str, Any]:
    """One evaluation, as hubs list it: of re-ranking where there is some."""
    row = "itm" if results["itm"] else "itc"
    return {
        "task": {"type": "image-text-retrieval", "name": "Text-based person search"},
        "dataset": {"type": facts.data, "name": facts.data, "split": results["split"]},
        "metrics": [
            {"type": name, "name": f"{TITLES[name]}, {ROWS[row]}", "value": value}
            for name, value in results[row].items()
        ],
    }


def _results(facts: Facts) -> str:
    if facts.results is None:
        return "Nobody has evaluated this model where it was published."
    results = facts.results
    lines = [
        f"This file, on the {results['split']} split of {facts.data}: {results['queries']:,} queries, {results['gallery']:,} images, protocol "
        f"`{results['protocol']}`, in percent. {_selection(results['selected_on'])}",
        "",
        _table(results, lambda value: f"{value:.2f}"),
    ]
    if facts.seeds is not None:
        seeds = ", ".join(map(str, facts.seeds["seeds"]))
        lines += ["", f"The same settings with the seeds {seeds}: mean ± standard deviation (least to greatest).", "", _table(facts.seeds, _spread)]  # fmt: skip
    return "\n".join(lines)


def _selection(selected_on: str) -> str:
    known = {"val": "on the val split", "last": "as the last epoch's"}
    chosen = known.get(selected_on, f"on {selected_on} that were held out")
    return f"The checkpoint was chosen {chosen}; the test split chose nothing."


def _table(results: Mapping[str, Any], show: Any) -> str:
    lines = ["| | " + " | ".join(TITLES.values()) + " |", "|---" * (len(TITLES) + 1) + "|"]
    for row, title in ROWS.items():
        if results[row]:
            lines.append(f"| {title} | " + " | ".join(show(results[row][name]) for name in TITLES) + " |")
    return "\n".join(lines)


def _spread(value: Mapping[str, Any]) -> str:
    spread = (
        "" if value["std"] is None else f" ± {value['std']:.2f} ({value['min']:.2f} to {value['max']:.2f})"
    )
    return f"{value['mean']:.2f}{spread}"


def _training(facts: Facts) -> str:
    meta, training = facts.content["meta"], facts.training
    train = training.get("train", {})
    known = {
        "Method": f"{facts.content['method']}, `{facts.content['size']}`",
        "Labels": facts.supervision,
        "Captions": facts.captions,
        "Started from": meta.get("started_from") or "random weights",
        "Batch, learning rate": f"{train.get('batch_size')}, {train.get('init_lr')}" if train else "",
        "Epoch kept": f"{meta['epoch'] + 1}" + (f" of round {meta['round'] + 1}" if meta.get("round") is not None else "") if "epoch" in meta else "",
        "Seed": str(training.get("seed", "")),
    }  # fmt: skip
    rows = [f"| {name} | {value} |" for name, value in known.items() if value]
    return "\n".join(
        [
            "| | |",
            "|---|---|",
            *rows,
            "",
            "All settings: `config.json`, under `training`.",
        ]
    )


def _data(facts: Facts) -> str:
    started = facts.content["meta"].get("started_from")
    where = f" Where to ask for it: {facts.source}." if facts.source else ""
    weights = (
        f"\n\nThe weights that training started from, {started}, have terms of their own, which apply as well."
        if started
        else ""
    )
    inherited = "" if facts.is_free else " A model trained on it inherits these terms."
    return f"Trained on {facts.data}. {facts.terms}{where}{inherited}{weights}"
