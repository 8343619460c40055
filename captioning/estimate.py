"""What a captioning run would take, before it is started (`--dry-run`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from captioning.backends.picture import PictureError, fitted, picture_size

if TYPE_CHECKING:
    from captioning.backends import Request

# English text has about four characters per token; Qwen-VL makes one token of 28 x 28 pixels; a caption of some 40
# words is about 60 tokens. Other models differ by a factor of two or so: the estimate says the order of magnitude.
CHARACTERS_PER_TOKEN = 4
TOKEN_SIDE = 28
ANSWER_TOKENS = 60
MESSAGE_TOKENS = 10
# Reading every image's header would take minutes on a network disk; the mean of a few hundred is good enough.
MEASURED_IMAGES = 300


@dataclass(frozen=True)
class Estimate:
    """Requests, tokens, seconds and cost (in the currency of the prices) of work not yet done."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cost: float = 0.0

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.seconds + other.seconds,
            self.cost + other.cost,
        )

    def __str__(self) -> str:
        hours, minutes = divmod(round(self.seconds / 60), 60)
        cost = f", cost about {self.cost:.2f}" if self.cost else ", no prices configured"
        return (
            f"about {self.requests} requests, {self.prompt_tokens} prompt and {self.completion_tokens} completion "
            f"tokens, {hours} h {minutes:02d} min{cost}"
        )


def estimate_requests(
    requests: Iterable[Request], *, image_size: int, prices: tuple[float, float], seconds: float
) -> Estimate:
    """Estimate `requests`.

    Args:
        image_size: longest side in pixels after scaling.
        prices: of a million prompt tokens and of a million completion tokens.
        seconds: time per request, over all that are in flight at once.
    """
    listed = list(requests)
    pictures = [request.image for request in listed if request.image is not None]
    step = max(1, len(pictures) // MEASURED_IMAGES)
    measured = [tokens for path in pictures[::step] if (tokens := _image_tokens(path, image_size))]
    mean_image = sum(measured) / len(measured) if measured else 0.0
    text = sum(len(request.prompt) // CHARACTERS_PER_TOKEN + MESSAGE_TOKENS for request in listed)
    prompt_tokens = text + round(mean_image * len(pictures))
    completion_tokens = ANSWER_TOKENS * len(listed)
    return Estimate(
        requests=len(listed),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        seconds=seconds * len(listed),
        cost=(prompt_tokens * prices[0] + completion_tokens * prices[1]) / 1e6,
    )


def _image_tokens(path: object, image_size: int) -> int:
    try:
        width, height = fitted(picture_size(path), image_size)
    except PictureError:
        return 0
    return -(-width // TOKEN_SIDE) * -(-height // TOKEN_SIDE)
