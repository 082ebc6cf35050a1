"""A page that runs exported students in the browser of a phone, and what it stands on.

``models`` finds the files, ``runtime`` has onnxruntime-web in a cache, ``app`` answers what the page asks, ``server``
listens, ``qr`` prints the address. ``web/`` is the page: ``page.js`` what people see, ``picture.js`` from photo to
bytes and back, ``engine.js`` the worker that runs the files.
"""

from __future__ import annotations
