"""Reads YAML, JSON and TOML files into plain data, and remembers the line of every key and item."""

from ._document import Document as Document
from ._document import DocumentError as DocumentError
from ._read import read_document as read_document
