"""Write one file that is the server and the client: echoserver.pyz

Python runs a zip file that has a __main__.py, so the file is copied to a host
and that is all.

The same sources give the same bytes on every host and Python, so that two
copies can be compared by their checksums.  Therefore names are sorted, times
and permissions are fixed, and nothing is compressed: the output of deflate
depends on the zlib that is at hand.
"""

import sys

if __name__ == "__main__":
    try:
        from lab.program import run as run_program
    except ImportError:
        sys.exit("no lab here: drop -I and PYTHONSAFEPATH, or take the .pyz")
    sys.exit(run_program("make_pyz"))

import contextlib
import errno
import glob
import hashlib
import io
import os
import tempfile
import zipfile
from typing import Iterator, List, Optional, Tuple

from lab.arguments import parser

__all__ = ["build", "main"]

HELP = """\
How does the package get to a host that reaches no registry?  As one file:

    python3 echoserver.pyz [client] [options]

The same sources give the same bytes; their SHA-256 is printed."""
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

SHEBANG = b"#!/usr/bin/env python3\n"

EPOCH = (1980, 1, 1, 0, 0, 0)   # the first moment that a zip file can name
UNIX = 3                        # the system whose permissions are meant
PERMISSIONS = 0o100644 << 16

MAIN = b'''\
import os, sys
if sys.version_info < (3, 6):
    sys.exit("echoserver needs Python 3.6 or newer")
if sys.argv[1:2] == ["client"]:
    from echoserver.client.__main__ import main
    sys.argv[:2] = [os.path.basename(sys.argv[0]) + " client"]
else:
    from echoserver.__main__ import main
if __name__ == "__main__":
    sys.exit(main())
'''


def contents() -> Iterator[Tuple[str, bytes]]:
    """Yield what the file is made of: (name in it, bytes), in order."""
    yield "__main__.py", MAIN
    for path in sorted(glob.glob(os.path.join(
            glob.escape(ROOT), "echoserver", "**"), recursive=True)):
        if path.endswith((".py", "py.typed")):
            with open(path, "rb") as source:
                yield (os.path.relpath(path, ROOT).replace(os.sep, "/"),
                       source.read())


def build() -> bytes:
    """Return the bytes of the file."""
    archive = io.BytesIO()
    archive.write(SHEBANG)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as target:
        for name, data in contents():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system = UNIX
            entry.external_attr = PERMISSIONS
            target.writestr(entry, data)
    return archive.getvalue()


def replace(path: str, data: bytes) -> str:
    """Put a file in the place of another, in one step, since a server may be
    running from that; return the SHA-256 of what lies there.

    The new file has a name that nobody knows before: in a folder that others
    can write to, a known one may be their link, or their file.
    """
    # os.replace() would put the file in the place of a device, too
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(errno.EINVAL, "it is not a regular file")
    number, new = tempfile.mkstemp(dir=os.path.dirname(path))
    try:
        with open(number, "wb") as output:
            output.write(data)
        os.chmod(new, 0o755)
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(new)
        raise
    with open(path, "rb") as written:
        return hashlib.sha256(written.read()).hexdigest()


def main(argv: Optional[List[str]] = None) -> int:
    """Run the program; return its exit status."""
    arguments = parser(HELP)
    arguments.add_argument("-o", "--output", default="echoserver.pyz",
                           help="the file (default %(default)s)")
    args = arguments.parse_args(argv)
    try:
        checksum = replace(os.path.realpath(args.output), build())
    except OSError as error:
        print("cannot write %s: %s" % (args.output, error.strerror),
              file=sys.stderr)
        return 1
    # as sha256sum writes it, and can check it
    print("%s  %s" % (checksum, args.output))
    return 0
