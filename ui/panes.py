"""The panes of a conversation as HTML: who sits where, and turns with an answer in each pane. Every word of a person or a
model is escaped here."""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transfer.chat import Answer
from transfer.endpoint import Endpoint
from transfer.plane import LABELS, SYMBOLS, Mix
from transfer.talk import BAD, FEWEST, MOST, TIE, Pane, Talk, Turn
from transfer.triple import Triple

from .markup import mathy, strength
from .presets import Suggestion

LETTERS = "ABCDEF"
EMPTY = (
    '<div class="ts-asked"><span>Ask something, or press one of the questions above: all models answer side by side.'
    "</span></div>"
)
Act = tuple[str | int | float, ...]


@dataclass(frozen=True)
class Named:
    """How a pane is called: a role for its colour, a name, and what stands beneath it."""

    role: str
    name: str
    formula: str = ""  # HTML


def named(pane: Pane) -> Named:
    """Who sits in a pane."""
    at = pane.at
    if isinstance(at, Endpoint):
        return Named("endpoint", str(at), "endpoint")
    if at.corner in SYMBOLS and not pane.point:
        return Named(str(at.corner), LABELS[str(at.corner)], mathy(SYMBOLS[str(at.corner)]))
    formula = strength(at) if at.plane else mathy(str(at))
    if at.schedule:
        formula += f" · {html.escape(layered(at))}"
    if at.control:
        formula += f" · {html.escape(str(at.control))}"
    return Named("merged", LABELS["merged"] if at.plane and at.plane[1] == 1 else "point", formula)


def layered(mix: Mix) -> str:
    """A schedule in few words."""
    factors = mix.schedule.layers if mix.schedule else ()
    return f"Δ × {factors[0]:g} in the first layer to × {factors[-1]:g} in the last" if factors else ""


def labels(panes: Sequence[Pane]) -> dict[str, str]:
    """A name for each pane by key, in plain text, told apart where two are alike."""
    found: dict[str, str] = {}
    for pane in panes:
        said = label = plainly(pane)
        count = 1
        while label in found.values():
            count += 1
            label = f"{said} #{count}"
        found[pane.key] = label
    return found


def plainly(pane: Pane) -> str:
    """Who sits in a pane, in plain text."""
    if isinstance(pane.at, Endpoint) or (pane.at.corner and not pane.point):
        return str(pane.at)
    if not pane.at.plane:
        return str(pane.at)
    alpha, beta = pane.at.plane
    said = f"merged α = {alpha:g}" if beta == 1 else f"point α = {alpha:g}, β = {beta:g}"
    return ", ".join(
        [said, *([layered(pane.at)] if pane.at.schedule else []), *([str(pane.at.control)] if pane.at.control else [])]
    )


def button(act: Act, face: str, about: str, extra: str = "") -> str:
    """A button that `clicks.deeds` hears."""
    done = html.escape(json.dumps(act), quote=True)
    return (
        f'<button type="button" class="ts-act" data-act="{done}" aria-label="{html.escape(about, quote=True)}" '
        f'title="{html.escape(about, quote=True)}"{extra}>{face}</button>'
    )


def lineup(talk: Talk, chosen: str, told: str, hide: bool) -> str:
    """The panes as a row of tags with what can be done to them; `told` says how they will be answered."""
    tags = []
    names = labels(talk.panes)
    for i, pane in enumerate(talk.panes):
        who = named(pane)
        about = names[pane.key]
        acts = [
            button(("set", pane.key), "⚙", f"Set pane {i + 1}: {about}"),
            button(("shift", pane.key, -1), "←", f"Move {about} left", "" if i else " disabled"),
            button(("shift", pane.key, 1), "→", f"Move {about} right", "" if i + 1 < len(talk.panes) else " disabled"),
            button(("wide", pane.key), "⤡" if pane.wide else "⤢", f"{'Narrow' if pane.wide else 'Widen'} {about}"),
            button(
                ("remove", pane.key), "✕", f"Remove {about}", "" if len(talk.panes) > FEWEST else " disabled"
            ),
        ]  # fmt: skip
        own = '<span class="ts-own" title="draws in its own way">own sampling</span>' if pane.sampling else ""
        dialled = pane.key == chosen and isinstance(pane.at, Mix)
        dial = '<span class="ts-own" title="the α and β below are this pane\'s">α β</span>' if dialled else ""
        tags.append(
            f'<li class="ts-tag {who.role}{" ts-chosen" if pane.key == chosen else ""}"><b>{html.escape(who.name)}</b>'
            f'<span class="ts-faint">{who.formula}</span>{dial}{own}<span class="ts-acts">{"".join(acts)}</span></li>'
        )
    add = button(("add",), "+ Pane", "Add a pane", "" if len(talk.panes) < MOST else " disabled")
    hidden = '<p class="ts-faint">The last turn is blind: names come back with your vote.</p>' if hide else ""
    return (
        f'<ul class="ts-lineup" aria-label="Panes">{"".join(tags)}<li class="ts-plus">{add}</li></ul>'
        f'<p class="ts-faint ts-plan">{html.escape(told)}</p>{hidden}'
    )


