"""The pieces that the reports are made of: one HTML file without network access."""

from __future__ import annotations

import base64
import html
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from humanoid_rl_core.errors import UserError

from humanoid_rl.reports.report_plots import Image

_CSS = """
:root{color-scheme:light}
*{box-sizing:border-box}
body{margin:0;background:#f1f5f9;color:#1e293b}
body{font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1000px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:1.7em;margin:.1em 0 .1em;letter-spacing:-.01em}
h2{font-size:1.12em;margin:0 0 .6em}
.sub{color:#64748b;margin:0 0 1.3em}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(200px,1fr));gap:12px;margin-bottom:14px}
.tile,section{background:#fff;border:1px solid #e2e8f0;border-radius:10px}
.tile{padding:12px 16px}
.tile .name{color:#64748b;font-size:.82em}
.tile .value{font-size:1.65em;font-weight:650;line-height:1.25;font-variant-numeric:tabular-nums}
.tile .note{color:#64748b;font-size:.82em}
.good{color:#15803d}.bad{color:#b91c1c}
section{padding:18px 20px;margin-bottom:14px}
section img{width:100%;height:auto;display:block}
table+img{margin-top:12px}
p.caption{color:#64748b;font-size:.88em;margin:.5em 0 0}
p.missing{color:#92400e;background:#fffbeb;border:1px solid #fde68a;border-radius:8px}
p.missing{padding:8px 12px;margin:0 0 8px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.92em}
td,th{padding:3px 18px 3px 0;text-align:left;vertical-align:top;overflow-wrap:anywhere}
th{color:#64748b;font-weight:500;overflow-wrap:normal}
pre{background:#f8fafc;border:1px solid #e2e8f0;border-radius:8px}
pre{padding:10px 12px;overflow:auto;font-size:.85em}
summary{cursor:pointer;color:#2563eb;margin-top:.8em}
"""


def img(image: Image, text: str) -> str:
    """A picture inside the page; `text` for who does not see it."""
    data = base64.b64encode(image.data).decode()
    return f'<img alt="{html.escape(text)}" src="data:image/{image.kind};base64,{data}">'


def section(title: str, *parts: str) -> str:
    """A box with a title; the parts are HTML."""
    return f"<section><h2>{html.escape(title)}</h2>{''.join(parts)}</section>"


def caption(text: str) -> str:
    """A small line below a picture."""
    return f'<p class="caption">{html.escape(text)}</p>'


def table(rows: Sequence[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Rows of text; without a header the first column is one."""
    head = "<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in header) + "</tr>" if header else ""
    body = "".join(
        "<tr>"
        + "".join(
            f"<th>{html.escape(cell)}</th>" if i == 0 and not header else f"<td>{html.escape(cell)}</td>"
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table>{head}{body}</table>"


def tile(name: str, value: str, note: str = "", tone: str = "") -> str:
    """One figure in large; tone is good, bad or nothing."""
    return (
        f'<div class="tile"><div class="name">{html.escape(name)}</div>'
        f'<div class="value {tone}">{html.escape(value)}</div>'
        f'<div class="note">{html.escape(note)}</div></div>'
    )


def percent(share: float) -> str:
    """A share as a person writes it."""
    return f"{100 * share:.0f} %" if share in (0.0, 1.0) else f"{100 * share:.1f} %"


def as_text(value: str | float | None) -> str:
    """A value of a table; null is what was no number."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def whole_page(
    title: str, subtitle: str, tiles: Sequence[str], sections: Sequence[str], *, heading: str | None = None
) -> str:
    """The whole page; `heading` is the title without."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_CSS}</style></head><body><main>"
        f'<h1>{html.escape(heading or title)}</h1><p class="sub">{html.escape(subtitle)}</p>'
        f'<div class="tiles">{"".join(tiles)}</div>{"".join(sections)}</main></body></html>\n'
    )


def write_page(path: Path, page: str) -> Path:
    """Writes a page, whole or not at all, and returns its path.

    Raises:
        UserError: it cannot be written.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=".report-", suffix=".html", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # temporary files are made for their owner alone
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    return path
