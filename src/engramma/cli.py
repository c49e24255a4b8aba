"""The command line: study, run, verify, bench, probe, serve, systems, show and data.

Rooms are imported inside the commands, so that ``engramma --help`` answers at once.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from engramma.errors import ConfigError, EngrammaError
from engramma.progress import show_progress


class Commands(typer.core.TyperGroup):
    """The commands; Ctrl-C in any of them is said in words."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            # Typer would exit silently, or say "Aborted!", depending on its version.
            typer.echo(
                "Interrupted. Nothing is left half-written; `engramma study` resumes when the "
                "same command is given again.",
                err=True,
            )
            raise typer.Exit(130) from None


app = typer.Typer(
    name="engramma",
    cls=Commands,
    help="An open laboratory for how brains and machines encode, remember and decode.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Look at recordings and convert them.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Jobs = Annotated[int, typer.Option(min=0, help="Threads to use; 0 takes all cores.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", help="Option of the reader or world, NAME=VALUE; repeatable."),
]
ExecutorOption = Annotated[
    str | None,
    typer.Option(help="Address of a Dask scheduler (tcp://...), or 'local' for a local cluster."),
]


@app.command()
def study(
    data: Annotated[
        str,
        typer.Argument(
            help="BIDS folder, NIfTI, MNE-readable file, NWB, .mat, .npz, CSV, zarr, a folder "
            "of images with RDMs, or the name of a generated world."
        ),
    ] = "scenes",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report (engramma-study/NAME).")
    ] = None,
    estimate: Annotated[
        str | None, typer.Option(help="fMRI responses: blocks, lss (single trials) or glm.")
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="Mask image, for fMRI.")] = None,
    tr: Annotated[float | None, typer.Option(help="Repetition time in seconds.")] = None,
    decode: Annotated[
        str | None, typer.Option(help="Column of the stimulus table to decode.")
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(help="Feature model to use: a name or a local model folder; repeatable."),
    ] = None,
    permutations: Annotated[int, typer.Option(min=100, help="Permutations a test.")] = 1000,
    option: Options = None,
    seed: Seed = 0,
    jobs: Jobs = 0,
    executor: ExecutorOption = None,
    as_json: Json = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew instead of resuming an interrupted study.")
    ] = False,
) -> None:
    """Explain one recording: noise ceiling, encoding, decoding, geometry; with an HTML report.

    Without an argument it studies a generated cohort of virtual subjects viewing rendered scenes.
    An interrupted study resumes when the same command is given again.
    """
    from rich.console import Console

    from engramma.study.storage import as_json as study_json
    from engramma.study.study import study as run_study

    reader_options = parse_options(option)
    given = {"estimate": estimate, "mask": mask, "tr": tr}
    reader_options.update({k: v for k, v in given.items() if v is not None})
    folder = out or Path("engramma-study") / (Path(data).resolve().name or "recording")
    with working(jobs, progress=not as_json):
        result = run_study(
            data,
            out=folder,
            seed=seed,
            decode=decode,
            features=features or None,
            n_permutations=permutations,
            executor=executor,
            fresh=fresh,
            reader_options=reader_options,
        )
    if as_json:
        print_json(study_json(result))
        return
    console = Console()
    console.print(f"\n[bold]{_plain(result.title)}[/bold]")
    for section in result.sections:
        console.print(f"  [bold]{_plain(section.title)}.[/bold] {_plain(section.summary)}")
    for notice in result.notices:
        console.print(f"  [yellow]{_plain(notice.name)}:[/yellow] {_plain(notice.text)}")
    console.print(f"\nReport: {folder / 'report.html'}   ({result.seconds:.0f} s)", soft_wrap=True)


