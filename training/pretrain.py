"""python -m training.pretrain --shards data_manifests/mix70.json: from a manifest to a trained model.

flags -> verified shards, tokenizer, token shards, plan (prepare.py) -> one process a GPU -> the loop (loop.py)
"""

import contextlib
import time

from shared.console import EXIT_FAILURE, run_command
from shared.settings import parse_command
from training.settings import PretrainFlags

EXAMPLE = "python -m training.pretrain --shards data_manifests/mix70.json --model tiny --steps 200"


def main() -> int:
    started = time.time()
    flags = parse_command(PretrainFlags, "Trains a GPT on the shards of a mix.", EXAMPLE)

    # Everything below imports torch: a wrong flag is answered before that.
    from shared.files import sole_writer
    from training.distributed import barrier, is_launched, join, launch, process_count, usable_device
    from training.loop import train
    from training.prepare import begin, get_ready

    device = usable_device(flags.device)
    if not is_launched() and not flags.dry_run and (n_processes := process_count(flags.processes, device)) > 1:
        return launch(n_processes)  # this command once more for each, which then joins below, as under torchrun
    with contextlib.ExitStack() as held, join(device) as place:
        run = None
        if place.local_rank == 0:  # one process a machine makes and checks the files
            run = get_ready(flags, device, leads=place.is_first)
            if place.is_first and not flags.dry_run:
                hint = "wait for it to end, or give this run another --name"
                held.enter_context(sole_writer(run.folder, hint=hint))
                begin(run)
        try:
            barrier(place)
        except RuntimeError:  # the process that makes the files has left, and said why
            return EXIT_FAILURE
        if flags.dry_run:
            return 0
        return train(run or get_ready(flags, device, leads=False, makes_files=False), place, started)


if __name__ == "__main__":
    run_command(main)
