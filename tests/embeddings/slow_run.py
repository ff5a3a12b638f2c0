"""A run that can be killed: `python slow_run.py STORE LOG N`; each encoded row becomes a line."""

import signal
import sys
import time

import numpy as np
from PIL import Image

from faultlens.embeddings.extract import extract
from faultlens.embeddings.store import EmbeddingStore


class Pictures:
    def __init__(self, n):
        self.names = [str(i) for i in range(n)]

    def __len__(self):
        return len(self.names)

    def load(self, index):
        return Image.new("L", (1, 1), index)


class Encoder:
    def __init__(self, log):
        self.log = log

    def prepare(self, image):
        return np.asarray(image, dtype=np.float32).ravel()

    def encode(self, batch):
        with open(self.log, "a", encoding="ascii") as log:
            log.writelines(f"{row}\n" for row in batch[:, 0].astype(int))
        time.sleep(0.005)
        return {"embedding": np.sin(batch * np.arange(1, 6, dtype=np.float32))}


def main(folder, log, n):
    columns = {"embedding": (5, "float32")}
    with EmbeddingStore.create_or_open(folder, "key", int(n), columns, shard_rows=8) as store:
        extract(Encoder(log), Pictures(int(n)), store, batch_size=3, n_workers=2)


if __name__ == "__main__":
    # A process started in the background may have inherited that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main(*sys.argv[1:])
