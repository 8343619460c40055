"""Result files: `results.json`, one line per query in `queries.jsonl`, and a table for people."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # it brings torch, which who reads results does without
    from retrieval.evaluate import Evaluation

TITLES = {"r1": "Rank-1", "r5": "Rank-5", "r10": "Rank-10", "mAP": "mAP", "mINP": "mINP"}
METRICS = tuple(TITLES)
ROWS = {"itc": "features alone", "itm": "with ITM re-ranking"}


def write_results(
    path: str | Path,
    evaluation: Evaluation,
    *,
    dataset: str,
    method: str,
    split: str,
    protocol: str,
    selected_on: str,
    captions: Sequence[str],
    query_ids: Sequence[int],
    images: Sequence[str],
    computed: Mapping[str, Any],
    trained_on: str = "",
    if_selected_on_test: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes `path` (results.json) and, beside it, `queries.jsonl`; both appear whole or not at all.

    Args:
        protocol: how queries are scored, "plain" or "msm".
        selected_on: what chose the checkpoint, "val" or "last".
        captions, query_ids: (Q,) of the queries, for the per-query lines.
        images: (G,) paths as in the annotation, for the same.
        computed: on what and by which libraries.
        trained_on: the data set that the model was trained on, where its checkpoint says so.
        if_selected_on_test: what the epoch that is best on test reached ("phase", "epoch", "itc", "itm"), where it was
            recorded; beside the result and never in its place.

    Returns:
        What results.json holds: metrics in percent, `itm` null where nothing was re-ranked.
    """
    path = Path(path)
    record = {
        "dataset": dataset,
        "method": method,
        "split": split,
        "protocol": protocol,
        "selected_on": selected_on,
        "itc": rounded(evaluation.itc),
        "itm": None if evaluation.itm is None else rounded(evaluation.itm),
        "queries": evaluation.queries,
        "gallery": evaluation.gallery,
        "seconds": round(evaluation.seconds, 3),
        "computed": dict(computed),
        "trained_on": trained_on,
    }
    if if_selected_on_test is not None:
        record["if_selected_on_test"] = dict(if_selected_on_test)
    lines = [
        json.dumps(_query_record(evaluation, query, captions[query], int(query_ids[query]), images))
        for query in range(evaluation.queries)
    ]
    write_atomically(path.with_name("queries.jsonl"), "\n".join(lines) + "\n")
    write_atomically(path, json.dumps(record, indent=2) + "\n")
    return record


def rounded(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics of a result file, to four digits."""
    return {name: round(metrics[name], 4) for name in METRICS}


def _query_record(
    evaluation: Evaluation, query: int, caption: str, identity: int, images: Sequence[str]
) -> dict[str, Any]:
    best = evaluation.best
    reranked = evaluation.reranked
    return {
        "query": query,
        "caption": caption,
        "identity": identity,
        "first_hit_itc": int(evaluation.cosine.first_hit[query]),
        "first_hit_itm": None if reranked is None else int(reranked.first_hit[query]),
        "average_precision": round(float(best.average_precision[query]), 6),
        "top": [images[index] for index in best.indices[query]],
        "top_indices": best.indices[query].tolist(),
        "scores": [round(float(score), 5) for score in best.scores[query]],
    }


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file by renaming a finished temporary one over it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's files are private to their owner; results are for reading
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _rows(found: Mapping[str, Any]) -> list[tuple[str, Mapping[str, float]]]:
    return [(title, found[row]) for row, title in ROWS.items() if found[row] is not None]


def table(record: Mapping[str, Any]) -> str:
    """What a results.json holds, for people: Rank-1/5/10, mAP and mINP in percent with and without ITM re-ranking."""
    rows = _rows(record)
    if "if_selected_on_test" in record:
        rows += [(f"chosen on test: {name}", row) for name, row in _rows(record["if_selected_on_test"])]
    head = f"{record['queries']} queries, {record['gallery']} images"
    width = max(len(head), *(len(name) for name, _ in rows))
    lines = [head.ljust(width) + "".join(TITLES[name].rjust(9) for name in METRICS)]
    lines += [
        name.ljust(width) + "".join(f"{metrics[key]:9.2f}" for key in METRICS) for name, metrics in rows
    ]
    return "\n".join(lines)
