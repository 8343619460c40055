"""What dual encoders on CLIP share: where there are no released weights, they start as CLIP itself did."""

from __future__ import annotations

from torch import Tensor

from losses.itc import label_targets, n_itc_loss, scaled_cosines
from models.backbones.clip.retrieval import ClipRetrieval
from models.batch import Batch
from models.logit_scale import START
from models.methods.dual_encoder import DualEncoder


class ClipDualEncoder(DualEncoder, ClipRetrieval):
    """A dual encoder on CLIP's towers."""

    def warm_up_losses(self, batch: Batch, matching: bool) -> dict[str, Tensor]:
        """CLIP's own contrast at the scale its training starts with (Radford et al., ICML 2021, section 2.5), whichever the method's losses are.

        Their temperatures go with trained towers. From random weights SDM's, 0.02, makes all features alike within 60 steps
        on the demo (images' mean cosine 0.99, as many hits as chance), where this one finds a fifth of a batch's pairs.
        """
        encoded = self.encode(batch)
        similarity = scaled_cosines(encoded.all_image_features, encoded.all_text_features, START)
        return {"itc": n_itc_loss(similarity, label_targets(encoded.all_labels))}
