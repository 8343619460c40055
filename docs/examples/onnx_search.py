"""Search a folder by a sentence with what search.py export wrote; needs onnxruntime, numpy, Pillow, tokenizers, and no torch.

python docs/examples/onnx_search.py EXPORT FOLDER "a woman in a red coat"
"""

import html
import json
import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps
from tokenizers import Tokenizer

export, folder, sentence = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
config = json.loads((export / "config.json").read_text("utf-8"))
rules, (height, width) = config["text"], config["image_size"]


def run(graph: str, **inputs: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(export / f"{graph}.onnx").run(["features"], inputs)[0]


def pixels(path: Path) -> np.ndarray:
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    image = image.resize((width, height), Image.Resampling[config["interpolation"].upper()])
    values = (np.asarray(image) / 255 - config["pixel_mean"]) / config["pixel_std"]
    return values.transpose(2, 0, 1).astype(np.float32)


def ids_of(text: str) -> np.ndarray:
    text = html.unescape(html.unescape(text)) if rules["unescape"] else text
    words = re.sub(rules["dropped"] or r"\s", " ", text.lower()).split()[: rules["max_words"]]
    pieces = Tokenizer.from_file(str(export / "tokenizer.json")).encode(" ".join(words))
    numbered = list(zip(pieces.ids, pieces.word_ids, strict=True))
    unknown = {word for number, word in numbered if number in rules["left_out_ids"]}
    kept = [number for number, word in numbered if word not in unknown][: rules["max_pieces"]]
    ids = [number for number in (rules["first_id"], *kept, rules["last_id"]) if number is not None]
    return np.array([ids], dtype=np.int64)


paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
images = run("image_encoder", images=np.stack([pixels(path) for path in paths]))
ids = ids_of(sentence)
cosines = images @ run("text_encoder", ids=ids, mask=np.ones(ids.shape, dtype=bool))[0]
for row in np.argsort(-cosines)[:10]:
    print(f"{cosines[row]:.4f} {paths[row]}")
