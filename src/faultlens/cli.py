"""The command line: one thin command a stage. Results go to stdout, all else to stderr."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from faultlens import (
    cli_concepts,
    cli_diff,
    cli_export,
    cli_find,
    cli_gate,
    cli_log,
    cli_monitor,
    cli_serve,
    cli_spec,
    cli_training,
    cli_vlm,
    console,
)
from faultlens.terminal import Debug, Json, Quiet, err, errors, progress

app = typer.Typer(
    name="faultlens",
    help="Debug a trained image classifier in words.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version  # noqa: PLC0415 (only when asked)

        typer.echo(f"faultlens {version('faultlens')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Debug a trained image classifier in words.

    Exit codes: 0 clean, 1 fault found, 2 wrong input, 3 unknown.
    """


@app.command(no_args_is_help=True)
def debug(
    out: Annotated[Path | None, typer.Option(help="The session's folder.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="faultlens.yaml; options win over it.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="onnx:FILE, torch:MODULE:FACTORY …")] = None,
    images: Annotated[
        str | None, typer.Option(help="Folder, CSV file, URL, or KIND:PATH (rival10, hf …).")
    ] = None,
    vlm: Annotated[str | None, typer.Option(help="demo, offline, clip:FOLDER …")] = None,
    concepts: Annotated[
        Path | None, typer.Option(help="YAML file, pack, or both: mine.yaml+spurious.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split to analyse.")] = None,
    reference_split: Annotated[
        str | None, typer.Option(help="Split to fit on; cross-fitting without it.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of a torch: factory.")] = None,
    split_at: Annotated[
        str | None, typer.Option(help="Tensor or module where the head begins.")
    ] = None,
    stages: Annotated[
        str | None,
        typer.Option(help="Modules or tensors, separated by commas, or auto: which is broken?"),
    ] = None,
    preprocess: Annotated[
        Path | None, typer.Option(help="YAML with class names and preprocessing.")
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="Embeddings, logits, labels instead of model and images.")
    ] = None,
    head: Annotated[Path | None, typer.Option(help="The features' head (weight, bias).")] = None,
    classes: Annotated[
        str | None, typer.Option(help="Class names of the features, separated by commas.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many images.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images at once through a network.")
    ] = None,
    max_failures: Annotated[
        float | None, typer.Option(help="Share of files that may fail to decode (0.01).")
    ] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Open weights that can run code.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    show_traceback: Debug = False,
) -> None:
    """Find out where a classifier goes wrong, which part is at fault and why.

    Example:

      faultlens debug --model onnx:net.onnx --preprocess net.yaml --images photos/ --split test
      --vlm offline --concepts concepts.yaml --out out/
    """
    given = {
        "model": model, "images": images, "vlm": vlm, "concepts": concepts, "out": out,
        "split": split, "reference_split": reference_split, "weights": weights,
        "split_at": split_at, "stages": stages, "preprocess": preprocess,
        "features": features, "head": head, "classes": classes.split(",") if classes else None,
        "limit": limit, "batch_size": batch_size, "max_failures": max_failures,
        "allow_pickle": allow_pickle or None,
    }  # fmt: skip
    with errors(show_traceback):
        from faultlens import session  # noqa: PLC0415 (--help must be quick)
        from faultlens.config import RunConfig  # noqa: PLC0415

        if config is not None:
            settings = RunConfig.read(config, **given)
        else:
            settings = RunConfig.parse(
                {k: v for k, v in given.items() if v is not None}, "command line"
            )
        with progress(quiet) as report:
            result = session.DebugSession.run_config(settings, report)
    if as_json:
        console.print_json(session.as_json(result))
    else:
        console.show(result)
    raise typer.Exit(result.exit_code)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for pictures and session.")] = Path(
        "faultlens-demo"
    ),
    model: Annotated[str, typer.Option(help="faulty or healthy.")] = "faulty",
    seed: Annotated[int, typer.Option(help="Of the pictures.")] = 0,
    n: Annotated[int, typer.Option(help="Number of pictures.")] = 4000,
    as_json: Json = False,
    quiet: Quiet = False,
    show_traceback: Debug = False,
) -> None:
    """Debug a shipped classifier on drawn pictures; needs nothing else and no network.

    Exits like debug: 1 where a fault is found, as it should be for the faulty model.

    Example:

      faultlens demo --out faultlens-demo
    """
    with errors(show_traceback):
        from faultlens import demo as shipped  # noqa: PLC0415
        from faultlens import session  # noqa: PLC0415

        with progress(quiet) as report:
            result = shipped.run(out, model, seed, n, report)
    same = shipped.command(result)
    if as_json:
        console.print_json(session.as_json(result) | {"command": same})
    else:
        console.out.print(f"The same for a model and pictures of your own:\n\n  {escape(same)}\n")
        console.show(result)
    raise typer.Exit(result.exit_code)


