"""Serves the paths of a bundle over HTTP. A request that cannot meet its deadline is refused at once.

    protocol           limits each connection: time and bytes of heads, chunk lines and unread answers, and their number
    limits             limits each request: bytes, time for its body, requests at a time, the key
    callers            checks host names, and the web pages that call the service
    predict_request    parses image bytes, multipart or JSON into one kind of request
    times              estimates how long a batch takes, from the predictor's times and recent observations
    admission          decides which requests are admitted and which batch is next, without clock or thread
    scheduler          is the queue between the event loop and the one inference thread
    model              is the interface of what the scheduler runs, and implements it with a bundle's predictor
    app                is the application, with FastAPI
    metrics            counts events for Prometheus
    server             runs uvicorn, with a graceful shutdown
    ray_app            is the same application in front of replicas on a Ray cluster

Importing this package imports none of its modules. They need ``polypath[serve]``.
"""
