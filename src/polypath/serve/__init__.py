"""Serves the paths of a bundle over HTTP. A request that cannot meet its deadline is refused at once.

    protocol           limits connections: their number, and the time and bytes of heads, chunk lines and unread answers
    limits             limits requests: their number, their bytes and the time for a body; checks the key
    callers            checks host names, and the web pages that call the service
    predict_request    parses a body of image bytes, multipart or JSON into a request for a prediction
    times              estimates how long a batch takes, from the predictor's times and recent observations
    admission          decides which requests are admitted and which batch is next, without clock or thread
    scheduler          queues requests between the event loop and the one inference thread
    model              defines the interface of a model, and implements it with a bundle's predictor
    app                defines the application, with FastAPI
    metrics            counts events for Prometheus
    server             runs uvicorn, with a graceful shutdown
    ray_app            runs the same application in front of replicas on a Ray cluster

Importing this package imports none of its modules. The modules need ``polypath[serve]``.
"""
