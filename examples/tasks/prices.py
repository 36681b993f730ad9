"""Tasks of a small shop: what the manifest names in `modules`."""

from pathlib import Path

from runtime.application import Application

app = Application()
FOLDER = Path(__file__).parent


@app.task
def prepare(names: list[str]) -> int:
    """Write the list of what is sold, and return how long it is."""
    (FOLDER / "names.txt").write_text("\n".join(names))
    return len(names)


@app.task(max_retries=3)
async def price(name: str) -> float:
    """Return the price of one thing."""
    if name not in (FOLDER / "names.txt").read_text().split():
        raise LookupError(f"{name} is not sold")
    return len(name) * 1.5
