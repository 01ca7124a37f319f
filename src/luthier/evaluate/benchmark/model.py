"""Our models as lm-eval sees them: likelihoods and greedy answers, batched by us, with adapters where there are some.

Texts become tokens as lm-eval's own `hf` model does it, so that both are asked the same.
"""

from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.model import TemplateLM

from luthier.model import generate, likelihood, replies
from luthier.model.loading import LanguageModel
from luthier.model.replies import TokenBudget

Progress = Callable[[int, int], None]
Request = Any
"""lm_eval.api.instance.Instance: what is asked stands in `args`."""

NEW_TOKENS = 256  # of an answer, where a task says nothing: as lm-eval has it
LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


class HarnessModel(TemplateLM):  # type: ignore[misc]  # lm-eval is not there for the type checker
    """A loaded model; `progress` is told after every batch how many requests of a kind are done, and of how many.

    `notes` say what a task asks for and does not get. With tokens for thoughts, answers begin and stop behind them.
    """

    def __init__(self, lm: LanguageModel, progress: Progress, *, thinking_tokens: int = 0) -> None:
        super().__init__()
        self.lm = lm
        self.tokenizer = lm.tokenizer
        self.progress = progress
        self.thinking_tokens = thinking_tokens
        self.notes: list[str] = []

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has no context."""
        first = self.tokenizer.bos_token_id
        return self.eot_token_id if first is None else int(first)

    @property
    def max_length(self) -> int:
        return self.lm.context

    @property
    def tokenizer_name(self) -> str:
        return self.lm.name.replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Messages as text, by the template that the model was trained with."""
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                chat_template=self.lm.template.portable_source,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: object) -> list[int]:
        return self._encode([string], add_special_tokens=add_special_tokens)[0]

    def _encode(self, texts: Sequence[str], *, add_special_tokens: bool | None = None) -> list[list[int]]:
        """Ids of texts; a token that starts every sequence is not put before a text that spells it."""
        bos = str(self.tokenizer.decode([self.prefix_token_id]))
        plain = [text for text in dict.fromkeys(texts) if add_special_tokens is False or text.startswith(bos)]
        usual = [text for text in dict.fromkeys(texts) if add_special_tokens is not False and not text.startswith(bos)]
        ids: dict[str, list[int]] = {}
        for some, special in ((plain, False), (usual, True)):
            if some:
                coded = self.tokenizer(some, add_special_tokens=special, verbose=False)["input_ids"]
                ids |= zip(some, coded, strict=True)
        return [ids[text] for text in texts]

    def loglikelihood(self, requests: list[Request], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-likelihood of each (context, continuation), and whether greedy decoding would give it.

        Blanks at a context's end belong to the continuation, and both are tokenized as one text.
        """
        pairs = [_move_blanks(*request.args) for request in requests]
        contexts = self._encode([context for context, _ in pairs])
        wholes = self._encode([context + continuation for context, continuation in pairs])
        alone = self._encode([continuation for _, continuation in pairs], add_special_tokens=False)
        ids: list[tuple[list[int], list[int]]] = []
        for (context, _), context_ids, whole, continuation in zip(pairs, contexts, wholes, alone, strict=True):
            if context:
                ids.append((context_ids, whole[len(context_ids) :]))
            elif continuation[:1] == [self.prefix_token_id]:
                ids.append((continuation[:1], continuation[1:]))
            else:
                ids.append(([self.prefix_token_id], continuation))
        return [(found.logprob, found.greedy) for found in self._likelihoods(ids)]

    def loglikelihood_rolling(self, requests: list[Request], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, of any length."""
        texts = self._encode([request.args[0] for request in requests])
        return [found.logprob for found in self._likelihoods([([self.prefix_token_id], ids) for ids in texts])]

    def _likelihoods(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[likelihood.Likelihood]:
        """In the order of the pairs; an empty continuation is certain."""
        asked = [number for number, (_, continuation) in enumerate(pairs) if continuation]
        found = [likelihood.Likelihood(0.0, True)] * len(pairs)
        done = len(pairs) - len(asked)
        self.progress(done, len(pairs))

        def collect(batch: dict[int, likelihood.Likelihood]) -> None:
            nonlocal done
            for number, value in batch.items():
                found[asked[number]] = value
            done += len(batch)
            self.progress(done, len(pairs))

        likelihood.continuations(self.lm, [pairs[number] for number in asked], on_batch=collect)
        return found

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: object
    ) -> list[tuple[float, bool]]:
        found = self._likelihoods([(context, continuation) for _, context, continuation in requests])
        return [(each.logprob, each.greedy) for each in found]

    def generate_until(self, requests: list[Request], disable_tqdm: bool = False) -> list[str]:
        """Greedy answers, each up to the first of its stop strings."""
        texts: list[str | None] = [None] * len(requests)
        by_settings: dict[tuple[tuple[str, ...], int], list[int]] = {}
        for number, request in enumerate(requests):
            by_settings.setdefault(self._settings(request.args[1]), []).append(number)
        for (stop_strings, limit), numbers in by_settings.items():
            budget = TokenBudget(limit, self.thinking_tokens)
            prompts = self._prompts([requests[number] for number in numbers], budget)

            def collect(
                batch: dict[int, generate.Reply],
                numbers: list[int] = numbers,
                stop_strings: tuple[str, ...] = stop_strings,
                budget: TokenBudget = budget,
            ) -> None:
                for at, reply in batch.items():
                    texts[numbers[at]] = _cut_at_stop(self._answer_text(reply.ids, budget), stop_strings)
                self.progress(sum(text is not None for text in texts), len(texts))

            over = replies.full(self.lm.template, budget, stop_strings)
            until = () if budget.thinking else stop_strings  # what ends an answer may stand in thoughts
            generate.answer(
                self.lm, prompts, max_new_tokens=budget.tokens, stop_strings=until, over=over, on_batch=collect
            )
        assert all(text is not None for text in texts)
        return [str(text) for text in texts]

    def _prompts(self, requests: Sequence[Request], budget: TokenBudget) -> list[list[int]]:
        """The requests' prompts as ids; as in lm-eval, one that leaves too few tokens for its reply loses its beginning."""
        longest = self.lm.context - budget.tokens
        assert longest > 0, f"replies of {budget.tokens} tokens leave no room for a question in {self.lm.context}"
        ids = self._encode([request.args[0] for request in requests])
        if cut := sum(len(prompt) > longest for prompt in ids):
            self._note(
                f"{cut:,} questions are longer than {longest:,} tokens, and lost their beginning, as lm-eval cuts them"
            )
        return [prompt[-longest:] for prompt in ids]

    def _answer_text(self, ids: Sequence[int], budget: TokenBudget) -> str:
        """The text of generated ids; of a model that may think, what stands behind its thoughts."""
        start = 0
        if budget.thinking:
            if self.lm.template.parse_reply(ids).thinking:
                self._note("some replies ended while the model was thinking; they count as empty")
                return ""
            start = self.lm.template.answer_start(ids)
            ids = ids[start : start + budget.answer]
        text = str(self.tokenizer.decode(list(ids), skip_special_tokens=True))
        # Blank lines between thoughts and answer are the template's, and often a stop string: they would end every answer.
        return text.lstrip() if start else text

    def _note(self, note: str) -> None:
        self.notes += [note] if note not in self.notes else []

    def _settings(self, asked: dict[str, Any]) -> tuple[tuple[str, ...], int]:
        """Stop strings and the most new tokens; sampling is noted and not done."""
        until = asked.get("until") or []
        stop_strings = [until] if isinstance(until, str) else until
        limit = next((asked[name] for name in LIMITS if asked.get(name)), NEW_TOKENS)
        if asked.get("do_sample") and float(asked.get("temperature", 1.0)) > 0:
            self._note("a task asks for sampled answers; it got greedy ones")
        return tuple(text for text in stop_strings if text), int(limit)


def _move_blanks(context: str, continuation: str) -> tuple[str, str]:
    """The pair with the blanks at the context's end put before the continuation."""
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


def _cut_at_stop(text: str, stop_strings: Sequence[str]) -> str:
    """The text up to the first of these strings."""
    for stop_string in stop_strings:
        text = text.split(stop_string)[0]
    return text
