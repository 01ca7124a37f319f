"""The judge: both orders, strict reading, and every reason to distrust it told."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

import thinking
from luthier.errors import MachineError, UserError
from luthier.evaluate.judge import agreement, pairwise, sources
from luthier.model import loading
from openai_server import completion, serving


def pair(number: int, tuned: str = "good", prompt: str = "bad") -> pairwise.AnswerPair:
    return pairwise.AnswerPair(f"i{number}", f"data.jsonl:{number}", f"g{number}", "Which?", "good", tuned, prompt)


def after(prompt: str, head: str) -> str:
    """The line that follows a heading of the judge's prompt."""
    return prompt.partition(f"{head}:\n")[2].partition("\n")[0]


def sound(prompt: str) -> str:
    """Prefers the answer that says "good", and neither where both or none does."""
    good = [name for name in "AB" if "good" in after(prompt, f"Answer {name}")]
    return f"Because it is right.\nVERDICT: {good[0] if len(good) == 1 else 'TIE'}"


def ruling(
    first: pairwise.Winner | None, second: pairwise.Winner | None, longer: int = 0, item: str = "i"
) -> pairwise.Judgement:
    return pairwise.Judgement(item, item, first, second, longer)


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("A is right.\nVERDICT: A", "A"),
        ("**Verdict: b.**", "B"),
        ("VERDICT: TIE\n", "TIE"),
        ("VERDICT: A\nOn reflection:\nVERDICT: A", "A"),
        ("VERDICT: A\nOn reflection:\nVERDICT: B", None),
        ("VERDICT: A or B", None),
        ("VERDICT: A, VERDICT: B, or VERDICT: TIE", None),
        ("I prefer A.", None),
        ("", None),
    ],
)
def test_only_a_clear_verdict_is_read(reply: str, verdict: str | None) -> None:
    assert pairwise.parse_verdict(reply) == verdict


def test_the_prompt_shows_both_answers_and_keeps_braces_of_the_data() -> None:
    shown = pair(1, tuned='{"a": {question}}', prompt="no").asked(tuned_first=False)
    assert after(shown, "Answer A") == "no" and after(shown, "Answer B") == '{"a": {question}}'
    assert after(shown, "A right answer, for comparison") == "good"
    assert "for comparison" not in pair(1)._replace(reference="").asked(tuned_first=True)


def test_a_preference_that_survives_the_swap_wins(tmp_path: Path) -> None:
    items = [pair(1), pair(2, "bad", "good"), pair(3, "good", "good too")]
    judgements = pairwise.compare(pairwise.Judge.of(sound), items, file=tmp_path / "judgements.jsonl")
    assert [each.outcome for each in judgements] == ["tuned", "prompt", "tie"]
    assert all(each.consistent for each in judgements)


def test_a_preference_for_a_place_is_a_tie_and_is_told(tmp_path: Path) -> None:
    always_first = pairwise.Judge.of(lambda prompt: "VERDICT: A", "first")
    judgements = pairwise.compare(always_first, [pair(1), pair(2)], file=tmp_path / "judgements.jsonl")
    found = pairwise.summary(judgements, judge="first", seed=0)
    assert (found["ties"], found["inconsistent"], found["position_consistency"]) == (2, 2, 0)
    assert (found["preferred_first"], found["preferred_second"], found["difference"]) == (2, 0, 0)
    assert "With the two answers swapped it judged the same in 0% of the pairs" in found["sentence"]


def test_what_is_judged_is_not_asked_again(tmp_path: Path) -> None:
    file, asked = tmp_path / "judgements.jsonl", []

    def counting(prompt: str) -> str:
        asked.append(prompt)
        return sound(prompt)

    first = pairwise.compare(pairwise.Judge.of(counting, "a"), [pair(1), pair(2, "bad", "good")], file=file)
    again = pairwise.compare(
        pairwise.Judge.of(counting, "a"), [pair(1), pair(2, "bad", "good"), pair(3, "b", "c")], file=file
    )
    assert len(asked) == 6 and again[:2] == first
    pairwise.compare(pairwise.Judge.of(counting, "a"), [pair(1, tuned="new answer")], file=file)
    pairwise.compare(pairwise.Judge.of(counting, "b"), [pair(1)], file=file)
    assert len(asked) == 10  # another answer, and another judge
    assert [*json.loads(file.read_text().splitlines()[0])] == [
        "pair", "item", "place", "group", "judge", "tuned_first", "tuned_second", "replies",
    ]  # fmt: skip


