"""Stage 2: train the BLIP captioner on the captions of stage 1 (methods: PDTG, stage B)."""

from engine.command_line import read_command, stage_parser

if __name__ == "__main__":
    command = read_command(stage_parser(__doc__))

    from engine.stage import run_stage  # after the command line: these bring torch, which takes seconds
    from engine.stages.captioner_training import train_captioner

    run_stage(train_captioner, command)
