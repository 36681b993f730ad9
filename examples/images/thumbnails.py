"""Tasks that make thumbnails of pictures: what the manifest names in `modules`. Needs Pillow."""

from pathlib import Path

from PIL import Image

from runtime.application import Application

app = Application()
HERE = Path(__file__).parent
KINDS = {".jpg", ".jpeg", ".png", ".webp"}


@app.task(cpu_bound=True, timeout_sec=60, max_retries=1)
def make_thumbnail(picture: Path, longest: int = 128) -> Path:
    """Write a small copy of one picture, and return where it is."""
    target = HERE / "thumbnails" / f"{picture.name}.png"
    partial = target.with_suffix(".new")  # a body may be begun twice: nobody sees half a file
    with Image.open(picture) as image:
        image.thumbnail((longest, longest))
        image.convert("RGB").save(partial, "PNG")
    return partial.replace(target)


@app.task
async def make_index(folder: Path) -> int:
    """Have thumbnails made of all pictures of a folder, and write a page that shows them."""
    (HERE / "thumbnails").mkdir(exist_ok=True)
    pictures = sorted(each for each in (HERE / folder).iterdir() if each.suffix.lower() in KINDS)
    async with make_thumbnail.map([(each,) for each in pictures]) as thumbnails:
        done = [each async for each in thumbnails]  # in the order in which they are finished
    images = "".join(f'<img src="{each.name}" alt="">\n' for each in sorted(done))
    (HERE / "thumbnails" / "index.html").write_text(images)
    print(f"made {len(done)} thumbnails", flush=True)
    return len(done)
