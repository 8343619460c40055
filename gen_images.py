"""Before stage 1, where the configuration asks for it: make a synthetic training set, from prompts to captioned images."""

from engine.command_line import read_command, stage_parser

if __name__ == "__main__":
    parser = stage_parser(__doc__)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="only say how many images are still to be made, and by a measured sample how long it takes and what disk it needs",
    )
    command = read_command(parser)

    from engine.stage import run_stage  # after the command line: these bring torch, which takes seconds
    from engine.stages.image_generation import make_images

    run_stage(make_images, command)
