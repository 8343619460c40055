"""Stage 3: caption every training image twice and group its attributes (methods: PDTG, stage C)."""

from engine.command_line import read_command, stage_parser

if __name__ == "__main__":
    command = read_command(stage_parser(__doc__))

    from engine.stage import run_stage  # after the command line: these bring torch, which takes seconds
    from engine.stages.image_captions import caption_images

    run_stage(caption_images, command)
