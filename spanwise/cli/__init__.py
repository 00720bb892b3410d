"""The command `spanwise`.

Commands talk to a running server over HTTP; only `up` and `demo` open the data directory. What a command needs is
imported when it runs, so that `--help` and completion answer at once. Exit codes: 0 done, 1 could not be done, 2 wrong
usage.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from spanwise.cli.client import OTLP_DEFAULT, Client, CommandError

app = typer.Typer(
    name="spanwise",
    help="OTLP traces of agents in, exact canonical spans in ClickHouse out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Web = Annotated[
    str | None,
    typer.Option(
        "--web", metavar="URL", help="Where the server's API is: --web, else SPANWISE_WEB, else http://127.0.0.1:8080."
    ),
]


class Severity(StrEnum):
    info = "info"
    warning = "warning"
    high = "high"
    critical = "critical"


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text for people.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", envvar="SPANWISE_CONFIG", help="YAML file with options.")
]
DataDir = Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Folder of the journal and the store.")]
GrpcAddress = Annotated[str | None, typer.Option("--grpc", metavar="HOST:PORT", help="OTLP gRPC listens here.")]
HttpAddress = Annotated[str | None, typer.Option("--http", metavar="HOST:PORT", help="OTLP HTTP listens here.")]
WebAddress = Annotated[str | None, typer.Option("--web", metavar="HOST:PORT", help="API, health and metrics.")]

ClickHouseAddress = Annotated[
    str | None,
    typer.Option(
        "--clickhouse", metavar="HOST:PORT", help="The embedded store as ClickHouse over HTTP; `off` leaves it away."
    ),
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Allow listening beyond this machine without tokens.")]


class SqlFormat(StrEnum):
    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"


class ExportFormat(StrEnum):
    parquet = "parquet"
    otlp = "otlp-jsonl"


def main() -> None:
    """Entry point of the program."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # not every terminal can write every name
        sys.stdout.reconfigure(errors="backslashreplace")
    app(prog_name="spanwise")


def _flags(
    data: Path | None,
    grpc: str | None = None,
    http: str | None = None,
    web: str | None = None,
    clickhouse: str | None = None,
    *,
    insecure: bool = False,
) -> dict[str, Path | str | bool | None]:
    """Options by their name in the configuration, None where they are not given."""
    addresses = {"receiver.grpc": grpc, "receiver.http": http, "web.address": web, "clickhouse.address": clickhouse}
    allowed = dict.fromkeys(("receiver.insecure", "web.insecure", "clickhouse.insecure"), insecure or None)
    return {"data_dir": data, **addresses, **allowed}


@app.command(rich_help_panel="Run")
def up(
    config: ConfigFile = None,
    data: DataDir = None,
    grpc: GrpcAddress = None,
    http: HttpAddress = None,
    web: WebAddress = None,
    clickhouse: ClickHouseAddress = None,
    insecure: Insecure = False,
) -> None:
    """Start the server and run until Ctrl-C.

    Options not given here come from `SPANWISE_*` variables, then from the file, then from the defaults. Port 0 lets the
    system choose; the start panel shows the real ports.
    """
    from spanwise.cli import run

    with _sentences():
        run.up(config, _flags(data, grpc, http, web, clickhouse, insecure=insecure))


@app.command(rich_help_panel="Run")
def receive(
    config: ConfigFile = None,
    data: DataDir = None,
    grpc: GrpcAddress = None,
    http: HttpAddress = None,
    web: WebAddress = None,
    insecure: Insecure = False,
) -> None:
    """Take OTLP in and write it to Kafka, for workers to store: the one half of `up`, as often as you like.

    Needs `journal.kind: kafka`. Nothing is kept on this machine but the spool, if `journal.spool` asks for one.
    """
    from spanwise.cli import run

    with _sentences():
        run.receive(config, _flags(data, grpc, http, web, insecure=insecure))


@app.command(rich_help_panel="Run")
def work(config: ConfigFile = None, data: DataDir = None, web: WebAddress = None) -> None:
    """Read from Kafka what receivers wrote and store it: the other half of `up`, as often as there are partitions.

    Needs `journal.kind: kafka`. Workers of one `journal.group` share the partitions and, through `store.dsn`, one
    ClickHouse server.
    """
    from spanwise.cli import run

    with _sentences():
        run.work(config, _flags(data, web=web))


