"""The process in which foreign patterns, grammars and commands are let loose.

`process.py` starts this file as a script; nothing imports it. Its argument is JSON: `limits` (`cpu_s`, `memory_mb`,
`file_mb`; 0 for none) and either `command`, the words of a program that is run in the open directory `directory`, or
`task`, a function of this file. A task reads from stdin a line of JSON and whatever it says follows, and answers with
JSON on stdout. A program is ended, with all processes of its group, when stdin is closed: the gateway is gone then,
however it went.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    del sys.path[0]  # the directory of this file is no place to import from

import json
import os
import resource
import select
import signal
from collections.abc import Callable, Iterator
from typing import IO, Any, NoReturn

MOST_LINE_CHARS = 10_000
SHOWN_LINE_CHARS = 400
NOT_STARTED = 127
STDIN = 0
UNSEEN = frozenset({"script", "style", "noscript", "template", "svg", "head"})
BLOCKS = frozenset(
    (
        *("p", "div", "br", "li", "ul", "ol", "tr", "table", "section", "article", "header", "footer", "pre"),
        *("h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "hr", "dt", "dd"),
    )
)
"""The elements of a page that a reader does not see, and those that begin a line."""

Answer = dict[str, Any]


def main(config: dict[str, Any]) -> None:
    limit(config["limits"])
    if "command" in config:
        watch(config["command"], config["directory"])
    stdin = sys.stdin.buffer
    answer = TASKS[config["task"]](json.loads(stdin.readline()), stdin)
    sys.stdout.write(json.dumps(answer))


def limit(limits: dict[str, int]) -> None:
    """Give this process, and what it becomes, so many seconds of processor time and megabytes."""
    set_limit(resource.RLIMIT_CORE, 1, 0)
    set_limit(resource.RLIMIT_CPU, limits["cpu_s"], limits["cpu_s"])
    set_limit(resource.RLIMIT_AS, limits["memory_mb"], limits["memory_mb"] * 1_048_576)
    set_limit(resource.RLIMIT_FSIZE, limits["file_mb"], limits["file_mb"] * 1_048_576)


def set_limit(name: int, is_wanted: int, wanted: int) -> None:
    if is_wanted:
        _, most = resource.getrlimit(name)
        amount = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        try:
            resource.setrlimit(name, (amount, amount))
        except (OSError, ValueError):
            return  # this system does not limit that; the time limit by the clock holds everywhere


def watch(words: list[str], directory: int) -> NoReturn:
    """Run a program in a child; end as it ends, or with all of the group when the gateway is gone."""
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    child = os.fork()
    if child == 0:
        become(words, directory)
    poll = select.poll()
    poll.register(told, select.POLLIN)
    poll.register(STDIN, 0)
    while True:
        if any(ready == STDIN for ready, _ in poll.poll()):
            os.killpg(0, signal.SIGKILL)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            end_as(status)
        os.read(told, 100)


def end_as(status: int) -> NoReturn:
    """End in the way that a child has ended."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))


