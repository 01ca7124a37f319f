"""The command of a worker."""

from pathlib import Path

from typer.testing import CliRunner

from luthier.cli.main import app


def test_a_worker_makes_no_home_of_its_own(tmp_path: Path) -> None:
    ended = CliRunner().invoke(app, ["worker", "--home", str(tmp_path / "nothing")])
    assert "no service has worked here yet" in str(ended.exception) and not (tmp_path / "nothing").exists()