@app.command(rich_help_panel="Run")
def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the summary instead of serving on.")] = False,
    config: ConfigFile = None,
    data: DataDir = None,
    grpc: GrpcAddress = None,
    http: HttpAddress = None,
    web: WebAddress = None,
    clickhouse: ClickHouseAddress = None,
) -> None:
    """Start the server, send realistic multi-agent traffic and say what happened."""
    from spanwise.cli import run

    with _sentences():
        run.demo(config, _flags(data, grpc, http, web, clickhouse), once=once)


@app.command(rich_help_panel="Run")
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file with options.")],
) -> None:
    """Say whether a configuration is right, and otherwise which option is wrong and where.

    `SPANWISE_*` variables count as they would for `spanwise up`.
    """
    from spanwise.cli import settings

    with _sentences():
        settings.check(file, sys.stdout)


@app.command(rich_help_panel="Run")
def migrate(config: ConfigFile = None, data: DataDir = None) -> None:
    """Bring the store to the schema of this program and say what that took, then end.

    `up` and `work` do the same when they start. Alone it is for a deployment that wants it done, or refused, before
    the first new worker runs.
    """
    from spanwise.cli import settings

    with _sentences():
        settings.migrate(config, {"data_dir": data}, sys.stdout)


@app.command(rich_help_panel="Look")
def health(
    alive: Annotated[bool, typer.Option("--alive", help="Ask only whether it runs, not whether it is ready.")] = False,
    web: Web = None,
) -> None:
    """Ask the server whether it would take data now; exit code 1 if not, or if none answers."""
    with _sentences():
        client = Client.from_environment(web)
        if alive:
            client.alive()
        elif reasons := client.not_ready():
            raise CommandError("the server is not ready", ", ".join(f"{part}: {why}" for part, why in reasons.items()))
        sys.stdout.write("alive\n" if alive else "ready\n")


@app.command(rich_help_panel="Look")
def traces(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many, newest first.")] = 20,
    since: Annotated[str, typer.Option(metavar="AGE", help="Not older than, for instance 15m, 2h or 7d.")] = "",
    service: Annotated[str, typer.Option(help="Only traces with this service.")] = "",
    agent: Annotated[str, typer.Option(help="Only traces with this agent.")] = "",
    model: Annotated[str, typer.Option(help="Only traces with this model.")] = "",
    conversation: Annotated[str, typer.Option(metavar="ID", help="Only traces of this conversation.")] = "",
    errors: Annotated[bool, typer.Option("--errors", help="Only traces with errors.")] = False,
    min_cost: Annotated[float | None, typer.Option(min=0, metavar="USD", help="Only traces that cost as much.")] = None,
    as_json: AsJson = False,
    web: Web = None,
) -> None:
    """List recent traces: what ran, how long, what it used and cost, what failed."""
    from spanwise.cli import look

    with _sentences():
        filters = {
            "limit": limit,
            "since_s": look.since(since) if since else None,
            "service": service or None,
            "agent": agent or None,
            "model": model or None,
            "conversation": conversation or None,
            "errors": "1" if errors else None,
            "cost_min_usd": min_cost,
        }
        look.traces(Client.from_environment(web), filters, sys.stdout, as_json=as_json)


@app.command(rich_help_panel="Look")
def trace(
    trace_id: Annotated[str, typer.Argument(metavar="ID", help="A trace id, or the beginning of one.")],
    spans_max: Annotated[int, typer.Option("--max-spans", min=1, help="Stop after so many spans.")] = 1000,
    as_json: AsJson = False,
    web: Web = None,
) -> None:
    """Show one trace as a tree: durations, tokens, cost, errors."""
    from spanwise.cli import look

    with _sentences():
        look.trace(Client.from_environment(web), trace_id, sys.stdout, spans_max=spans_max, as_json=as_json)


