"""The HTTP service over a bundle: every request has a deadline, and one that cannot meet it is refused at once.

    protocol    limits of a connection: time and bytes of heads, chunk lines and unread answers, how many connections
    limits      limits of a request: bytes, time for its body, requests at a time, the key
    callers     the host names that the service answers to, and the web pages that may call it
    predict_request    parses a request: image bytes, multipart or JSON into one value
    times       how long a batch takes here, by the predictor's estimates and recent observations
    admission   which requests are admitted, which batch is next; the policy, without clock or thread
    scheduler   the queue between the event loop and one inference thread
    model       what the scheduler runs: the bundle's predictor behind a few members
    app         FastAPI; metrics its counters; server uvicorn with a graceful shutdown; ray_app the same app
                in front of replicas on a Ray cluster

Importing this package imports nothing; its modules need ``polypath[serve]``.
"""
