"""The command ``df-infer serve``."""

from __future__ import annotations

import argparse
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from df_infer.credentials import credentials
from df_infer.model_options import add_model_options, open_pipeline
from df_infer.run_dir import open_run
from df_infer.serve.config import ServeConfig
from df_models.cli_support import announce_loading
from df_models.errors import UserError
from df_models.settings import add_flags, add_print_config, config_from_flags, dump_config

if TYPE_CHECKING:
    from df_infer.serve.backend import PipelineBackend

SECTION = "serve"
EXAMPLE = """\
example:
  df-infer serve --run runs/quickstart      # then open http://127.0.0.1:8080
  DF_INFER_TOKEN=... df-infer serve --run runs/quickstart --host 0.0.0.0 \\
      --sessions 4

What programs send and get, limits, security, proxies, firewalls:
docs/serving.md.

exit codes: 0 stopped by Ctrl-C or SIGTERM, 2 a mistake in what was asked, 3 the
machine lacks something (a package)
"""


def add_serve(commands: argparse._SubParsersAction) -> None:
    """Add ``serve`` to the commands."""
    parser = commands.add_parser(
        "serve",
        help="serve live sessions: a page in the browser, WebRTC, WebSocket, whole files",
        usage="df-infer serve --run DIR [options]",
        description="Serve one model: talk to it in the browser, from programs, or have whole videos\n"
        "made. It samples as its run says; users choose steps and guidance themselves.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run_command=_serve)
    add_model_options(parser.add_argument_group("the model"), parser.add_argument_group("machine"))
    add_flags(parser.add_argument_group("the server; times in seconds (..._s)"), ServeConfig, SECTION)
    add_print_config(parser)


def _serve(args: argparse.Namespace) -> int:
    config = config_from_flags(ServeConfig, args, SECTION)
    if args.print_config:
        print(dump_config(config), end="")
        return 0
    open_run(args.run, args.checkpoint)
    from df_infer.serve.guard import TURN_VARIABLES, read_token, turn_login

    token = read_token(config)
    anonymous = config.turn is not None and turn_login() == (None, None)
    signer = credentials(config.c2pa_certificate, config.c2pa_key)
    from df_infer.serve.app import build_app
    from df_infer.serve.house import checked_example
    from df_infer.serve.logs import event, log_to_stderr
    from df_infer.serve.server import make_server

    check_port(config)
    announce_loading("df-infer")
    log_to_stderr()
    if anonymous:
        event("the TURN server is asked without a name", turn=config.turn, variables=" ".join(TURN_VARIABLES))
    backend = _backend(args, config)
    example = checked_example(config, backend)
    make_server(build_app(config, backend, example, token, signer), config).run()
    return 0


def check_port(config: ServeConfig) -> None:
    """Refuse an address that cannot be listened on, before the model is loaded.

    Raises:
        UserError: it is taken, or not this machine's.
    """
    try:
        found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as error:
        raise UserError(
            f"nothing can listen on {config.host}, port {config.port}: {(error.strerror or str(error)).lower()}; give "
            "another --port (0: a free one) or --host"
        ) from error


def _backend(args: argparse.Namespace, config: ServeConfig) -> PipelineBackend:
    from df_infer.serve.backend import PipelineBackend
    from df_models.motion import read_motion

    if config.motion_fields is not None and config.motion is None:
        raise UserError("--motion-fields names what to give of a motion; give one with --motion")
    fields = tuple(name.strip() for name in (config.motion_fields or "").split(",") if name.strip())
    pipeline = open_pipeline(args)
    motion = None if config.motion is None else read_motion(Path(config.motion))
    return PipelineBackend(pipeline, args.run.resolve().name, motion, fields)
