"""The Python code blocks of the documents run, and their links are valid."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("benches/*.md"), *ROOT.glob("docs/**/*.md")])
LANGUAGES = {"python", "python fragment", "rust", "console", "text", "toml"}

FENCE = re.compile(r"^```(?P<language>[^\n`]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ +(?P<title>.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: Path
    line: int
    language: str
    code: str

    def __str__(self):
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    def compiled(self):
        """The code, with the line numbers of the document."""
        return compile("\n" * self.line + self.code, self.document, "exec")


def blocks_of(document):
    text = document.read_text(encoding="utf-8")
    for fence in FENCE.finditer(text):
        line = text.count("\n", 0, fence.start()) + 1
        yield Block(document, line, fence["language"].strip(), fence["code"])


BLOCKS = [block for document in DOCUMENTS for block in blocks_of(document)]


def anchors_of(document):
    """The anchors of a document's headings, as GitHub generates them."""
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    titles = (heading["title"].lower() for heading in HEADING.finditer(text))
    return {re.sub(r"[^\w\- ]", "", title).strip().replace(" ", "-") for title in titles}


def broken_links(document):
    """The relative links of a document whose file or heading does not exist."""
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    for target in (link["target"] for link in LINK.finditer(text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            yield target


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=str)
def test_python_in_a_document_runs_by_itself(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(block.compiled(), {"__name__": "__main__"})  # noqa: S102


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python fragment"], ids=str)
def test_a_fragment_of_python_compiles(block):
    block.compiled()


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_declares_a_known_language(block):
    assert block.language in LANGUAGES


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_links_point_to_existing_files_and_headings(document):
    assert list(broken_links(document)) == []


def test_the_readme_has_an_example_that_runs():
    assert any(block.document.name == "README.md" and block.language == "python" for block in BLOCKS)
