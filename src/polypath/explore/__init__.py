"""The page of ``polypath explore``: an image, a time budget, and what the network makes of both.

A :class:`~polypath.explore.subject.Subject` is what the page looks at: a bundle through its predictor, or a saved
network run by torch. :func:`~polypath.explore.view.look` turns a subject, an image and a budget into a
:class:`~polypath.explore.view.View`, which is plain text and numbers; :mod:`polypath.explore.page` alone knows Gradio.
"""
