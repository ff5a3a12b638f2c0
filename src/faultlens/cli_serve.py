"""The command `faultlens monitor serve`: classifier and monitor behind HTTP."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from faultlens import console
from faultlens.errors import InputError
from faultlens.terminal import Debug, Json, Quiet, err, errors

_LOOPBACK = ("127.", "::1", "localhost")


def register(app: typer.Typer) -> None:
    """Add the command to the commands about the monitor."""
    app.command(no_args_is_help=True)(serve)


def serve(
    monitor: Annotated[Path, typer.Argument(help="A file that 'faultlens monitor fit' wrote.")],
    model: Annotated[str, typer.Option(help="onnx:FILE, torch:MODULE:FACTORY …")],
    host: Annotated[str, typer.Option(help="127.0.0.1 is reached from here only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any free one.")] = 8000,
    max_bytes: Annotated[int, typer.Option(help="Of a request's body.")] = 10 * 2**20,
    max_pixels: Annotated[int, typer.Option(help="Of a picture.")] = 25_000_000,
    rate: Annotated[
        float, typer.Option(help="Requests a second of each client; 0 is no limit.")
    ] = 100.0,
    timeout: Annotated[
        float, typer.Option(help="Seconds in which a request must arrive: head, then body.")
    ] = 10.0,
    max_connections: Annotated[int, typer.Option(help="Open at once.")] = 1000,
    state: Annotated[
        Path | None,
        typer.Option(help="File of the counters; by default beside MONITOR, *.counters.json."),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of a torch: factory.")] = None,
    split_at: Annotated[
        str | None, typer.Option(help="Tensor or module where the head begins.")
    ] = None,
    preprocess: Annotated[
        Path | None, typer.Option(help="YAML with class names and preprocessing.")
    ] = None,
    vlm: Annotated[
        str | None,
        typer.Option(help="Where a monitor fitted with --vlm finds the VLM, if not where it was."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    show_traceback: Debug = False,
) -> None:
    """Serve predictions with the monitor's verdict over HTTP, until SIGTERM or Ctrl-C.

    POST a picture to /predict; GET /health and /metrics (Prometheus). There is no encryption and
    no login: put a proxy in front of it where others can reach it. Counters survive a restart.

    Examples:

      faultlens monitor serve out/monitor.safetensors --model onnx:net.onnx

      curl -F file=@photo.jpg http://127.0.0.1:8000/predict
    """
    with errors(show_traceback, "counters are saved"):
        # First what an extra is needed for: without it nothing else matters.
        from faultlens.deploy import server, service  # noqa: PLC0415 (--help must be quick)
        from faultlens.deploy.counters import CounterFile, Counters, Origin  # noqa: PLC0415
        from faultlens.deploy.judge import Judge  # noqa: PLC0415
        from faultlens.deploy.limits import Limits  # noqa: PLC0415
        from faultlens.files import sha256_file  # noqa: PLC0415
        from faultlens.models.load import load_model  # noqa: PLC0415
        from faultlens.monitor.runtime import RuntimeMonitor  # noqa: PLC0415
        from faultlens.vlm.load import load_vlm  # noqa: PLC0415

        limits = Limits(
            max_bytes=max_bytes, max_pixels=max_pixels, rate=rate, timeout_s=timeout,
            max_connections=max_connections,
        )  # fmt: skip
        fitted = RuntimeMonitor.load(monitor)
        classifier = load_model(model, weights=weights, split_at=split_at, preprocess=preprocess)
        judge = Judge(fitted, classifier, max_pixels, load_vlm(vlm) if vlm else None)
        counters = Counters.of(fitted)
        path = state or monitor.with_suffix(".counters.json")
        if path.resolve() == monitor.resolve():
            raise InputError(f"state must be another file than the monitor, got '{path}' for both")
        listening = server.listen(host, port)
        kept = CounterFile(path, Origin(sha256_file(monitor), classifier.content_hash))
        try:
            kept.load(counters)
            counters.n_starts += 1
            kept.save(counters.state())
            logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
            if kept.set_aside is not None:
                err.print(f"note: counters of another monitor or model are now {kept.set_aside}",
                          soft_wrap=True)  # fmt: skip
            _tell(server.url_of(listening), path, as_json)
            if not quiet and not host.startswith(_LOOPBACK):
                err.print("note: there is no encryption and no login; others can reach this",
                          soft_wrap=True)  # fmt: skip
            app = service.create_app(service.Service(judge, counters, limits, kept))
            server.run(app, listening, limits, counters)
        finally:
            listening.close()
            kept.close()
        if not quiet:
            err.print(f"stopped; counters are in {path}", soft_wrap=True)


def _tell(url: str, path: Path, as_json: bool) -> None:
    if as_json:
        console.print_json({"url": url, "state": str(path)})
    else:
        console.out.print(f"serving: {url}", soft_wrap=True)
    console.out.file.flush()
