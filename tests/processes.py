"""Running a function on several processes that are connected by gloo."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

PRELOADED = [
    "torch.distributed.tensor.parallel",
    "torch.distributed.fsdp",
    "torch.nn.parallel",
    "torch.fx.experimental.symbolic_shapes",  # which the first backward imports, for seconds
    "torch._dynamo",
    "torch.utils.checkpoint",
    "gradcheck.run",
    "gradcheck.ranks",
    "manual_grad.functional",
    "manual_grad.specs",
    "manual_grad.sharding.cross_entropy",
]


def prepare() -> None:
    """Start the process that the others are forked from, which imports what all of them need."""
    # spawned processes would import torch anew; threads of torch's, which this process may have, do not survive a fork
    multiprocessing.set_forkserver_preload(PRELOADED)
    forkserver.ensure_running()


class ProcessError(AssertionError):
    """A process failed, or did not answer in time."""


def on_processes(function: Callable[..., Any], size: int, *args: Any, seconds: float = 120.0) -> list[Any]:
    """What ``function(rank, *args)``, from an importable module, returns in each of ``size`` processes.

    Its default process group connects them. The first failure ends all of them, and is raised here with its traceback.
    """
    prepare()
    context = multiprocessing.get_context("forkserver")
    with tempfile.TemporaryDirectory() as folder:
        pipes = [context.Pipe(duplex=False) for _ in range(size)]
        processes = [
            context.Process(target=_work, args=(function, rank, size, folder, args, pipe[1], seconds), daemon=True)
            for rank, pipe in enumerate(pipes)
        ]
        for process, (_, sender) in zip(processes, pipes, strict=True):
            process.start()
            sender.close()
        try:
            return _answers([receiver for receiver, _ in pipes], time.monotonic() + seconds)
        finally:
            for process in processes:
                process.join(1.0)
                process.kill()
                process.join()


def _answers(receivers: list[Connection], end: float) -> list[Any]:
    found: dict[int, Any] = {}
    while len(found) < len(receivers):
        waiting = [r for i, r in enumerate(receivers) if i not in found]
        ready = multiprocessing.connection.wait(waiting, max(0.0, end - time.monotonic()))
        if not ready:
            silent = [str(i) for i in range(len(receivers)) if i not in found]
            raise ProcessError(f"no answer from process {', '.join(silent)}")
        for receiver in ready:
            rank = receivers.index(receiver)  # type: ignore[arg-type]
            try:
                ok, answer = receiver.recv()  # type: ignore[union-attr]
            except EOFError:
                raise ProcessError(f"process {rank} ended without an answer") from None
            if not ok:
                raise ProcessError(f"process {rank}:\n{answer}")
            found[rank] = answer
    return [found[rank] for rank in range(len(receivers))]


def _work(
    function: Callable[..., Any], rank: int, size: int, folder: str, args: tuple[Any, ...], answer: Connection,
    seconds: float,
) -> None:  # fmt: skip
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    try:
        store = dist.FileStore(str(Path(folder) / "store"), size)
        limit = timedelta(seconds=seconds)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=limit)
        answer.send((True, function(rank, *args)))
        dist.barrier()  # nobody leaves while others still need it
        dist.destroy_process_group()
    except BaseException:
        answer.send((False, traceback.format_exc()))