def test_pairs_come_from_the_lines_of_two_arms() -> None:
    def line(arm: str, item: str, answer: str) -> dict[str, str]:
        return {
            "arm": arm,
            "item": item,
            "place": "d:1",
            "group": "g",
            "question": "q",
            "reference": "r",
            "answer": answer,
        }

    lines = [line("few-shot", "1", "x"), line("fine-tuned", "1", "y"), line("fine-tuned", "2", "z")]
    found = pairwise.pairs(lines, tuned="fine-tuned", prompt="few-shot")
    assert found == [pairwise.AnswerPair("1", "d:1", "g", "q", "r", "y", "x")]


def test_summary_by_hand() -> None:
    judgements = [
        *(ruling("tuned", "tuned", 10, f"w{n}") for n in range(9)),
        *(ruling("prompt", "prompt", -10, f"l{n}") for n in range(3)),
        ruling("tuned", "prompt", 0, "t"),
        ruling(None, "tuned", 5, "u"),
    ]
    found = pairwise.summary(judgements, judge="model", seed=0)
    assert (found["tuned_wins"], found["prompt_wins"], found["ties"], found["unread"], found["n"]) == (9, 3, 1, 1, 14)
    assert found["position_consistency"] == pytest.approx(12 / 13)
    assert found["difference"] == pytest.approx(6 / 13)
    # Sign flips of 12 differences ±1: 2·P(X <= 3), X ~ Binomial(12, 1/2) = 2·299/4096.
    assert found["p_value"] == pytest.approx(2 * 299 / 4096)
    assert found["length_correlation"] == pytest.approx(1)
    assert found["sentence"] == (
        "The judge model (uncalibrated: 0 of 50 human labels) preferred the fine-tuned answer in 9, the "
        f"prompt's in 3 and neither in 1 of 13 pairs: +46.2 points [95 % CI {100 * found['interval'][0]:+.1f}, "
        f"{100 * found['interval'][1]:+.1f}]. With the two answers swapped it judged the same in 92% of the pairs. 1 of 14 "
        "pairs are left out because a reply had no clear verdict; expected a last line such as VERDICT: A, VERDICT: B or "
        "VERDICT: TIE. It tends to prefer the longer answer (rank correlation +1.00)."
    )


def test_fifty_human_labels_calibrate() -> None:
    judgements = [ruling("tuned", "tuned", item=f"i{n}") for n in range(30)]
    judgements += [ruling("prompt", "prompt", item=f"i{n}") for n in range(30, 60)]
    human = {f"i{n}": "tuned" if n < 35 else "prompt" for n in range(10, 60)}
    found = pairwise.summary(judgements, judge="model", human=human, seed=0)
    # 20 both tuned, 25 both prompt, 5 apart: agreement 0.9; by chance 0.4·0.5 + 0.6·0.5 = 0.5.
    assert found["calibrated"] and found["human"] == {"labels": 50, "agreement": 0.9, "kappa": pytest.approx(0.8)}
    assert "(calibrated on 50 human labels, Cohen's kappa 0.80)" in found["sentence"]
    del human["i10"]
    assert "uncalibrated: 49 of 50" in pairwise.summary(judgements, judge="model", human=human, seed=0)["sentence"]


def test_kappa_by_hand() -> None:
    assert agreement.cohen([("tuned", "prompt"), ("prompt", "tuned")]) == pytest.approx(-1)
    assert agreement.cohen([("tie", "tie")] * 2) is None


def test_a_judge_that_cannot_be_read_at_all_is_a_mistake(tmp_path: Path) -> None:
    judgements = pairwise.compare(
        pairwise.Judge.of(lambda prompt: "Both are fine."), [pair(1)], file=tmp_path / "judgements.jsonl"
    )
    with pytest.raises(
        UserError, match=r"^evaluate\.judge: none of the replies of the judge .* to 1 pairs could be read; exp"
    ):
        pairwise.summary(judgements, judge="function", seed=0)
    with pytest.raises(UserError, match="no pairs to judge"):
        pairwise.summary([], judge="function", seed=0)


