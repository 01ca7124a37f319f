"""An exported model in llama.cpp's own server, behind `luthier serve`."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx

from luthier import export
from luthier.engine.llama_cpp import LlamaCpp
from luthier.jobs.service import Jobs
from luthier.serve.app import Door, make_app
from luthier.serve.backends.addresses import Address
from luthier.serve.backends.backend import Backend
from luthier.serve.catalogue import Catalogue
from luthier.serve.engines import Engines
from luthier.serve.metrics import Metrics
from luthier.serve.service import Service

from .conftest import MakeRun

KEY = "sk-test-of-the-service"
ASKED = {"messages": [{"role": "user", "content": "What is 3 and 111?"}], "temperature": 0, "max_tokens": 6}


def test_it_answers_as_the_model_that_was_exported(make_run: MakeRun, tmp_path: Path) -> None:
    run, file = make_run(), tmp_path / "model.gguf"
    export.export(run.folder, to="gguf", type="f32", out=file, unchecked=True)
    jobs, engines = Jobs(tmp_path / "home"), Engines()
    jobs.store.keys.add("test", KEY)
    with LlamaCpp(file, context=512) as llama:
        backends = {"far": Backend(Address("far", f"{llama.address}/v1"))}
        catalogue = Catalogue(tmp_path, {"near": str(run.folder / "model")}, jobs.store, elsewhere=backends)
        app = make_app(Service(jobs, catalogue, engines, Metrics(engines.figures), backends), Door())
        near, far = (post(app, "/v1/chat/completions", {"model": name, **ASKED}).json() for name in ("near", "far"))
        assert far["model"] == "far" and far["choices"][0]["finish_reason"] == near["choices"][0]["finish_reason"]
        assert far["choices"][0]["message"]["content"].strip() == near["choices"][0]["message"]["content"]
        assert far["usage"]["completion_tokens"] == near["usage"]["completion_tokens"] == 6
        streamed = post(app, "/v1/chat/completions", {"model": "far", "stream": True, **ASKED}).text
        events = [json.loads(line.removeprefix("data: ")) for line in streamed.split("\n\n")[:-2]]
        pieces = [event["choices"][0]["delta"].get("content") or "" for event in events]
        said = "".join(pieces)  # llama.cpp leaves out half a character at its end
        assert said and far["choices"][0]["message"]["content"].startswith(said) and len(events) > 2
        plain = {"prompt": [5, 6, 7], "temperature": 0, "max_tokens": 4}
        texts = [post(app, "/v1/completions", {"model": name, **plain}).json() for name in ("near", "far")]
        assert texts[0]["choices"][0]["text"] == texts[1]["choices"][0]["text"]
        refused = post(app, "/v1/completions", {"model": "far", "prompt": list(range(5, 200)) * 4})
        assert refused.status_code == 400 and "refuses the request" in refused.json()["error"]["message"]
    gone = post(app, "/v1/completions", {"model": "far", **plain})
    assert gone.status_code == 502 and gone.json()["error"]["code"] == "backend_unavailable"
    engines.close()
    jobs.store.close()


def post(app: Any, path: str, body: object) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        headers = {"authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
            return await client.post(path, json=body)

    return asyncio.run(asked())
