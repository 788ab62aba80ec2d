"""A page to drop images on, and an endpoint for programs: `fastcv serve RUN`.

    GET  /health     {"status": "ok", "model": "digits", "classes": 10}
    POST /predict    the image as the form's "file": {"predictions": [{"class": ..., ...}, ...]}

Of several labels an image, /predict also names the "labels" that hold.

It needs the extra "serve" (Gradio). It listens on this machine alone unless told otherwise, and
refuses files and images that are too large before it decodes them.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from PIL import Image

from fastcv.data.decoding import open_image
from fastcv.predict.evaluation import NO_LABEL
from fastcv.predict.predictor import Prediction, Predictor
from fastcv.predict.writing import as_object

HOST, PORT = "127.0.0.1", 7860
MOST_BYTES = 20 * 2**20
MOST_PIXELS = 40_000_000
AT_ONCE, WAITING = 1, 32  # users: more than one net at a time would only share the cores
TOP = 5


def check_image(
    path: Path, *, most_bytes: int = MOST_BYTES, most_pixels: int = MOST_PIXELS
) -> None:
    """Refuse a file that is too large, or no image, by its size and its header alone.

    Raises:
        ValueError: it is.
    """
    size = path.stat().st_size
    if size > most_bytes:
        raise ValueError(
            f"an image must have at most {most_bytes / 2**20:.0f} MB, got {size / 2**20:.1f} MB: "
            "send a smaller one"
        )
    try:
        with open_image(path) as image:
            width, height = image.size
    except ValueError as error:
        if isinstance(error.__cause__, Image.DecompressionBombError):
            raise ValueError(
                f"an image must have at most {most_pixels / 1e6:.0f} megapixels, got more than "
                f"{2 * Image.MAX_IMAGE_PIXELS / 1e6:.0f}: send a smaller one"
            ) from error
        raise ValueError(
            f"the file must be an image that can be read, but {_reason(error)}"
        ) from error
    if width * height > most_pixels:
        raise ValueError(
            f"an image must have at most {most_pixels / 1e6:.0f} megapixels, got "
            f"{width * height / 1e6:.1f} ({width:,} x {height:,}): send a smaller one"
        )


def _reason(error: ValueError) -> str:
    """Return why an image cannot be read, without its path: uploads have one of the server's."""
    return str(error).rpartition("cannot be read: ")[2]


def app(
    predictor: Predictor,
    *,
    look: Callable[[Path], Image.Image] | None = None,
    most_bytes: int = MOST_BYTES,
    most_pixels: int = MOST_PIXELS,
) -> Any:
    """Build the FastAPI application: the page, /health and /predict.

    Args:
        predictor: what predicts.
        look: returns the picture to show beside the classes, as with Grad-CAM; None for none.
        most_bytes: of an upload.
        most_pixels: of an image.

    Raises:
        ValueError: Gradio is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio as gr
        from fastapi import FastAPI, HTTPException, Query, UploadFile
    except ImportError as error:
        raise ValueError(
            f"a page needs the extra serve: pip install 'fastcv[serve]' ({error})"
        ) from error
    limits = {"most_bytes": most_bytes, "most_pixels": most_pixels}
    several = predictor.model.thresholds is not None

    def predict(path: Path) -> Prediction:
        check_image(path, **limits)
        try:
            return predictor(path)
        except ValueError as error:  # damaged behind its header
            raise ValueError(
                f"the image must be whole, but it cannot be read: {_reason(error)}"
            ) from error

    def shown(path: str | None) -> list[Any]:
        if path is None:
            return [None] * len(outputs)
        try:
            found = predict(Path(path))
            held = [", ".join(name for name, _ in found.labels) or NO_LABEL] if several else []
            return [*held, dict(found.top(TOP)), *([look(Path(path))] if look else [])]
        except ValueError as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from error

    server = FastAPI(title=f"fastcv: {predictor.model.name}")

    @server.get("/health")
    def health() -> dict[str, Any]:
        model = predictor.model
        return {"status": "ok", "model": model.name, "classes": len(model.classes)}

    @server.post("/predict")
    def predict_upload(
        file: Annotated[UploadFile, "the image"], top: Annotated[int, Query(ge=1)] = TOP
    ) -> dict[str, Any]:
        with tempfile.NamedTemporaryFile() as kept:  # its content says of which format it is
            kept.write(file.file.read(most_bytes + 1))
            kept.flush()
            try:
                found = predict(Path(kept.name))
            except ValueError as error:
                raise HTTPException(422, str(error)) from error
        return as_object(found, top)

    fonts = ("system-ui", "sans-serif")  # nothing is fetched from elsewhere
    with gr.Blocks(title=predictor.model.name, analytics_enabled=False) as page:
        named = "labels" if several else "class"
        gr.Markdown(f"# {predictor.model.name}\n\nDrop an image; the net names its {named}.")
        with gr.Row():
            image = gr.Image(
                type="filepath",
                sources=["upload", "clipboard"],
                label="Image",
                elem_id="image",
            )
            outputs = [gr.Textbox(label="Labels", elem_id="labels")] if several else []
            outputs.append(
                gr.Label(
                    num_top_classes=TOP,
                    label="Probabilities" if several else "Classes",
                    elem_id="classes",
                    show_heading=not several,  # the likeliest label need not hold
                )
            )
            if look is not None:
                outputs.append(gr.Image(label="What speaks for the first class", elem_id="look"))
        # The file as it came: Gradio would open it before it is checked.
        image.preprocess = lambda payload: None if payload is None else payload.path
        image.change(shown, image, outputs, concurrency_limit=AT_ONCE, api_name=False)
    page.queue(max_size=WAITING)
    theme = gr.themes.Default(font=fonts, font_mono=("ui-monospace", "monospace"))
    return gr.mount_gradio_app(
        server, page, path="/", max_file_size=most_bytes, show_error=True, theme=theme,
        footer_links=[], ssr_mode=False,
    )  # fmt: skip


def serve(
    predictor: Predictor,
    *,
    look: Callable[[Path], Image.Image] | None = None,
    host: str = HOST,
    port: int = PORT,
) -> None:
    """Serve the page until interrupted.

    Args:
        predictor: what predicts.
        look: as in `app`.
        host: address to listen on; "0.0.0.0" lets other machines in.
        port: to listen on.

    Raises:
        ValueError: Gradio is not installed.
    """
    application = app(predictor, look=look)
    import uvicorn  # it comes with Gradio

    uvicorn.run(application, host=host, port=port, log_level="warning")
