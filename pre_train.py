"""Stage 2: train the BLIP captioner on the captions of stage 1 (methods: PDTG, stage B)."""

from engine.stage import main
from engine.stages.captioner_training import train_captioner

if __name__ == "__main__":
    main(train_captioner, __doc__)
