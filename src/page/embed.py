#!/usr/bin/env python3
"""embed.py OUTPUT.c FILE…: the files as C arrays, compressed by gzip (the same bytes from the same files), with their ETags."""
import gzip
import hashlib
import os
import sys

TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


def main():
    output, paths = sys.argv[1], sys.argv[2:]
    parts, rows = [], []
    for at, path in enumerate(paths):
        with open(path, "rb") as file:
            content = file.read()
        packed = gzip.compress(content, 9, mtime=0)
        lines = [",".join(str(b) for b in packed[i:i + 24]) for i in range(0, len(packed), 24)]
        parts.append("static const unsigned char asset_%d[] = {\n%s};\n" % (at, ",\n".join(lines)))
        name = os.path.basename(path)
        rows.append('\t{"%s", "%s", "%s", asset_%d, sizeof(asset_%d), %d},\n' % (
            name, TYPES[os.path.splitext(name)[1]], hashlib.sha256(content).hexdigest()[:16], at, at, len(content)))
    with open(output, "w", encoding="utf-8") as file:
        file.write('/* Made by src/page/embed.py. */\n#include "page/page_assets.h"\n\n%s\n' % "\n".join(parts))
        file.write("const struct page_asset page_assets[] = {\n%s};\nconst size_t page_asset_count = %d;\n" % ("".join(rows), len(rows)))


main()