@app.command()
def run(
    system: Annotated[str | None, typer.Argument(help="Slug of the system.")] = None,
    data: Annotated[str | None, typer.Option(help="Recording or world to fit it to.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder (runs/SYSTEM-NAME).")] = None,
    again: Annotated[
        Path | None, typer.Option(help="Repeat the run saved in this folder and compare.")
    ] = None,
    option: Options = None,
    seed: Seed = 0,
    jobs: Jobs = 0,
    as_json: Json = False,
) -> None:
    """Fit a published system to a recording; print its scores, keep its artefacts."""
    from engramma.bench.runs import run_system

    if again is not None:
        if system is not None or data is not None or option:
            raise ConfigError(
                "a run is repeated as it was saved",
                mend="give --again FOLDER alone; to change something, start a new run",
            )
        _run_again(again, jobs, as_json)
        return
    if system is None or data is None:
        raise ConfigError(
            "a system and data are needed",
            mend="engramma run SYSTEM --data DATA; `engramma systems` lists the systems",
        )
    folder = out or Path("runs") / f"{system}-{Path(data).resolve().name}"
    with working(jobs, progress=not as_json):
        result = run_system(system, data, seed=seed, options=parse_options(option), out=folder)
    if as_json:
        print_json(result.as_json())
        return
    table("metric", "value", "95 % interval", rows=_metric_rows(result.metrics))
    for note in result.notes:
        typer.echo(note)
    typer.echo(f"Saved in {folder}   ({result.seconds:.1f} s)")


