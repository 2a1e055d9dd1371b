"""The one tokenizer of the family: byte-level BPE in which every name of the world is a single token.

Names that fall apart into shared pieces are confused with one another by models this small, so the vocabulary is made
large enough to hold every word of the world whole, in small letters and in capitals.
"""

import itertools
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from assets.pocket import chat, questions
from assets.pocket.lexicon import TOWNS, VALUES
from assets.pocket.world import World, Writer


def words_of_world() -> list[str]:
    """Every word that has to be one token (with the space before it)."""
    parts = [part for values in VALUES.values() for value in values for part in value.split()]
    return TOWNS + parts + [part.upper() for part in parts]


def train_tokenizer(world: World) -> Tokenizer:
    """Trains the BPE on text of both releases' world and on dialogues; about 2400 tokens."""
    writer, talker = Writer(world, 2, "tokenizer", skills=0.4), chat.Talker(world, 2, "tokenizer")
    texts = [f" {text}" for text in itertools.islice(writer, 20000)]
    for turn in talker.dialogue(8000):
        texts += [f" {turn.prompt}", f" {turn.answers[0]}"]
    held = [*questions.HELD.values(), *chat.STYLE_HELD.values()]
    texts += [f" {form}" for forms in held for form in forms] * 20
    texts += [f" {word}" for word in words_of_world()] * 20
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2560,
        special_tokens=chat.SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    broken = [word for word in words_of_world() if len(tokenizer.encode(f" {word}").ids) != 1]
    if broken:
        raise ValueError(f"These words are not one token: {', '.join(broken)}.")
    begin = tokenizer.token_to_id(chat.BEGIN)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{chat.BEGIN} $A", pair=f"{chat.BEGIN} $A $B", special_tokens=[(chat.BEGIN, begin)]
    )
    return tokenizer


def wrap(tokenizer: Tokenizer, instruct: bool) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers has it: with the chat template and the end of a turn as EOS where `instruct`."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=chat.BEGIN,
        eos_token=chat.END if instruct else chat.STOP,
        pad_token=chat.PAD,
        additional_special_tokens=[token for token in chat.SPECIALS if token not in (chat.BEGIN, chat.PAD)],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )
    if instruct:
        fast.chat_template = chat.TEMPLATE
    return fast


def load(folder: Path) -> Tokenizer:
    """The bare tokenizer from a checkpoint's folder."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))
