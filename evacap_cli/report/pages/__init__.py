"""HTML pages of results: what a page shows (`model`), its figures (`figures`) and how it is written (`writing`)."""

from evacap_cli.report.pages.model import Clip, ClipList, Column, Figure, Page, Table
from evacap_cli.report.pages.writing import write_page

__all__ = ["Clip", "ClipList", "Column", "Figure", "Page", "Table", "write_page"]