def turn_html(
    talk: Talk,
    place: int,
    triple: Triple | None,
    known: Mapping[str, Suggestion],
    last: bool = True,
) -> str:
    """One turn: its prompt with what can be done to it, and a card for each answer."""
    turn = talk.turns[place]
    shown = None if turn.hidden else known.get(turn.prompt.strip())
    wide = {pane.key for pane in talk.panes if pane.wide}
    cards = [
        card(turn, key, i, place, triple, shown, last, key in wide and not turn.hidden)
        for i, key in enumerate(columns(talk, turn))
    ]
    acts = [button(("edit", place), "✎ Edit", "Edit this prompt and ask again from here")]
    if last:
        acts.append(button(("retry", place, ""), "↻ Retry", "Answer again with another seed"))
        acts.append(button(("undo", place), "↶ Undo", "Take this turn back"))
    told = f"<span>{html.escape(shown.why)} Right: “{html.escape(shown.expect)}”</span>" if shown else ""
    vote = ballot(turn, place) if turn.blind else ""
    return (
        f'<section class="ts-turn"><div class="ts-asked"><b dir="auto">{html.escape(turn.prompt)}</b>{told}'
        f'<span class="ts-acts">{"".join(acts)}</span></div>'
        f'<div class="ts-panes">{"".join(cards)}</div>'
        f"{vote}</section>"
    )


def columns(talk: Talk, turn: Turn) -> list[str]:
    """The panes of a turn in the order in which they stand now; of a blind one as they were shown."""
    now = {pane.key: i for i, pane in enumerate(talk.panes)}
    return list(turn.order) if turn.blind else sorted(turn.order, key=lambda key: now.get(key, MOST))


def card(
    turn: Turn,
    key: str,
    number: int,
    place: int,
    triple: Triple | None,
    shown: Suggestion | None,
    last: bool,
    wide: bool = False,
) -> str:
    """One pane's answer: who it was, what it said, how fast, and the fingerprint of the weights that said it."""
    answer, pane = turn.answers.get(key), turn.panes[key]
    who = Named("hidden", f"Model {LETTERS[number]}") if turn.hidden else named(pane)
    checkpoint = triple.checkpoints.get(who.role) if triple else None
    where = who.formula + (f" · {html.escape(checkpoint.name)}" if checkpoint and not turn.hidden else "")
    body, badges = (
        said(answer, turn.hidden),
        [] if answer is None else marks(answer, shown, turn.ways[key].system, turn.hidden),
    )
    if turn.chose(key):
        badges.insert(0, '<span class="ts-badge ts-ok">your vote</span>')
    foot = "" if answer is None or turn.hidden else footer(answer)
    acts = []
    if answer and not turn.hidden:
        if answer.prompt:
            acts.append(button(("sent", place, key), "¶", "Show what this pane was sent, token by token"))
        if last and answer.done:
            acts.append(button(("retry", place, key), "↻", "Answer again with another seed"))
    return (
        f'<article class="ts-pane {who.role}{" ts-wide" if wide else ""}" data-key="{number if turn.hidden else html.escape(key, quote=True)}"><header><b>{html.escape(who.name)}</b>'
        f'<span class="ts-faint">{where}</span></header><div class="ts-verdict">{"".join(badges)}</div>{body}'
        f'<footer>{foot}<span class="ts-acts">{"".join(acts)}</span></footer></article>'
    )


def said(answer: Answer | None, hidden: bool = False) -> str:
    """An answer so far. What went wrong would tell who it was where that is `hidden`."""
    if answer is None:
        return '<p class="ts-answer ts-waiting"><span class="ts-cursor"></span></p>'
    text = html.escape(answer.text.strip())
    thought = (
        f"<details class='ts-thought'><summary>thought</summary>{html.escape(answer.thought)}</details>"
        if answer.thought and not hidden
        else ""
    )
    cursor = "" if answer.done else '<span class="ts-cursor"></span>'
    if answer.error:
        kept = f'<p class="ts-answer">{text}</p>' if text else ""
        return (
            f'{kept}<p class="ts-answer ts-broken">{html.escape("This one broke off." if hidden else answer.error)}</p>'
        )
    if text or answer.done:
        return f'{thought}<p class="ts-answer" dir="auto">{text or "<i>(nothing)</i>"}{cursor}</p>'
    return f'{thought}<p class="ts-answer ts-waiting">{cursor}</p>'


