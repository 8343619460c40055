"""Stage 5: evaluate a checkpoint: Rank-1/5/10, mAP and mINP, with and without ITM re-ranking."""

from engine.command_line import read_command, stage_parser

if __name__ == "__main__":
    parser = stage_parser(__doc__)
    parser.add_argument(
        "--checkpoint",
        metavar="FILE|DIR|hf:OWNER/NAME",
        help="the model to evaluate (default: the run's best.pth)",
    )
    command = read_command(parser)

    from engine.stage import run_stage  # after the command line: these bring torch, which takes seconds
    from engine.stages.evaluation import evaluate_run

    run_stage(evaluate_run, command)
