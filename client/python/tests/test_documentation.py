"""Every block of docs/python.md runs, one after the other, as it stands."""
from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("torch")

PAGE = Path(__file__).resolve().parents[3] / "docs" / "python.md"


def test_every_block_runs(daemon, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    assert len(blocks) >= 10
    space = {"__name__": "documentation"}
    for block in blocks:
        exec(compile(block.replace("127.0.0.1:7070", daemon.tcp), str(PAGE), "exec"), space)
    said = capsys.readouterr().out
    assert "APPLIED 20" in said and 'tensors("*.bias", weight_decay=0.0)' in said
    assert "NOT_FINITE NOT_APPLIED" in said
