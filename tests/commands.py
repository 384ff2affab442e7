"""What tests of the command line share: commands run in an empty folder, and a stream in it."""

import pytest
from tiny import codec, folder, photo

from sodec.cli import main


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command in an empty folder; returns exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, weights=True):
        options = ["--weights", str(folder())] if weights else []
        with pytest.raises(SystemExit) as stopped:
            main([*map(str, arguments), *options])
        captured = capsys.readouterr()
        return stopped.value.code or 0, captured.out, captured.err

    return call


@pytest.fixture
def stream(tmp_path):
    (tmp_path / "s.sodec").write_bytes(codec().compress(photo(40, 30), 50))
    return "s.sodec"