def become(words: list[str], directory: int) -> NoReturn:
    os.fchdir(directory)
    os.close(directory)
    os.dup2(os.open(os.devnull, os.O_RDONLY), STDIN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvp(words[0], words)
    except OSError as error:
        sys.stderr.write(f"{words[0]!r} cannot be started: {error.strerror}")
        sys.stderr.flush()
    os._exit(NOT_STARTED)


def search(request: dict[str, Any], stdin: IO[bytes]) -> Answer:
    """Find the lines of files that a regular expression matches.

    Each file follows as a line of JSON, `{path, size}`, and its bytes. Answers `{hits: [[path, line, text]], files,
    is_cut}`, or `{error}`.
    """
    import re

    try:
        pattern = re.compile(request["pattern"], 0 if request["is_case_sensitive"] else re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        return {"error": f"the pattern cannot be used: {error}"}
    hits: list[list[Any]] = []
    files = 0
    for path, content in files_of(stdin):
        files += 1
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
            if pattern.search(line[:MOST_LINE_CHARS]):
                hits.append([path, number, line[:SHOWN_LINE_CHARS]])
            if len(hits) > request["most"]:
                return {"hits": hits[:-1], "files": files, "is_cut": True}
    return {"hits": hits, "files": files, "is_cut": False}


def files_of(stdin: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    while line := stdin.readline():
        head = json.loads(line)
        yield head["path"], stdin.read(head["size"])


def outline(request: dict[str, Any], stdin: IO[bytes]) -> Answer:
    """Return the classes, functions and imports of Python code, `{lines}`, or `{error}`."""
    import ast

    try:
        tree = ast.parse(stdin.read().decode("utf-8", "replace"))
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        return {"error": f"it cannot be parsed: {type(error).__name__}: {error}"}
    return {"lines": list(described(tree, 0))}


def described(node: Any, level: int) -> Iterator[str]:
    import ast

    for item in ast.iter_child_nodes(node):
        indent, end = "  " * level, getattr(item, "end_lineno", 0)
        if isinstance(item, ast.ClassDef):
            bases = ", ".join(ast.unparse(base) for base in item.bases)
            yield f"{item.lineno}-{end}: {indent}class {item.name}{f'({bases})' if bases else ''}"
            yield from described(item, level + 1)
        elif isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
            word = "async def" if isinstance(item, ast.AsyncFunctionDef) else "def"
            yield f"{item.lineno}-{end}: {indent}{word} {item.name}({ast.unparse(item.args)})"
            yield from described(item, level + 1)
        elif level == 0 and isinstance(item, (ast.Import, ast.ImportFrom)):
            yield f"{item.lineno}: {ast.unparse(item)}"
        elif level == 0 and isinstance(item, (ast.Assign, ast.AnnAssign)):
            targets = item.targets if isinstance(item, ast.Assign) else [item.target]
            yield f"{item.lineno}: {', '.join(ast.unparse(target) for target in targets)} = …"


def page(request: dict[str, Any], stdin: IO[bytes]) -> Answer:
    """Return `{title, text, links}` of HTML; the charset is that of the request."""
    import codecs
    from html.parser import HTMLParser

    class Page(HTMLParser):
        """Collects what a reader would see."""

        def __init__(self) -> None:
            super().__init__(convert_charrefs=True)
            self.texts: list[str] = []
            self.title: list[str] = []
            self.links: list[str] = []
            self.hidden: list[str] = []
            self.is_title = False

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.is_title = tag == "title" and not self.title
            if tag in UNSEEN:
                self.hidden.append(tag)
            elif tag in BLOCKS:
                self.texts.append("\n")
            href = dict(attrs).get("href") if tag == "a" else None
            if href and len(self.links) < request["most_links"]:
                self.links.append(href)

        def handle_endtag(self, tag: str) -> None:
            self.is_title = False
            if tag in self.hidden:
                del self.hidden[self.hidden.index(tag) :]
            elif tag in BLOCKS:
                self.texts.append("\n")

        def handle_data(self, data: str) -> None:
            if self.is_title:
                self.title.append(data)
            elif not self.hidden:
                self.texts.append(data)

    try:
        codec = codecs.lookup(request["charset"] or "utf-8").name
        text = stdin.read().decode(codec, "replace")
    except (LookupError, ValueError):
        return {"error": f"its character set is {request['charset']!r}, which is not known"}
    reader = Page()
    reader.feed(text)
    reader.close()
    lines = (" ".join(line.split()) for line in "".join(reader.texts).splitlines())
    kept = "\n".join(line for line in lines if line)
    return {"title": " ".join("".join(reader.title).split()), "text": kept, "links": reader.links}


TASKS: dict[str, Callable[[dict[str, Any], IO[bytes]], Answer]] = {"search": search, "outline": outline, "page": page}

if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
