"""Tables of sentences beside masks that have none: a row for each, with its video and the id of its object."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.errors import LayoutError
from pipelines.files import Folder
from pipelines.sources.csv_table import csv_lines
from pipelines.sources.labels import LabelledSentence
from pipelines.sources.reading import annotation_text, whole_number

TABLE = "expressions.csv"
COLUMNS = ("video", "object_id", "text")
OPTIONAL = ("expression", "split")


@dataclass(frozen=True, slots=True)
class SentenceTable:
    """A table with the columns video, object_id, text and, optionally, expression (an id) and split.

    Without the column split, every row is of every split.

    Args:
        folder: that holds `expressions.csv`.
        least: smallest id of an object.
    """

    folder: Folder
    least: int = 1

    def sentences(self, split: str) -> dict[str, list[LabelledSentence]]:
        """Returns the sentences of a split by video. Blank lines are skipped.

        Raises:
            LayoutError: the table is missing, or a line is malformed, or it has no row of the split.
        """
        found: dict[str, list[LabelledSentence]] = defaultdict(list)
        splits: set[str] = set()
        for video, of_split, sentence in self._rows():
            splits.add(of_split or split)
            if of_split in (split, None):
                found[video].append(sentence)
        if not found:
            which = f" of split {split!r}. Choose one of {', '.join(sorted(splits))}" if splits else " below its header"
            raise LayoutError(f"{self.folder.path(TABLE)} has no row{which}.")
        return dict(found)

    def objects_of_others(self, split: str) -> dict[str, frozenset[int]]:
        """Returns, by video, the ids of objects that only sentences of other splits name.

        Raises:
            LayoutError: the table is missing, or a line is malformed.
        """
        named: dict[str, dict[bool, set[int]]] = defaultdict(lambda: {True: set(), False: set()})
        for video, of_split, sentence in self._rows():
            named[video][of_split in (split, None)].update(sentence.objects)
        return {video: frozenset(ids[False] - ids[True]) for video, ids in named.items()}

    def _rows(self) -> Iterator[tuple[str, str | None, LabelledSentence]]:
        """Yields video, split (None: of every split) and sentence of each row."""
        path = self.folder.path(TABLE)
        if not self.folder.has(TABLE):
            raise LayoutError(
                f"{path} does not exist. Write a table with the columns {', '.join(COLUMNS)}: a sentence for each row."
            )
        for line in csv_lines(annotation_text(self.folder, TABLE), path, COLUMNS, OPTIONAL):
            if line.problem:
                raise LayoutError(f"{path}, line {line.number} {line.problem}")
            row = {name: value.strip() for name, value in line.values.items()}
            if row.get("split") == "":
                raise LayoutError(f"{path}, line {line.number} has no split. Fill it in, or take the column out.")
            sentence = self._sentence(row, line.values["text"], f"{path}, line {line.number}")
            yield row["video"], row.get("split"), sentence

    def _sentence(self, row: dict[str, Any], text: str, where: str) -> LabelledSentence:
        id = row["object_id"]
        if not row["video"]:
            raise LayoutError(f"{where} has no video. Fill it in, or take the line out.")
        number = whole_number(id)
        if number is None or number < self.least:
            raise LayoutError(
                f"{where}: object_id {id[:30]!r} is no whole number from {self.least}, as the masks hold."
            )
        return LabelledSentence(text, [number], row.get("expression", ""))


def rows_of(sentences: list[LabelledSentence]) -> list[list[Any]]:
    """Returns sentences as plain values, for the key of an item."""
    return [[one.text, one.objects, one.id] for one in sentences]


def sentences_of_rows(rows: list[list[Any]]) -> list[LabelledSentence]:
    """Returns the sentences that `rows_of` made plain values of."""
    return [LabelledSentence(*row) for row in rows]
