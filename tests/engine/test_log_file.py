"""A log file that can't be written costs its lines and nothing else."""

from __future__ import annotations

import logging

from engine.log import LogFile


def test_a_log_whose_folder_is_gone_ends_nothing(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    handler = LogFile(folder / "log.txt", encoding="utf-8")
    record = logging.makeLogRecord({"msg": "a line"})
    handler.emit(record)
    assert (folder / "log.txt").read_text("utf-8") == "a line\n"
    handler.close()
    (folder / "log.txt").unlink()
    folder.rmdir()
    handler.emit(record)  # opens its file anew, which there is no place for
    handler.close()