def _run_again(folder: Path, jobs: int, as_json: bool) -> None:
    """Repeat a run; exit code 1 where a metric comes out otherwise."""
    from engramma.bench.runs import differences, run_again

    with working(jobs, progress=not as_json):
        old, new = run_again(folder)
    found = differences(old, new)
    if as_json:
        both = {"before": old.as_json(), "now": new.as_json()}
        print_json({**both, "reproduced": not found, "differences": found})
    else:
        table(
            "metric",
            "before",
            "now",
            rows=[
                (name, f"{e.value:.6g}", f"{new.metrics[name].value:.6g}")
                for name, e in old.metrics.items()
                if name in new.metrics
            ],
        )
        typer.echo("Not reproduced." if found else "Reproduced: every metric is the same.")
    for sentence in found:
        typer.echo(f"changed: {sentence}", err=True)
    if found:
        raise typer.Exit(1)


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Systems (SLUG) or claims (SLUG/CLAIM).")
    ] = None,
    family: Annotated[str | None, typer.Option(help="All claims of one family.")] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Seeds a claim, at least 3 (the claim's own).")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="Merge the verdicts into this JSON file.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option(help="Fail where a verdict differs from this JSON file.")
    ] = None,
    sample: Annotated[
        float | None,
        typer.Option(help="Draw claims at random that take this many seconds by the record."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random sample.")] = 0,
    workers: Annotated[
        int,
        typer.Option(
            min=1, help="Processes that share the seeds, and the threads. Each has its own models."
        ),
    ] = 1,
    jobs: Jobs = 0,
    as_json: Json = False,
) -> None:
    """Run claims against their baseline and control; say which hold, fail or stay undecided."""
    import numpy as np

    from engramma.bench import claims
    from engramma.bench.seed_workers import seed_workers

    before = claims.read_record(check) if check else {}
    chosen = claims.select_claims(names or (), family)
    if sample is not None:
        chosen = claims.sample_claims(chosen, before, sample, np.random.default_rng(seed))
    verdicts = []
    with (
        working(jobs, progress=not as_json) as threads,
        seed_workers(workers, threads) as shared,
    ):
        for card, claim in chosen:
            verdict = claims.verify_claim(card, claim, seeds=seeds, workers=shared)
            verdicts.append(verdict)
            if record:
                claims.write_record(record, [verdict])
            if not as_json:
                _print_verdict(verdict)
    if as_json:
        print_json([claims.as_json(v) for v in verdicts])
    differences = claims.changed(verdicts, before) if check else []
    for sentence in differences:
        typer.echo(f"changed: {sentence}", err=True)
    if not as_json:
        counts = {a: sum(v.answer == a for v in verdicts) for a in dict.fromkeys(_ANSWERS)}
        typer.echo(", ".join(f"{n} {a}" for a, n in counts.items() if n) or "no claims")
    if differences:
        raise typer.Exit(1)


@app.command()
def bench(
    task: Annotated[str | None, typer.Argument(help="Task; without one, all are listed.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Run this contestant only; repeatable.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds.")] = 3,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="Option of the task, NAME=VALUE; repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for table and figures as leaderboard.html; scores kept there "
            "are not measured again."
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure all scores again.")] = False,
    jobs: Jobs = 0,
    as_json: Json = False,
) -> None:
    """Rank all systems and baselines that fit a task.

    With --out an interrupted leaderboard resumes when the same command is given again.
    """
    from engramma.bench import leaderboard
    from engramma.registry import tasks

    if task is None:
        table(
            "task",
            "contract",
            "question",
            "contestants",
            rows=[
                (t.name, t.contract, t.description, ", ".join(leaderboard.contestants(t)))
                for t in tasks.all().values()
            ],
        )
        return
    with working(jobs, progress=not as_json):
        board = leaderboard.bench(
            task,
            seeds=seeds,
            only=only or (),
            options=parse_options(option),
            folder=out,
            fresh=fresh,
        )
    if out is not None:
        from engramma.report.leaderboard import write_leaderboard

        page = write_leaderboard(board, out)
    if as_json:
        print_json(leaderboard.as_json(board))
        return
    typer.echo(
        f"{board.task.description}\n{board.task.metric}; chance {board.task.chance:.3g}"
        + (f"; ceiling {board.ceiling.value:.3g}" if board.ceiling else "")
        + "; * marks baselines"
    )
    extra = list(dict.fromkeys(name for e in board.entries for name in e.details))
    table(
        "system",
        "score",
        "95 % interval",
        *extra,
        "seconds",
        rows=[
            (
                _contestant(e),
                f"{e.score.value:.3f}",
                _interval(e.score),
                *(_count(e.details.get(n)) for n in extra),
                f"{e.seconds:.1f}",
            )
            for e in board.entries
        ],
    )
    places = list(dict.fromkeys(place for e in board.entries for place in e.curve))
    if places:
        typer.echo(f"\nScore by {board.task.axis}:")
        rows = [
            (_contestant(e), *(f"{e.curve[p].value:.2f}" if p in e.curve else "" for p in places))
            for e in board.entries
        ]
        table("system", *(f"{p:g}" for p in places), rows=rows)
    for e in board.entries:
        if e.problem:
            typer.echo(f"{e.system} could not do it: {e.problem}")
    if out is not None:
        typer.echo(f"Saved: {page}")


@app.command()
def systems(
    family: Annotated[str | None, typer.Option(help="One family only.")] = None,
    tasks: Annotated[bool, typer.Option("--tasks", help="List tasks instead.")] = False,
    worlds: Annotated[bool, typer.Option("--worlds", help="List worlds instead.")] = False,
    readers: Annotated[bool, typer.Option("--readers", help="List readers instead.")] = False,
    as_json: Json = False,
) -> None:
    """List the systems, or what else is registered."""
    from engramma import registry

    for wanted, registered in (
        (tasks, registry.tasks),
        (worlds, registry.worlds),
        (readers, registry.readers),
    ):
        if wanted:
            rows = [(n, _first_line(item)) for n, item in registered.all().items()]
            print_json(dict(rows)) if as_json else table("name", "what it is", rows=rows)
            return
    cards = registry.family(family)
    if as_json:
        print_json(
            [
                {
                    "slug": c.slug,
                    "family": c.family,
                    "title": c.title,
                    "baseline": c.baseline,
                    "contract": c.contract,
                    "claims": [k.name for k in c.claims],
                }
                for c in cards
            ]
        )
        return
    table(
        "system",
        "family",
        "contract",
        "claims",
        "title",
        rows=[
            (
                c.slug,
                c.family,
                ", ".join(c.contract),
                str(len(c.claims)),
                c.title + (" (baseline)" if c.baseline else ""),
            )
            for c in cards
        ],
    )


@app.command()
def gallery(
    out: Annotated[Path, typer.Argument(help="Folder for gallery.html.")] = Path("gallery"),
    part: Annotated[list[str] | None, typer.Option(help="Draw this part only; repeatable.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the generated world.")] = 0,
    jobs: Jobs = 0,
) -> None:
    """Draw the generated world, and what the miniature models make of it, as one page."""
    from engramma.report.gallery import PARTS, write_gallery

    unknown = [name for name in part or () if name not in PARTS]
    if unknown:
        raise ConfigError(f"the gallery has no part {unknown[0]!r}", mend=f"use {', '.join(PARTS)}")
    with working(jobs):
        page = write_gallery(out, seed, part)
    typer.echo(f"wrote {page}")


@app.command()
def probe(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Folder of a Hugging Face causal language model, GGUF file, 'smollm2', or a model "
            "trained here; without one, all examinations are listed."
        ),
    ] = None,
    wanted: Annotated[
        str | None, typer.Option("--for", help="Systems to ask, separated by commas.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder (engramma-probe/NAME).")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer prompts, wider intervals.")] = False,
    seed: Seed = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Examine everything again.")] = False,
    jobs: Jobs = 0,
    as_json: Json = False,
) -> None:
    """Find out what a language model remembers and computes, and where; with an HTML report.

    An interrupted probe resumes when the same command is given again.
    """
    from engramma.bench import probes
    from engramma.report.probe import numbers, show, write_probe

    if model is None:
        cards = probes.examiners().values()
        table("system", "question", rows=[(c.slug, c.title) for c in cards])
        return
    only = [name.strip() for name in (wanted or "").split(",") if name.strip()]
    folder = out or Path("engramma-probe") / (Path(model).resolve().name or "model")
    with working(jobs, progress=not as_json):
        probed = probes.probe(model, only, out=folder, seed=seed, quick=quick, fresh=fresh)
        page = write_probe(probed, folder)
    if as_json:
        print_json(numbers(probed))
        return
    table(
        "system",
        "finding",
        "value [95 %]",
        "unit",
        "effect of a change",
        "control",
        rows=[
            (r.system, f.name, show(f.value), f.unit, show(f.caused), show(f.control))
            for r in probed.results
            for f in r.examination.findings
        ],
    )
    for result in probed.results:
        if result.problem:
            typer.echo(f"{result.system}: {result.problem}")
    seconds = sum(r.seconds for r in probed.results)
    typer.echo(f"Report: {page}   ({seconds:.0f} s)")


