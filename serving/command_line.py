"""The command line of ``search.py``, read before torch is loaded: a typing mistake is told at once."""

from __future__ import annotations

import argparse
import importlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.command_line import told_in_a_sentence
from serving.clock import seconds_of


def main(description: str, arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, run one command, and end with an exit code."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="crop|index|query|serve|publish|export")
    _add_publish(commands)
    _add_export(commands)
    _add_crop(commands)
    for add in (_add_index, _add_query, _add_serve):
        command = add(commands)
        command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default: auto)")
        command.add_argument(
            "--precision",
            default="auto",
            choices=("auto", "fp32", "bf16"),
            help="of the network's body (default: auto, bf16 on a GPU that has it and on a CPU where it is faster)",
        )
    options = parser.parse_args(arguments)
    if options.command == "export":
        _choose_export(parser, options)
    with told_in_a_sentence():
        sys.exit(_work(options))


def _choose_export(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    kind = "onnx" if options.index is None else "parquet"
    if options.format not in (None, kind):
        wanted = "--index INDEX" if options.format == "parquet" else "--checkpoint FILE"
        parser.error(f"--format {options.format} goes with {wanted}")
    if kind == "parquet":
        if options.half:
            parser.error("--half is for models: features are kept as they are")
        options.module, options.command = "parquet", "export_index"


def _work(options: argparse.Namespace) -> int:
    # After the command line: it brings torch, which takes seconds.
    module = importlib.import_module(f"serving.{options.module}")
    return getattr(module, options.command)(options)


def _add_crop(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("crop", help="cut persons out of a video or of frames (docs/footage.md)")
    parser.add_argument(
        "--from",
        dest="footage",
        type=_path,
        required=True,
        metavar="VIDEO|FRAMES",
        help="a video, or a folder of frames",
    )
    parser.add_argument("--out", type=_path, required=True, metavar="CROPS", help="the folder of crops")
    parser.add_argument(
        "--source", default="", metavar="NAME", help="what to call it (default: the file's name)"
    )
    parser.add_argument(
        "--every", type=_count, default=10, metavar="N", help="look at every n-th frame (default: 10)"
    )
    parser.add_argument(
        "--detector",
        default="opencv",
        metavar="opencv|torchvision[:FILE|NAME|hf:OWNER/NAME]",
        help="what finds persons (default: opencv, which needs no file)",
    )
    parser.add_argument("--score", type=_score, help="how sure the detector has to be (default: 0.5)")
    parser.add_argument(
        "--detect-size",
        type=_count,
        metavar="PX",
        help="longer side that frames are brought to for the detector",
    )
    parser.add_argument(
        "--min-height", type=_count, default=80, metavar="PX", help="of a person (default: 80)"
    )
    parser.add_argument(
        "--difference",
        type=_bits,
        default=16,
        metavar="BITS",
        help="of 64, in which a crop differs from the last one of its person; 0 keeps all (default: 16)",
    )
    parser.add_argument("--fps", type=_rate, help="frames per second of a folder of frames, for their times")
    parser.add_argument("--device", default="auto", help="for torchvision's detector (default: auto)")
    parser.set_defaults(module="cropping", command="crop")


def _add_index(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    parser = commands.add_parser("index", help="encode a folder of images, or bring its index up to date")
    parser.add_argument("--images", type=_path, required=True, metavar="DIR", help="a folder of person crops")
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="FILE|DIR|hf:OWNER/NAME",
        help="best.pth of a training, a published model, or BLIP's or CLIP's own weights",
    )
    parser.add_argument("--out", type=_path, required=True, metavar="INDEX", help="the index folder")
    parser.add_argument(
        "--store",
        metavar="faiss|milvus:FILE.db|milvus:http://HOST:19530",
        help="what keeps the features (default: faiss, files in INDEX)",
    )
    parser.add_argument(
        "--collection",
        default="person_search",
        metavar="NAME",
        help="of Milvus (default: person_search)",
    )
    parser.add_argument("--batch-size", type=_count, default=32, help="images encoded at once (default: 32)")
    parser.add_argument("--workers", type=_count, default=2, help="threads that decode (default: 2)")
    parser.set_defaults(module="commands", command="index")
    return parser


def _add_query(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    parser = commands.add_parser("query", help="find images by a sentence")
    parser.add_argument("sentence", help="what the person looks like, in English")
    parser.add_argument("--index", type=_path, required=True, metavar="INDEX")
    parser.add_argument("--top", type=int, default=10, help="images to list (default: 10)")
    parser.add_argument(
        "--rerank", type=int, default=0, metavar="N", help="re-rank the N most similar images by ITM"
    )
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="NAME",
        help="of crops from this source; may be repeated",
    )
    parser.add_argument("--after", type=_time, metavar="TIME", help="from then on, in seconds or HH:MM:SS")
    parser.add_argument("--before", type=_time, metavar="TIME", help="until then, in seconds or HH:MM:SS")
    parser.add_argument("--sheet", type=_path, metavar="FILE.jpg", help="draw the images with their scores")
    parser.add_argument(
        "--explain",
        type=_path,
        metavar="DIR",
        help="draw for each image which regions each word goes with (docs/search.md)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(module="commands", command="query")
    return parser


def _add_serve(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    parser = commands.add_parser("serve", help="a web page for the same (needs requirements-search.txt)")
    parser.add_argument("--index", type=_path, required=True, metavar="INDEX")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    parser.add_argument("--port", type=int, default=7860, help="default: 7860; 0 takes any free one")
    parser.set_defaults(module="commands", command="serve")
    return parser


def _add_publish(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    parser = commands.add_parser("publish", help="make a trained model ready for others, or put it on a hub")
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="best.pth of a training")
    parser.add_argument("--to", required=True, metavar="DIR|hf:OWNER/NAME", help="a folder, or a repository")
    parser.add_argument(
        "--terms",
        default="",
        metavar="TEXT",
        help="where your own images are from and on what ground they were used; has to be said of a folder of them",
    )
    parser.add_argument("--public", action="store_true", help="a new repository is private without it")
    parser.set_defaults(module="publishing", command="publish")
    return parser


def _add_export(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "export",
        help="the model for programs without torch (needs requirements-export.txt), or an index for other databases "
        "(needs requirements-stores.txt)",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--checkpoint",
        metavar="FILE|DIR|hf:OWNER/NAME",
        help="a model: best.pth of a training, a published model, or BLIP's or CLIP's own weights",
    )
    what.add_argument("--index", type=_path, metavar="INDEX", help="an index: features, paths, times")
    parser.add_argument(
        "--to", required=True, metavar="DIR|FILE.parquet", help="a new one, or that of an earlier export"
    )
    parser.add_argument(
        "--format", choices=("onnx", "parquet"), help="onnx of a model, parquet of an index: nothing else"
    )
    parser.add_argument("--half", action="store_true", help="weights and products in float16")
    parser.set_defaults(module="exporting", command="export")
    return parser


def _path(text: str) -> Path:
    if not text:  # a Path would be the folder that one is in
        raise argparse.ArgumentTypeError("an empty name: is the variable set that it comes from?")
    return Path(text)


def _score(text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return score


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _time(text: str) -> float:
    try:
        return seconds_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _bits(text: str) -> int:
    if not text.isdecimal() or int(text) > 64:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 64")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of frames per second")
    return rate
