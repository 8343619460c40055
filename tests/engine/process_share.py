"""One process of several, without the others: what it is given does not depend on them."""

from __future__ import annotations

from models.world import World


class Share(World):
    """Process ``rank`` of ``size``."""

    def __init__(self, rank: int, size: int) -> None:
        super().__init__()
        self.rank, self.size = rank, size