@app.command()
def serve(
    model: Annotated[
        str, typer.Argument(help="Folder of a causal language model, GGUF file, or 'smollm2'.")
    ] = "smollm2",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8080,
    key: Annotated[str | None, typer.Option(help="Key that callers must give.")] = None,
    jobs: Jobs = 0,
) -> None:
    """Serve a local language model to programs that speak the OpenAI protocol."""
    from engramma.agents.server import serve as run_server

    with working(jobs):
        run_server(model, host=host, port=port, key=key)


@app.command()
def show(
    system: Annotated[str, typer.Argument(help="Slug of the system.")], as_json: Json = False
) -> None:
    """Show a system: its method, claims, tasks and reference."""
    import inspect

    from engramma.registry import systems

    card = systems.get(system)
    module = inspect.getdoc(sys.modules[card.factory.__module__]) or ""
    own = inspect.getdoc(card.factory) or ""
    claims = [
        {
            "name": c.name,
            "sentence": c.sentence,
            "source": c.source,
            "metric": c.metric,
            "baseline": c.baseline_name,
            "margin": c.margin,
            "direction": c.direction,
            "control": c.control.sentence,
            "tried": c.tried,
        }
        for c in card.claims
    ]
    if as_json:
        print_json(
            {
                "slug": card.slug,
                "family": card.family,
                "title": card.title,
                "contract": card.contract,
                "paper": card.paper,
                "bibtex": card.bibtex,
                "method": module,
                "usage": own,
                "tasks": card.tasks,
                "claims": claims,
            }
        )
        return
    typer.echo(f"{card.title}\n{card.paper}\n")
    typer.echo(
        f"family {card.family}; contract {', '.join(card.contract)}; "
        f"tasks {', '.join(card.tasks) or 'none'}\n"
    )
    typer.echo(f"{module}\n\n{own}\n")
    for claim in claims:
        typer.echo(
            f"{card.slug}/{claim['name']}: {claim['sentence']}\n"
            f"    {claim['metric']}, {claim['direction']} {claim['margin']:g}, against "
            f"{claim['baseline']}\n    control: {claim['control']}   ({claim['source']})"
            + (f"\n    tried: {claim['tried']}" if claim["tried"] else "")
        )
    if card.bibtex:
        typer.echo(f"\n{card.bibtex}")


