"""`luthier serve` under load, asked over HTTP by one process of clients: first answer, first tokens, 500 clients, a job beside.

    service_load.py --clients 500 --seconds 60 --write

Every part has its own bound in seconds. What a client sees counts: an answer, a 429 with `Retry-After`, or an error.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from record import circumstances, write_section

HEADING = "Serving: the service over HTTP"
MODEL, KEY = "smollm2-135m", "sk-luthier-of-a-benchmark"
FIRST_ANSWER = 15.0  # seconds from the command to an answer, at most
WORDS = ["printer", "invoice", "password", "parcel", "refund", "meeting", "network", "holiday", "keyboard", "contract"]
ROWS = 120  # that the job beside it is trained on
SETTLED = 10.0  # seconds of load after which memory is looked at first
Part = dict[str, Any]


@dataclass
class Server:
    """A server of its own: where it answers, its process, and when it was started."""

    url: str
    process: "subprocess.Popen[str]"
    home: Path
    started: float

    @property
    def memory(self) -> float:
        """MB that the server's process holds."""
        return psutil.Process(self.process.pid).memory_info().rss / 1e6

    @property
    def seconds(self) -> float:
        """Processor time that it has used."""
        used = psutil.Process(self.process.pid).cpu_times()
        return float(used.user + used.system)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """`luthier serve` as a user starts it."""
    started = time.perf_counter()
    command = [sys.executable, "-c", "from luthier.cli.main import main; main()", "serve", "--model", MODEL]
    with open(folder / "log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*command, "--home", str(folder / "home"), "--port", "0"],
            stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, "LUTHIER_API_KEY": KEY},
        )  # fmt: skip
    try:
        assert process.stdout is not None
        line = next((line for line in process.stdout if "Serving http" in line), None)
        assert line, (folder / "log").read_text(encoding="utf-8")[-2000:]
        yield Server(line.split()[1], process, folder / "home", started)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@dataclass
class Heard:
    """What one stream was told."""

    first: float = 0.0
    """Seconds until the first piece of text."""
    first_cpu: float = 0.0
    """Processor time that the server used until then."""
    tokens: int = 0
    status: int = 0
    retry_after: float | None = None


def question(chance: random.Random) -> str:
    """Of 5 to 200 words, no two alike."""
    return "Tell me about this: " + " ".join(chance.choices(WORDS, k=round(5 * 40 ** chance.random())))


