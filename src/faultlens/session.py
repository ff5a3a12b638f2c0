"""DebugSession: the results of a run in a folder, opened and asked."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from faultlens import files, stages
from faultlens.concepts import ConceptFile
from faultlens.config import RunConfig
from faultlens.data.images import ImageSource
from faultlens.errors import InputError, StoreError, nearest
from faultlens.explain.edit import edit_known, edit_new, encode
from faultlens.explain.image import Explanation, explain_known, explain_new
from faultlens.features import TextSide
from faultlens.finding import SCHEMA, Finding
from faultlens.heatmaps import ClassCounts, DifferentialHeatmap, Heatmap, HeatmapCounts
from faultlens.measure import Progress
from faultlens.models.classifier import Classifier
from faultlens.models.load import load_model
from faultlens.remote import is_url

if TYPE_CHECKING:
    from faultlens.query import Selection
    from faultlens.spec.suite import Report

#: 0 clean, 1 fault found, 3 unknown; 2 is a wrong input and never reaches here.
EXIT_CODES = {"clean": 0, "fault": 1, "unknown": 3}

#: What stands for the place of images that have none: nothing is found there a second time.
_IN_MEMORY = "pictures in memory"


@dataclass(frozen=True, slots=True, eq=False)
class DebugSession:
    """The results of one run, in a folder.

    Attributes:
        folder: Where the files are.
        info: `session.json`: versions, hashes, configuration, numbers.
        findings: Worst first.
        classes: K names.
        concepts: C names.
        counts: Heatmap counts of the classifier (`model`) and of the VLM (`vlm`).
        images: Per analysed image a JSON object: name, label, prediction, verdict ….
    """

    folder: Path
    info: Mapping[str, Any]
    findings: tuple[Finding, ...]
    classes: tuple[str, ...]
    concepts: tuple[str, ...]
    counts: Mapping[str, ClassCounts]
    images: tuple[dict[str, Any], ...]

    @property
    def status(self) -> str:
        """`clean`, `fault` or `unknown`."""
        return str(self.info["status"])

    @property
    def exit_code(self) -> int:
        """0 clean, 1 fault found, 3 unknown."""
        return EXIT_CODES[self.status]

    @property
    def headline(self) -> str:
        """One sentence."""
        return str(self.info["headline"])

    @property
    def valid_concepts(self) -> list[int]:
        """Indices of the concepts that passed the validity gate."""
        return list(self.info["valid_concepts"])

    @property
    def numbers(self) -> Mapping[str, Any]:
        """Accuracy, head share, map quality and the like; see `docs/files.md`."""
        return dict(self.info["numbers"])

    @classmethod
    def run(
        cls,
        model: "Classifier | str | None" = None,
        *,
        images: "ImageSource | str | Path | None" = None,
        vlm: "TextSide | str",
        concepts: "ConceptFile | str | Path",
        out: "str | Path",
        progress: Progress | None = None,
        **settings: Any,
    ) -> "DebugSession":
        """Run the whole job.

        Args:
            model: A loaded classifier, or its SPEC.
            images: An image source, or a folder, a CSV file or a URL of either.
            vlm: A loaded vision-language model, or its SPEC.
            concepts: A concepts file, or its path.
            out: The session's folder; a run into it resumes what it finds there.
            progress: Called as `progress(stage, done, total)`.
            settings: Any other field of `RunConfig`, such as `split="test"`, `features="f.st"`.

        Raises:
            InputError: Something given is wrong; nothing was computed.
            InsufficientDataError: Too few images.
        """
        given: dict[str, Any] = {
            "model": model if isinstance(model, str) or model is None else model.name,
            "images": images.root or _IN_MEMORY if isinstance(images, ImageSource) else images,
            "vlm": vlm if isinstance(vlm, str) else vlm.name,
            "concepts": concepts if not isinstance(concepts, ConceptFile) else Path("concepts"),
            "out": out,
        }
        config = RunConfig.parse({**given, **settings}, "run")
        stages.run(config, stages.Inputs(model, images, vlm, concepts), progress)
        return _open(config.out)

    @classmethod
    def run_config(cls, config: RunConfig, progress: Progress | None = None) -> "DebugSession":
        """Run the whole job from a configuration."""
        inputs = stages.Inputs(config.model, config.images, config.vlm, config.concepts)
        stages.run(config, inputs, progress)
        return _open(config.out)

    @classmethod
    def open(cls, folder: "str | Path") -> "DebugSession":
        """Open the results of an earlier run; every file is checked against its hash.

        Raises:
            StoreError: A file is missing or damaged; the message names it and says how to rebuild.
        """
        return _open(Path(folder))

    def heatmap(
        self, kind: str = "ground-truth", cls: str | int = 0, source: str = "model"
    ) -> Heatmap | DifferentialHeatmap:
        """Return one heatmap.

        Args:
            kind: `ground-truth`, `output-label`, `correct`, `incorrect`, `incorrect-output` or
                `differential`.
            cls: Class name or index.
            source: `model` or `vlm`.

        Raises:
            InputError: Unknown kind, class or source.
        """
        if source not in self.counts:
            raise InputError(f"source must be 'model' or 'vlm', got '{source}'")
        if isinstance(cls, str):
            if cls not in self.classes:
                raise InputError(f"cls must be a class, got '{cls}'; {nearest(cls, self.classes)}")
            cls = self.classes.index(cls)
        counts = self.counts[source]
        return counts.differential(cls) if kind == "differential" else counts.heatmap(kind, cls)

    def explain(self, image: "str | Path", model: Classifier | None = None) -> Explanation:
        """Explain one image: of the run, by its name; or a new file, through the classifier.

        Args:
            image: Name as in the run, or a path.
            model: The classifier, where the session cannot load it by its SPEC.

        Returns:
            What speaks for and against the prediction. For a wrong one, and for that of a new
            file, also the smallest edit that flips it; where that needs what is no longer there,
            the edit says so.

        Raises:
            InputError: Neither a name of the run nor a readable picture.
        """
        name = self._name_of(str(image))
        valid = np.array(self.valid_concepts, np.int64)
        if name is not None:
            stored = self.arrays("strengths")
            found = explain_known(
                self.counts["model"], valid, self.images[name],
                stored["model"][name], stored["vlm"][name],
            )  # fmt: skip
            return replace(found, edit=edit_known(self, name, lambda: self._classifier(model)))
        path = Path(image)
        if not path.is_file():
            known = [row["name"] for row in self.images]
            raise InputError(
                f"image must be one of the run or a file, got '{image}'; "
                f"{nearest(str(image), known)}"
            )
        model = self._classifier(model)
        encoded = encode(path, model)
        found = explain_new(
            self.counts["model"], valid, self.arrays("alignment"), str(path), encoded
        )
        return replace(found, edit=edit_new(self, encoded, model.head))

    def check(
        self,
        spec: "str | Path",
        *,
        required_rate: float = 0.95,
        confidence: float = 0.95,
        is_exploratory: bool = False,
        seed: int | None = None,
    ) -> "Report":
        """Check on which share of the run's images the specifications of a file hold.

        Args:
            spec: The file.
            required_rate: Share that must satisfy a specification that asks for none, in (0, 1].
            confidence: Of verdicts and intervals, likewise, in (0, 1).
            is_exploratory: Benjamini-Hochberg over the suite, not Holm.
            seed: Ask images one after the other, in this seed's random order, until decided; None
                asks all of them.

        Returns:
            The verdicts `HOLDS`, `FAILS` or `UNKNOWN`, also written to `specs/check.json`.

        Raises:
            SpecError: The file is wrong, or speaks of what this session does not know.
            InputError: Features, or images of a reference split, are no longer where they were.
            StoreError: The embeddings of the run are missing or damaged.
        """
        from faultlens import checking  # noqa: PLC0415  built on sessions
        from faultlens.spec.check import Rule  # noqa: PLC0415

        return checking.check(
            self, spec, Rule(required_rate, confidence, is_exploratory), seed=seed
        )

    def verify(
        self,
        spec: "str | Path",
        *,
        region: str = "slabs(coverage=0.9)",
        timeout_s: float = 60.0,
        seed: int = 0,
        certificates: "str | Path | None" = None,
        model: Classifier | None = None,
    ) -> "Report":
        """Prove or refute the specifications of a file over regions of the model's embeddings.

        Args:
            spec: The file.
            region: For specifications that name none; fitted to each class.
            timeout_s: Seconds that one specification over one region may take.
            seed: Of what regions choose at random.
            certificates: Folder for the certificates; `specs/certificates` by default.
            model: The classifier, where the session cannot load it by its SPEC.

        Returns:
            The verdicts `PROVED`, `REFUTED`, `VACUOUS`, `UNKNOWN` or `ERROR`, each with the
            coverage of its region, also written to `specs/verify.json`.

        Raises:
            SpecError: The file is wrong, or speaks of what this session does not know.
            InputError: The head is not known, or model or images are no longer where they were.
            StoreError: The embeddings of the run are missing or damaged.
        """
        from faultlens import verifying  # noqa: PLC0415  built on sessions

        settings = verifying.Settings(region, timeout_s, seed, certificates)
        return verifying.verify(self, spec, settings, model=model)

    def where(self, formula: str, source: str = "model") -> "Selection":
        """Find the images on which a formula holds, those first where it holds clearly.

        Args:
            formula: In the language of `docs/guide/con_spec.md`, such as
                `predict(truck) and not hasCon(wheels)`; of images also `label(truck)`,
                `vlm(truck)`, `correct`, `wrong`.
            source: Whose strengths are asked: `model` (what the embedding carries) or `vlm` (what
                the picture shows). Predictions are the classifier's, either way.

        Returns:
            The images, ranked by margin; `.where(…)` narrows, `.by("class")` parts, `.heatmap()`
            shows what they have in common, `.save_images(folder)` writes a contact sheet.

        Raises:
            SpecError: The formula is wrong, or speaks of what this session does not know.
            InputError: Features, or images of a reference split, are no longer where they were.
            StoreError: The embeddings of the run are missing or damaged.
        """
        from faultlens import query  # noqa: PLC0415  built on sessions

        return query.where(self, formula, source)

    def _classifier(self, model: Classifier | None) -> Classifier:
        """Return the classifier of the run: the given one, or loaded; InputError for another."""
        model = model or self.load_classifier()
        known_hash = self.info["facts"].get("model", {}).get("content_hash")
        if known_hash is not None and model.content_hash != known_hash:
            raise InputError(
                "model must be the one of the run, got another (weights or preprocessing changed); "
                "run 'faultlens debug' again"
            )
        return model

    def _name_of(self, image: str) -> int | None:
        names = {row["name"]: i for i, row in enumerate(self.images)}
        if image in names:
            return names[image]
        root = self.info["facts"].get("images", {}).get("root")
        if root and is_url(root):
            return names.get(image.removeprefix(f"{root}/"))
        if root:
            resolved = Path(image).resolve()
            if resolved.is_relative_to(Path(root).resolve()):
                return names.get(resolved.relative_to(Path(root).resolve()).as_posix())
        return None

    def load_classifier(self) -> Classifier:
        """Load the classifier by its SPEC, as the run did.

        Raises:
            InputError: The session knows no SPEC, or nothing can be loaded by it.
        """
        c = self.info["config"]
        if not c.get("model") or not (":" in c["model"] or c["model"].endswith(".onnx")):
            raise InputError(
                f"model must be given: the session knows only its name, got '{c.get('model')}'; "
                "explain(image, model=…)"
            )
        return load_model(
            c["model"],
            weights=c.get("weights"),
            preprocess=c.get("preprocess"),
            split_at=c.get("split_at"),
            allow_pickle=bool(c.get("allow_pickle")),
        )

    def arrays(self, name: str) -> dict[str, Any]:
        """Return the arrays of `alignment`, `heatmaps` or `strengths`, as stored."""
        path = self.folder / f"{name}.safetensors"
        return files.load_arrays(path, sha256=self.info["files"][path.name])[0]


def _open(folder: Path) -> DebugSession:
    if not (folder / "session.json").exists():
        raise StoreError(
            f"{folder} must be a finished session, but it has no session.json; "
            "run 'faultlens debug' with --out there (it resumes)"
        )
    info = files.read_json(folder / "session.json")
    if info.get("schema") != SCHEMA:
        raise StoreError(
            f"{folder} must be a session of schema {SCHEMA}, got {info.get('schema')}; "
            "run it again with this version"
        )
    rebuild = f"run 'faultlens debug' with --out {folder} again (embeddings are kept)"
    for name, digest in info["files"].items():
        path = folder / name
        if not path.exists():
            raise StoreError(f"{path} must be there, but is missing; {rebuild}")
        if files.sha256_file(path) != digest:
            raise StoreError(f"{path} must be as the run wrote it, but it is damaged; {rebuild}")
    concepts = tuple(c["concept"] for c in files.read_json(folder / "concepts.json")["concepts"])
    classes = tuple(info["classes"])
    arrays, _ = files.load_arrays(folder / "heatmaps.safetensors")
    counts = {
        source: ClassCounts(concepts, classes, *(_counts(arrays, source, p) for p in stages.COUNTS))
        for source in ("model", "vlm")
    }
    found = files.read_json(folder / "findings.json")["findings"]
    return DebugSession(
        folder=folder,
        info=info,
        findings=tuple(Finding.from_json(f) for f in found),
        classes=classes,
        concepts=concepts,
        counts=counts,
        images=tuple(files.read_json(folder / "images.json")),
    )


def _counts(arrays: Mapping[str, Any], source: str, part: str) -> HeatmapCounts:
    wins, n = (arrays[f"{source}.{part}.{key}"].astype(np.int64) for key in ("wins", "n"))
    return HeatmapCounts(wins, n)


def as_json(session: DebugSession) -> dict[str, Any]:
    """Return the result of a run as one JSON object, as `faultlens debug --json` prints it."""
    return {
        "status": session.status,
        "exit_code": session.exit_code,
        "headline": session.headline,
        "numbers": dict(session.numbers),
        "findings": [f.to_json() for f in session.findings],
        "report": str(session.folder / "report.html"),
        "folder": str(session.folder),
    }


def explanation_json(explanations: Sequence[Explanation]) -> list[dict[str, Any]]:
    """Return explanations as JSON objects."""
    return [dict(files.json_value(asdict(e))) for e in explanations]
