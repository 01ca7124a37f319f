"""The pages of a server: what users wrote is text in them, and nothing in them can act."""

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from luthier.jobs.rows import JobSpec
from luthier.runs import durable
from luthier.serve.service import Service
from serving import KEY

from .conftest import ask_app

EVIL = "<script>alert(1)</script>"


def job(service: Service, tmp_path: Path, tiny_model: Path) -> str:
    """A job whose names would like to act."""
    key = service.jobs.store.keys.verify(KEY)
    assert key
    content = service.jobs.store.uploads / "rows.part"
    content.write_bytes(b"{}")
    file = service.jobs.store.files.add(
        key, filename="a.jsonl", purpose="fine-tune", content=content, bytes=2, sha256="0" * 64
    )
    spec = JobSpec(key=key, model=EVIL, reference=str(tiny_model), training_file=file.id)
    return service.jobs.store.jobs.create(spec).id


def test_the_start_page_shows_jobs_and_runs_nothing(
    app: Any, service: Service, tmp_path: Path, tiny_model: Path
) -> None:
    id = job(service, tmp_path, tiny_model)
    basic = base64.b64encode(f"anybody:{KEY}".encode()).decode()
    answer = ask_app(app, "GET", "/", headers={"authorization": f"Basic {basic}"})
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    assert id in answer.text and "validating files" in answer.text and "<li><code>tiny</code></li>" in answer.text
    assert "&lt;script&gt;alert(1)" in answer.text and "<script" not in answer.text
    [style] = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in answer.headers["content-security-policy"]
    assert "script-src" not in answer.headers["content-security-policy"]
    refused = ask_app(app, "GET", "/", headers={"authorization": ""})
    assert refused.status_code == 401 and refused.headers["www-authenticate"].startswith("Basic realm=")


def test_a_report_is_shown_where_nothing_in_it_can_act(
    app: Any, service: Service, tmp_path: Path, tiny_model: Path
) -> None:
    id = job(service, tmp_path, tiny_model)
    assert ask_app(app, "GET", f"/jobs/{id}/report").status_code == 404
    run = service.jobs.store.run_folder(id)
    durable.make_folders(run)
    durable.write_atomic(run / "report.html", f"<p>evidence{EVIL}</p>")
    answer = ask_app(app, "GET", f"/jobs/{id}/report")
    assert "evidence" in answer.text
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert f'href="/jobs/{id}/report"' in ask_app(app, "GET", "/").text