@app.command(rich_help_panel="Look")
def failures(
    trace_id: Annotated[
        str, typer.Argument(metavar="[TRACE]", help="Only of this trace; the beginning is enough.")
    ] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many, last found first.")] = 20,
    since: Annotated[str, typer.Option(metavar="AGE", help="Found not longer ago than, like 15m, 2h or 7d.")] = "",
    severity: Annotated[Severity, typer.Option(help="This severe or worse.")] = Severity.warning,
    signature: Annotated[str, typer.Option(help="Only of this signature, for instance retry_loop.")] = "",
    service: Annotated[str, typer.Option(help="Only of this service.")] = "",
    agent: Annotated[str, typer.Option(help="Only of this agent.")] = "",
    model: Annotated[str, typer.Option(help="Only of this model.")] = "",
    tool: Annotated[str, typer.Option(help="Only of this tool.")] = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on and show what is found, until Ctrl-C.")] = False,
    as_json: AsJson = False,
    web: Web = None,
) -> None:
    """List what went wrong inside agent runs: loops, full contexts, tool errors, cascades."""
    from spanwise.cli import look

    with _sentences():
        filters = {
            "limit": limit,
            "since_s": look.since(since) if since else None,
            "severity": severity.value,
            "trace_id": trace_id or None,
            "signature": signature or None,
            "service": service or None,
            "agent": agent or None,
            "model": model or None,
            "tool": tool or None,
        }
        look_at = look.watch_failures if watch else look.failures
        look_at(Client.from_environment(web), filters, sys.stdout, as_json=as_json)


@app.command(rich_help_panel="Look")
def sql(
    statement: Annotated[str, typer.Argument(metavar="QUERY", help="One SELECT, or - to read it from standard input.")],
    format_: Annotated[SqlFormat, typer.Option("--format", "-f", help="How to print the answer.")] = SqlFormat.table,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to a file; - is standard output.")
    ] = None,
    web: Web = None,
) -> None:
    """Run read-only SQL against the running server.

    Read `spans` and `traces` with `FINAL`, and sum tokens and cost over `usage_scope = 'own'`. `spanwise schema` lists
    the columns.
    """
    from spanwise.cli import look

    with _sentences():
        text = look.standard_input() if statement == "-" else statement
        file = None if output == Path("-") else output
        look.sql(Client.from_environment(web), text, format_.value, file, sys.stdout)


@app.command(rich_help_panel="Look")
def schema(
    table: Annotated[str, typer.Argument(metavar="[TABLE]", help="One table; all are listed without it.")] = "",
    ddl: Annotated[bool, typer.Option("--ddl", help="Print CREATE TABLE instead.")] = False,
    cluster: Annotated[
        str, typer.Option(metavar="NAME", help="Print what a cluster of that name, or {cluster}, is created with.")
    ] = "",
    users: Annotated[
        bool, typer.Option("--users", help="Print users with the rights they need, quotas, limits.")
    ] = False,
    tenant: Annotated[
        list[str] | None, typer.Option(metavar="TENANT", help="With --users: a reader of this tenant too; repeatable.")
    ] = None,
    database: Annotated[str, typer.Option(metavar="NAME", help="Database of --cluster and --users.")] = "spanwise",
) -> None:
    """Show the tables and what their columns mean, or the SQL an administrator creates them and their users with."""
    from spanwise.cli import look

    with _sentences():
        if users:
            look.users(database, cluster, tenant or [], sys.stdout)
        elif cluster:
            look.cluster_schema(database, cluster, sys.stdout)
        else:
            look.schema(table, sys.stdout, ddl=ddl)


@app.command("import", rich_help_panel="Load")
def import_(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="OTLP JSON lines or protobuf, plain, gzip or zstd.")
    ],
    endpoint: Annotated[
        str, typer.Option(metavar="URL", envvar="SPANWISE_OTLP", help="Where the server takes OTLP/HTTP.")
    ] = OTLP_DEFAULT,
    logs: Annotated[bool, typer.Option("--logs", help="Protobuf files hold log records, not spans.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first broken line or rejected span.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Forget how far an interrupted import came.")] = False,
    web: Web = None,
) -> None:
    """Send files of OTLP export requests to the running server.

    An interrupted import goes on where it stopped. At the end it says how many spans were new, already there, and
    rejected, and why. A broken line is named and left out.
    """
    from spanwise.cli import files as imports

    with _sentences():
        imports.import_files(files, endpoint, Client.from_environment(web), logs=logs, strict=strict, restart=restart)


alerts_app = typer.Typer(help="Webhooks that are told about findings.", no_args_is_help=True)
app.add_typer(alerts_app, name="alerts", rich_help_panel="Run")


@alerts_app.command("test")
def alerts_test(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A webhook of `alerts.webhooks`.")],
    config: ConfigFile = None,
) -> None:
    """Send a made-up finding to a webhook and say what became of it. No server is needed."""
    from spanwise.cli import alerts

    with _sentences():
        alerts.send_sample(config, name, sys.stdout)