@data_app.command("inspect")
def data_inspect(
    path: Annotated[str, typer.Argument(help="Recording.")], as_json: Json = False
) -> None:
    """Say what a recording is, and whether it can be studied."""
    from engramma.data.inspect import inspect

    with working(0, progress=not as_json):
        facts = inspect(path)
    if as_json:
        print_json(facts)
    else:
        table("what", "value", rows=[(str(k), _short(v)) for k, v in facts.items()])


@data_app.command("convert")
def data_convert(
    path: Annotated[str, typer.Argument(help="Recording or world.")],
    out: Annotated[Path, typer.Argument(help="zarr folder to write.")],
    option: Options = None,
) -> None:
    """Convert a recording to zarr, chunked over units."""
    from engramma.data.inspect import convert

    with working(0):
        recording = convert(path, out, **parse_options(option))
    typer.echo(f"{recording!r} written to {out}")


# -- helpers -------------------------------------------------------------------------------

_ANSWERS = ("holds", "fails", "undecided", "not testable")


@contextmanager
def working(jobs: int, progress: bool = True) -> Iterator[int]:
    """Limit the threads and show progress while a command works; yields how many there are."""
    from engramma.threads import limit_threads

    with limit_threads(jobs) as count, show_progress(progress and sys.stderr.isatty()):
        yield count


def parse_options(pairs: list[str] | None) -> dict[str, Any]:
    """Read ``NAME=VALUE`` pairs; values are JSON where they parse as JSON, else text."""
    options: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"{pair!r} is no option", mend="write --option NAME=VALUE")
        try:
            options[name.strip()] = json.loads(value)
        except ValueError:
            options[name.strip()] = value
    return options


def print_json(value: Any) -> None:
    """Print strict JSON on standard output."""
    from engramma.study.storage import plain

    typer.echo(json.dumps(plain(value), indent=1))


def table(*columns: str, rows: list[Any]) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        grid.add_column(column, overflow="fold", no_wrap=number == 0)
    for row in rows:
        grid.add_row(*(_plain(str(cell)) for cell in row))
    Console().print(grid)


def _plain(text: str) -> str:
    """Keep rich from reading markup in text that comes from data."""
    from rich.markup import escape

    return escape(text)


def _first_line(item: Any) -> str:
    text = getattr(item, "description", None) or getattr(item, "__doc__", None) or ""
    return text.strip().splitlines()[0] if text.strip() else ""


def _interval(estimate: Any) -> str:
    return "" if estimate.low != estimate.low else f"[{estimate.low:.3f}, {estimate.high:.3f}]"


def _contestant(entry: Any) -> str:
    return entry.system + ("*" if entry.baseline else "")


def _count(value: float | None) -> str:
    """Write a large number short."""
    if value is None:
        return ""
    for factor, unit in ((1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g}{unit}"
    return f"{value:.0f}"


def _metric_rows(metrics: Any) -> list[tuple[str, str, str]]:
    return [(name, f"{e.value:.4g}", _interval(e)) for name, e in metrics.items()]


def _short(value: Any, most: int = 400) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= most else text[:most] + " ..."


def _print_verdict(verdict: Any) -> None:
    from rich.console import Console

    colour = {"holds": "green", "fails": "red"}.get(verdict.answer, "yellow")
    Console(highlight=False).print(
        f"[{colour}]{verdict.answer:>12}[/{colour}]  [bold]{_plain(verdict.claim)}[/bold]  "
        f"{_plain(verdict.sentence)}\n              {_plain(verdict.reason)} "
        f"[dim]({_plain(verdict.metric)}; against {_plain(verdict.baseline)}; "
        f"{verdict.seconds:.0f} s)[/dim]"
    )


def _show_warning(message: Any, category: Any, *_: Any) -> None:
    if issubclass(category, UserWarning) and category.__module__.startswith("engramma"):
        typer.echo(f"Warning: {message}", err=True)


def main() -> None:
    """Run the command line: one clear error instead of a traceback."""
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    try:
        app()
    except EngrammaError as error:
        typer.echo(f"Error: {error}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
