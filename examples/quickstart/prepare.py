"""A one-shot: makes the page that the web server serves, and ends."""

from pathlib import Path

folder = Path("public")
folder.mkdir(exist_ok=True)
(folder / "index.html").write_text("<h1>It runs.</h1>\n")
print("the page is made")
