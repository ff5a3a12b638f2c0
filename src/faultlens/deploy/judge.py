"""Judge: from the bytes of a picture to what classifier and monitor say of it."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from faultlens import files, full_mode, monitoring
from faultlens.arrays import FloatArray
from faultlens.data.decode import decode
from faultlens.deploy.limits import RefusedError
from faultlens.errors import ImageError, InputError
from faultlens.inner_features import InnerReader
from faultlens.models.checks import probe
from faultlens.models.classifier import Classifier
from faultlens.monitor.features import VLM, Features
from faultlens.monitor.runtime import RuntimeMonitor
from faultlens.monitor.softmax import probabilities
from faultlens.vlm.backend import VlmBackend
from faultlens.vlm_opinion import VlmReader

#: Most probable classes in an answer.
N_SHOWN = 5


class Judge:
    """A classifier and its monitor, for one picture at a time, from any thread.

    Pictures are decoded side by side; the network runs one after the other, since it uses all
    cores by itself.

    Args:
        monitor: Fitted on the classifier.
        model: The classifier.
        max_pixels: Refuse larger pictures by their header.
        vlm: The vision-language model, where the monitor asks one; loaded by its SPEC unless given.

    Raises:
        InputError: The two do not belong together, or the monitor needs what the classifier does
            not give. Pictures of noise are judged to find out.
    """

    def __init__(
        self,
        monitor: RuntimeMonitor,
        model: Classifier,
        max_pixels: int,
        vlm: VlmBackend | None = None,
    ) -> None:
        self.monitor = monitor
        self.model = model
        self._max_pixels = max_pixels
        self._lock = threading.Lock()
        monitoring.check_classes(monitor, model.class_names)
        self._read: Callable[[FloatArray], Features] = self._light
        if monitor.layers:
            self._read = InnerReader(model, *full_mode.wanted(monitor.layers))
        asked = monitor.vlm_classes
        self._opinion = None if asked is None else VlmReader(asked, vlm)
        shape = getattr(model, "input_shape", (None,) * 4)
        noise = Image.effect_noise((64, 64), 64).convert("RGB")
        probe(model.preprocessing, shape, lambda batch: monitor(self._features(batch, noise)))

    def __call__(self, data: bytes, name: str = "image") -> dict[str, Any]:
        """Judge a picture.

        Args:
            data: All bytes of the file.
            name: For messages.

        Returns:
            A JSON object: `class`, `probabilities` of the five most probable classes, `accept`,
            `score`, `p_value`, `reasons`; never NaN or infinity.

        Raises:
            RefusedError: No picture (400), too large (413), or not one that the network can take
                (422).
        """
        try:
            picture = decode(data, self._max_pixels, name)
        except ImageError as error:
            raise RefusedError(400, str(error)) from error
        except InputError as error:
            raise RefusedError(413, str(error)) from error
        try:
            batch = self.model.prepare(picture)[None]
            with self._lock:
                features = self._features(batch, picture)
                verdict = self.monitor(features)
        except InputError as error:
            raise RefusedError(422, f"{name} cannot be judged: {error}") from error
        p = probabilities(features.logits)[0]
        order = np.argsort(-p, kind="stable")[:N_SHOWN]
        classes = self.monitor.classes
        answer = {
            "class": classes[int(features.predictions[0])],
            "probabilities": {classes[k]: float(p[k]) for k in order},
            **verdict.to_json()[0],
        }
        return dict(files.json_value(answer))

    def _features(self, batch: FloatArray, picture: Image.Image) -> Features:
        """Read a batch, all of the same picture where the VLM is asked."""
        found = self._read(batch)
        if self._opinion is None:
            return found
        return found.with_layer(VLM, np.repeat(self._opinion([picture]), len(batch), axis=0))

    def _light(self, batch: FloatArray) -> Features:
        found = self.model.encode(batch)
        return Features(found["embedding"], found["logits"])
