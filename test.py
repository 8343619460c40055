"""Stage 5: evaluate a checkpoint: Rank-1/5/10, mAP and mINP, with and without ITM re-ranking."""

from engine.stage import main
from engine.stages.evaluation import add_arguments, evaluate_run

if __name__ == "__main__":
    main(evaluate_run, __doc__, add_arguments)
