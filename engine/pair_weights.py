"""How much each training pair counts in an epoch: less where opinions say that its caption is not of its image.

Before each epoch every pair's losses are computed in evaluation mode (``Method.pair_losses``), without augmentation, and a
mixture of two Gaussians tells those of wrong pairs from those of right ones (``clustering.mixture``). How little a caption
agrees with the others of its label (``clustering.agreement``) may be another opinion, or the only one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from clustering.agreement import caption_disagreement
from clustering.mixture import clean_probability
from data.transforms import uniform
from engine import checkpoints, distributed
from engine.distributed import Interrupted
from engine.feeds import PairBatches
from engine.log import LOGGER
from engine.loop import Machine, Place
from engine.run import Run
from engine.seeds import sample_seeds, seed_of
from models.methods.base import Method


class PairWeights:
    """A ``before_epoch`` of the training loop that gives ``batches`` new weights.

    Args:
        kind: "mixture": the probability that a pair is right, a mean over the opinions; "consensus": see ``consensus``.
        path: where the weights of the epoch in progress are kept. An epoch that is resumed goes on with these: the model
            that they came from is gone.
        opinions: whose: "losses", the method's, one or several; "captions", how little a caption agrees with the others of its
            label.
    """

    def __init__(
        self,
        model: Method,
        batches: PairBatches,
        kind: str,
        path: Path,
        place: Place,
        run: Run,
        machine: Machine,
        opinions: Sequence[str] = ("losses",),
    ) -> None:
        self.model, self.batches, self.kind, self.path = model, batches, kind, path
        self.place, self.run, self.machine, self.opinions = place, run, machine, opinions

    def __call__(self, epoch: int, step: int) -> None:
        """Weights for an epoch: new ones where it begins, the kept ones where it is resumed at a later step."""
        kept = step > 0 and distributed.is_main() and self._kept(epoch) is not None
        if not distributed.any_rank(kept, self.machine.device):
            weights = self.weights(epoch)
            self._record(epoch, step, weights)
            if distributed.is_main():
                content = {"phase": self.place.phase, "epoch": epoch, "weights": torch.from_numpy(weights)}
                checkpoints.save(self.path, content)
        distributed.barrier()
        self.batches.weights = self._kept(epoch)

    def weights(self, epoch: int) -> np.ndarray:
        """(P,) float32 in 0..1, by the model as it is."""
        opinions = [*self.losses(epoch)] if "losses" in self.opinions else []
        opinions += [self.disagreement] if "captions" in self.opinions else []
        probabilities = np.stack([clean_probability(opinion) for opinion in opinions])
        if self.kind == "mixture":
            return probabilities.mean(axis=0).astype(np.float32)
        seeds = sample_seeds(self._seed("coin", epoch), np.arange(len(self.batches.pairs)))
        coins = uniform(torch.from_numpy(seeds), 1)[:, 0].numpy() < 0.5
        return consensus(probabilities, coins)

    @cached_property
    def disagreement(self) -> np.ndarray:
        """(P,) of each pair's caption with the others of its label: the same in every epoch, as labels are."""
        pairs = self.batches.pairs
        return caption_disagreement(pairs.texts.ids.numpy(), pairs.texts.mask.numpy(), pairs.labels)

    def losses(self, epoch: int) -> np.ndarray:
        """(k, P) of the method's k opinions about every pair, the same on every process.

        Pairs meet in batches of the training's size, in a random order, because neighbours among them look alike. The last
        batch is filled up with pairs of the first, so that each has as many others to be compared with.
        Whole batches are dealt to the processes in turn: their number changes nothing.
        """
        count, size, world = len(self.batches.pairs), self.batches.batch_size, self.machine.world
        order = np.random.default_rng(self._seed("pair losses", epoch)).permutation(count)
        rows = order[np.arange(-(-count // size) * size) % count].reshape(-1, size)
        turns = -(-len(rows) // world.size)
        own = [(turn * world.size + world.rank) % len(rows) for turn in range(turns)]
        found = []
        for losses in self._own_losses([rows[piece] for piece in own]):
            found.extend(world.all_gather(losses).float().cpu().numpy().reshape(-1, size, losses.shape[1]))
        everything = np.concatenate(found[: len(rows)])[:count]
        result = np.empty_like(everything)
        result[order] = everything
        return result.T

    def _own_losses(self, pieces: list[np.ndarray]) -> Iterator[torch.Tensor]:
        """(B, k) for the pairs of each piece (B,); all processes go through as many pieces, and stop together."""
        self.model.eval()
        for batch in self.batches.plain(pieces):
            if distributed.any_rank(bool(self.run.stop), self.machine.device):
                raise Interrupted("Stopped between two epochs.")
            with torch.inference_mode(), self.machine.autocast():
                losses = self.model.pair_losses(batch)
            yield torch.atleast_2d(losses).T.contiguous()

    def _seed(self, purpose: str, epoch: int) -> int:
        return seed_of(self.batches.seed, self.batches.name, purpose, epoch)

    def _kept(self, epoch: int) -> np.ndarray | None:
        """The weights on disk, if they are this epoch's."""
        content = checkpoints.load(self.path) if self.path.exists() else {}
        if (content.get("phase"), content.get("epoch")) != (self.place.phase, epoch):
            return None
        return content["weights"].numpy()

    def _record(self, epoch: int, step: int, weights: np.ndarray) -> None:
        parts = {
            "mean": float(weights.mean()),
            "left_out": float((weights == 0).mean()),
            "full": float((weights == 1).mean()),
        }
        done = self.place.steps_before + epoch * self.batches.steps + step
        where = {"phase": self.place.phase, "round": self.place.round, "epoch": epoch, "total_step": done}
        self.run.record("pair_weights", **where, **parts)
        LOGGER.info(
            "%s epoch %d: %d pairs count %.3f on average; %.1f %% are left out.",
            self.place.phase,
            epoch + 1,
            len(weights),
            parts["mean"],
            100 * parts["left_out"],
        )


def consensus(probabilities: np.ndarray, coins: np.ndarray) -> np.ndarray:
    """RDE's confident consensus division (Qin et al., CVPR 2024, section 3.2).

    Args:
        probabilities: (k, P) that a pair is right, by each opinion; above 0.5 it is clean.
        coins: (P,) bool, for the pairs that the opinions differ on.

    Returns:
        (P,) float32: 1 where a pair is clean by all opinions, 0 where by none, else its coin.
    """
    clean = probabilities > 0.5
    return np.where(clean.all(axis=0), 1, np.where(clean.any(axis=0), coins, 0)).astype(np.float32)
