"""The HTTP service over a bundle: every request has a deadline, and what cannot meet it is told so at once.

    protocol    what a connection may do: time and bytes of heads, chunk lines and unread answers, how many connections
    limits      what a request may ask: bytes, time for its body, requests at a time, the key
    callers     by which names the service answers, and which web pages may ask it
    predict_request    what a request says: image bytes, multipart or JSON into one value
    times       how long a batch takes here, by the predictor's estimates and what was seen lately
    admission   who is admitted, which batch comes next; the policy, without clock or thread
    scheduler   the queue between the event loop and one inference thread
    model       what the scheduler runs: the bundle's predictor behind a few members
    app         FastAPI; metrics its counters; server uvicorn with a clean end; ray_app the same app
                before replicas on a Ray cluster

Importing this package imports nothing; the parts need ``polypath[serve]``.
"""
