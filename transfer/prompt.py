"""From messages to token ids and back: whose chat template a point is asked through, and what ends its answer.

Token ids are always those of the source fine-tuned model's tokenizer, since every live model has its vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any

from .checkpoint import Checkpoint, read_json
from .errors import ChatError, LiveError
from .live import open_tokenizer
from .plane import LABELS, Mix
from .template import render
from .triple import Triple

Opener = Callable[[Triple, str], Any]
Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": …}
MANNERS = ("own", "tuned", "plain")  # through its own parent's template, the source fine-tuned model's, or none


class Prompter:
    """How points are asked. By default all of them in the same words, those of the source fine-tuned model, so that answers
    compare."""

    def __init__(
        self,
        triple: Triple,
        voice: str = "source_tuned",
        body: str = "target_base",
        manner: str = "own",
        opened: Opener = open_tokenizer,
    ):
        """`voice` is the role whose template is spoken, `body` the one whose config says what fits; `opened` gives a role's
        tokenizer. Raises LiveError where the tokenizer cannot be read."""
        self.tokenizer: Any = opened(triple, "source_tuned")
        own = self.tokenizer if voice == "source_tuned" else voiced(triple, voice, opened)
        self.lacking = unknown(own, self.tokenizer)
        if self.lacking:  # its template would come to the models in pieces
            own, voice = self.tokenizer, "source_tuned"
        self.voice = voice
        self.template = template_of(own) if manner != "plain" else None
        self.words = dict(own.special_tokens_map) if own is not None else {}
        self.stops = stop_tokens(triple, "source_tuned", self.tokenizer)
        if own is not None and own is not self.tokenizer:
            names = own.convert_ids_to_tokens(sorted(stop_tokens(triple, voice, own)))
            known = self.tokenizer.get_vocab()
            self.stops |= {known[name] for name in names if name in known}
        self.pad = (
            self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else min(self.stops, default=0)
        )
        self.context = context_length(triple.checkpoints[body])

    @property
    def has_template(self) -> bool:
        return self.template is not None

    @property
    def manner(self) -> str:
        """How it asks, for the page."""
        if not self.has_template:
            return "plain text to go on with"
        why = f", since its own has {self.lacking}, which these models lack" if self.lacking else ""
        return f"chat template of the {LABELS[self.voice]} model{why}"

    def text(self, messages: Sequence[Message]) -> str:
        """The exact string that the model is given, up to where its answer begins; without a template the messages as one
        text to go on with. Raises ChatError."""
        if not messages or not messages[-1]["content"].strip():
            raise ChatError("The prompt is empty. Type a question first.")
        if self.template is None:
            return "\n\n".join(m["content"] for m in messages)
        return render(self.template, messages, self.words)

    def told(self, messages: Sequence[Message]) -> str | ChatError:
        """The same, or what is wrong with it."""
        try:
            return self.text(messages)
        except ChatError as error:
            return error

    def tokens(self, text: str, chat: bool = True) -> list[int]:
        """Token ids of a text. What a tokenizer puts before every text is left to the template where one made the text."""
        return self.tokenizer(text, add_special_tokens=not (chat and self.has_template))["input_ids"]

    def encode(self, messages: Sequence[Message], room: int = 1) -> list[int]:
        """Token ids of the prompt. Raises ChatError where it is empty or leaves less than `room` tokens of context."""
        return self.bounded(self.tokens(self.text(messages)), room)

    def plain(self, text: str, room: int = 1) -> list[int]:
        """Token ids of a text to go on with as it stands, without template. Raises ChatError, as `encode` does."""
        return self.bounded(self.tokens(text, chat=False), room)

    def bounded(self, ids: list[int], room: int) -> list[int]:
        """The ids again. Raises ChatError where they leave less than `room` tokens of context."""
        if len(ids) + room > self.context:
            raise ChatError(
                f"The prompt has {len(ids):,} tokens; with {room:,} for the answer that is more than the {self.context:,} "
                "of this model. Shorten it, or ask for a shorter answer."
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer, without special tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)


def context_length(checkpoint: Checkpoint) -> int:
    """Tokens that fit: families name it in their own ways, and some have no bound."""
    for key in ("max_position_embeddings", "n_positions", "max_sequence_length"):
        if isinstance(checkpoint.setting(key), int):
            return checkpoint.setting(key)
    return 2**31


def prompter_for(triple: Triple, mix: Mix, manner: str = "own", opened: Opener = open_tokenizer) -> Prompter:
    """How a point is asked: a corner as its own checkpoint is, any other point as the source fine-tuned model. Raises
    LiveError."""
    voice = mix.corner if mix.corner and manner == "own" else "source_tuned"
    return Prompter(triple, voice, triple.config_role(mix), manner, opened)


def unknown(own: Any, tokenizer: Any) -> str:
    """A token of its own that a template names, or that ends its answers, and the tokenizer of all lacks; empty for none."""
    template = template_of(own)
    if template is None or own is tokenizer:
        return ""
    known = tokenizer.get_vocab()
    names = [token.content for token in own.added_tokens_decoder.values()]
    needed = [name for name in names if name in template or name == own.eos_token]
    return next((name for name in needed if name not in known), "")


def voiced(triple: Triple, role: str, opened: Opener) -> Any:
    """A role's own tokenizer; None where its folder has none, as bases of some releases have."""
    try:
        return opened(triple, role)
    except LiveError:
        return None


def template_of(tokenizer: Any) -> str | None:
    """The chat template of a tokenizer, the default one where it has several; None where it has none."""
    if tokenizer is None or not tokenizer.chat_template:
        return None
    try:
        return tokenizer.get_chat_template()
    except ValueError:  # several, and none of them the default
        return None


def stop_tokens(triple: Triple, role: str, tokenizer: Any) -> set[int]:
    """Every id that ends an answer: by generation_config, config and tokenizer of a role."""
    tuned = triple.checkpoints[role]
    stops = {tokenizer.eos_token_id}
    path = tuned.folder / "generation_config.json"
    generation = read_json(path) if path.is_file() else {}
    for value in (generation.get("eos_token_id"), tuned.setting("eos_token_id")):
        stops.update(value if isinstance(value, list) else [value])
    return {s for s in stops if isinstance(s, int)}