def marks(answer: Answer, shown: Suggestion | None, system: str, hidden: bool = False) -> list[str]:
    """What is to be said of an answer: right or not, cut off, stopped, and what of the prompt did not reach the model, unless
    that is `hidden`."""
    found = []
    badge = lambda text, level, about="": (
        f'<span class="ts-badge ts-{level}" title="{html.escape(about, quote=True)}">{html.escape(text)}</span>'
    )
    if answer.halted:
        found.append(badge("stopped", "warning"))
    elif answer.done and not answer.error:
        if shown and answer.text.strip().rstrip(".") == shown.expect.rstrip("."):
            found.append(badge("✓ right", "ok"))
        elif not answer.stopped:
            found.append(badge(f"cut off at {answer.tokens} tokens", "warning"))
        elif shown:
            found.append(badge("✗ not right", "error"))
    if hidden:
        return found
    if answer.manner.startswith("plain"):
        found.append(
            badge("goes on with the text", "plain", "This model has no chat template: it is given the plain text.")
        )
    if answer.without:
        found.append(
            badge(f"without {', '.join(answer.without)}", "warning", "This endpoint does not take these settings.")
        )
    if "lack" in answer.manner:
        found.append(badge("asked through another template", "warning", f"It was sent the {answer.manner}."))
    if system.strip() and answer.sent and system.strip() not in answer.sent:
        found.append(badge("without the system prompt", "warning", "This chat template leaves the system prompt out."))
    return found


def footer(answer: Answer) -> str:
    """Speed, time to the first token, and who really answered."""
    count = f"{answer.tokens} token{'s' if answer.tokens != 1 else ''}"
    speed = f"{answer.speed:,.0f} tokens/s" if answer.speed else count if answer.tokens or answer.done else "…"
    if answer.sampling.temperature:
        speed += f" · seed {answer.sampling.seed}"
    first = f" · <span>first after {answer.first:.2f} s</span>" if answer.first is not None else ""
    if isinstance(answer.at, Endpoint):
        claims = f"says it is {html.escape(answer.claims)}" if answer.claims else "an endpoint"
        mark = f'<i title="Nobody here has seen the weights that answered.">unverified: {claims}</i>'
    else:
        mark = (
            f'<code title="fingerprint of the weights that answered">{answer.fingerprint}</code>'
            if answer.fingerprint
            else ""
        )
    beside = f"Decoded in one batch of {answer.alike}" if answer.alike > 1 else "Decoded by itself"
    return f'<span title="{beside}">{speed}{first}</span>{mark}'


def ballot(turn: Turn, place: int) -> str:
    """The buttons of a blind turn, or what they were pressed for."""
    if not all(key in turn.answers and turn.answers[key].done for key in turn.order):
        return ""
    if turn.vote:
        said = {TIE: "You called it a tie.", BAD: "You called all of them bad."}.get(turn.vote, "")
        return f'<p class="ts-faint">{said}</p>' if said else ""
    picks = [
        button(("vote", place, i), f"{LETTERS[i]} is best", f"Vote for model {LETTERS[i]}")
        for i in range(len(turn.order))
    ]
    none = [
        button(("vote", place, TIE), "Tie", "They are as good"),
        button(("vote", place, BAD), "All bad", "None is any good"),
    ]
    return f'<div class="ts-ballot" role="group" aria-label="Your vote">{"".join(picks + none)}</div>'


def strip_html(answers: Mapping[float, Answer], at: float | None, name: str, shown: Suggestion | None) -> str:
    """The answers of one pane to one prompt over α, the present one marked; each can be pressed."""
    if len(answers) < 2:
        return ""
    cells = []
    for alpha, answer in sorted(answers.items()):
        text = answer.text.strip() or answer.error or "(nothing)"
        right = shown and answer.text.strip().rstrip(".") == shown.expect.rstrip(".")
        mark = '<i class="ts-right">✓</i>' if right else ""
        cells.append(
            f'<li class="{"ts-now" if alpha == at else ""}">'
            + button(
                ("take", alpha),
                f"<b>α = {alpha:g}</b>{mark}<span>{html.escape(text[:240])}</span>",
                f"Set α to {alpha:g}",
            )
            + "</li>"
        )
    return f'<p class="ts-faint">The last prompt, answered by {html.escape(name)} over α:</p><ol class="ts-strip">{"".join(cells)}</ol>'


def sent_html(answer: Answer, name: str, tokens: Sequence[str]) -> str:
    """What a pane was sent, token by token, as the model was given it."""
    chips = "".join(
        f'<span class="ts-token" title="token {id_}">{visible(text)}</span>'
        for id_, text in zip(answer.prompt, tokens, strict=True)
    )
    close = button(("unsent",), "✕", "Close")
    return (
        f'<div class="ts-sent"><p><b>What {html.escape(name)} was sent</b> <span class="ts-faint">{len(answer.prompt):,} tokens, '
        f"{html.escape(answer.manner)}</span>{close}</p><p class='ts-tokens'>{chips}</p>"
        f"<details><summary>as plain text</summary><pre>{html.escape(answer.sent)}</pre></details></div>"
    )


def visible(text: str) -> str:
    """A token's text with what cannot be seen made visible."""
    return html.escape(text).replace("\n", "⏎<br>").replace("\t", "⇥").replace(" ", "␣") or "·"