def test_a_judge_that_fails_is_told_with_the_row(tmp_path: Path) -> None:
    file = tmp_path / "judgements.jsonl"
    with pytest.raises(UserError, match=r'^data\.jsonl:1: the judge "function" failed: ZeroDivisionError'):
        pairwise.compare(pairwise.Judge.of(lambda prompt: str(1 / 0)), [pair(1)], file=file)
    with pytest.raises(UserError, match=r"data\.jsonl:1 … data\.jsonl:2: .* gave 4 replies \(NoneType\) to 4 prompts"):
        pairwise.compare(pairwise.Judge("none", lambda prompts: [None] * len(prompts)), [pair(1), pair(2)], file=file)  # type: ignore[list-item]
    with pytest.raises(UserError, match='the human label of item i1 is "left"; expected'):
        pairwise.summary([ruling("tie", "tie", item="i1")], judge="f", human={"i1": "left"}, seed=0)


class Handler(BaseHTTPRequestHandler):
    """An OpenAI-compatible service in a few lines; what it does depends on the model's name."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = 404 if body["model"] == "unknown" or self.path != "/v1/chat/completions" else 200
        reply = {"error": "no such model"}
        if status == 200 and body["model"] == "judge":
            reply = {"choices": [{"message": {"content": sound(body["messages"][0]["content"])}}]}
        content = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_endpoint_judges(service: str, tmp_path: Path) -> None:
    found = sources.resolve(f"{service}#judge")
    assert found.name == f"judge at {service}"
    judgements = pairwise.compare(found, [pair(1), pair(2, "bad", "good")], file=tmp_path / "judgements.jsonl")
    assert [each.outcome for each in judgements] == ["tuned", "prompt"]


def test_an_endpoint_that_cannot_judge_says_why(service: str) -> None:
    with pytest.raises(MachineError, match=r"chat/completions: the judge's endpoint answered 404 .*no such model"):
        sources.endpoint(service, "unknown").ask(["x"])
    with pytest.raises(MachineError, match=r"gave no chat completion; expected choices\[0\]"):
        sources.endpoint(service, "silent").ask(["x"])
    with pytest.raises(UserError, match=r"evaluate\.judge: which model of http://localhost:1/v1\?"):
        sources.resolve("http://localhost:1/v1")


def test_an_endpoint_that_is_down_says_so() -> None:
    server = HTTPServer(("127.0.0.1", 0), Handler)
    port = server.server_port
    server.server_close()
    with pytest.raises(MachineError, match=r"the judge's endpoint cannot be reached: .*Is it running"):
        sources.endpoint(f"http://127.0.0.1:{port}/v1", "judge").ask(["x"])


def test_a_users_function_and_a_local_model_judge(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_judge_of_a_user.py").write_text("def even(prompt): return 'VERDICT: TIE'\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert sources.resolve("own_judge_of_a_user:even").ask(["x", "y"]) == ["VERDICT: TIE"] * 2
    with pytest.raises(UserError, match=r'evaluate\.judge: "own_judge_of_a_user:odd" cannot be imported'):
        sources.resolve("own_judge_of_a_user:odd")
    local = sources.resolve(str(tiny_model), max_new_tokens=8)
    replies = local.ask(["Which?", "A longer question?"])
    assert len(replies) == 2 and all(isinstance(reply, str) for reply in replies)
    with pytest.raises(UserError, match="Name a judge with a longer context"):
        sources.local(loading.load(str(tiny_model)), max_new_tokens=600).ask(["Which?"])


def test_a_judge_that_thinks_is_read_behind_its_thoughts(tmp_path: Path) -> None:
    def reply(body: dict[str, Any], number: int) -> Any:
        return completion("<think>\nVERDICT: A\n</think>\n\nVERDICT: B")

    with serving(reply) as server:
        assert sources.endpoint(server.url, "judge").ask(["x"]) == ["VERDICT: B"]
    lm = loading.load(str(thinking.make(tmp_path / "m", ["which is better?"])))
    with pytest.raises(UserError, match=r"its reply 1128"):
        sources.local(lm, max_new_tokens=1000).ask(["Which?"])
