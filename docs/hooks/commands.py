"""The command line as Markdown: each command of `tinygrad-tx` with its options and examples.

In: the parsers of tinygrad_tx/cli. Out: one page, whose lists are theirs. Called by pages.py.
"""

from __future__ import annotations

from argparse import SUPPRESS, Action, ArgumentParser, _HelpAction, _SubParsersAction

from tinygrad_tx.cli.program import COMMANDS, parser

FILE = "command-line.md"


def page() -> str:
    """Every command, in the order of `tinygrad-tx --help`."""
    whole = parser()
    (commands,) = (x for x in whole._actions if isinstance(x, _SubParsersAction))
    parts = [
        "# `tinygrad-tx`: the command line { #command-line }",
        whole.description or "",
        " ".join(f"[`{command.name}`]({FILE}#{_anchor(command.name)})" for command in COMMANDS),
        "`tinygrad-tx COMMAND --help` says the same. Exit codes: 0; 1 if the input or the "
        "environment is at fault, said in one line; 2 for wrong usage; 130 if interrupted and, in "
        "`train`, all is saved; 128 and the signal's number if a signal has ended it.",
    ]
    for command in COMMANDS:
        parts += _command(command.name, commands.choices[command.name])
        lines = (f"# {what}\ntinygrad-tx {line}" for line, what in command.examples)
        parts.append("```sh\n" + "\n".join(lines) + "\n```")
    return "\n\n".join(parts) + "\n"


def _anchor(name: str) -> str:
    return f"tinygrad-tx-{name}"


def _command(name: str, sub: ArgumentParser) -> list[str]:
    """A heading, what the command does, and a table for each group of its options."""
    shown: dict[str, list[Action]] = {}
    for group in sub._action_groups:
        known = group.title in ("positional arguments", "options")
        title = "| " if known else f"{group.title} | {group.description or ''}"
        shown.setdefault(title, []).extend(filter(_is_told, group._group_actions))
    places = " ".join(_called(a) for a in sub._actions if not a.option_strings)
    parts = [f"## `{name}` {{ #{_anchor(name)} }}", f"`{f'tinygrad-tx {name} {places}'.strip()}`"]
    parts.append(sub.description or "")
    for title, actions in shown.items():
        rows = [f"| `{_called(a)}` | {_told(a)} |" for a in actions]
        if rows:
            parts.append("\n".join([f"| {title} |", "|---|---|", *rows]))
    return parts


def _is_told(action: Action) -> bool:
    return action.help is not SUPPRESS and not isinstance(action, _HelpAction)


def _called(action: Action) -> str:
    """An argument as it is written: `--out FILE`, `{cpu,cuda}`, `RUN [RUN ...]`."""
    value = action.metavar or action.dest
    if action.choices is not None:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    value = {"+": f"{value} [{value} ...]", "*": f"[{value} ...]", "?": f"[{value}]"}.get(
        str(action.nargs), str(value)
    )
    if not action.option_strings:
        return value
    names = ", ".join(action.option_strings)
    return names if action.nargs == 0 else f"{names} {value}"


def _told(action: Action) -> str:
    """Its help in a cell of a table."""
    text = (action.help or "") % {**vars(action), "prog": "tinygrad-tx"}
    required = ", required" if action.required and action.option_strings else ""
    for letter in "\\|<>*_":
        text = text.replace(letter, f"\\{letter}")
    return text + required
