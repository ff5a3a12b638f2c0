"""What torchrun starts in a test: `scaling_run.py STORE LOG`."""

import sys
from functools import partial

import scaling
from faultlens.embeddings.extract import Reading
from faultlens.scale.extraction import ExtractJob
from faultlens.scale.job import run
from faultlens.scale.ranks import Ranks

if __name__ == "__main__":
    folder, log = sys.argv[1:]
    store = ("key", 200, {"embedding": (3, "float32")})
    encoder, source = partial(scaling.Encoder, log), partial(scaling.Pictures, 200)
    run(ExtractJob.of(folder, store, encoder, source, Reading(8, 1), 16), Ranks.from_environment())
