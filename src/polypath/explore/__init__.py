"""The page of ``polypath explore``, which shows a network's answer to an image within a time budget.

A :class:`~polypath.explore.subject.Subject` is the network on the page: a bundle with a predictor, or a saved network
that torch runs. :func:`~polypath.explore.view.look` turns a subject, an image and a budget into a
:class:`~polypath.explore.view.View` of plain text and numbers. Only :mod:`polypath.explore.page` uses Gradio.
"""
