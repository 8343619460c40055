"""Stage 3: caption every training image twice and group its attributes (methods: PDTG, stage C)."""

from engine.stage import main
from engine.stages.image_captions import caption_images

if __name__ == "__main__":
    main(caption_images, __doc__)
