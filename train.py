"""Stage 4: rounds of clustering, label correction and training (methods: CMLC and FSRA)."""

from engine.command_line import read_command, stage_parser

if __name__ == "__main__":
    command = read_command(stage_parser(__doc__))

    from engine.stage import run_stage  # after the command line: these bring torch, which takes seconds
    from engine.stages.search_training import train_search

    run_stage(train_search, command)
