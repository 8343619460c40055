"""Stage 1: caption a sample of the training images with a multimodal model (methods: PDTG, stage A)."""

from engine.stage import main
from engine.stages.sample_captions import add_arguments, sample_captions

if __name__ == "__main__":
    main(sample_captions, __doc__, add_arguments)
