"""Stage 1: caption a sample of the training images with a multimodal model (methods: PDTG, stage A)."""

from engine.command_line import read_command, stage_parser

if __name__ == "__main__":
    parser = stage_parser(__doc__)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="only say what is still to be asked, how long it takes and what it costs",
    )
    parser.add_argument(
        "--retry-refused",
        action="store_true",
        help="ask again about images that were refused or came back empty",
    )
    command = read_command(parser)

    from engine.stage import run_stage  # after the command line: these bring torch, which takes seconds
    from engine.stages.sample_captions import sample_captions

    run_stage(sample_captions, command)