async def ask(
    client: httpx.AsyncClient, text: str, most: int, server: Server | None = None, heard: Heard | None = None
) -> Heard:
    """A chat answer as a stream; `heard` is added to as it comes, since who leaves early gets no result."""
    heard = heard or Heard()
    start, used = time.perf_counter(), server.seconds if server else 0.0
    body = {
        "model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": most, "temperature": 0,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    async with client.stream("POST", "/chat/completions", json=body) as reply:
        heard.status = reply.status_code
        if reply.status_code != 200:
            await reply.aread()
            after = reply.headers.get("retry-after")
            heard.retry_after = float(after) if after else None
            return heard
        async for line in reply.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                heard.status = 0
            elif event["choices"] and event["choices"][0]["delta"].get("content"):
                heard.tokens += 1  # nearly: the usage at the end says how many
                if not heard.first:
                    heard.first = time.perf_counter() - start
                    heard.first_cpu = server.seconds - used if server else 0.0
            elif event.get("usage"):
                heard.tokens = event["usage"]["completion_tokens"]
    return heard


@contextlib.asynccontextmanager
async def clients(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(
        base_url=server.url, headers={"authorization": f"Bearer {KEY}"}, limits=limits, timeout=300
    ) as client:
        yield client


async def first_answer(server: Server) -> Part:
    async with clients(server) as client:
        heard = await ask(client, "What is a printer?", 8)
        assert heard.status == 200, heard
    return {"seconds": time.perf_counter() - server.started, "cpu_seconds": server.seconds}


async def first_tokens(server: Server, streams: int) -> Part:
    """Streams of mixed length that all begin at once."""
    chance = random.Random(5)
    async with clients(server) as client:
        await ask(client, question(chance), 4)
        start, used = time.perf_counter(), server.seconds
        asked = [ask(client, question(chance), chance.randint(32, 96), server) for _ in range(streams)]
        heard = await asyncio.gather(*asked)
        spent, used = time.perf_counter() - start, server.seconds - used
    assert all(each.status == 200 for each in heard), heard
    seconds, cpu = sorted(each.first for each in heard), sorted(each.first_cpu for each in heard)
    p50, p95 = streams // 2, int(0.95 * (streams - 1))
    tokens = sum(each.tokens for each in heard)
    return {
        "streams": streams, "p50": seconds[p50], "p95": seconds[p95], "p50_cpu": cpu[p50], "p95_cpu": cpu[p95],
        "tokens": tokens, "per_second": tokens / spent, "per_cpu_second": tokens / used,
    }  # fmt: skip


@dataclass
class Crowd:
    """What many clients were told."""

    statuses: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    without_retry: int = 0
    firsts: list[float] = field(default_factory=list)


async def crowd(server: Server, count: int, seconds: float, most: int = 16) -> tuple[Crowd, Part]:
    """So many clients, each with a question as soon as it has its answer, or later where it is told so; then all leave."""
    told = Crowd()
    memory: dict[str, float] = {}

    async def one(client: httpx.AsyncClient, number: int) -> None:
        chance = random.Random(number)
        while True:
            heard = Heard()
            try:
                await ask(client, question(chance), most, heard=heard)
            except httpx.HTTPError as error:
                told.statuses[type(error).__name__] += 1
                continue
            finally:
                told.tokens += heard.tokens
            told.statuses[str(heard.status)] += 1
            if heard.status == 200:
                told.firsts.append(heard.first)
            elif heard.retry_after is None:
                told.without_retry += 1
            else:
                await asyncio.sleep(heard.retry_after)

    async def look() -> None:
        settled = min(SETTLED, seconds / 3)
        await asyncio.sleep(settled)
        memory[f"{settled:.0f} s"] = server.memory
        await asyncio.sleep(seconds - settled)
        memory[f"{seconds:.0f} s"] = server.memory

    start, used = time.perf_counter(), server.seconds
    async with clients(server) as client:
        asking = [asyncio.create_task(one(client, number)) for number in range(count)]
        await look()
        spent, used = time.perf_counter() - start, server.seconds - used
        for each in asking:  # all leave at once, whether they have an answer or not
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        start = time.perf_counter()
        heard = await ask(client, "What is a printer?", 4)
        after = time.perf_counter() - start
        figures = (await client.get(server.url.removesuffix("/v1") + "/metrics")).text
    assert heard.status == 200
    slots = next(float(line.split()[-1]) for line in figures.splitlines() if line.startswith("luthier_slots_in_use "))
    part = {
        "clients": count, "seconds": seconds, "statuses": dict(told.statuses), "429 without Retry-After": told.without_retry,
        "memory": memory, "request afterwards": after, "slots in use afterwards": slots,
        "per_second": told.tokens / spent, "per_cpu_second": told.tokens / used,
    }  # fmt: skip
    return told, part


async def beside_a_job(server: Server, streams: int, seconds: float) -> Part:
    """Tokens and training steps in so many seconds: each by itself, and both at once."""
    alone, _ = await crowd(server, streams, seconds)
    async with clients(server) as client:
        rows = [
            {"messages": [{"role": "user", "content": f"What about the {word} number {number}?"},
                          {"role": "assistant", "content": f"The {word} number {number} is in room {number % 7}."}]}
            for number in range(ROWS // len(WORDS)) for word in WORDS
        ]  # fmt: skip
        file = {"file": ("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())}
        uploaded = (await client.post("/files", data={"purpose": "fine-tune"}, files=file)).json()
        asked = {"model": MODEL, "training_file": uploaded["id"], "hyperparameters": {"n_epochs": 50}}
        job = (await client.post("/fine_tuning/jobs", json=asked)).json()
        deadline = time.perf_counter() + 600
        while not _steps(server, job["id"]):
            assert time.perf_counter() < deadline, (await client.get(f"/fine_tuning/jobs/{job['id']}")).text
            await asyncio.sleep(0.5)
        await asyncio.sleep(seconds)
        before = len(_steps(server, job["id"]))
        both, _ = await crowd(server, streams, seconds)
        steps = _steps(server, job["id"])
        await client.post(f"/fine_tuning/jobs/{job['id']}/cancel", json={})
    return {
        "streams": streams, "seconds": seconds, "tokens alone": alone.tokens, "tokens beside": both.tokens,
        "steps alone": before - 1, "steps beside": len(steps) - before,
    }  # fmt: skip


def _steps(server: Server, job: str) -> list[dict[str, Any]]:
    """The training steps of a job's run so far."""
    log = server.home / "runs" / job / "events.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [event for line in lines if line.endswith("}") and (event := json.loads(line))["kind"] == "step"]


def report(found: dict[str, Part]) -> str:
    lines = [f"`benchmarks/serve_load http`, {circumstances(('torch', 'granian', 'httpx'))}", ""]
    lines += [
        "SmolLM2-135M-Instruct in fp32 behind `luthier serve`; all clients are one other process on the same machine.",
        "",
    ]
    if part := found.get("first answer"):
        reached = "reached" if part["seconds"] <= FIRST_ANSWER else "missed"
        lines.append(
            f"- From the command to the end of a first answer: {part['seconds']:.1f} s ({reached}: {FIRST_ANSWER:.0f}), with "
            f"{part['cpu_seconds']:.1f} s of processor time."
        )
    if part := found.get("first tokens"):
        lines.append(
            f"- {part['streams']} streams that begin at once: the first token after {part['p50']:.2f} s (median), "
            f"{part['p95']:.2f} s (p95), of which the server computed {part['p50_cpu']:.2f} and {part['p95_cpu']:.2f} s; "
            f"{part['tokens']:,} tokens at {part['per_second']:.1f} a second, "
            f"{part['per_cpu_second']:.1f} per second of the server's processor time."
        )
    if part := found.get("crowd"):
        told = ", ".join(f"{count:,} × {status}" for status, count in sorted(part["statuses"].items()))
        memory = ", ".join(f"{amount:.0f} MB after {when}" for when, amount in part["memory"].items())
        others = sum(count for status, count in part["statuses"].items() if status not in ("200", "429"))
        lines += [
            f"- {part['clients']} clients for {part['seconds']:.0f} s: {told}; "
            f"{part['429 without Retry-After']} of the 429 without `Retry-After` "
            f"({'missed' if others or part['429 without Retry-After'] else 'reached'}: no error but 429). "
            f"{part['per_second']:.1f} tokens a second, {part['per_cpu_second']:.1f} per second of its processor time.",
            f"- Its memory meanwhile: {memory}. Then all clients leave: {part['slots in use afterwards']:.0f} slots stay in "
            f"use, and the next request is answered within {part['request afterwards']:.2f} s.",
        ]
    if part := found.get("job"):
        tokens, steps = (part[f"{name} beside"] / max(1, part[f"{name} alone"]) for name in ("tokens", "steps"))
        lines.append(
            f"- {part['streams']} streams beside a fine-tuning job, {part['seconds']:.0f} s each way: answers have "
            f"{tokens:.2f} × the tokens that they have without it ({part['tokens beside']:,} of {part['tokens alone']:,}), "
            f"the job {steps:.2f} × its steps ({part['steps beside']} of {part['steps alone']})."
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="serve_load http", description=__doc__)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--job-seconds", type=float, default=20)
    parser.add_argument("--skip", default="", help="parts that are left out: crowd, job")
    parser.add_argument("--write", action="store_true", help="put the result into RESULTS.md")
    given = parser.parse_args()
    found: dict[str, Part] = {}

    def note(name: str, part: Part) -> None:
        found[name] = part
        print(name, json.dumps(part), flush=True)

    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as server:
        note("first answer", asyncio.run(first_answer(server)))
        note("first tokens", asyncio.run(first_tokens(server, given.streams)))
        if "crowd" not in given.skip:
            note("crowd", asyncio.run(crowd(server, given.clients, given.seconds))[1])
        if "job" not in given.skip:
            note("job", asyncio.run(beside_a_job(server, 8, given.job_seconds)))
    text = report(found)
    print("\n" + text)
    if given.write:
        write_section(HEADING, text)


if __name__ == "__main__":
    sys.exit(main())
