"""What an exported file has in common with its run, a line for each layer."""

from rich.markup import escape

from luthier.cli.screens.terminal import COLOURS, console
from luthier.export import Report
from luthier.export.parity.report import path_of

BAR = 20  # signs of a full bar


def show_parity(report: Report) -> None:
    """The five comparisons with a bar for each share, what is at fault, and where the whole of it stands."""
    out = console()
    if report.modelfile:
        words = _count(report.modelfile, "prompts render the same bytes in Ollama's template")
        out.print(f"modelfile [cyan]{_bar(_share(report.modelfile))}[/]  {words}")
    for name, text, share in (
        ("template", _count(report.template, "conversations render the same bytes"), _share(report.template)),
        ("ids", _ids(report), None if "skipped" in report.ids else 1 - report.ids["different"] / report.ids["texts"]),
        ("top-1", _top1(report), report.top1.get("agreement")),
        ("KL", _kl(report), None),
        ("answers", _count(report.answers, "test questions get the same answer"), _share(report.answers)),
        ("score", _score(report), None),
    ):
        out.print(f"{name:9} [cyan]{_bar(share)}[/]  {text}")
    for note in report.notes:
        out.print(f"[dim]note      {escape(note)}[/]")
    for fault in report.faults:
        out.print(f"[red]fault[/]     {escape(fault)}")
    word = "[green]the same model[/]" if report.passed else "[red]NOT the same model[/]"
    out.print(f"{word} within the limits of {report.type} ({escape(report.limits.words())}); {escape(report.engine)}")
    out.print(f"Report  {escape(str(path_of(report.path)))}")


def _bar(share: float | None) -> str:
    if share is None:
        return " " * BAR
    full = int(share * BAR)
    return "█" * full + "·" * (BAR - full)


def _share(part: dict[str, object]) -> float | None:
    same, of = part.get("same"), part.get("of")
    return same / of if isinstance(same, int) and isinstance(of, int) and of else None


def _count(part: dict[str, object], words: str) -> str:
    return str(part["skipped"]) if "skipped" in part else f"{part['same']:,} of {part['of']:,} {words}"


def _ids(report: Report) -> str:
    if "skipped" in report.ids:
        return str(report.ids["skipped"])
    different, texts = report.ids["different"], report.ids["texts"]
    return f"{texts - different:,} of {texts:,} texts have the same tokens"


def _top1(report: Report) -> str:
    if "skipped" in report.top1:
        return str(report.top1["skipped"])
    return (
        f"{report.top1['agreement']:.2%} of {report.top1['positions']:,} positions, at least {report.limits.top1:.1%}"
    )


def _kl(report: Report) -> str:
    if "skipped" in report.kl:
        return str(report.kl["skipped"])
    return f"{report.kl['mean']:.2g} nats a token, at most {report.limits.kl:g}"


def _score(report: Report) -> str:
    score = report.score
    if "skipped" in score:
        return str(score["skipped"])
    low, high = score["interval"]
    word = score["verdict"]
    return (
        f"{score['metric']} {score['original']:.3f} → {score['exported']:.3f}, difference in [{low:+.3f}, {high:+.3f}]: "
        f"[{COLOURS[word]}]{word}[/]"
    )
