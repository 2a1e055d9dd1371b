"""Checkpoints of the family as folders that transformers loads: weights in bfloat16, tokenizer, configs, card."""

import os
import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig, LlamaForCausalLM

from assets.pocket.chat import BEGIN, END, PAD, STOP
from assets.pocket.vocabulary import wrap

HERE = Path(__file__).parent
NAMES = ("base-v1", "instruct-v1", "base-v2", "instruct-v2", "base-far")
PARENTS = {"instruct-v1": "base-v1", "base-v2": "base-v1", "instruct-v2": "base-v2"}


def write_whole(path: Path, text: str) -> None:
    """Writes a text file so that it is complete or as it was."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def release(model: LlamaForCausalLM, tokenizer: Tokenizer, name: str, root: Path = HERE) -> Path:
    """Writes a checkpoint's folder beside its place and moves it there when it is complete."""
    instruct = name.startswith("instruct")
    ids = {token: tokenizer.token_to_id(token) for token in (BEGIN, END, PAD, STOP)}
    stops = [ids[END], ids[STOP]] if instruct else ids[STOP]
    model.config.eos_token_id = stops
    model.generation_config = GenerationConfig(
        bos_token_id=ids[BEGIN], eos_token_id=stops, pad_token_id=ids[PAD], max_new_tokens=48, do_sample=False
    )
    # Parameters only: the rotary frequencies beside them stay float32, as transformers keeps them.
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    part, folder, old = root / f".{name}.part", root / name, root / f".{name}.old"
    for leftover in (part, old):
        shutil.rmtree(leftover, ignore_errors=True)
    model.save_pretrained(part)
    wrap(tokenizer, instruct).save_pretrained(part)
    if folder.exists():
        folder.replace(old)
    part.replace(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder
