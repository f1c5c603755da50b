"""Write one file that is the server and the client: echoserver.pyz

    python3 echoserver.pyz [port] [options]                 the server
    python3 echoserver.pyz client [host] [port] [options]   the client

Python runs a zip file that has a __main__.py, so the file is copied to a host
and that is all.  It works as a place to import from, too:

    PYTHONPATH=echoserver.pyz python3 -m echoserver.client

The same sources give the same bytes on every host and Python, so that two
copies can be compared by their checksums.  Therefore names are sorted, times
and permissions are fixed, and nothing is compressed: the output of deflate
depends on the zlib that is at hand.
"""

import sys

if __name__ == "__main__":
    from lab.program import run as run_program
    sys.exit(run_program("make_pyz"))

import argparse
import contextlib
import errno
import hashlib
import io
import os
import zipfile
from typing import Iterator, List, Optional, Tuple

__all__ = ["build", "main"]

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

SHEBANG = b"#!/usr/bin/env python3\n"

EPOCH = (1980, 1, 1, 0, 0, 0)   # the first moment that a zip file can name
UNIX = 3                        # the system whose permissions are meant
PERMISSIONS = 0o100644 << 16

MAIN = b'''\
"""echoserver in one file: the server, or with the word client the client."""

import os
import sys

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
    for folder, folders, names in os.walk(os.path.join(ROOT, "echoserver")):
        folders.sort()
        for name in sorted(names):
            if name.endswith(".py") or name == "py.typed":
                path = os.path.join(folder, name)
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


def main(argv: Optional[List[str]] = None) -> int:
    """Run the program; return its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", metavar="FILE",
                        default="echoserver.pyz",
                        help="where to write it (default %(default)s)")
    args = parser.parse_args(argv)
    data = build()
    path = os.path.realpath(args.output)
    new = path + ".new"
    try:
        # os.replace() would put the file in the place of a device, too
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError(errno.EINVAL, "it is not a regular file")
        # in one step, since a server may be running from the old one
        with open(new, "wb") as output:
            output.write(data)
        os.chmod(new, 0o755)
        os.replace(new, path)
    except OSError as error:
        print("cannot write %s: %s" % (args.output, error.strerror),
              file=sys.stderr)
        with contextlib.suppress(OSError):
            os.remove(new)
        return 1
    # as sha256sum writes it, and can check it
    print("%s  %s" % (hashlib.sha256(data).hexdigest(), args.output))
    return 0