@app.command(no_args_is_help=True)
def world(
    out: Annotated[Path, typer.Option(help="New folder.")],
    n: Annotated[int, typer.Option(help="Number of pictures.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same pictures.")] = 0,
    background: Annotated[
        list[str] | None, typer.Option(help="Only these: sky, road, grass, water, snow, room.")
    ] = None,
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="Only these, such as truck; repeatable.")
    ] = None,
    light: Annotated[
        list[str] | None, typer.Option(help="Only these: neutral, dark, bright, warm, cold.")
    ] = None,
    no_watermark: Annotated[
        bool, typer.Option("--no-watermark", help="No stock-photo mark on any picture.")
    ] = False,
    no_occluder: Annotated[
        bool, typer.Option("--no-occluder", help="Nothing before any object.")
    ] = False,
    masks: Annotated[
        bool, typer.Option("--masks", help="Also masks.npy: where each attribute is visible.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    show_traceback: Debug = False,
) -> None:
    """Draw ConceptWorld: pictures whose every concept is known, with tables of the truth.

    The folder, or the world.csv in it, is what debug takes as --images.

    Example:

      faultlens world --out world/ --n 5000 --background snow --background road
    """
    with errors(show_traceback, "nothing was written"):
        from faultlens.data.world import export, scene  # noqa: PLC0415

        given = {"backgrounds": background, "classes": classes, "lights": light}
        chosen: dict[str, Any] = {k: tuple(v) for k, v in given.items() if v}
        chosen |= {"marked": 0.0} if no_watermark else {}
        chosen |= {"occluded": 0.0} if no_occluder else {}
        recipe = scene.Recipe(**chosen)
        with progress(quiet) as report:
            export.export(
                out, n, seed, recipe,
                workers=os.cpu_count() or 1,
                has_masks=masks,
                progress=report and (lambda done, total: report("drawing", done, total)),
            )  # fmt: skip
    if as_json:
        console.print_json(
            {"folder": str(out), "table": str(out / "world.csv"), "n": n, "seed": seed}
        )
    else:
        console.out.print(f"{n} pictures: {out}\ntruth: {out / 'world.csv'}, {out / 'scenes.csv'}")


@app.command(no_args_is_help=True)
def explain(
    folder: Annotated[Path, typer.Argument(help="A session's folder.")],
    images: Annotated[list[str], typer.Argument(help="Names of the run's images, or files.")],
    as_json: Json = False,
    quiet: Quiet = False,
    show_traceback: Debug = False,
) -> None:
    """Explain images: prediction, concepts, how they compare with their class, verdict.

    Example:

      faultlens explain out/ test/ship/ketch_0012.jpg
    """
    with errors(show_traceback):
        from faultlens import session  # noqa: PLC0415

        opened = session.DebugSession.open(folder)
        if opened.status == "unknown" and not quiet:
            err.print("note: the vision-language model does not know these images; doubt its words")
        explanations = [opened.explain(image) for image in images]
    if as_json:
        console.print_json(session.explanation_json(explanations))
        return
    for e in explanations:
        console.show_explanation(e)


@app.command(no_args_is_help=True)
def fix(
    folder: Annotated[Path, typer.Argument(help="A session's folder.")],
    finding: Annotated[str | None, typer.Option(help="Only for this finding, by its id.")] = None,
    out: Annotated[Path | None, typer.Option(help="Results; DIR/fixes by default.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    show_traceback: Debug = False,
) -> None:
    """Propose fixes, try each on images it never saw, and write heads and lists of images.

    Exits with 0 when the fixes were tried, whether or not one is advised.

    Example:

      faultlens fix out/ --finding head
    """
    with errors(show_traceback, "the same command begins again"):
        from faultlens import fixing, session  # noqa: PLC0415

        opened = session.DebugSession.open(folder)
        with progress(quiet) as report:
            result = fixing.fix(opened, finding=finding, out=out, progress=report)
    if as_json:
        console.print_json(result.to_json())
    else:
        console.show_fixes(result)


cli_spec.register(app)
cli_concepts.register(app)
cli_find.register(app)
cli_gate.register(app)
cli_diff.register(app)
cli_log.register(app)
cli_monitor.register(app)
cli_export.register(cli_monitor.monitor_app)
cli_serve.register(cli_monitor.monitor_app)
cli_training.register(app)
cli_vlm.register(app)


def main() -> None:
    """Entry point of the command `faultlens`."""
    app()
