"""The decoder in JavaScript, and what other people's decoders are checked with.

pytest tests/test_conformance.py
"""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conformance import check, make
from conformance.package_decoder import coding_of, stream_answer
from golden.make import resealed

from sodec.errors import MissingPackageError, SodecError
from sodec.pages import viewer
from sodec.weights import find

ROOT = Path(__file__).parents[1]
VIEWER = ROOT / "viewer"
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed: apt-get install nodejs")
GOLDEN = Path(__file__).parent / "golden"


def test_expected_json_says_what_the_package_reads():
    assert json.loads((check.HERE / "expected.json").read_text()) == json.loads(json.dumps(make.expected()))


@needs_node
def test_the_tests_of_the_decoder_in_javascript():
    done = subprocess.run([NODE, "--test", "test/"], cwd=VIEWER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "# fail 0" in done.stdout


def faults(command, only):
    return {name: fault for name, fault in check.check(command, only) if fault}


@needs_node
def test_the_decoder_in_javascript_conforms():
    assert faults([NODE, str(VIEWER / "node/cli.js")], ["symbols", "payload"]) == {}


@needs_node
def test_the_networks_of_the_page_conform(tmp_path, request):
    try:
        runtime = viewer.kept_runtime(request.config.cache.mkdir("npm"))
    except MissingPackageError as error:
        pytest.skip(str(error))
    viewer.assemble(tmp_path, find("lite"), runtime=runtime)
    found = faults([NODE, str(VIEWER / "node/cli.js"), "--site", str(tmp_path)], ["y_hat", "picture"])
    assert found == {}


def test_the_package_conforms():
    """Payloads are those of test_golden.py and test_hostile.py, which need no process each."""
    command = [sys.executable, str(check.HERE / "package_decoder.py")]
    assert faults(command, ["symbols"]) == {}
    pytest.importorskip("torch")
    assert faults(command, ["y_hat", "picture"]) == {}


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("print('{}')", "fingerprint must be"),
        ("print('[')", "does not print JSON"),
        ("import sys; sys.exit(2)", "exit code 2"),
        ("1 / 0", "exit code 1"),
    ],
)
def test_a_wrong_decoder_does_not_conform(tmp_path, script, fault):
    wrong = tmp_path / "decoder.py"
    wrong.write_text(script)
    found = faults([sys.executable, str(wrong)], ["symbols"])
    assert fault in found["golden/streams/tiles.sodec"]
    assert ("golden/errors/flag-3.sodec" in found) or "exit" in script


def test_a_refusal_without_a_reason_or_number_does_not_conform():
    newer = {"refused": "newer", "number": 3}
    assert check.refusal(newer, 2, "flag 3 is unknown") == ""
    assert "number 3" in check.refusal(newer, 2, "it is damaged")
    assert "one line" in check.refusal({"refused": "corrupt"}, 2, "")
    assert "one line" in check.refusal({"refused": "corrupt"}, 2, "Traceback\nError")
    assert "exit code must be 2" in check.refusal({"refused": "corrupt"}, 0, "fine")


def altered_streams(count, seed):
    """Golden streams with one or two bytes changed, removed or inserted, most of them with the right CRC-32C again."""
    draw = random.Random(seed)
    originals = [path.read_bytes() for path in sorted((GOLDEN / "streams").glob("*.sodec"))]
    for _ in range(count):
        data = bytearray(draw.choice(originals))
        for _ in range(draw.randint(1, 2)):
            place = draw.randrange(len(data) - 4)
            kind = draw.random()
            if kind < 0.8:
                data[place] ^= draw.randint(1, 255)
            elif kind < 0.9:
                del data[place]
            else:
                data.insert(place, draw.randrange(256))
        yield bytes(data) if draw.random() < 0.05 else resealed(bytes(data))


@needs_node
def test_both_decoders_say_the_same_of_altered_streams(tmp_path):
    streams = list(altered_streams(1500, seed=31))
    many = tmp_path / "streams.json"
    many.write_text(json.dumps([data.hex() for data in streams]))
    command = [NODE, str(VIEWER / "node/read-many.js"), str(GOLDEN / "model.json"), str(many)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    coding = coding_of(json.loads((GOLDEN / "model.json").read_text()))
    kinds = set()
    for data, line in zip(streams, done.stdout.splitlines(), strict=True):
        try:
            expected = stream_answer(data, coding)
        except SodecError as error:
            expected = {"refused": type(error).__name__}
        assert json.loads(line) == expected, data.hex()
        kinds.add(expected.get("refused"))
    assert kinds == {None, "CorruptStreamError", "NewerFormatError"}
