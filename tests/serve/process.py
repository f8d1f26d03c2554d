"""A service over the sleeping model as a process of its own: ``python process.py [slower]``.

It prints what was imported too early, then, when it can be reached, its port.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

    print([name for name in ("fastapi", "uvicorn", "ray", "onnxruntime") if name in sys.modules], flush=True)
    from polypath.serve.app import App
    from polypath.serve.limits import Key
    from polypath.serve.server import listen, serve
    from polypath.serve.service import Options
    from serve.fake import FakeModel

    app = App(FakeModel(slower=float(sys.argv[1]) if len(sys.argv) > 1 else 1.0), Options(), Key(None))
    bound = listen("127.0.0.1", 0)
    port = bound.getsockname()[1]
    sys.exit(0 if serve(app, bound, lambda: print(port, flush=True)) else 1)
