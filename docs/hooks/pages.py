"""What mkdocs asks while it builds the site: pages that are made, and links out of docs/.

In: the pages of docs/, which are written for the repository. Out: the same pages for the site. The
reference comes from reference.py, that of the command line from commands.py; examples, the
changelog and other pages of the repository are shown as they are; a link to one of them leads to
its page on the site. mkdocs.yml names this file.
"""

from __future__ import annotations

import ast
import posixpath
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import commands  # noqa: E402 - found by the line above
import reference  # noqa: E402

# Pages of the repository that do not lie in docs/, and where the site has them.
OUTSIDE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
    **{
        path.relative_to(ROOT).as_posix(): f"examples/{path.stem}.md"
        for path in sorted((ROOT / "examples").glob("*.py"))
    },
}
HOME = {"README.md": "index.md"}
LINK = re.compile(r"(\]\()([^)#:\s]+)(#[^)]*)?(\))")
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the navigation: what is made here, and at the end of "How to" the pages of docs/ that
    mkdocs.yml does not name."""
    sections = {title: items for part in config.nav for title, items in part.items()}
    docs = Path(config.docs_dir)
    named = set(re.findall(r"[\w/-]+\.md", repr(config.nav)))
    every = sorted(path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))
    sections["How to"] += [name for name in every if name not in named]
    sections["Reference"].append({"tinygrad-tx": f"reference/{commands.FILE}"})
    sections["Reference"] += [
        {file.removesuffix(".md"): f"reference/{file}"}
        for file in sorted(reference.pages(), key=lambda file: file.removesuffix(".md").lower())
    ]
    sections["Examples"] += [
        {Path(name).stem: page} for name, page in OUTSIDE.items() if page.startswith("examples/")
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    from mkdocs.structure.files import File

    made = {f"reference/{file}": text for file, text in reference.pages().items()}
    made[f"reference/{commands.FILE}"] = commands.page()
    made |= {page: _shown(ROOT / name) for name, page in OUTSIDE.items()}
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links lead to the site's pages; ```python no-run and the like are ```python."""
    uri = page.file.src_uri
    sources = {site: name for name, site in OUTSIDE.items()}
    source = sources.get(uri, f"docs/{uri}")
    written, place = [], 0
    for fence in FENCE.finditer(markdown):
        written.append(_linked(markdown[place : fence.start()], source, uri))
        written.append(re.sub(r"\A( *```\w*)[^\n]*", r"\1", fence[0]))
        place = fence.end()
    return "".join([*written, _linked(markdown[place:], source, uri)])


def _linked(text: str, source: str, uri: str) -> str:
    """Text with its links, which are relative to a file of the repository, relative to a page."""

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        found = {**OUTSIDE, **HOME}.get(target, target.removeprefix("docs/"))
        if found == target or uri.startswith("reference/"):
            return match[0]  # mkdocs says so if it leads nowhere
        way = posixpath.relpath(found, posixpath.dirname(uri) or ".")
        return f"{match[1]}{way}{match[3] or ''}{match[4]}"

    return LINK.sub(link, text)


def _shown(path: Path) -> str:
    """A file of the repository as a page: Markdown as it is, a program with its docstring above."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    title, _, about = (ast.get_docstring(ast.parse(text)) or "").partition("\n")
    body = text[text.index('"""', 3) + 3 :].strip() if text.startswith('"""') else text
    name = path.relative_to(ROOT).as_posix()
    return f"# {title.rstrip('.')}\n{about}\n\n`{name}`:\n\n````python\n{body}\n````\n"
