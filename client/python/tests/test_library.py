"""The ctypes layer against the header, groups as patterns, and how the library is found."""
from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import optimd
from optimd import _lib, groups

ROOT = Path(__file__).resolve().parents[3]
HEADER = ROOT / "client" / "optclient.h"


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_structures_are_the_headers(tmp_path):
    lines = []
    for name, structure in _lib.STRUCTURES.items():
        lines.append(f'printf("{name} %zu\\n", sizeof(struct optclient_{name}));')
        for field in _lib.structure_fields(structure):
            lines.append(f'printf("{name}.{field} %zu\\n", '
                         f"offsetof(struct optclient_{name}, {field}));")
    source = tmp_path / "layout.c"
    source.write_text("#include <stdio.h>\n#include <stddef.h>\n#include \"optclient.h\"\n"
                      "int main(void)\n{\n" + "\n".join(lines) + "\nreturn 0;\n}\n")
    program = tmp_path / "layout"
    subprocess.run(["cc", "-I", str(HEADER.parent), str(source), "-o", str(program)],
                   check=True)
    said = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    assert said
    for line in said.splitlines():
        what, number = line.split()
        name, _, field = what.partition(".")
        structure = _lib.STRUCTURES[name]
        mine = getattr(structure, field).offset if field else ctypes.sizeof(structure)
        assert mine == int(number), what


def test_functions_are_the_headers():
    declared = set(re.findall(r"\boptclient_(\w+)\(", HEADER.read_text()))
    used = {name for name, _, _ in _lib._FUNCTIONS}
    assert used <= declared, used - declared


def test_enums_are_the_headers():
    header = HEADER.read_text()
    for fate in optimd.Fate:
        name = "UNKNOWN_FATE" if fate == 0 else fate.name
        assert re.search(rf"OPTCLIENT_{name} = {int(fate)}\b", header), name
    for number in range(1, 41):
        name = optimd.Detail(number).name
        assert re.search(rf"OPTCLIENT_{name} =\s+{number}\b", header), name
    from optimd.errors import CLASSES
    for number, kind in CLASSES.items():
        assert re.search(rf"OPTCLIENT_{kind.status} = {number}\b", header)


def test_version_is_the_projects():
    project = (ROOT / "client/python/pyproject.toml").read_text()
    version = re.search(r'^version = "(.*)"', project, re.M).group(1)
    assert f"VERSION := {version}\n" in (ROOT / "Makefile").read_text()
    assert optimd.__version__ == version


def test_a_library_that_is_not_there():
    said = subprocess.run([sys.executable, "-c", "import optimd"], capture_output=True,
                          text=True, env={**os.environ, "OPTIMD_LIBRARY": "/none.so"})
    assert said.returncode != 0 and "liboptclient was not found" in said.stderr
    said = subprocess.run([sys.executable, "-c", "import optimd"], capture_output=True,
                          text=True, env={**os.environ, "OPTIMD_LIBRARY": "libc.so.6"})
    assert said.returncode != 0 and "libc.so.6 is no liboptclient" in said.stderr


def test_torch_is_not_imported_unasked():
    subprocess.run([sys.executable, "-c", "import optimd, optimd.aio, sys;"
                    "assert 'torch' not in sys.modules"], check=True)


names = st.lists(st.lists(st.sampled_from(["a", "b", "layer", "0", "1", "weight", "bias"]),
                          min_size=1, max_size=4).map(".".join),
                 min_size=1, max_size=25, unique=True)


@settings(deadline=None)
@given(names=names, data=st.data())
def test_patterns_say_exactly_what_is_meant(names, data):
    chosen = data.draw(st.sets(st.sampled_from(names), min_size=1))
    others = [n for n in names if n not in chosen]
    found = groups.patterns(sorted(chosen), others)
    assert len(found) <= len(chosen)
    for name in names:
        assert any(groups.matches(p, name) for p in found) == (name in chosen)


def test_patterns_are_few():
    weights = [f"layer.{i}.weight" for i in range(100)]
    biases = [f"layer.{i}.bias" for i in range(100)]
    assert groups.patterns(biases, weights) == ["*.bias"]
    assert groups.patterns(weights + biases, ["head.bias"]) == ["layer.*"]
    assert groups.terms([(weights, {}), (biases, {"weight_decay": 0})]) == \
        ' + tensors("*.bias", weight_decay=0.0)'
    with pytest.raises(TypeError, match="lr_scale"):
        groups.terms([(weights, {"lr": 0.1})])
