"""One page with everything that a study has found: ``results/report.html``, which needs nothing but itself.

``request`` says what there is, ``gather`` and its neighbours read it into the types of ``content``, and ``write`` puts these as
JSON into ``template.html``, whose JavaScript shows them. What a model wrote is data there, never markup.
"""
