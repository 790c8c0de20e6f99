"""Turns C headers into what cffi reads: `cdef.py OUTPUT HEADER...`. The headers stay the interface's only place."""

import pathlib
import re
import sys


def declarations(header: str) -> str:
    """Return a header without its preprocessor lines, attributes and C++ brackets."""
    text = re.sub(r"#ifdef __cplusplus.*?#endif", "", header, flags=re.S)
    text = re.sub(r"^\s*#.*$", "", text, flags=re.M)
    return text.replace("PCM_API ", "")


if __name__ == "__main__":
    output, *headers = map(pathlib.Path, sys.argv[1:])
    # a callback that Python implements: the authentication code of a connection
    lend = 'extern "Python" int pycomm_mac(void *, const void *, size_t, uint8_t *);\n'
    output.write_text("\n".join(declarations(h.read_text()) for h in headers) + lend)
