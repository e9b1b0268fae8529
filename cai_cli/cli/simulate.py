"""cai simulate"""

from __future__ import annotations

import json as json_
import sys
from typing import Annotated, Any

import typer

from cai_cli.simulate.faults import STATUSES, WRECKS

HELP = """The simulated model as a server on 127.0.0.1, which speaks Messages and chat completions, and fails when told to.

\b
Examples:
  cai simulate
  cai simulate --world harm=0.3 --world refusal_rate=0.1 --sampling
  cai simulate --rpm 60 --fail 529%0.05 --fail hang@100
  cai simulate --world '{"position": 0.8, "seed": 3}' --port 0 --json

\b
--fail KIND[:ARGUMENT][WHEN]; the first that applies wins.
WHEN, by default always:
  @N, @N-M, @N-   by number of the request, from 1
  %R              of share R, drawn by body and attempt: a rerun repeats it
  ^N              the first N attempts of every body
  ~TEXT           of bodies that hold the text
KIND:
  STATUS      that status with the API's error body: {statuses};
              429:7 sends retry-after: 7 (429 alone sends 1, 429: none)
{kinds}

\b
Its own are GET /stats, and POST /reset, which counts from zero and takes options as JSON: {"fail": ["500@1-"]};
POST /change takes them too, and counts on.
"""
HELP = HELP.replace("{statuses}", " ".join(map(str, STATUSES))).replace(
    "{kinds}", "\n".join(f"  {kind:<11} {what}" for kind, what in WRECKS.items())
)

app = typer.Typer(
    rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 130},
)  # fmt: skip


@app.command(help=HELP)
def simulate(
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="0: any free one.")] = 8123,
    world: Annotated[list[str] | None, typer.Option(
        metavar="KEY=VALUE|JSON", help="Settings of the simulated world, as under model.world. Repeatable.")] = None,
    fail: Annotated[list[str] | None, typer.Option(metavar="SPEC", help="Misbehave, as said above. Repeatable.")] = None,
    model: Annotated[list[str] | None, typer.Option(
        metavar="NAME", help="The only models there are. Repeatable. Default: any name will do.")] = None,
    latency_ms: Annotated[float, typer.Option(metavar="N", min=0, help="Wait before every answer.", show_default=False)] = 0,
    jitter: Annotated[bool, typer.Option("--jitter", help="50 to 150% of that, drawn by body and attempt.")] = False,
    sampling: Annotated[bool, typer.Option(
        "--sampling", help="Answer the same body otherwise each time. Default: a body gets the same answer.")] = False,
    rate: Annotated[float, typer.Option(metavar="N", min=0, help="Requests a second; above it 429.", show_default=False)] = 0,
    burst: Annotated[float, typer.Option(
        metavar="N", min=0, help="Requests at once under --rate. Default: those of a second.", show_default=False)] = 0,
    rpm: Annotated[float, typer.Option(metavar="N", min=0, help="Requests a minute; above it 429.", show_default=False)] = 0,
    itpm: Annotated[float, typer.Option(metavar="N", min=0, help="Input tokens a minute.", show_default=False)] = 0,
    otpm: Annotated[float, typer.Option(
        metavar="N", min=0, help="Output tokens a minute; max_tokens is reserved at the start.", show_default=False)] = 0,
    ids: Annotated[str, typer.Option(metavar="KIND", help="random, or constant: the id of every answer.")] = "random",
    no_key: Annotated[bool, typer.Option("--no-key", help="Answer without a key too. Default: any key will do.")] = False,
    with_parent: Annotated[bool, typer.Option("--with-parent", help="End when standard input is closed, too.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the port and the address as one JSON object.")] = False,
) -> None:  # fmt: skip
    import asyncio
    import functools

    from cai_cli.simulate.options import Options
    from cai_cli.simulate.serving import serve

    options = Options().changed({
        "world": _world(world or []), "fail": fail or [], "models": model or [], "latency_ms": latency_ms, "jitter": jitter,
        "sampling": sampling, "rate": rate, "burst": burst, "rpm": rpm, "itpm": itpm, "otpm": otpm, "ids": ids, "no_key": no_key,
    })  # fmt: skip
    asyncio.run(serve(options, port, functools.partial(_say, json), with_parent))


def _say(as_json: bool, port: int) -> None:
    from cai_cli.simulate.serving import HOST

    url = f"http://{HOST}:{port}"
    lines = [json_.dumps({"port": port, "url": url})] if as_json else [
        f"the simulated model answers at {url} until Ctrl-C; in another terminal, for what speaks Messages or chat completions:",
        f"  export ANTHROPIC_BASE_URL={url} ANTHROPIC_API_KEY=anything",
        f"  export OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY=anything",
    ]  # fmt: skip
    sys.stdout.write("\n".join([*lines, ""]))
    sys.stdout.flush()  # whoever started us may wait for it


def _world(given: list[str]) -> dict[str, Any]:
    """Settings written as KEY=VALUE or as JSON objects. Raises: Fix"""
    from cai_cli.documents import parse_scalar
    from cai_cli.errors import Fix

    settings: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not text.lstrip().startswith("{"):
            if not equals:
                raise Fix(f"--world {text}: this is no setting", "write --world refusal_rate=0.1, or a JSON object")
            settings[name.strip()] = parse_scalar(value)
            continue
        try:
            settings |= json_.loads(text)
        except ValueError:
            raise Fix(f"--world {text}: this is no JSON object", """write --world '{"refusal_rate": 0.1}'""") from None
    return settings
