"""Blind votes and transcripts: what they add up to, and both as JSON Lines to take away."""

import html
import json
from dataclasses import dataclass
from typing import Any

import gradio as gr

from analysis.votes import Vote, preferences, sentence, tally
from transfer.chat import Answer
from transfer.endpoint import Endpoint
from transfer.talk import BAD, TIE, Pane, Turn

from .desk import Desk
from .panes import labels

NONE = (
    '<p class="ts-about">Tick “Blind” and ask: names are hidden and the answers shuffled, until you vote. Every vote counts here, '
    "with what it says of each two models.</p>"
)
# The text goes from the server into the person's own file, and lies nowhere between.
SAVE = """(text, name) => {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([text], {type: 'application/jsonl'}));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""


@dataclass
class Ballots:
    """The part's components."""

    shown: gr.HTML
    votes: gr.Button
    transcript: gr.Button
    forget: gr.Button
    text: gr.Textbox
    name: gr.Textbox


def build() -> Ballots:
    """Lay it out."""
    shown = gr.HTML(NONE, elem_id="tally", padding=False)
    with gr.Row(elem_classes="ts-bar"):
        votes = gr.Button("Download votes (JSONL)", size="sm", elem_id="votes-jsonl")
        transcript = gr.Button("Download transcript (JSONL)", size="sm", elem_id="transcript-jsonl")
        forget = gr.Button("Forget the votes", size="sm", elem_id="forget-votes")
    text, name = gr.Textbox(visible=False), gr.Textbox(visible=False)
    return Ballots(shown, votes, transcript, forget, text, name)


def vote_of(turn: Turn, place: int) -> tuple[Vote, dict[str, Any]]:
    """The vote of a turn that has one, the panes called as they are now, and by these names what it was on."""
    named = labels([turn.panes[key] for key in sorted(turn.order)])  # not as chance has shown them
    names = {key: named[key] for key in turn.order}
    choice = None if turn.vote in (TIE, BAD) else names[turn.vote]
    on = {name: told(turn, turn.panes[key], turn.answers[key]) for key, name in names.items()}
    return Vote(turn.prompt, tuple(names.values()), choice, turn.vote == BAD, place + 1, turn.voted), on


def tallied(desk: Desk) -> str:
    """What the votes add up to."""
    votes = [vote for vote, _ in desk.votes]
    if not votes:
        return NONE
    rows = "".join(
        f"<tr><td>{html.escape(r.label)}</td><td>{r.chosen} of {r.shown}</td><td>{100 * r.share:.0f} % "
        f"<i>({100 * r.low:.0f} to {100 * r.high:.0f})</i></td></tr>"
        for r in tally(votes).itertuples()
    )
    pairs = preferences(votes)
    pairs = pairs[pairs.wins + pairs.losses > 0].sort_values("p", kind="stable")  # of the others a vote says nothing
    said = "".join(f"<li>{html.escape(sentence(row))}</li>" for _, row in pairs.iterrows())
    return (
        f'<div class="ts-flips"><table><thead><tr><th>pane</th><th>chosen</th><th>share (95 % interval)</th></tr></thead>'
        f'<tbody>{rows}</tbody></table></div><ul class="ts-prefer">{said}</ul>'
    )


def votes_file(desk: Desk) -> str:
    """One vote a line, with all that was voted on."""
    return "".join(json.dumps(json.loads(vote.to_json()) | {"answers": on}) + "\n" for vote, on in desk.votes)


def transcript_file(desk: Desk) -> str:
    """One answer a line, with all that made it but keys; blind ones once they have their vote."""
    lines = []
    for i, turn in enumerate(desk.talk.turns):
        if turn.hidden:
            continue
        names = labels([turn.panes[key] for key in sorted(turn.order)])
        lines += [
            json.dumps({"turn": i + 1, "pane": names[key], **told(turn, turn.panes[key], turn.answers[key])})
            for key in turn.order
            if key in turn.answers
        ]
    return "".join(line + "\n" for line in lines)


def told(turn: Turn, pane: Pane, answer: Answer) -> dict[str, Any]:
    """An answer as JSON."""
    at = answer.at
    who: dict[str, Any]
    if isinstance(at, Endpoint):
        who = {"endpoint": at.url, "model": at.model, "says_it_is": answer.claims}
    else:
        who = {
            "coefficients": list(at.coefficients),
            "schedule": [at.schedule.outside, *at.schedule.layers] if at.schedule else None,
            "control": str(at.control) if at.control else None,
            "fingerprint": answer.fingerprint,
        }
    return {
        "prompt": turn.prompt,
        "sent": answer.sent,
        "answer": answer.text,
        **who,
        "sampling": answer.sampling.model_dump(),
        "tokens": answer.tokens,
        "seconds": round(answer.seconds, 3),
        "first_token_seconds": None if answer.first is None else round(answer.first, 3),
        "ended_itself": answer.stopped,
        "error": answer.error,
        "blind": turn.blind,
        "chosen": turn.chose(pane.key),
    }
