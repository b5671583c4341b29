"""Commands for people, about checkpoints that are there: compare two, talk to one, give one away."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from .errors import CheckpointError, UserError

if TYPE_CHECKING:
    from .evaluation.chat import Chat
    from .study.plan import Plan

app = typer.Typer()

Overlays = Annotated[list[Path] | None, Option(help="an overlay, as for Snakemake; again for the next")]
FITS = ("crop", "pad", "warp")
A_CHECKPOINT = "MODEL/VARIANT[/SEED], a done.json, or the folder of a run or of weights"


def _plan(overlays: list[Path] | None) -> Plan:
    from .study.files import merged_configuration
    from .study.plan import Plan

    return Plan.of(merged_configuration(Path.cwd(), overlays or ()), Path.cwd())


@app.command()
def compare(
    a: Annotated[str, Argument(help=A_CHECKPOINT)],
    b: Annotated[str, Argument(help="another; differences are B minus A")],
    configfile: Overlays = None,
) -> None:
    """Say what differs between two checkpoints."""
    from .report.checkpoints import find
    from .report.results import read_published
    from .report.side_by_side import as_text, side_by_side

    plan = _plan(configfile)
    results = Path(plan.results)
    published = read_published(Path("config") / "published.csv")
    print(as_text(side_by_side(find(a, results), find(b, results), plan.study, published)), end="")


@app.command()
def answer(
    checkpoint: Annotated[str, Option(help=A_CHECKPOINT)],
    question: Annotated[str | None, Argument(help="without it: a conversation, until an empty line")] = None,
    image: Annotated[Path | None, Option(help="a picture; without it there is text alone")] = None,
    template: Annotated[str | None, Option(help="vicuna_v1 or phi; by default that of its SFT")] = None,
    image_fit: Annotated[str | None, Option(help="crop, pad or warp; by default that of its SFT")] = None,
    device: Annotated[str | None, Option(help="cuda or cpu; by default a GPU where there is one")] = None,
    precision: Annotated[str | None, Option(help="bf16 or float32; by default bf16 on a GPU")] = None,
    max_new_tokens: Annotated[int, Option(min=1)] = 512,
    configfile: Overlays = None,
) -> None:
    """Ask a checkpoint about a picture."""
    from .artifacts import FinishedStage
    from .report.checkpoints import STAGE_1, find_one

    found = find_one(checkpoint, Path(_plan(configfile).results))
    if found.stage.stage == STAGE_1:
        raise CheckpointError(f"{found.name} is of stage 1, a projector alone: name an SFT")
    settings = {} if template and image_fit else found.settings
    asked = {"template": template or settings["template"], "image_fit": image_fit or settings["image"]}
    for key, value, known in (("template", asked["template"], ("vicuna_v1", "phi")), ("image-fit", asked["image_fit"], FITS)):
        if value not in known:
            raise typer.BadParameter(f"--{key} is {value!r}, and should be one of {', '.join(known)}")

    import torch

    from .evaluation.chat import Chat, open_picture

    picture = open_picture(image) if image is not None else None
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    precision = precision or ("bf16" if device.startswith("cuda") else "float32")
    weights = FinishedStage.open(found.done).weights
    chat = Chat(weights, **asked, device=device, precision=precision, max_new_tokens=max_new_tokens)
    chat.show(picture)
    if question is not None:
        print(chat.ask(question))
    else:
        _converse(chat)


def _converse(chat: Chat) -> None:
    """Read questions until an empty line or the end; ``/image PATH`` shows another picture, ``/new`` begins anew."""
    from .evaluation.chat import open_picture

    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(prompt).strip()
        except (EOFError, KeyboardInterrupt):
            return
        command, _, rest = line.partition(" ")
        try:
            if not line:
                return
            if command == "/new":
                chat.show(chat.picture)
            elif command == "/image":
                chat.show(open_picture(Path(rest.strip()).expanduser()))
            else:
                print(chat.ask(line), flush=True)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)


@app.command()
def push(
    checkpoint: Annotated[str, Argument(help=A_CHECKPOINT)],
    repo: Annotated[str, Option(help="USER/NAME on the hub of HF_ENDPOINT; HF_TOKEN may write there")],
    license: Annotated[str | None, Option(help="as the hub names it, such as apache-2.0, for the card")] = None,
    private: Annotated[bool, Option("--private")] = False,
    update: Annotated[bool, Option("--update", help="a repository that is there gets another commit")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="send nothing: write the card, and list the files")] = False,
    card: Annotated[Path, Option(help="where --dry-run writes the card")] = Path("model-card.md"),
    configfile: Overlays = None,
) -> None:
    """Publish a checkpoint with its card on a hub."""
    from .files import write_atomically
    from .report import push as hub
    from .report.checkpoints import find_one

    results = Path(_plan(configfile).results)
    found = find_one(checkpoint, results)
    content = hub.package(found, found.results_of(results) / "tables", license)
    if dry_run:
        write_atomically(card, content.card)
        print(f"{repo} on {hub.endpoint()} would get ({card} is its card):")
        print("\n".join(f"{size:>16,} {name}" for name, size in content.listing()))
        return
    print(hub.push(found, content, repo, private=private, update=update))
