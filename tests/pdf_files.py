"""Small PDF files for tests: lines of text in two fonts and any size, page by page, or pages without any text."""

from collections.abc import Sequence

Line = tuple[str, float, bool]
"""Text, size of its letters, whether they are bold."""


def pdf(*pages: Sequence[Line | str]) -> bytes:
    """The file; a plain string is a line of 11 points."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    fonts = " ".join(
        f"/{name} << /Type /Font /Subtype /Type1 /BaseFont /{base} /Encoding /WinAnsiEncoding >>"
        for name, base in (("P", "Helvetica"), ("B", "Helvetica-Bold"))
    )
    for page in pages:
        stream, height = "", 760.0
        for line in page:
            text, size, bold = (line, 11.0, False) if isinstance(line, str) else line
            escaped = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
            stream += f"BT /{'B' if bold else 'P'} {size} Tf 72 {height} Td ({escaped}) Tj ET\n"
            height -= 1.4 * size
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << {fonts} >> >> "
            f"/Contents {len(objects) + 2} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream.encode('cp1252'))} >>\nstream\n{stream}endstream")
    kids = " ".join(f"{3 + 2 * number} 0 R" for number in range(len(pages)))
    objects[1] = f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>"
    content, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(content))
        content += f"{number} 0 obj\n{body}\nendobj\n".encode("cp1252")
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    trailer = f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(content)}\n%%EOF\n"
    return content + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{trailer}".encode()
