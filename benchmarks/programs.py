"""``python -m benchmarks.programs``: training by transformers and TRL, with their own losses and with ours.

Each program trains a small Llama with random weights on random words, with SGD: Adam would hide a wrong constant factor
in a gradient. Every run has a process of its own. The curves and the peak memory are those of a run with their losses
and of one with ours. The times come from a third run, in which they take turns, so that both meet the same conditions.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

import manual_grad
from benchmarks import report
from benchmarks.scaling.memory import measurable, reset_peak, resident_peak

WORDS = 48  # in a text

# The largest permitted difference between curves, relative to the largest number of a curve. They are computed in
# float32 (eps 1.2e-7), and every step starts from the rounding of the last one; in practice they differ by about 1e-6.
ROUNDING = 2e-5

# Which steps are patched. A turn has two steps, because GRPO generates in every other one.
TURNS = {"theirs": (False,), "ours": (True,), "by turns": (False, False, True, True)}

HEAD = ("program", "a step, theirs", "ours", "× faster", "peak memory, theirs", "ours", "curves apart")


@dataclass(frozen=True)
class Setting:
    vocabulary: int
    hidden: int = 128
    layers: int = 2
    batch: int = 8
    steps: int = 20
    threads: int = 1


@dataclass(frozen=True)
class Run:
    curves: dict[str, list[float]]  # what the program logs after each step
    seconds: dict[bool, list[float]]  # patched or not -> of each two steps
    bytes: int  # the peak beyond what was resident before training


def curves_apart(ours: Run, theirs: Run) -> float:
    """The largest difference between the curves, relative to the largest number of each."""
    apart = 0.0
    for name, curve in theirs.curves.items():
        scale = max(map(abs, curve)) or 1.0
        apart = max(apart, *(abs(a - b) / scale for a, b in zip(ours.curves[name], curve, strict=True)))
    return apart


# -- a model, a tokenizer and texts, made here


def model(setting: Setting) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=setting.vocabulary,
        hidden_size=setting.hidden,
        intermediate_size=2 * setting.hidden,
        num_hidden_layers=setting.layers,
        num_attention_heads=4,
        max_position_embeddings=4 * WORDS,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config)


def tokenizer(setting: Setting) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ("<pad>", "<s>", "</s>", "<unk>")
    words = [*special, *(f"w{i}" for i in range(len(special), setting.vocabulary))]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def texts(setting: Setting, *keys: str) -> Any:
    """Rows with a text for every key; like the words of a language, the first ones are the most frequent."""
    from datasets import Dataset

    draw = random.Random(0)

    def text() -> str:
        return " ".join(f"w{int(setting.vocabulary ** draw.random())}" for _ in range(WORDS))

    # a space first, because a completion is appended to its prompt
    return Dataset.from_list([{key: " " + text() for key in keys} for _ in range(setting.batch * setting.steps)])


# -- the programs


def arguments(setting: Setting, folder: str) -> dict[str, Any]:
    return dict(
        output_dir=folder,
        max_steps=setting.steps,
        per_device_train_batch_size=setting.batch,
        optim="sgd",
        learning_rate=0.5,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        seed=0,
    )


def transformers_trainer(setting: Setting, folder: str) -> Any:
    import transformers

    words = tokenizer(setting)
    rows = texts(setting, "text").map(lambda row: words(row["text"]), remove_columns=["text"])
    return transformers.Trainer(
        model=model(setting),
        args=transformers.TrainingArguments(**arguments(setting, folder)),
        train_dataset=rows,
        data_collator=transformers.DataCollatorForLanguageModeling(words, mlm=False),
    )


def sft(setting: Setting, folder: str) -> Any:
    import trl

    return trl.SFTTrainer(
        model=model(setting),
        args=trl.SFTConfig(**arguments(setting, folder)),
        train_dataset=texts(setting, "text"),
        processing_class=tokenizer(setting),
    )


def dpo(setting: Setting, folder: str) -> Any:
    import trl

    return trl.DPOTrainer(
        model=model(setting),
        ref_model=model(setting),
        args=trl.DPOConfig(**arguments(setting, folder)),
        train_dataset=texts(setting, "prompt", "chosen", "rejected"),
        processing_class=tokenizer(setting),
    )


def grpo(setting: Setting, folder: str) -> Any:
    import trl

    def reward(completions: list[str], **columns: Any) -> list[float]:
        return [sum(len(word) for word in completion.split()) / (5 * WORDS) for completion in completions]

    own = dict(num_generations=setting.batch // 2, max_completion_length=WORDS // 2, num_iterations=2)
    return trl.GRPOTrainer(
        model=model(setting),
        reward_funcs=reward,
        args=trl.GRPOConfig(**arguments(setting, folder), **own),
        train_dataset=texts(setting, "prompt"),
        processing_class=tokenizer(setting),
    )


PROGRAMS: dict[str, tuple[Callable[[Setting, str], Any], tuple[str, ...]]] = {  # name -> its trainer, what is patched
    "transformers, Trainer": (transformers_trainer, ("transformers",)),
    "TRL, SFTTrainer": (sft, ("trl",)),
    "TRL, DPOTrainer": (dpo, ("trl",)),
    "TRL, GRPOTrainer": (grpo, ("trl",)),
}


def train(name: str, setting: Setting, losses: str) -> Run:
    """Train in this process, with the losses of one of :data:`TURNS`."""
    import datasets
    import transformers

    torch.set_num_threads(setting.threads)
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()

    make, programs = PROGRAMS[name]
    seconds: dict[bool, list[float]] = {False: [], True: []}

    class Turns(transformers.TrainerCallback):
        patch = None

        def switch(self, patched: bool) -> None:
            if patched and self.patch is None:
                self.patch = manual_grad.patch(*programs)
            elif not patched and self.patch is not None:
                self.patch.undo()
                self.patch = None

        def on_step_begin(self, args: Any, state: Any, *others: Any, **kwargs: Any) -> None:
            self.step = state.global_step
            self.switch(TURNS[losses][self.step % len(TURNS[losses])])
            if self.step % 2 == 0:
                self.began = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            if self.step % 2:
                seconds[self.patch is not None].append(time.perf_counter() - self.began)

    with tempfile.TemporaryDirectory() as folder:
        trainer = make(setting, folder)
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.add_callback(turns := Turns())
        before = reset_peak() if measurable() else 0
        try:
            trainer.train()
        finally:
            turns.switch(False)
        peak = resident_peak() - before if measurable() else 0
    logs = [log for log in trainer.state.log_history if "loss" in log]
    curves = {key: [log[key] for log in logs] for key in ("loss", "grad_norm", "entropy") if key in logs[0]}
    return Run(curves, seconds, peak)


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status: 0; 1 if curves are apart; 2 if the programs are not installed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.programs", description=__doc__.split("\n\n")[0])
    parser.add_argument("--vocabulary", type=int, default=32_000, help="words of the vocabulary (%(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="steps of training (%(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch (%(default)s)")
    args = parser.parse_args(argv)
    missing = [name for name in ("transformers", "trl") if find_spec(name) is None]
    if missing:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        return 2

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(args.threads)
    setting = Setting(args.vocabulary, steps=args.steps, threads=args.threads)
    versions = {name: importlib.metadata.version(name) for name in ("transformers", "trl")}
    print(report.described(report.machine() | versions))
    print(f"{setting}, {WORDS} words in a text\n")
    rows = [HEAD, ("---", *["---:"] * (len(HEAD) - 1))]
    apart = 0.0
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name in PROGRAMS:
            theirs, ours, both = pool.starmap(train, [(name, setting, losses) for losses in TURNS], 1)
            apart = max(apart, off := curves_apart(ours, theirs))
            times = [statistics.median(both.seconds[patched]) / 2 for patched in (False, True)]
            faster = statistics.median(a / b for a, b in zip(both.seconds[False], both.seconds[True], strict=False))
            cells = [*(f"{1e3 * t:.0f} ms" for t in times), f"{faster:.2f}"]
            rows.append((name, *cells, *(f"{run.bytes / 1e6:.0f} MB" for run in (theirs, ours)), f"{off:.1e}"))
            print(name, file=sys.stderr, flush=True)
    print(report.grid(rows))
    return int(apart > ROUNDING)


if __name__ == "__main__":
    sys.exit(main())
