"""The page of ``polypath explore``, which shows a network's answer to an image within a time budget.

A :class:`~polypath.explore.subject.Subject` is the network on the page: a bundle run by its predictor, or a saved
network run by torch. :func:`~polypath.explore.view.look` turns a subject, an image and a budget into a
:class:`~polypath.explore.view.View` of plain text and numbers. Only :mod:`polypath.explore.page` uses Gradio.
"""