@app.command("export", rich_help_panel="Load")
def export_(
    output: Annotated[str, typer.Option("--output", "-o", metavar="DIR", help="Directory, or - for standard output.")],
    format_: Annotated[
        ExportFormat,
        typer.Option("--format", "-f", help="Parquet tables, or spans and log records to import again."),
    ] = ExportFormat.otlp,
    start: Annotated[
        str, typer.Option("--from", metavar="TIME", help="Spans from then on: 2026-11-21, 2026-11-21T08:30, 7d ago.")
    ] = "",
    end: Annotated[str, typer.Option("--to", metavar="TIME", help="Spans that started before then.")] = "",
    tenant: Annotated[str, typer.Option(help="Only of this tenant.")] = "",
    trace_id: Annotated[str, typer.Option("--trace", metavar="ID", help="Only this trace.")] = "",
    service: Annotated[str, typer.Option(help="Only traces with this service.")] = "",
    agent: Annotated[str, typer.Option(help="Only traces with this agent.")] = "",
    failed: Annotated[
        bool, typer.Option("--failed", help="Only traces with a finding of severity high or worse.")
    ] = False,
    web: Web = None,
) -> None:
    """Write spans, prompts, log records and what was found in them to files.

    A file holds a UTC day and is there when it is whole. The same command goes on where an earlier one was stopped.
    What `otlp-jsonl` writes, `spanwise import` takes.
    """
    from spanwise.cli import export

    with _sentences():
        asked: dict[str, str | bool] = {
            "from": start,
            "to": end,
            "tenant": tenant,
            "trace": trace_id,
            "service": service,
        }
        asked |= {"agent": agent, "failed": failed}
        export.export(Client.from_environment(web), asked, format_.value, output)


topics_app = typer.Typer(help="The Kafka topics of `journal.kind: kafka`.", no_args_is_help=True)
app.add_typer(topics_app, name="topics", rich_help_panel="Kafka")
letters_app = typer.Typer(help="Records of the Kafka journal that could not be read or stored.", no_args_is_help=True)
app.add_typer(letters_app, name="dead-letters", rich_help_panel="Kafka")


@topics_app.command("create")
def topics_create(config: ConfigFile = None) -> None:
    """Create the topics that are missing, as `journal.topics` describes them."""
    from spanwise.cli import kafka

    with _sentences():
        kafka.create_topics(config, sys.stdout)


@topics_app.command("check")
def topics_check(config: ConfigFile = None) -> None:
    """Say what about the topics would lose data or stop it. Every start checks the same."""
    from spanwise.cli import kafka

    with _sentences():
        kafka.check_topics(config, sys.stdout)


@letters_app.command("list")
def dead_letters_list(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many, oldest first.")] = 50,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """List the dead letters that were not sent again: where they come from and why they are there."""
    from spanwise.cli import kafka

    with _sentences():
        kafka.list_dead_letters(config, sys.stdout, limit=limit, as_json=as_json)


@letters_app.command("replay")
def dead_letters_replay(config: ConfigFile = None) -> None:
    """Send all dead letters to the topics they came from, once what was wrong is mended.

    Those that still cannot be stored become dead letters again.
    """
    from spanwise.cli import kafka

    with _sentences():
        kafka.replay_dead_letters(config, sys.stdout)


@app.command(rich_help_panel="Run")
def version() -> None:
    """Print the version."""
    from spanwise.telemetry import version as installed

    with _sentences():
        sys.stdout.write(f"spanwise {installed()}\n")


@contextmanager
def _sentences() -> Iterator[None]:
    """Turn what can go wrong into one sentence on standard error and exit code 1."""
    try:
        yield
        sys.stdout.flush()
    except CommandError as error:
        _fail(error.message, error.hint)
    except BrokenPipeError:
        # The reader of a pipe has seen enough. What is still held goes nowhere, or Python complains when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _fail(message: str, hint: str) -> NoReturn:
    from spanwise.cli.show import clean

    # a server's sentence may quote what it stores; several problems stand on lines of their own
    lines = map(clean, f"spanwise: {message}{f'; {hint}' if hint else ''}".split("\n"))
    sys.stderr.write("\n".join([*lines, ""]))
    raise typer.Exit(1)
